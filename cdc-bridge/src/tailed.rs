//! What `tail` tells people of a record in the log: its values as the source's database prints them. Pure.

use crate::log::Event;
use migrations::names::TableName;
use migrations::tail::{Operation, TailedChange, TailedColumn};
use rows::change::{self, Change, Relation, ReplicaIdentity, Tuple, Value};
use rows::envelope::{decode, header, topic};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables as they are captured now, by the topics of their records.
#[derive(Debug, Default)]
pub(crate) struct Shapes(BTreeMap<String, Arc<Relation>>);

impl Shapes {
    pub(crate) fn of(prefix: &str, tables: &BTreeMap<TableName, Relation>) -> Shapes {
        Shapes(tables.iter().map(|(name, shape)| (topic(prefix, name), Arc::new(shape.clone()))).collect())
    }

    /// None for what another record says as well: the delete half of a changed key, a tombstone. A record of a table that is
    /// not captured any more, or that had another shape, is told as it is in the log.
    pub(crate) fn tell(&self, event: &Event) -> Option<TailedChange> {
        if event.value.is_null() || event.headers.contains_key(header::NEW_KEY) {
            return None;
        }
        let read = self.0.get(&event.topic).and_then(|shape| {
            let value = serde_json::to_vec(&event.value).ok()?;
            let header = |name: &str| event.headers.get(name).map(String::as_bytes);
            let read = |shape: &Arc<Relation>| decode(shape, Some(&value), header).ok().flatten();
            // What is written of an old row may have changed since.
            let other = |identity| read(&Arc::new(Relation { identity, ..(**shape).clone() }));
            read(shape).or_else(|| other(ReplicaIdentity::Default)).or_else(|| other(ReplicaIdentity::Full))
        });
        Some(read.as_ref().map_or_else(|| as_logged(event), of))
    }
}

fn of(change: &Change) -> TailedChange {
    let (operation, row, old) = match &change.operation {
        change::Operation::Insert { new } => (Operation::Insert, Some(new), None),
        change::Operation::Update { old, new } => (Operation::Update, Some(new), old.as_ref()),
        change::Operation::Delete { old } => (Operation::Delete, Some(old), None),
        change::Operation::Truncate => (Operation::Truncate, None, None),
    };
    let all = row.map(|row| columns(&change.relation, row, old, operation)).unwrap_or_default();
    let (mut columns, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, is_key)| *is_key);
    columns.extend(others);
    TailedChange {
        position: change.position.to_string(),
        operation,
        table: change.relation.table.to_string(),
        columns: columns.into_iter().map(|(column, _)| column).collect(),
    }
}

/// The columns that were sent, each with whether it belongs to the key.
fn columns(
    relation: &Relation,
    row: &Tuple,
    old: Option<&Tuple>,
    operation: Operation,
) -> Vec<(TailedColumn, bool)> {
    let before = |index| old.map_or(Value::Unchanged, |old| old.get(index));
    let all = relation.columns.iter().zip(row.values()).enumerate();
    let sent = all.filter(|(_, (column, value))| match value {
        Value::Unchanged => false,
        // Of a deleted row, often only the key is sent.
        Value::Null => operation != Operation::Delete || column.is_key,
        Value::Text(_) => true,
    });
    sent.map(|(index, (column, value))| {
        let was = text(before(index)).filter(|was| Some(was) != text(value).as_ref());
        (TailedColumn { name: column.name.clone(), value: text(value), was }, column.is_key)
    })
    .collect()
}

fn text(value: Value<'_>) -> Option<String> {
    match value {
        Value::Null | Value::Unchanged => None,
        Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
    }
}

