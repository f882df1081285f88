//! Debezium's words for a change: the records that its Postgres connector would write into a table's topic, as JSON
//! (Debezium's documentation, "Data change events"), and those records read back.
//!
//! Written straight into bytes: this runs for every row that goes to Kafka. What Debezium has no field for travels in
//! headers. Knows no broker and no clock. Where a value has no JSON form the record says null or the type's zero, and
//! a header has the text.

mod array;
mod calendar;
mod decimal;
mod encoded;
pub mod header;
mod json;
mod plain;
mod printed;
mod read;
mod received;
mod records;
mod row;
mod schema;
mod value;

pub use encoded::{Encoded, Record};
pub use received::{EnvelopeError, decode};
pub use records::Context;
pub use value::PLACEHOLDER;

use crate::change::{Change, Column, Operation, Relation, ReplicaIdentity, Tuple, Value};
use encoded::KEPT_BYTES_MAX;
use migrations::names::TableName;
use records::{Shape, Writing};
use std::sync::Arc;

/// The topic of a table's records: `<prefix>.<schema>.<table>`, with `_` for what Kafka does not allow in a name.
pub fn topic(prefix: &str, table: &TableName) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' };
    format!("{prefix}.{table}").chars().map(allowed).collect()
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

/// This many shapes are kept. With more tables, some are made again.
const SHAPES_MAX: usize = 256;

impl Encoder {
    pub fn new(context: Context) -> Self {
        Self { context, record_bytes_max: usize::MAX, shapes: Vec::new(), exact: Vec::new() }
    }

    /// Where a record would have more bytes than these, the old row is told by its key alone, as without `REPLICA
    /// IDENTITY FULL`: two images of one row are worth less than its change.
    pub fn with_records_up_to(self, record_bytes_max: usize) -> Self {
        Self { record_bytes_max, ..self }
    }

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
            // Runs of one table are the rule: the newest shape comes first.
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
