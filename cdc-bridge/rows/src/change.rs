//! One change as it travels from a source through the log to a sink.
//!
//! Values are the source's own text output, byte for byte; nothing here interprets them. Knows neither
//! Postgres' wire (see `pgoutput`) nor JSON (see `envelope`).

use bytes::{BufMut, Bytes, BytesMut};
use migrations::column_type::{ColumnType, TypeSeen};
use migrations::lsn::Position;
use migrations::names::TableName;
use migrations::preflight::{ColumnSeen, IdentitySeen};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Relation {
    pub table: TableName,
    /// How the old row is written: it decides what `old` holds.
    pub identity: ReplicaIdentity,
    /// Its columns in wire order.
    pub columns: Vec<Column>,
}

impl Relation {
    /// A table's shape from what the catalog says. Generated columns are in no stream.
    pub fn of(table: &TableName, identity: IdentitySeen, columns: &[ColumnSeen]) -> Relation {
        let columns = columns.iter().filter(|column| !column.is_generated()).map(|column| Column {
            name: column.name.clone(),
            kind: ColumnType::of(&column.kind, column.modifier),
            declared: Some(column.exact.clone()),
            is_key: column.is_key,
            key_position: column.key_position,
            nullable: column.is_nullable,
            number: column.number,
            stored: Some(Stored { modifier: column.modifier, written: column.written, file: column.file }),
            // A domain's and an extension's are not Debezium's to read.
            default: column.default.clone().filter(|_| reads_default(&column.kind)),
        });
        let identity = match identity {
            IdentitySeen::Default => ReplicaIdentity::Default,
            IdentitySeen::Full => ReplicaIdentity::Full,
            IdentitySeen::Index => ReplicaIdentity::Index,
            IdentitySeen::Nothing => ReplicaIdentity::Nothing,
        };
        Relation { table: table.clone(), identity, columns: columns.collect() }
    }

    /// The same without these columns. The key stays.
    pub fn without(&self, left_out: &BTreeSet<String>) -> Relation {
        let mut relation = self.clone();
        relation.columns.retain(|column| column.is_key || !left_out.contains(&column.name));
        relation
    }

    /// The indexes of the key columns.
    pub fn key(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().enumerate().filter(|(_, column)| column.is_key).map(|(index, _)| index)
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Whether Debezium reads the default of a column of this type (its source, `PostgresDefaultValueConverter`).
fn reads_default(kind: &TypeSeen) -> bool {
    const READ: [&str; 19] = [
        "bit",
        "varbit",
        "bool",
        "bpchar",
        "varchar",
        "text",
        "numeric",
        "float4",
        "float8",
        "int2",
        "int4",
        "int8",
        "json",
        "jsonb",
        "xml",
        "uuid",
        "date",
        "time",
        "timestamp",
    ];
    match kind {
        TypeSeen::Base(name) => {
            READ.contains(&name.as_str()) || matches!(name.as_str(), "timestamptz" | "interval")
        }
        TypeSeen::Enum { .. } => true,
        _ => false,
    }
}

/// What the source writes of an old row (PostgreSQL manual, ALTER TABLE, REPLICA IDENTITY).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaIdentity {
    /// The primary key's columns, and only when they changed or the row went.
    Default,
    /// A unique index's columns, likewise.
    Index,
    /// All columns, always.
    Full,
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Its name as the catalog spells it.
    pub name: String,
    pub kind: ColumnType,
    /// Its type as any database names it, with digits, length and collation: what expressions compute on. Unknown in a shape
    /// that an earlier version kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// Whether it belongs to the primary key.
    pub is_key: bool,
    /// Its place in the primary key, from 1; 0 outside of it, and in a shape that an earlier version kept.
    #[serde(default)]
    pub key_position: i16,
    pub nullable: bool,
    /// Its number in the table (`pg_attribute.attnum`), which no other column of the table gets again; 0 where it is not
    /// known.
    #[serde(default)]
    pub number: i16,
    /// Unknown in a shape that an earlier version kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Stored>,
    /// The expression of its default as the catalog prints it, for columns of which Debezium tells it. What goes through the
    /// stream never depends on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What the source says of how a column's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stored {
    /// What the type keeps of a value: length, digits (`atttypmod`).
    pub modifier: i32,
    /// The transaction that wrote the column's entry in the catalog; 0 where the catalog has another entry by now.
    pub written: i64,
    /// The table's file, or that of its oldest partition.
    pub file: i64,
}

impl Stored {
    /// Whether an ALTER has changed values since: it writes the column's entry, and it writes the rows into another file.
    /// VACUUM FULL, CLUSTER and TRUNCATE do only the latter. SET STATISTICS and GRANT do only the former.
    pub fn was_rewritten(&self, now: &Stored) -> bool {
        let is_known = self.written != 0 && now.written != 0;
        is_known && self.written != now.written && self.file != now.file
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL, or in a key-only old row a column that was not sent.
    Null,
    /// A large value that did not change and was not sent (TOAST).
    Unchanged,
    /// The type's text output.
    Text(&'a [u8]),
}

/// The columns of one row, kept as the bytes of pgoutput's TupleData in text format (PostgreSQL manual, 55.9):
/// Int16 count, then per column `n`, `u`, or `t` with Int32 length and bytes. Always well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple(Bytes);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row's bytes are malformed at offset {at}")]
pub struct BadTuple {
    pub at: usize,
}

impl Tuple {
    /// Takes one tuple from the front of `bytes`, without copying.
    pub fn take(bytes: &mut Bytes) -> Result<Tuple, BadTuple> {
        let len = tuple_len(bytes)?;
        Ok(Tuple(bytes.split_to(len)))
    }

    pub fn of<'a>(values: impl ExactSizeIterator<Item = Value<'a>>) -> Tuple {
        let mut bytes = BytesMut::with_capacity(2 + values.len() * 16);
        bytes.put_u16(values.len() as u16);
        for value in values {
            match value {
                Value::Null => bytes.put_u8(b'n'),
                Value::Unchanged => bytes.put_u8(b'u'),
                Value::Text(text) => {
                    bytes.put_u8(b't');
                    bytes.put_u32(text.len() as u32);
                    bytes.put_slice(text);
                }
            }
        }
        Tuple(bytes.freeze())
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[0], self.0[1]]))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn values(&self) -> Values<'_> {
        Values { rest: &self.0[2..], left: self.len() }
    }

    /// This row, with the values that were not sent taken from an older row.
    pub fn filled(&self, older: &Tuple) -> Tuple {
        if !self.has_unchanged() {
            return self.clone();
        }
        let values = self.values().zip(older.values()).map(|pair| match pair {
            (Value::Unchanged, older) => older,
            (newer, _) => newer,
        });
        Tuple::of(values.collect::<Vec<_>>().into_iter())
    }

    /// This row without the columns that are not kept.
    pub fn only(&self, kept: &[bool]) -> Tuple {
        let values = self.values().zip(kept).filter(|(_, kept)| **kept).map(|(value, _)| value);
        Tuple::of(values.collect::<Vec<_>>().into_iter())
    }

    /// One column's value, `Null` after the last.
    pub fn get(&self, index: usize) -> Value<'_> {
        self.values().nth(index).unwrap_or(Value::Null)
    }

    /// Whether a large value was not sent.
    pub fn has_unchanged(&self) -> bool {
        self.values().any(|value| value == Value::Unchanged)
    }
}