fn as_logged(event: &Event) -> TailedChange {
    let envelope = event.value.get("payload").unwrap_or(&event.value);
    let operation = match envelope.get("op").and_then(serde_json::Value::as_str) {
        Some("d") => Operation::Delete,
        Some("t") => Operation::Truncate,
        Some("u") => Operation::Update,
        _ => Operation::Insert,
    };
    let row = envelope.get(if operation == Operation::Delete { "before" } else { "after" });
    let columns = row.and_then(serde_json::Value::as_object).into_iter().flatten();
    let columns = columns.map(|(name, value)| {
        let value = match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        TailedColumn { name: name.clone(), value, was: None }
    });
    TailedChange {
        position: event.headers.get(header::POSITION).cloned().unwrap_or_default(),
        operation,
        table: event.topic.clone(),
        columns: columns.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::column_type::ColumnType;
    use migrations::lsn::{CommitLsn, Position};
    use migrations::plan::Publish;
    use rows::change::{Column, Transaction};
    use rows::envelope::{Context, Encoded, Encoder};

    fn relation(identity: ReplicaIdentity) -> Arc<Relation> {
        let column = |name: &str, kind, is_key| Column {
            name: name.to_owned(),
            kind,
            declared: None,
            key_position: 0,
            default: None,
            is_key,
            nullable: !is_key,
            number: 0,
            stored: None,
        };
        let numeric = ColumnType::Numeric { precision: 10, scale: 2 };
        let columns = vec![
            column("total", numeric, false),
            column("id", ColumnType::Int8, true),
            column("rate", ColumnType::NumericAny, false),
            column("day", ColumnType::Date, false),
        ];
        Arc::new(Relation { table: "public.orders".parse().unwrap(), identity, columns })
    }

    fn row(values: [Option<&str>; 4]) -> Tuple {
        Tuple::of(
            values.into_iter().map(|value| value.map_or(Value::Null, |text| Value::Text(text.as_bytes()))),
        )
    }

    /// What is told of a change that went through the log as a record of Debezium's.
    fn told(identity: ReplicaIdentity, operation: change::Operation, is_known: bool) -> String {
        let relation = relation(identity);
        let [prefix, database, version] = ["shop", "shop", "1"].map(str::to_owned);
        let context = Context { prefix, database, version, publish: Publish::default() };
        let change = Change {
            position: Position { commit: CommitLsn(0x10), ordinal: 1 },
            lsn: 0x10,
            transaction: Transaction { xid: 1, committed_us: 0 },
            relation: relation.clone(),
            mark: None,
            operation,
        };
        let mut encoded = Encoded::new();
        Encoder::new(context).encode(&change, 0, &mut encoded);
        let record = encoded.records().filter(|record| record.value.is_some()).last().unwrap();
        let event = Event {
            topic: "shop.public.orders".to_owned(),
            key: serde_json::Value::Null,
            value: serde_json::from_slice(record.value.unwrap()).unwrap(),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), String::from_utf8(value.to_vec()).unwrap()))
                .collect(),
        };
        let now = |identity| Relation { identity, ..(*relation).clone() };
        let as_it_is = |identity| {
            let tables = is_known.then(|| (relation.table.clone(), now(identity))).into_iter().collect();
            Shapes::of("shop", &tables).tell(&event).unwrap()
        };
        let told = as_it_is(identity);
        if is_known {
            let values =
                |told: &TailedChange| told.columns.iter().map(|one| one.value.clone()).collect::<Vec<_>>();
            for other in [ReplicaIdentity::Default, ReplicaIdentity::Full] {
                assert_eq!(values(&as_it_is(other)), values(&told), "the identity was {other:?} by then");
            }
        }
        let column = |column: &TailedColumn| format!("{}={:?}<{:?}", column.name, column.value, column.was);
        let columns: Vec<String> = told.columns.iter().map(column).collect();
        format!("{:?} {} {}", told.operation, told.table, columns.join(" ")).replace("Some", "")
    }

    #[test]
    fn numbers_and_days_are_told_as_the_database_prints_them_and_the_key_stands_first() {
        let [old, new] = [("12.50", "1.50"), ("99.00", "1.5")]
            .map(|(total, rate)| row([Some(total), Some("7"), Some(rate), Some("2026-01-02")]));
        assert_eq!(
            told(ReplicaIdentity::Default, change::Operation::Insert { new: old.clone() }, true),
            r#"Insert public.orders id=("7")<None total=("12.50")<None rate=("1.50")<None day=("2026-01-02")<None"#
        );
        assert_eq!(
            told(ReplicaIdentity::Full, change::Operation::Update { old: Some(old), new }, true),
            r#"Update public.orders id=("7")<None total=("99.00")<("12.50") rate=("1.5")<("1.50") day=("2026-01-02")<None"#
        );
        let (moved, key) = (row([Some("1.00"), Some("8"), None, None]), row([None, Some("7"), None, None]));
        assert_eq!(
            told(
                ReplicaIdentity::Default,
                change::Operation::Update { old: Some(key.clone()), new: moved },
                true
            ),
            r#"Update public.orders id=("8")<("7") total=("1.00")<None rate=None<None day=None<None"#
        );
        assert_eq!(
            told(ReplicaIdentity::Default, change::Operation::Delete { old: key.clone() }, true),
            r#"Delete public.orders id=("7")<None"#
        );
        let unknown = told(ReplicaIdentity::Default, change::Operation::Insert { new: key }, false);
        assert!(
            unknown.starts_with("Insert shop.public.orders") && unknown.contains(r#"id=("7")"#),
            "{unknown}"
        );
    }
}
