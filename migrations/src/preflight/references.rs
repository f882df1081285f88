//! Findings about foreign keys: those that cross the slice's border, circles among the sink's tables, and those that
//! would write in the sink what the source never wrote.

use super::run;
use super::sight::{ActionSeen, DatabaseSeen, ForeignKeySeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::names::{TableName, quote_identifier};
use crate::plan::{Slice, Table};
use crate::sql::Database;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn judge(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    if seen.database != Database::Monolith {
        outside(slice, seen, found);
        circles(slice, seen, found);
    }
}

/// Keys of the monolith over the slice's border. They do not hinder following. After a cutover, the slice's tables there are
/// written only by what comes back from the service, later.
pub(super) fn across(slice: &Slice, monolith: &DatabaseSeen, found: &mut Vec<Finding>) {
    let moves = |name: &TableName| slice.tables.iter().any(|table| table.from == *name);
    for key in &monolith.foreign_keys {
        let (breaks, why) = match (moves(&key.from), moves(&key.to)) {
            (true, false) => leaving(slice, key),
            (false, true) => (true, staying(key)),
            _ => continue,
        };
        let message = format!(
            "foreign key {} from {} to {} crosses the border of slice {}: {why}",
            key.name, key.from, key.to, slice.name
        );
        let remedy = cutting(monolith, key);
        found.push(if breaks {
            Finding::error(Code::SourceForeignKeyAcross, message, remedy)
        } else {
            Finding::warning(Code::SourceForeignKeyAcross, message, remedy)
        });
    }
}

/// The referring table leaves, the table referred to stays: whether that breaks something, and what.
fn leaving(slice: &Slice, key: &ForeignKeySeen) -> (bool, String) {
    if key.cascades() {
        let why =
            format!("each {} would run into the gate and fail", cascading(key, &format!("of {}", key.to)));
        return (true, why);
    }
    if slice.reference.iter().any(|table| table.from == key.to) {
        let why = format!(
            "if a row of {} is deleted just before the service's row for it comes back, the way back stops",
            key.to
        );
        return (false, why);
    }
    (true, format!("the service does not know which rows of {} exist, so its rows may not come back", key.to))
}

/// The referring table stays, the table referred to leaves.
fn staying(key: &ForeignKeySeen) -> String {
    format!(
        "a row of {} for a new row of {} is refused until that row came back; while the key says {}, deleting at the service \
         {}",
        key.from,
        key.to,
        key.on_delete.sql(),
        if key.on_delete.writes() { "writes it later, on the way back" } else { "stops the way back" }
    )
}

/// The change of a row referred to that makes the key write.
fn cascading(key: &ForeignKeySeen, what: &str) -> String {
    match (key.on_delete.writes(), key.on_update.writes()) {
        (true, true) => format!("DELETE, and each change of the key, {what}"),
        (true, false) => format!("DELETE {what}"),
        _ => format!("change of the key {what}"),
    }
}

/// How a key is removed, how its orphans are found from then on, and who must do what it did.
fn cutting(monolith: &DatabaseSeen, key: &ForeignKeySeen) -> String {
    let mut lines = vec![run(&monolith.database, &dropping(key))];
    let mut did = Vec::new();
    for (event, action) in [("deleted", key.on_delete), ("given another key", key.on_update)] {
        let what = match action {
            ActionSeen::Cascade => "deleted or changed with it",
            ActionSeen::SetNull => "set to null",
            ActionSeen::SetDefault => "set to its default",
            ActionSeen::NoAction | ActionSeen::Restrict => continue,
        };
        did.push(format!("when a row of {} was {event}, its rows in {} were {what}", key.to, key.from));
    }
    if !did.is_empty() {
        lines.push(format!(
            "the key did this, which the owner of {} must do from then on: {}",
            key.from,
            did.join("; ")
        ));
    }
    lines.push(format!("find orphans from then on: {}", orphans(key)));
    lines.join("\n")
}

/// A query for rows whose parent is missing.
fn orphans(key: &ForeignKeySeen) -> String {
    let pairs = key.from_columns.iter().zip(&key.to_columns);
    let same = pairs.map(|(from, to)| format!("p.{} = c.{}", quote_identifier(to), quote_identifier(from)));
    let given = key.from_columns.iter().map(|from| format!("c.{} IS NOT NULL", quote_identifier(from)));
    format!(
        "SELECT c.* FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {}) LIMIT 100;",
        key.from.quoted(),
        given.collect::<Vec<_>>().join(" AND "),
        key.to.quoted(),
        same.collect::<Vec<_>>().join(" AND ")
    )
}

fn dropping(key: &ForeignKeySeen) -> String {
    format!("ALTER TABLE {} DROP CONSTRAINT {};", key.from.quoted(), quote_identifier(&key.name))
}

/// A sink table that refers to one which nobody fills for it.
fn outside(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let ours: BTreeSet<&TableName> = slice.all_tables().map(|table| &table.to).collect();
    for key in seen.foreign_keys.iter().filter(|key| ours.contains(&key.from) && !ours.contains(&key.to)) {
        found.push(Finding::warning(
            Code::SinkForeignKeyOutside,
            format!(
                "the service's table {} refers to {}, which slice {} does not copy",
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
        .filter(|key| !ours.contains(&key.from) && ours.contains(&key.to) && key.cascades())
    {
        found.push(Finding::warning(
            Code::SinkForeignKeyCascades,
            format!("deleting rows of {} writes the service's own table {}", key.to, key.from),
            format!("check that foreign key {} is intended", key.name),
        ));
    }
}

/// Tables that refer to each other in a circle cannot be filled one after the other, unless a check can wait. A table
/// that refers to itself can: its rows come in one statement.
fn circles(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let ours: BTreeSet<&TableName> = slice.all_tables().map(|table| &table.to).collect();
    let strict = seen.foreign_keys.iter().filter(|key| {
        ours.contains(&key.from) && ours.contains(&key.to) && key.from != key.to && !key.can_wait()
    });
    let strict: Vec<&ForeignKeySeen> = strict.collect();
    let mut parents: BTreeMap<&TableName, BTreeSet<&TableName>> = BTreeMap::new();
    for key in &strict {
        parents.entry(&key.from).or_default().insert(&key.to);
    }
    for key in strict.into_iter().filter(|key| reaches(&parents, &key.to, &key.from)) {
        found.push(Finding::error(
            Code::SinkForeignKeyCircle,
            format!(
                "foreign key {} from {} to {} closes a circle in the service's database whose checks cannot wait; none of its tables can be filled first",
                key.name, key.from, key.to
            ),
            format!("one of the circle is enough: {}", run(&seen.database, &deferring(key))),
        ));
    }
}

/// The statement that lets every check of a foreign key wait.
fn deferring(key: &ForeignKeySeen) -> String {
    if ![key.on_delete, key.on_update].contains(&ActionSeen::Restrict) {
        let (table, name) = (key.from.quoted(), quote_identifier(&key.name));
        return format!("ALTER TABLE {table} ALTER CONSTRAINT {name} DEFERRABLE;");
    }
    let loose = |action| if action == ActionSeen::Restrict { ActionSeen::NoAction } else { action };
    made_anew(&ForeignKeySeen {
        is_deferrable: true,
        on_delete: loose(key.on_delete),
        on_update: loose(key.on_update),
        ..key.clone()
    })
}

/// The statement that puts this foreign key in the place of the one of its name.
fn made_anew(key: &ForeignKeySeen) -> String {
    let list =
        |columns: &[String]| columns.iter().map(|c| quote_identifier(c)).collect::<Vec<_>>().join(", ");
    let mut statement = format!(
        "ALTER TABLE {} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} FOREIGN KEY ({}) REFERENCES {} ({})",
        key.from.quoted(),
        list(&key.from_columns),
        key.to.quoted(),
        list(&key.to_columns),
        name = quote_identifier(&key.name),
    );
    for (event, action) in [(" ON DELETE ", key.on_delete), (" ON UPDATE ", key.on_update)] {
        if action != ActionSeen::NoAction {
            statement.extend([event, action.sql()]);
        }
    }
    if key.is_deferrable {
        statement.push_str(" DEFERRABLE");
    }
    if key.is_deferred {
        statement.push_str(" INITIALLY DEFERRED");
    }
    statement + ";"
}

/// Foreign keys of the sink that write rows where the source's write none: rows would go or change there that the
/// source keeps. Where the source does the same, its own writes come as changes and find them done.
pub(super) fn actions(slice: &Slice, source: &DatabaseSeen, sink: &DatabaseSeen, found: &mut Vec<Finding>) {
    for key in &sink.foreign_keys {
        let table = |to: &TableName| slice.all_tables().find(|table| table.to == *to);
        let (Some(child), Some(parent)) = (table(&key.from), table(&key.to)) else { continue };
        let alike = alike(source, key, child, parent);
        let strange = |action: ActionSeen, of: fn(&ForeignKeySeen) -> ActionSeen| {
            action.writes() && !alike.iter().any(|one| of(one) == action)
        };
        let mut mended = key.clone();
        let mut told = Vec::new();
        if strange(key.on_delete, |one| one.on_delete) {
            told.push(format!("ON DELETE {}", key.on_delete.sql()));
            mended.on_delete = ActionSeen::NoAction;
        }
        if strange(key.on_update, |one| one.on_update) {
            told.push(format!("ON UPDATE {}", key.on_update.sql()));
            mended.on_update = ActionSeen::NoAction;
        }
        if told.is_empty() {
            continue;
        }
        found.push(Finding::error(
            Code::SinkForeignKeyAction,
            format!(
                "foreign key {} of the service's table {} says {}, and the monolith has no such key from {} to {}: rows would go or change that the monolith keeps",
                key.name, key.from, told.join(" and "), child.from, parent.from
            ),
            run(&sink.database, &made_anew(&mended)),
        ));
    }
}

/// Foreign keys of the sink that may refuse what the source takes. The bridge applies what belongs together as one statement,
/// so only a large transaction, or a key that the source lacks, can be refused.
pub(super) fn strict(slice: &Slice, source: &DatabaseSeen, sink: &DatabaseSeen, found: &mut Vec<Finding>) {
    for key in &sink.foreign_keys {
        let table = |to: &TableName| slice.all_tables().find(|table| table.to == *to);
        let (Some(child), Some(parent)) = (table(&key.from), table(&key.to)) else { continue };
        let alike = alike(source, key, child, parent);
        let what = format!("foreign key {} of the service's table {}", key.name, key.from);
        if alike.is_empty() && !key.cascades() {
            found.push(Finding::warning(
                Code::SinkForeignKeyStrict,
                format!(
                    "{what} has no like from {} to {} in the monolith: a row without its parent, which the monolith takes, \
                     stops the slice",
                    child.from, parent.from
                ),
                format!("give the monolith the same key, or {}", run(&sink.database, &dropping(key))),
            ));
        }
        let waits_there = key.from == key.to || alike.iter().any(|one| one.is_deferrable);
        if waits_there && !alike.is_empty() && !key.can_wait() {
            found.push(Finding::warning(
                Code::SinkForeignKeyStrict,
                format!(
                    "{what} cannot wait for the end of a transaction: one that brings more than 8 MiB of rows before the \
                     rows that they refer to stops the slice"
                ),
                format!("leave it if no transaction is as large, or {}", run(&sink.database, &deferring(key))),
            ));
        }
    }
}

/// The source's keys that say the same as one of the sink.
fn alike<'a>(
    source: &'a DatabaseSeen,
    key: &ForeignKeySeen,
    child: &Table,
    parent: &Table,
) -> Vec<&'a ForeignKeySeen> {
    let is_own = |column: &str| key.from_columns.iter().any(|own| own == column);
    source
        .foreign_keys
        .iter()
        .filter(|one| one.from == child.from && one.to == parent.from)
        .filter(|one| one.from_columns.iter().filter_map(|column| child.sink_column(column)).all(is_own))
        .collect()
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