fn tuple_len(bytes: &[u8]) -> Result<usize, BadTuple> {
    let count = bytes.get(..2).ok_or(BadTuple { at: 0 })?;
    let mut at = 2;
    for _ in 0..u16::from_be_bytes([count[0], count[1]]) {
        match bytes.get(at) {
            Some(b'n' | b'u') => at += 1,
            Some(b't') => {
                let len = bytes.get(at + 1..at + 5).ok_or(BadTuple { at })?;
                let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]) as usize;
                let end = at.checked_add(5 + len).filter(|end| *end <= bytes.len());
                at = end.ok_or(BadTuple { at })?;
            }
            _ => return Err(BadTuple { at }),
        }
    }
    Ok(at)
}

#[derive(Debug, Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        match kind {
            b'n' => Some(Value::Null),
            b'u' => Some(Value::Unchanged),
            _ => {
                let (len, rest) = rest.split_at_checked(4)?;
                let len = u32::from_be_bytes([len[0], len[1], len[2], len[3]]) as usize;
                let (text, rest) = rest.split_at_checked(len)?;
                self.rest = rest;
                Some(Value::Text(text))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Insert {
        new: Tuple,
    },
    Update {
        /// The old row: all of it under `Full`; only its key, and only if the key changed, under `Default`.
        old: Option<Tuple>,
        /// The row as it is now; may hold `Unchanged`.
        new: Tuple,
    },
    Delete {
        /// The old row: all of it under `Full`, else its key with `Null` in the other columns.
        old: Tuple,
    },
    Truncate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    pub xid: u32,
    /// When it committed: microseconds since 1970-01-01 UTC by the source's clock.
    pub committed_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub position: Position,
    /// The WAL position of the change's own record, Debezium's `source.lsn`; neither unique nor monotonic.
    pub lsn: u64,
    pub transaction: Transaction,
    pub relation: Arc<Relation>,
    /// The text of the mark that a lane of ours left, if one wrote it ([`migrations::lane::Mark`]).
    pub mark: Option<Arc<str>>,
    pub operation: Operation,
}

impl Change {
    /// Roughly the memory it holds, in bytes.
    pub fn size(&self) -> usize {
        let tuples = match &self.operation {
            Operation::Insert { new } => new.0.len(),
            Operation::Update { old, new } => new.0.len() + old.as_ref().map_or(0, |old| old.0.len()),
            Operation::Delete { old } => old.0.len(),
            Operation::Truncate => 0,
        };
        std::mem::size_of::<Change>() + tuples
    }

    /// The bytes of its row, or of the larger one of old and new. A `bytea` counts as half of its text, which is hex.
    pub fn row_bytes(&self) -> usize {
        let (old, new) = match &self.operation {
            Operation::Insert { new } => (None, Some(new)),
            Operation::Update { old, new } => (old.as_ref(), Some(new)),
            Operation::Delete { old } => (Some(old), None),
            Operation::Truncate => (None, None),
        };
        let value = |(column, value): (&Column, Value<'_>)| match (&column.kind, value) {
            (ColumnType::Bytea, Value::Text(text)) => text.len() / 2,
            (_, Value::Text(text)) => text.len(),
            _ => 0,
        };
        let row = |row: &Tuple| self.relation.columns.iter().zip(row.values()).map(value).sum();
        old.into_iter().chain(new).map(row).max().unwrap_or(0)
    }
}
