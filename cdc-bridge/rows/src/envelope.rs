//! Debezium's words for a change: the records that its PostgreSQL connector writes into a table's topic by Connect's
//! `JsonConverter` (Debezium's documentation, "Data change events", and its source).
//!
//! Written straight into bytes: this runs for every row that goes to Kafka. Nothing is read back from it. Knows no broker
//! and no clock.

mod array;
mod calendar;
mod decimal;
mod default;
mod encoded;
mod float;
mod format;
mod header;
mod header_text;
pub mod heartbeat;
mod hstore;
mod json;
pub mod outbox;
mod plain;
mod printed;
mod records;
mod row;
mod schema;
mod value;

pub use encoded::{Encoded, Record};
pub use header::{NEW_KEY, OLD_KEY};
pub use value::PLACEHOLDER;

use crate::change::{Change, Operation, Relation};
use migrations::names::TableName;
use migrations::plan::Publish;
use records::{Shape, Writing};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is the same for all records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// What the topics' names begin with; Debezium's `source.name`.
    pub prefix: String,
    pub database: String,
    /// Strangler's version, in the place of Debezium's.
    pub version: String,
    pub publish: Publish,
    /// Columns that are not published, by table. Those of a key always are.
    pub hidden: BTreeMap<TableName, BTreeSet<String>>,
}

/// The topic of a table's records: `<prefix>.<schema>.<table>`, with `_` for each UTF-16 unit that Kafka does not allow in
/// a name.
pub fn topic(prefix: &str, table: &TableName) -> String {
    let mut topic = format!("{prefix}.");
    for char in table.to_string().chars() {
        let is_allowed = char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
        (0..char.len_utf16()).for_each(|_| topic.push(if is_allowed { char } else { '_' }));
    }
    topic
}

/// Writes changes as records. Keeps what is the same for all changes of a table's shape.
#[derive(Debug)]
pub struct Encoder {
    context: Context,
    record_bytes_max: usize,
    shapes: Vec<Shape>,
}

/// This many shapes are kept. With more tables, some are made again.
const SHAPES_MAX: usize = 256;

impl Encoder {
    pub fn new(context: Context) -> Self {
        Self { context, record_bytes_max: usize::MAX, shapes: Vec::new() }
    }

    /// Where an update's record would have more bytes than these, it says nothing of the old row, as without `REPLICA
    /// IDENTITY FULL`: two images of one row are worth less than its change.
    pub fn with_records_up_to(self, record_bytes_max: usize) -> Self {
        Self { record_bytes_max, ..self }
    }

    pub fn topic(&self, table: &TableName) -> String {
        topic(&self.context.prefix, table)
    }

    /// Writes the records of a change into `out`, in the place of what is there. There may be none. `now_us` is the time of
    /// processing, in microseconds since 1970-01-01 UTC.
    pub fn encode(&mut self, change: &Change, now_us: i64, out: &mut Encoded) {
        out.clear();
        let index = self.shape(&change.relation);
        let (context, shape) = (&self.context, &self.shapes[index]);
        Writing { context, shape, change, now_us, out, is_lean: false }.operation();
        let is_update = matches!(change.operation, Operation::Update { old: Some(_), .. });
        if is_update && out.records().any(|record| record.bytes() > self.record_bytes_max) {
            out.clear();
            Writing { context, shape, change, now_us, out, is_lean: true }.operation();
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
