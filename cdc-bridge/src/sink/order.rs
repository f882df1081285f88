//! In which order tables are filled and emptied, so that foreign keys hold.

use migrations::finding::Finding;
use migrations::names::TableName;
use std::collections::{BTreeMap, BTreeSet};

/// Tables by level: a table's parents stand in earlier levels. A table that refers to itself is no cycle.
///
/// # Errors
/// A finding that names the tables of a cycle.
pub fn levels(
    tables: &BTreeSet<TableName>,
    references: &BTreeMap<TableName, Vec<TableName>>,
) -> Result<Vec<Vec<TableName>>, Box<Finding>> {
    let mut left = tables.clone();
    let mut levels = Vec::new();
    while !left.is_empty() {
        let waits = |table: &TableName| {
            references
                .get(table)
                .is_some_and(|parents| parents.iter().any(|parent| parent != table && left.contains(parent)))
        };
        let level: Vec<TableName> = left.iter().filter(|table| !waits(table)).cloned().collect();
        if level.is_empty() {
            return Err(Box::new(cycle(&left)));
        }
        left.retain(|table| !level.contains(table));
        levels.push(level);
    }
    Ok(levels)
}

/// Whether a table refers to itself: then its rows must come in one statement.
pub fn refers_to_itself(table: &TableName, references: &BTreeMap<TableName, Vec<TableName>>) -> bool {
    references.get(table).is_some_and(|parents| parents.contains(table))
}

fn cycle(left: &BTreeSet<TableName>) -> Finding {
    let names: Vec<String> = left.iter().map(TableName::to_string).collect();
    Finding::error(
        "sink.reference-cycle",
        format!("the foreign keys of {} go in a circle in the service's database", names.join(", ")),
        "drop one of these constraints in the service's database; the rows come from the monolith, which keeps its own",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        name.parse().unwrap()
    }

    #[test]
    fn parents_come_first_and_a_table_may_refer_to_itself() {
        let tables = ["items", "orders", "customers"].map(table).into();
        let references = BTreeMap::from([
            (table("items"), vec![table("orders"), table("items"), table("elsewhere")]),
            (table("orders"), vec![table("customers")]),
        ]);
        let names: Vec<Vec<String>> = levels(&tables, &references)
            .unwrap()
            .iter()
            .map(|level| level.iter().map(|t| t.name.clone()).collect())
            .collect();
        assert_eq!(names, [["customers"], ["orders"], ["items"]]);
        assert!(refers_to_itself(&table("items"), &references));
    }

    #[test]
    fn a_cycle_is_a_finding() {
        let tables = ["a", "b"].map(table).into();
        let references = BTreeMap::from([(table("a"), vec![table("b")]), (table("b"), vec![table("a")])]);
        assert_eq!(levels(&tables, &references).unwrap_err().code, "sink.reference-cycle");
    }
}
