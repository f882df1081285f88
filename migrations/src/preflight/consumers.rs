//! What consumers of the topics may miss. strangler itself needs none of it.

use super::sight::{DatabaseSeen, IdentitySeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::plan::{LogChoice, Plan, Slice};
use std::collections::BTreeSet;

/// A remedy with more statements than these helps nobody.
const TABLES_SHOWN_MAX: usize = 5;

/// The tables of these slices whose records lack the old row, if there are any and Kafka has their records.
pub fn old_rows<'a>(
    plan: &Plan,
    slices: impl IntoIterator<Item = &'a Slice>,
    source: &DatabaseSeen,
) -> Option<Finding> {
    if !matches!(plan.log, LogChoice::Kafka { .. }) {
        return None;
    }
    let tables = slices.into_iter().flat_map(Slice::all_tables).map(|table| &table.from);
    let is_whole = |seen: &super::TableSeen| seen.identity == IdentitySeen::Full;
    let lacking: BTreeSet<_> =
        tables.filter(|table| source.tables.get(*table).is_some_and(|seen| !is_whole(seen))).collect();
    if lacking.is_empty() {
        return None;
    }
    let shown = lacking.iter().take(TABLES_SHOWN_MAX);
    let named: Vec<String> = shown.clone().map(ToString::to_string).collect();
    let more = lacking.len().saturating_sub(TABLES_SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let statements: Vec<String> =
        shown.map(|table| format!("ALTER TABLE {} REPLICA IDENTITY FULL;", table.quoted())).collect();
    Some(Finding::warning(
        Code::SourceOldRows,
        format!(
            "records in Kafka have no old row for an update of {}{more}: a consumer such as Flink needs it, strangler does not",
            named.join(", ")
        ),
        format!(
            "without such a consumer nothing is to be done; with one, run in the monolith's database: {}",
            statements.join(" ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;

    #[test]
    fn tables_without_old_rows_are_one_note_where_kafka_has_them() {
        let found = |log: &str, identity| {
            let mut world = World::of(&format!("{}\n{log}", super::super::tests::PLAN));
            world.source().identity = identity;
            old_rows(&world.plan, world.plan.slices.values(), &world.source)
        };
        let kafka = "log: { kafka: { brokers: 'localhost:9092', topic_prefix: shop } }";
        let note = found(kafka, IdentitySeen::Default).unwrap();
        assert!(!note.is_error() && note.message.contains("public.customers, public.orders"), "{note}");
        assert!(note.remedy.contains(r#"ALTER TABLE "public"."orders" REPLICA IDENTITY FULL;"#), "{note}");
        let note = found(kafka, IdentitySeen::Full).unwrap();
        assert!(!note.message.contains("public.orders"), "{note}");
        assert_eq!(found("", IdentitySeen::Default), None);
    }
}
