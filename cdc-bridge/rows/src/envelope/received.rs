//! A topic's record read back into the change that it was written from, byte for byte: the inverse of the encoder.
//!
//! Reads what this crate wrote and nothing else: the headers carry what Debezium's JSON has no place for.

use super::header;
use super::row::{self, Exact, Wanted};
use crate::change::{Change, Operation, Relation, ReplicaIdentity, Transaction, Tuple};
use migrations::lsn::Position;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("a record of {table} has no readable header `{header}`: another program wrote it")]
    Header { table: String, header: &'static str },
    #[error("the record {position} of {table} cannot be read: {why}")]
    Value { table: String, position: Position, why: String },
}

/// Reads a record. None for what a change's other record says as well: tombstones, and the delete half of a changed
/// key. `header` finds a header by its name.
pub fn decode<'a>(
    relation: &Arc<Relation>,
    value: Option<&'a [u8]>,
    header: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Option<Change>, EnvelopeError> {
    let Some(value) = value else { return Ok(None) };
    let text = |name: &'static str| header(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let bad_header = |header| EnvelopeError::Header { table: relation.table.to_string(), header };
    let position: Position = text(header::POSITION)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad_header(header::POSITION))?;
    if header(header::NEW_KEY).is_some() {
        return Ok(None);
    }
    let mark = match header(header::MARK) {
        Some(_) => Some(Arc::from(text(header::MARK).ok_or_else(|| bad_header(header::MARK))?)),
        None => None,
    };
    let exact = |name: &'static str| Exact::read(header(name)).ok_or_else(|| bad_header(name));
    let sent: Option<Vec<String>> = match header(header::IDENTITY) {
        Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|_| bad_header(header::IDENTITY))?),
        None => None,
    };
    let before_header = text(header::BEFORE).or_else(|| text(header::OLD_KEY));
    let record = Record {
        relation,
        exact: exact(header::EXACT)?,
        exact_before: exact(header::EXACT_BEFORE)?,
        sent,
        old: before_header,
    };
    let bad_value = |why| EnvelopeError::Value { table: relation.table.to_string(), position, why };
    let (operation, source) = record.read(value).map_err(bad_value)?;
    let transaction = Transaction { xid: source.xid, committed_us: source.committed_us };
    let relation = Arc::clone(relation);
    Ok(Some(Change { position, lsn: source.lsn, transaction, relation, mark, operation }))
}

struct Record<'a> {
    relation: &'a Relation,
    exact: Exact,
    exact_before: Exact,
    /// The columns of the old row that were sent, where the table's identity does not say them.
    sent: Option<Vec<String>>,
    /// The old row of a changed key.
    old: Option<&'a str>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    source: Option<Source>,
    op: Option<Letter>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "txId")]
    xid: u32,
    lsn: u64,
    #[serde(rename = "ts_us")]
    committed_us: i64,
}

#[derive(Deserialize)]
enum Letter {
    #[serde(rename = "c")]
    Create,
    #[serde(rename = "u")]
    Update,
    #[serde(rename = "d")]
    Delete,
    #[serde(rename = "t")]
    Truncate,
}

impl Record<'_> {
    fn read(&self, value: &[u8]) -> Result<(Operation, Source), String> {
        let value = std::str::from_utf8(value).map_err(|_| "it is not UTF-8".to_owned())?;
        let mut envelope: Envelope<'_> = serde_json::from_str(value).map_err(|error| error.to_string())?;
        if let Some(payload) = envelope.payload {
            envelope = serde_json::from_str(payload.get()).map_err(|error| error.to_string())?;
        }
        let missing = |what: &str| format!("it has no `{what}`");
        let source = envelope.source.ok_or_else(|| missing("source"))?;
        let after = || envelope.after.map(RawValue::get).ok_or_else(|| missing("after"));
        let before = envelope.before.map(RawValue::get);
        let operation = match envelope.op.ok_or_else(|| missing("op"))? {
            Letter::Create => match self.old {
                Some(old) => {
                    Operation::Update { old: Some(self.old_row(old)?), new: self.new_row(after()?)? }
                }
                None => Operation::Insert { new: self.new_row(after()?)? },
            },
            Letter::Update => {
                let old = before.map(|before| self.old_row(before)).transpose()?;
                Operation::Update { old, new: self.new_row(after()?)? }
            }
            Letter::Delete => {
                Operation::Delete { old: self.old_row(before.ok_or_else(|| missing("before"))?)? }
            }
            Letter::Truncate => Operation::Truncate,
        };
        Ok((operation, source))
    }

    fn new_row(&self, json: &str) -> Result<Tuple, String> {
        row::read(self.relation, json, &Wanted::All, &self.exact)
    }

    fn old_row(&self, json: &str) -> Result<Tuple, String> {
        let wanted = match (&self.sent, self.relation.identity) {
            (Some(sent), _) => Wanted::Named(sent),
            (None, ReplicaIdentity::Full) => Wanted::All,
            (None, _) => Wanted::Key,
        };
        row::read(self.relation, json, &wanted, &self.exact_before)
    }
}
