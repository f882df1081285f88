//! What strangler writes into the log's topic, and which of it counts. Pure.
//!
//! The topic has one partition and, at a time, one writer, so a writer knows which offset each of its records gets. It
//! names that offset in the record's key. *A record counts if it lies where its key says.* If another writer has begun,
//! or a record before it was lost, it lies elsewhere, and nobody takes it. So the log's end is taken over by
//! compare-and-swap, without transactions and without a second round trip.
//!
//! A record is a value ([`rows::binary`]) or a head: what a reader or a writer must know to begin there.

use rows::change::Relation;
use rows::progress::{LogId, Progress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of heads; values have their own.
pub(super) const VERSION: u32 = 1;

/// A writer's session begins with one. Others follow when tables have other shapes, and after some MiB.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) version: u32,
    pub(crate) log: LogId,
    /// The system identifier of the server that the log was made for (`IDENTIFY_SYSTEM`).
    pub(crate) system_id: String,
    /// The plan and the database that it was made for.
    pub(crate) made_for: MadeFor,
    /// Whether a writer begins with it: what another one left behind the last promise is no part of the log.
    pub(crate) begins: bool,
    /// The head before it; none for the log's first.
    pub(crate) before: Option<u64>,
    /// Bytes of values since the log's beginning.
    pub(crate) written: u64,
    /// What was promised before; none in a log without a promise.
    pub(crate) last: Option<Last>,
    /// The shapes that the values up to the next head use, by their hashes in hexadecimal.
    pub(crate) relations: BTreeMap<String, Relation>,
}

impl Head {
    /// Reads the head at an offset; why that cannot be.
    pub(super) fn read(at: u64, payload: &[u8]) -> Result<Head, String> {
        let head: Head = serde_json::from_slice(payload)
            .map_err(|error| format!("its head {at} cannot be read: {error}"))?;
        if head.version != VERSION {
            return Err(format!("its head {at} is of another version of strangler"));
        }
        Ok(head)
    }
}

/// A server has many databases, and a database may be followed by several plans: each has a log of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MadeFor {
    pub(crate) plan: String,
    pub(crate) database: String,
}

/// The last promise, and where a reader behind it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Last {
    pub(crate) progress: Progress,
    /// The offset behind it.
    pub(crate) promised: u64,
    /// The newest head before it.
    pub(crate) base: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Head,
    Value,
}

/// The key of a record that is to lie at an offset.
pub(super) fn key(kind: Kind, offset: u64) -> String {
    match kind {
        Kind::Head => format!("head/{offset}"),
        Kind::Value => format!("value/{offset}"),
    }
}

/// What a record is that lies at an offset; none for one that does not count.
pub(super) fn kind(key: Option<&[u8]>, offset: i64) -> Option<Kind> {
    let (kind, named) = std::str::from_utf8(key?).ok()?.split_once('/')?;
    let kind = match kind {
        "head" => Kind::Head,
        "value" => Kind::Value,
        _ => return None,
    };
    (named.parse() == Ok(offset)).then_some(kind)
}

/// The name of a shape in a head.
pub(super) fn shape(hash: u64) -> String {
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_where_its_key_says_and_nowhere_else() {
        for kept in [Kind::Head, Kind::Value] {
            let key = key(kept, 42);
            assert_eq!(kind(Some(key.as_bytes()), 42), Some(kept));
            for elsewhere in [0, 41, 43, -1] {
                assert_eq!(kind(Some(key.as_bytes()), elsewhere), None);
            }
        }
        for other in
            [None, Some("".as_bytes()), Some(b"42"), Some(b"tail/42"), Some(b"value/x"), Some(&[0xff, b'/'])]
        {
            assert_eq!(kind(other, 42), None, "{other:?}");
        }
    }
}
