//! In which order tables are filled and emptied, so that foreign keys hold.

use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::TableName;
use migrations::preflight::{ActionSeen, ColumnSeen, ForeignKeySeen};
use std::collections::{BTreeMap, BTreeSet};

/// Tables that may be filled at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    pub tables: Vec<TableName>,
    /// Whether they refer to each other in a circle of deferrable keys, and so need one transaction.
    pub is_circle: bool,
}

/// Tables by level: a table's parents stand in earlier levels. A table that refers to itself is no circle.
///
/// # Errors
/// A finding that names the tables of a circle that no deferrable key opens.
pub fn levels(tables: &BTreeSet<TableName>, keys: &[ForeignKeySeen]) -> Result<Vec<Level>, Box<Finding>> {
    let mut left = tables.clone();
    let mut levels = Vec::new();
    while !left.is_empty() {
        let mut free = free(&left, keys, |_| true);
        let is_circle = free.is_empty();
        if is_circle {
            // Whatever is knotted together goes at once, if deferring opens the knot.
            if !opens(&left, keys) {
                return Err(Box::new(circle(&left)));
            }
            free = left.iter().cloned().collect();
        }
        left.retain(|table| !free.contains(table));
        levels.push(Level { tables: free, is_circle });
    }
    Ok(levels)
}

/// Whether a table refers to itself: then its rows must come in one statement.
pub fn refers_to_itself(table: &TableName, keys: &[ForeignKeySeen]) -> bool {
    keys.iter().any(|key| key.from == *table && key.to == *table)
}

/// Tables whose rows change with a parent's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cascades {
    /// They go with it, by `ON DELETE CASCADE`.
    pub deletes: BTreeSet<TableName>,
    /// They get its new key as a part of their own, by `ON UPDATE CASCADE`.
    pub updates: BTreeSet<TableName>,
}

impl Cascades {
    /// Among the tables with these columns.
    pub fn of(keys: &[ForeignKeySeen], tables: &BTreeMap<TableName, Vec<ColumnSeen>>) -> Cascades {
        let mut cascades = Cascades::default();
        for key in keys {
            let Some(columns) = tables.get(&key.from) else { continue };
            let is_key = |name: &String| columns.iter().any(|column| column.is_key && column.name == *name);
            if key.on_delete == ActionSeen::Cascade {
                cascades.deletes.insert(key.from.clone());
            }
            if key.on_update == ActionSeen::Cascade && key.from_columns.iter().any(is_key) {
                cascades.updates.insert(key.from.clone());
            }
        }
        cascades
    }
}

/// The tables that wait for none of the others.
fn free(
    left: &BTreeSet<TableName>,
    keys: &[ForeignKeySeen],
    counts: impl Fn(&ForeignKeySeen) -> bool,
) -> Vec<TableName> {
    let waits = |table: &TableName| {
        keys.iter().any(|key| {
            let is_other = key.from == *table && key.to != *table;
            is_other && left.contains(&key.to) && counts(key)
        })
    };
    left.iter().filter(|table| !waits(table)).cloned().collect()
}

fn opens(knot: &BTreeSet<TableName>, keys: &[ForeignKeySeen]) -> bool {
    let mut left = knot.clone();
    while !left.is_empty() {
        let free = free(&left, keys, |key| !key.can_wait());
        if free.is_empty() {
            return false;
        }
        left.retain(|table| !free.contains(table));
    }
    true
}

fn circle(left: &BTreeSet<TableName>) -> Finding {
    let names: Vec<String> = left.iter().map(TableName::to_string).collect();
    Finding::error(
        Code::SinkReferenceCircle,
        format!("the foreign keys of {} go in a circle in the service's database", names.join(", ")),
        "make one of them deferrable there: `ALTER TABLE … ALTER CONSTRAINT … DEFERRABLE`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        name.parse().unwrap()
    }

    fn reference(child: &str, parent: &str, is_deferrable: bool) -> ForeignKeySeen {
        ForeignKeySeen {
            name: "key".to_owned(),
            from: table(child),
            from_columns: Vec::new(),
            to: table(parent),
            to_columns: Vec::new(),
            is_deferrable,
            is_deferred: false,
            on_delete: ActionSeen::NoAction,
            on_update: ActionSeen::NoAction,
        }
    }

    #[test]
    fn parents_come_first_and_a_table_may_refer_to_itself() {
        let tables = ["items", "orders", "customers"].map(table).into();
        let references = [
            reference("items", "orders", true),
            reference("items", "items", false),
            reference("items", "elsewhere", false),
            reference("orders", "customers", false),
        ];
        let names: Vec<Vec<String>> = levels(&tables, &references)
            .unwrap()
            .iter()
            .map(|level| level.tables.iter().map(|t| t.name.clone()).collect())
            .collect();
        assert_eq!(names, [["customers"], ["orders"], ["items"]]);
        assert!(refers_to_itself(&table("items"), &references));
    }

    #[test]
    fn a_circle_needs_a_deferrable_key() {
        let tables = ["a", "b"].map(table).into();
        let hard = [reference("a", "b", false), reference("b", "a", false)];
        assert_eq!(levels(&tables, &hard).unwrap_err().code, Code::SinkReferenceCircle);
        let soft = [reference("a", "b", true), reference("b", "a", false)];
        let levels = levels(&tables, &soft).unwrap();
        assert!(levels.len() == 1 && levels[0].is_circle);
    }
}
