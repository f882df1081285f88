//! The log: it keeps captured changes durably until every sink has them. One contract, two adapters.
//!
//! The contract, held by one test suite for both: a writer appends flushes of changes in position order and ends a
//! flush with a [`Progress`] record where a transaction ends; what [`Writer::append`] returns is durable. After a
//! crash a new writer may repeat changes from any earlier transaction on, byte for byte the same. A reader delivers
//! each change once, in strictly rising position, and only up to what a progress record promises.

pub mod embedded;
pub mod kafka;

use crate::change::Change;
use migrations::finding::Finding;
use migrations::lsn::{Durable, EndLsn, Position, Timeline};
use migrations::names::{PlanName, TableName};
use migrations::plan::LogChoice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// A reader's batch ends behind this many bytes of changes, so that memory stays bounded.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Tells one log from another: a new store gets a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub String);

/// How far a source has been written into the log. JSON in Kafka's progress topic, versioned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// 1.
    pub version: u32,
    /// The log it belongs to.
    pub log: LogId,
    /// Which history of which server.
    #[serde(flatten)]
    pub timeline: Timeline,
    /// Every transaction whose commit record ends at or before here is in the log.
    pub end: EndLsn,
    /// When the newest of those transactions committed: microseconds since 1970 by the source's clock; 0 if unknown.
    pub committed_us: i64,
    /// The logical messages (fences, barriers) since the record before, with their positions.
    #[serde(default)]
    pub messages: Vec<Message>,
}

/// One of our logical messages, seen in the source's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its place among the changes.
    pub position: Position,
    /// `strangler.…`.
    pub prefix: String,
    /// Its content as text.
    pub content: String,
}

/// What a writer appends at once.
#[derive(Debug, Clone, Default)]
pub struct Flush {
    /// Changes in position order; large transactions come in several flushes.
    pub changes: Vec<Change>,
    /// Present where the last change ends a transaction (or no change is in flight).
    pub progress: Option<Progress>,
}

/// Where a reader can begin again; opaque to everyone but its adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// What a reader delivers at once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Changes of the reader's tables, positions rising.
    pub changes: Vec<Change>,
    /// Present when everything up to `progress.end` has been delivered; the cursor begins behind it. Several
    /// flushes may come as one batch: then it is the last one's record with the messages of all.
    pub progress: Option<(Progress, Cursor)>,
}

/// One change as other consumers see it: a topic's record, in Debezium's words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// `<prefix>.<schema>.<table>`.
    pub topic: String,
    /// The record's key.
    pub key: serde_json::Value,
    /// The envelope; null for a tombstone.
    pub value: serde_json::Value,
    /// The record's headers as text.
    pub headers: std::collections::BTreeMap<String, String>,
}

/// Why the log cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store on disk or the cluster does not answer; worth another try.
    #[error("the log {place} is not available: {why}; {hint}")]
    Unavailable {
        /// Which.
        place: String,
        /// In the store's words.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The embedded log has reached its bound.
    #[error("the log holds {bytes} bytes, its bound; a slice that does not keep up is evicted, or raise `log.embedded.max`")]
    Full {
        /// What it holds.
        bytes: u64,
    },
    /// A reader asks for what is no longer kept.
    #[error("the log begins behind what the sink has; copy the slice again with `strangler sync drop` and `sync start`")]
    Trimmed,
    /// A change cannot be kept as it is.
    #[error("{}", .0.message)]
    Refused(Finding),
    /// What was read is no log of ours.
    #[error("the log {place} is damaged: {why}; restore it, or start anew with `strangler sync drop` and `sync start`")]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A log of either kind. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Log {
    /// On this machine's disk.
    Embedded(embedded::EmbeddedLog),
    /// In a Kafka cluster.
    Kafka(kafka::KafkaLog),
}

/// Appends to a log; there is one at a time.
#[derive(Debug)]
pub enum Writer {
    /// To the embedded log.
    Embedded(embedded::EmbeddedWriter),
    /// To Kafka.
    Kafka(kafka::KafkaWriter),
}

/// Reads a log from a cursor on.
#[derive(Debug)]
pub enum Reader {
    /// From the embedded log.
    Embedded(embedded::EmbeddedReader),
    /// From Kafka.
    Kafka(kafka::KafkaReader),
}

impl Log {
    /// Opens the plan's log, making it if it is missing. `state_dir` is the bridge's own folder.
    pub async fn open(choice: &LogChoice, plan: &PlanName, state_dir: &Path) -> Result<Log, LogError> {
        match choice {
            LogChoice::Embedded { bytes_max } => {
                Ok(Log::Embedded(embedded::EmbeddedLog::open(&state_dir.join("log.redb"), plan, *bytes_max).await?))
            }
            choice => Ok(Log::Kafka(kafka::KafkaLog::open(choice, plan).await?)),
        }
    }
}
