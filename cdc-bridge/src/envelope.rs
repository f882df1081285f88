//! Debezium's words for a change: the records that its Postgres connector would write into a table's topic, as JSON
//! (Debezium's documentation, "Data change events"), and those records read back.
//!
//! Written straight into bytes: this runs for every row that goes to Kafka. What Debezium has no field for travels in
//! headers. Knows no broker and no clock. Where a value has no JSON form the record says null or the type's zero, and
//! a header has the text.

mod array;
mod calendar;
mod decimal;
pub mod header;
mod json;
mod read;
mod received;
mod records;
mod row;
mod schema;
mod value;

pub use received::{EnvelopeError, decode};
pub use value::PLACEHOLDER;

use crate::change::{Change, Column, Operation, Relation, ReplicaIdentity, Tuple, Value};
use migrations::names::TableName;
use records::{Shape, Writing};
use std::ops::Range;
use std::sync::Arc;

/// What every record of a source says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// What the topics' names begin with; Debezium's `source.name`.
    pub prefix: String,
    /// The source database's name.
    pub database: String,
    /// Strangler's version, in the place of Debezium's.
    pub version: String,
    /// Whether key and value carry their Connect schema (`schemas.enable`).
    pub schemas: bool,
}

/// The topic of a table's records: `<prefix>.<schema>.<table>`, with `_` for what Kafka does not allow in a name.
pub fn topic(prefix: &str, table: &TableName) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    format!("{prefix}.{table}").chars().map(allowed).collect()
}

/// One record to produce, or produced.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The key's JSON; none where the table has no key, and for a truncate.
    pub key: Option<&'a [u8]>,
    /// The envelope's JSON; none for a tombstone.
    pub value: Option<&'a [u8]>,
    encoded: &'a Encoded,
    headers: &'a [(&'static str, Span)],
}

impl<'a> Record<'a> {
    /// The headers in their order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&'static str, &'a [u8])> + use<'a> {
        let encoded = self.encoded;
        self.headers.iter().map(|(name, span)| (*name, encoded.slice(*span)))
    }

    /// What it takes in a topic, but for a few bytes.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers().map(|(name, value)| name.len() + value.len()).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(its_name, _)| *its_name == name).map(|(_, value)| value)
    }
}

type Span = (usize, usize);

/// The records of one change, in a buffer that is used again for the next.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    headers: Vec<(&'static str, Span)>,
    records: Vec<Spans>,
}

/// A buffer that one large row made larger than this is not kept for the next.
const KEPT_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone)]
struct Spans {
    key: Option<Span>,
    value: Option<Span>,
    headers: Range<usize>,
}

impl Encoded {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The records in the order in which they must be produced.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.records.iter().map(|spans| Record {
            key: spans.key.map(|span| self.slice(span)),
            value: spans.value.map(|span| self.slice(span)),
            encoded: self,
            headers: &self.headers[spans.headers.clone()],
        })
    }

    fn slice(&self, (start, end): Span) -> &[u8] {
        &self.bytes[start..end]
    }

    fn clear(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.headers.clear();
        self.records.clear();
    }

    /// Appends what `write` writes and says where it is.
    fn span(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        write(&mut self.bytes);
        (start, self.bytes.len())
    }
}

/// Writes changes as records. Keeps what is the same for all changes of a table's shape.
#[derive(Debug)]
pub struct Encoder {
    context: Context,
    record_bytes_max: usize,
    shapes: Vec<Shape>,
    /// What the JSON of the row that is written does not give back; used again for each row.
    exact: Vec<u8>,
}

/// An update whose old row was sent whole, with no more of it than its key.
fn lean(change: &Change) -> Option<Change> {
    let Operation::Update { old: Some(old), new } = &change.operation else { return None };
    if change.relation.identity != ReplicaIdentity::Full {
        return None;
    }
    let of_key = |(value, column): (_, &Column)| if column.is_key { value } else { Value::Null };
    let key: Vec<_> = old.values().zip(&change.relation.columns).map(of_key).collect();
    let operation = Operation::Update { old: Some(Tuple::of(key.into_iter())), new: new.filled(old) };
    Some(Change { operation, ..change.clone() })
}

/// So many shapes are kept; a source with more tables writes some anew.
const SHAPES_MAX: usize = 256;

impl Encoder {
    /// An encoder for one source.
    pub fn new(context: Context) -> Self {
        Self { context, record_bytes_max: usize::MAX, shapes: Vec::new(), exact: Vec::new() }
    }

    /// Where a record would have more bytes than these, the old row is told by its key alone, as without `REPLICA
    /// IDENTITY FULL`: two images of one row are worth less than its change.
    pub fn with_records_up_to(self, record_bytes_max: usize) -> Self {
        Self { record_bytes_max, ..self }
    }

    /// The topic of a table's records.
    pub fn topic(&self, table: &TableName) -> String {
        topic(&self.context.prefix, table)
    }

    /// Writes the records of a change into `out`, in the place of what is there. `now_us` is the time of processing,
    /// in microseconds since 1970-01-01 UTC.
    pub fn encode(&mut self, change: &Change, now_us: i64, out: &mut Encoded) {
        out.clear();
        if self.exact.capacity() > KEPT_BYTES_MAX {
            self.exact = Vec::new();
        }
        let index = self.shape(&change.relation);
        let shape = &self.shapes[index];
        Writing { shape, change, now_us, out, exact: &mut self.exact, is_lean: false }.operation();
        if out.records().any(|record| record.bytes() > self.record_bytes_max)
            && let Some(change) = &lean(change)
        {
            out.clear();
            Writing { shape, change, now_us, out, exact: &mut self.exact, is_lean: true }.operation();
        }
    }

    fn shape(&mut self, relation: &Arc<Relation>) -> usize {
        if let Some(index) = self.shapes.iter().position(|shape| Arc::ptr_eq(&shape.relation, relation)) {
            // Runs of one table are the rule: the newest is looked at first.
            self.shapes.swap(0, index);
            return 0;
        }
        if self.shapes.len() >= SHAPES_MAX {
            self.shapes.clear();
        }
        self.shapes.push(Shape::new(&self.context, relation));
        self.shapes.len() - 1
    }
}
