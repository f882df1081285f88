//! The records of one change: which there are, and what each holds.
//!
//! Knows the shape of a table as it was rendered once, and the buffer it writes to.

use super::encoded::{Encoded, Span, Spans};
use super::row::Fields;
use super::{Context, header, json, schema, topic};
use crate::change::{Change, Operation, Relation, Tuple};
use migrations::plan::Publish;
use std::sync::Arc;

/// What is the same for all changes of one shape of a table.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) relation: Arc<Relation>,
    fields: Fields,
    /// `{"schema":…,"payload":` or nothing.
    key_open: Vec<u8>,
    value_open: Vec<u8>,
    close: &'static [u8],
    /// The source's fields up to the commit time, then up to the sequence, then up to the transaction's id.
    source: [Vec<u8>; 3],
}

impl Shape {
    pub(super) fn new(context: &Context, relation: &Arc<Relation>) -> Self {
        let publish = &context.publish;
        let fields = Fields::of(publish, relation, context.hidden.get(&relation.table));
        let (mut key_open, mut value_open) = (Vec::new(), Vec::new());
        if publish.has_schemas {
            let name = topic(&context.prefix, &relation.table);
            let open = |schema: &dyn Fn(&str, &Fields, &mut Vec<u8>), out: &mut Vec<u8>| {
                out.extend_from_slice(b"{\"schema\":");
                schema(&name, &fields, out);
                out.extend_from_slice(b",\"payload\":");
            };
            open(&schema::key, &mut key_open);
            open(if publish.is_unwrapped { &schema::row } else { &schema::envelope }, &mut value_open);
        }
        Self {
            relation: Arc::clone(relation),
            fields,
            key_open,
            value_open,
            close: if publish.has_schemas { b"}" } else { b"" },
            source: source(context, relation),
        }
    }
}

fn source(context: &Context, relation: &Relation) -> [Vec<u8>; 3] {
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
    let middle =
        [b",\"snapshot\":\"false\",\"db\":".as_slice(), &quoted(&context.database), b",\"sequence\":\"[\\\""];
    let tail = [
        b",\"schema\":".as_slice(),
        &quoted(&relation.table.schema),
        b",\"table\":",
        &quoted(&relation.table.name),
        b",\"txId\":",
    ];
    [head.concat(), middle.concat(), tail.concat()]
}

/// The records of one change as they are written.
pub(super) struct Writing<'a> {
    pub(super) context: &'a Context,
    pub(super) shape: &'a Shape,
    pub(super) change: &'a Change,
    pub(super) now_us: i64,
    pub(super) out: &'a mut Encoded,
    /// Whether an update says nothing of the row before it, as if that had not been sent.
    pub(super) is_lean: bool,
}

/// A row, and the one before it, which has the large values that were not sent.
type Row<'t> = (&'t Tuple, Option<&'t Tuple>);

type Header = (&'static str, Span);

impl Writing<'_> {
    fn publish(&self) -> &Publish {
        &self.context.publish
    }

    pub(super) fn operation(&mut self) {
        let skipped = self.publish().skipped;
        match &self.change.operation {
            Operation::Insert { new } if !skipped.creates => {
                let key = self.key((new, None));
                self.event(key, "c", None, Some((new, None)), None);
            }
            Operation::Update { old, new } if !skipped.updates => self.update(old.as_ref(), new),
            Operation::Delete { old } if !skipped.deletes => {
                let key = self.key((old, None));
                self.delete(key, old, None);
            }
            Operation::Truncate if !skipped.truncates && !self.publish().is_unwrapped => {
                self.event(None, "t", None, None, None);
            }
            _ => {}
        }
    }

    fn update(&mut self, old: Option<&Tuple>, new: &Tuple) {
        let key = self.key((new, old));
        let old_key = match old {
            Some(old) if self.shape.fields.has_key_in(old) => self.key((old, None)),
            _ => None,
        };
        let before = old.filter(|_| !self.is_lean);
        let (Some(old), Some(old_key), Some(new_key)) = (old, old_key, key) else {
            return self.event(key, "u", before, Some((new, old)), None);
        };
        if self.out.slice(old_key) == self.out.slice(new_key) {
            return self.event(key, "u", before, Some((new, Some(old))), None);
        }
        let fields = &self.shape.fields;
        let to = self.out.span(|out| fields.write_key_header(new, Some(old), out));
        let from = self.out.span(|out| fields.write_key_header(old, None, out));
        self.delete(Some(old_key), old, Some((header::NEW_KEY, to)));
        self.event(Some(new_key), "c", None, Some((new, Some(old))), Some((header::OLD_KEY, from)));
    }

    fn delete(&mut self, key: Option<Span>, old: &Tuple, header: Option<Header>) {
        if self.publish().is_unwrapped {
            return self.record(key, None, header);
        }
        self.event(key, "d", Some(old), None, header);
        if self.publish().has_tombstones {
            self.record(key, None, header);
        }
    }

    fn key(&mut self, (row, old): Row<'_>) -> Option<Span> {
        let shape = self.shape;
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&shape.key_open);
            shape.fields.write_key(row, old, out);
            out.extend_from_slice(shape.close);
        };
        shape.fields.has_key().then(|| self.out.span(write))
    }

    fn event(
        &mut self,
        key: Option<Span>,
        op: &str,
        before: Option<&Tuple>,
        after: Option<Row<'_>>,
        header: Option<Header>,
    ) {
        let shape = self.shape;
        let row = |row: Option<Row<'_>>, out: &mut Vec<u8>| match row {
            Some((row, old)) => shape.fields.write(row, old, out),
            None => out.extend_from_slice(b"null"),
        };
        let start = self.out.bytes.len();
        let out = &mut self.out.bytes;
        out.extend_from_slice(&shape.value_open);
        if self.context.publish.is_unwrapped {
            row(after, out);
        } else {
            out.extend_from_slice(b"{\"before\":");
            row(before.map(|before| (before, None)), out);
            out.extend_from_slice(b",\"after\":");
            row(after, out);
            self.tail(op);
        }
        self.out.bytes.extend_from_slice(shape.close);
        let value = (start, self.out.bytes.len());
        self.record(key, Some(value), header);
    }

    fn record(&mut self, key: Option<Span>, value: Option<Span>, header: Option<Header>) {
        let first = self.out.headers.len();
        self.out.headers.extend(header);
        for (name, text) in header::context(&self.context.prefix) {
            let span = self.out.span(|out| out.extend_from_slice(text));
            self.out.headers.push((name, span));
        }
        self.out.records.push(Spans { key, value, headers: first..self.out.headers.len() });
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
    }
}
