//! The records of one change: which there are, and what each holds.
//!
//! Knows the shape of a table as it was rendered once, and the buffer it writes to.

use super::encoded::{Encoded, Span, Spans};
use super::row::{RowWriter, Sent};
use super::{header, json, schema};
use crate::change::{Change, Operation, Relation, ReplicaIdentity, Tuple, Value};
use migrations::plan::Publish;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// What the topics' names begin with; Debezium's `source.name`.
    pub prefix: String,
    pub database: String,
    /// Strangler's version, in the place of Debezium's.
    pub version: String,
    pub publish: Publish,
}

/// What is the same for all changes of one shape of a table.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) relation: Arc<Relation>,
    rows: RowWriter,
    /// `{"schema":…,"payload":` or nothing.
    key_open: Vec<u8>,
    value_open: Vec<u8>,
    close: &'static [u8],
    /// The source's fields up to the commit time, then up to the sequence, then up to the transaction's id.
    source: [Vec<u8>; 3],
}

impl Shape {
    pub(super) fn new(context: &Context, relation: &Arc<Relation>) -> Self {
        let (mut key_open, mut value_open) = (Vec::new(), Vec::new());
        if context.publish.has_schemas {
            let name = format!("{}.{}", context.prefix, relation.table);
            key_open.extend_from_slice(b"{\"schema\":");
            schema::key(&name, relation, &mut key_open);
            key_open.extend_from_slice(b",\"payload\":");
            value_open.extend_from_slice(b"{\"schema\":");
            schema::envelope(&name, relation, &mut value_open);
            value_open.extend_from_slice(b",\"payload\":");
        }
        let quoted = |text: &str| {
            let mut quoted = Vec::new();
            json::string(text.as_bytes(), &mut quoted);
            quoted
        };
        let head = [
            b"{\"version\":".as_slice(),
            &quoted(&context.version),
            b",\"connector\":\"postgresql\",\"name\":",
            &quoted(&context.prefix),
            b",\"ts_ms\":",
        ];
        let middle = [
            b",\"snapshot\":\"false\",\"db\":".as_slice(),
            &quoted(&context.database),
            b",\"sequence\":\"[\\\"",
        ];
        let tail = [
            b",\"schema\":".as_slice(),
            &quoted(&relation.table.schema),
            b",\"table\":",
            &quoted(&relation.table.name),
            b",\"txId\":",
        ];
        Self {
            relation: Arc::clone(relation),
            rows: RowWriter::new(relation),
            key_open,
            value_open,
            close: if context.publish.has_schemas { b"}" } else { b"" },
            source: [head.concat(), middle.concat(), tail.concat()],
        }
    }
}

/// The records of one change as they are written.
pub(super) struct Writing<'a> {
    pub(super) shape: &'a Shape,
    pub(super) change: &'a Change,
    pub(super) now_us: i64,
    pub(super) out: &'a mut Encoded,
    pub(super) exact: &'a mut Vec<u8>,
    /// Whether the old row holds its key alone, whatever the table's identity.
    pub(super) is_lean: bool,
}

