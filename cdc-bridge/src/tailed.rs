//! What `tail` shows of changes in the log: for people, values as the source's database prints them; for programs, records
//! as Debezium would write them. Pure.

use migrations::tail::{Operation, TailedChange, TailedColumn};
use rows::change::{self, Change, Relation, Tuple, Value};
use rows::envelope::{Context, Encoded, Encoder};
use serde::Serialize;
use std::collections::BTreeMap;

/// One change as other consumers see it: a topic's record, in Debezium's words.
#[derive(Debug, Serialize)]
struct Event {
    /// `<prefix>.<schema>.<table>`.
    topic: String,
    key: serde_json::Value,
    /// The envelope.
    value: serde_json::Value,
    headers: BTreeMap<String, String>,
}

/// How changes are shown.
#[derive(Debug, Clone)]
pub(crate) enum Telling {
    ForPeople,
    AsRecords(Context),
}

impl Telling {
    /// A line of JSON for each change, or for each of its records but tombstones.
    pub(crate) fn lines(&self, changes: &[Change]) -> String {
        match self {
            Telling::ForPeople => changes.iter().map(|change| line(&of(change))).collect(),
            Telling::AsRecords(context) => {
                let (mut encoder, mut encoded) = (Encoder::new(context.clone()), Encoded::new());
                changes.iter().map(|change| records(&mut encoder, &mut encoded, change)).collect()
            }
        }
    }
}

fn line(told: &impl Serialize) -> String {
    serde_json::to_string(told).map(|line| line + "\n").unwrap_or_default()
}

fn records(encoder: &mut Encoder, encoded: &mut Encoded, change: &Change) -> String {
    // Nothing is processed here: the time of commit is the only one there is.
    encoder.encode(change, change.transaction.committed_us, encoded);
    let json = |bytes: Option<&[u8]>| serde_json::from_slice(bytes.unwrap_or(b"null")).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = encoded.records().filter(|record| record.value.is_some()).map(|record| {
        line(&Event {
            topic: encoder.topic(&change.relation.table),
            key: json(record.key),
            value: json(record.value),
            headers: record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect(),
        })
    });
    told.collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::column_type::ColumnType;
    use migrations::lsn::{CommitLsn, Position};
    use rows::change::{Column, ReplicaIdentity, Transaction};
    use std::sync::Arc;

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

    /// What is told of a change.
    fn told(identity: ReplicaIdentity, operation: change::Operation) -> String {
        let change = Change {
            position: Position { commit: CommitLsn(0x10), ordinal: 1 },
            lsn: 0x10,
            transaction: Transaction { xid: 1, committed_us: 0 },
            relation: relation(identity),
            mark: None,
            operation,
        };
        let told = of(&change);
        let column = |column: &TailedColumn| format!("{}={:?}<{:?}", column.name, column.value, column.was);
        let columns: Vec<String> = told.columns.iter().map(column).collect();
        format!("{:?} {} {}", told.operation, told.table, columns.join(" ")).replace("Some", "")
    }

    #[test]
    fn numbers_and_days_are_told_as_the_database_prints_them_and_the_key_stands_first() {
        let [old, new] = [("12.50", "1.50"), ("99.00", "1.5")]
            .map(|(total, rate)| row([Some(total), Some("7"), Some(rate), Some("2026-01-02")]));
        assert_eq!(
            told(ReplicaIdentity::Default, change::Operation::Insert { new: old.clone() }),
            r#"Insert public.orders id=("7")<None total=("12.50")<None rate=("1.50")<None day=("2026-01-02")<None"#
        );
        assert_eq!(
            told(ReplicaIdentity::Full, change::Operation::Update { old: Some(old), new }),
            r#"Update public.orders id=("7")<None total=("99.00")<("12.50") rate=("1.5")<("1.50") day=("2026-01-02")<None"#
        );
        let (moved, key) = (row([Some("1.00"), Some("8"), None, None]), row([None, Some("7"), None, None]));
        assert_eq!(
            told(ReplicaIdentity::Default, change::Operation::Update { old: Some(key.clone()), new: moved }),
            r#"Update public.orders id=("8")<("7") total=("1.00")<None rate=None<None day=None<None"#
        );
        assert_eq!(
            told(ReplicaIdentity::Default, change::Operation::Delete { old: key }),
            r#"Delete public.orders id=("7")<None"#
        );
    }
}
