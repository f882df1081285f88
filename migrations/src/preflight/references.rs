//! Findings about foreign keys: those that cross the slice's border, and circles among the sink's tables.

use super::observation::{DatabaseSeen, ForeignKeySeen};
use super::run;
use crate::finding::Finding;
use crate::names::{TableName, quote_identifier};
use crate::plan::Slice;
use crate::sql::Database;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn judge(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    if seen.database == Database::Monolith {
        across(slice, seen, found);
    } else {
        outside(slice, seen, found);
        circles(slice, seen, found);
    }
}

/// A key over the border does not hinder following, but it will hinder the cutover: the parent's deletes would run
/// into the gate.
fn across(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let moved: BTreeSet<&TableName> = slice.tables.iter().map(|table| &table.from).collect();
    for key in &seen.foreign_keys {
        let (leaves, stays) = match (moved.contains(&key.from), moved.contains(&key.to)) {
            (true, false) => ("the referring table", &key.to),
            (false, true) => ("the table referred to", &key.from),
            _ => continue,
        };
        let danger = if key.cascades { ", and it cascades into what the service will own" } else { "" };
        found.push(Finding::warning(
            "source.foreign-key-across",
            format!(
                "foreign key {} of {} crosses the border of slice {}: {leaves} leaves, {stays} stays{danger}",
                key.name, key.from, slice.name
            ),
            format!("following works; before the cutover {}", run(&seen.database, &dropping(key))),
        ));
    }
}

fn dropping(key: &ForeignKeySeen) -> String {
    format!("ALTER TABLE {} DROP CONSTRAINT {};", key.from.quoted(), quote_identifier(&key.name))
}

/// A sink table that refers to one which nobody fills for it.
fn outside(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let ours: BTreeSet<&TableName> = slice.all_tables().map(|table| &table.to).collect();
    for key in seen.foreign_keys.iter().filter(|key| ours.contains(&key.from) && !ours.contains(&key.to)) {
        found.push(Finding::warning(
            "sink.foreign-key-outside",
            format!(
                "the service's table {} refers to {}, which slice {} does not bring",
                key.from, key.to, slice.name
            ),
            format!(
                "add {} to `tables` or `reference` of the slice, or {}",
                key.to,
                run(&seen.database, &dropping(key))
            ),
        ));
    }
    for key in seen
        .foreign_keys
        .iter()
        .filter(|key| !ours.contains(&key.from) && ours.contains(&key.to) && key.cascades)
    {
        found.push(Finding::warning(
            "sink.foreign-key-cascades",
            format!("deleting rows of {} writes the service's own table {}", key.to, key.from),
            format!("see that foreign key {} is meant so", key.name),
        ));
    }
}

/// Tables that refer to each other in a circle cannot be filled one after the other, unless a check can wait.
fn circles(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let ours: BTreeSet<&TableName> = slice.all_tables().map(|table| &table.to).collect();
    let strict: Vec<&ForeignKeySeen> = seen
        .foreign_keys
        .iter()
        .filter(|key| ours.contains(&key.from) && ours.contains(&key.to) && !key.is_deferrable)
        .collect();
    let mut parents: BTreeMap<&TableName, BTreeSet<&TableName>> = BTreeMap::new();
    for key in strict.iter().filter(|key| key.from != key.to) {
        parents.entry(&key.from).or_default().insert(&key.to);
    }
    let in_circle: BTreeSet<&TableName> =
        parents.keys().copied().filter(|table| reaches(&parents, table, table)).collect();
    for key in strict {
        let defer = format!(
            "ALTER TABLE {} ALTER CONSTRAINT {} DEFERRABLE;",
            key.from.quoted(),
            quote_identifier(&key.name)
        );
        if key.from == key.to {
            found.push(Finding::warning(
                "sink.self-reference",
                format!(
                    "the service's table {} refers to itself; a row may arrive before the one it refers to",
                    key.from
                ),
                run(&seen.database, &defer),
            ));
        } else if in_circle.contains(&key.from) && reaches(&parents, &key.to, &key.from) {
            found.push(Finding::error(
                "sink.foreign-key-circle",
                format!("the service's tables {} and {} refer to each other in a circle; neither can be filled first", key.from, key.to),
                run(&seen.database, &defer),
            ));
        }
    }
}

/// Whether a way leads from `from` over at least one reference to `to`. Bounded: each table is entered once.
fn reaches(parents: &BTreeMap<&TableName, BTreeSet<&TableName>>, from: &TableName, to: &TableName) -> bool {
    let mut entered: BTreeSet<&TableName> = BTreeSet::new();
    let mut open: Vec<&TableName> = parents.get(from).into_iter().flatten().copied().collect();
    while let Some(table) = open.pop() {
        if table == to {
            return true;
        }
        if entered.insert(table) {
            open.extend(parents.get(table).into_iter().flatten().copied());
        }
    }
    false
}