impl Writing<'_> {
    /// The part of an old row that was sent.
    fn sent(&self) -> Sent {
        let is_whole = self.shape.relation.identity == ReplicaIdentity::Full && !self.is_lean;
        if is_whole { Sent::All } else { Sent::NotNull }
    }

    pub(super) fn operation(&mut self) {
        match &self.change.operation {
            Operation::Insert { new } => {
                let key = self.key(new, None);
                self.record(key, "c", None, Some((new, None)), &[]);
            }
            Operation::Update { old, new } => self.update(old.as_ref(), new),
            Operation::Delete { old } => {
                let key = self.key(old, None);
                self.record(key, "d", Some(old), None, &[]);
                self.tombstone(key);
            }
            Operation::Truncate => self.record(None, "t", None, None, &[]),
        }
    }

    fn update(&mut self, old: Option<&Tuple>, new: &Tuple) {
        let key = self.key(new, old);
        let old_key = match old {
            Some(old) if self.has_key(old) => self.key(old, None),
            _ => None,
        };
        let (Some(old), Some(old_key), Some(new_key)) = (old, old_key, key) else {
            return self.record(key, "u", old, Some((new, old)), &[]);
        };
        if self.out.slice(old_key) == self.out.slice(new_key) {
            return self.record(key, "u", Some(old), Some((new, Some(old))), &[]);
        }
        let bare = |span: Span| (span.0 + self.shape.key_open.len(), span.1 - self.shape.close.len());
        let (bare_old, bare_new) = (bare(old_key), bare(new_key));
        self.record(Some(old_key), "d", Some(old), None, &[(header::NEW_KEY, bare_new)]);
        self.tombstone(Some(old_key));
        self.exact.clear();
        let mut headers = vec![(header::OLD_KEY, bare_old)];
        let (shape, sent, exact) = (self.shape, self.sent(), &mut *self.exact);
        let before = self.out.span(|out| shape.rows.row(&shape.relation, (old, sent), None, out, exact));
        if sent == Sent::All || self.identity(old).is_some() {
            headers.push((header::BEFORE, before));
        }
        self.note_old(old, &mut headers);
        self.record(Some(new_key), "c", None, Some((new, Some(old))), &headers);
    }

    /// Whether all of the key's columns were sent.
    fn has_key(&self, tuple: &Tuple) -> bool {
        tuple
            .values()
            .zip(&self.shape.relation.columns)
            .all(|(value, column)| !column.is_key || value != Value::Null)
    }

    fn key(&mut self, tuple: &Tuple, old: Option<&Tuple>) -> Option<Span> {
        let shape = self.shape;
        let mut has_key = false;
        let span = self.out.span(|out| {
            out.extend_from_slice(&shape.key_open);
            has_key = shape.rows.key(&shape.relation, tuple, old, out);
            out.extend_from_slice(shape.close);
        });
        has_key.then_some(span)
    }

    /// The names of the old row's columns that were sent, as JSON, where the table's identity does not say them.
    fn identity(&self, old: &Tuple) -> Option<Vec<u8>> {
        let columns = &self.shape.relation.columns;
        let is_sent = |value: &Value<'_>| *value != Value::Null;
        let is_key = || old.values().zip(columns).all(|(value, c)| is_sent(&value) == c.is_key);
        if self.sent() == Sent::All || (!self.is_lean && is_key()) {
            return None;
        }
        let mut names = vec![b'['];
        for (_, column) in old.values().zip(columns).filter(|(value, _)| is_sent(value)) {
            if names.len() > 1 {
                names.push(b',');
            }
            json::string(column.name.as_bytes(), &mut names);
        }
        names.push(b']');
        Some(names)
    }

    /// Headers of an old row, whose inexact values are in `exact`.
    fn note_old(&mut self, old: &Tuple, headers: &mut Vec<(&'static str, Span)>) {
        if !self.exact.is_empty() {
            headers.push((header::EXACT_BEFORE, self.exact_object()));
        }
        if let Some(names) = self.identity(old) {
            headers.push((header::IDENTITY, self.out.span(|out| out.extend_from_slice(&names))));
        }
    }

    fn exact_object(&mut self) -> Span {
        let exact = &*self.exact;
        self.out.span(|out| {
            out.push(b'{');
            out.extend_from_slice(exact);
            out.push(b'}');
        })
    }

    fn tombstone(&mut self, key: Option<Span>) {
        let start = self.out.headers.len();
        let position = self.position();
        self.out.headers.push((header::POSITION, position));
        self.out.records.push(Spans { key, value: None, headers: start..self.out.headers.len() });
    }

    fn position(&mut self) -> Span {
        use std::io::Write;
        let position = self.change.position;
        // Writing into memory does not fail.
        self.out.span(|out| drop(write!(out, "{position}")))
    }

    /// One record with an envelope. `new` comes with the old row that it takes unsent values from.
    fn record(
        &mut self,
        key: Option<Span>,
        op: &str,
        old: Option<&Tuple>,
        new: Option<(&Tuple, Option<&Tuple>)>,
        more_headers: &[(&'static str, Span)],
    ) {
        let (shape, sent) = (self.shape, self.sent());
        let mut headers = Vec::with_capacity(6);
        let start = self.out.bytes.len();
        self.out.bytes.extend_from_slice(&shape.value_open);
        self.out.bytes.extend_from_slice(b"{\"before\":");
        self.exact.clear();
        match old {
            Some(old) => {
                shape.rows.row(&shape.relation, (old, sent), None, &mut self.out.bytes, self.exact);
            }
            None => self.out.bytes.extend_from_slice(b"null"),
        }
        let exact_before = std::mem::take(self.exact);
        self.out.bytes.extend_from_slice(b",\"after\":");
        match new {
            Some((new, old)) => {
                shape.rows.row(&shape.relation, (new, Sent::All), old, &mut self.out.bytes, self.exact);
            }
            None => self.out.bytes.extend_from_slice(b"null"),
        }
        self.tail(op);
        let value = (start, self.out.bytes.len());
        headers.push((header::POSITION, self.position()));
        if let Some(mark) = self.change.mark.clone() {
            headers.push((header::MARK, self.out.span(|out| out.extend_from_slice(mark.as_bytes()))));
        }
        if !self.exact.is_empty() {
            headers.push((header::EXACT, self.exact_object()));
        }
        *self.exact = exact_before;
        if let Some(old) = old {
            self.note_old(old, &mut headers);
        }
        headers.extend_from_slice(more_headers);
        let first = self.out.headers.len();
        self.out.headers.extend(headers);
        self.out.records.push(Spans { key, value: Some(value), headers: first..self.out.headers.len() });
    }

    /// The envelope from `source` on.
    fn tail(&mut self, op: &str) {
        let (shape, change, now_us) = (self.shape, self.change, self.now_us);
        let out = &mut self.out.bytes;
        let committed_us = change.transaction.committed_us;
        let number = |value: i64, out: &mut Vec<u8>| json::number(i128::from(value), out);
        out.extend_from_slice(b",\"source\":");
        out.extend_from_slice(&shape.source[0]);
        number(committed_us.div_euclid(1000), out);
        out.extend_from_slice(&shape.source[1]);
        // Debezium has the commit before here, which differs after a restart; a transaction's own orders as well.
        json::number(i128::from(change.position.commit.0), out);
        out.extend_from_slice(b"\\\",\\\"");
        json::number(i128::from(change.lsn), out);
        out.extend_from_slice(b"\\\"]\",\"ts_us\":");
        number(committed_us, out);
        out.extend_from_slice(b",\"ts_ns\":");
        number(committed_us.saturating_mul(1000), out);
        out.extend_from_slice(&shape.source[2]);
        json::number(i128::from(change.transaction.xid), out);
        out.extend_from_slice(b",\"lsn\":");
        json::number(i128::from(change.lsn), out);
        out.extend_from_slice(
            b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null},\"transaction\":null,\"op\":\"",
        );
        out.extend_from_slice(op.as_bytes());
        out.extend_from_slice(b"\",\"ts_ms\":");
        number(now_us.div_euclid(1000), out);
        out.extend_from_slice(b",\"ts_us\":");
        number(now_us, out);
        out.extend_from_slice(b",\"ts_ns\":");
        number(now_us.saturating_mul(1000), out);
        out.push(b'}');
        out.extend_from_slice(shape.close);
    }
}
