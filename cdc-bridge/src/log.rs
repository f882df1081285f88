//! The log: it keeps captured changes durably until every sink has them. One contract, two adapters.
//!
//! The contract, held by one test suite for both: a writer appends flushes of changes in position order and ends a
//! flush with a [`Progress`] record where a transaction ends; what [`Writer::append`] returns is durable. After a
//! crash a new writer may repeat changes from any earlier transaction on, byte for byte the same. A reader delivers
//! each change once, in strictly rising position, and only up to what a progress record promises.

// An error that carries a finding is large, and rare.
#![allow(clippy::result_large_err)]

pub mod embedded;
mod floor;
pub mod kafka;

use migrations::finding::Finding;
use migrations::lsn::{Durable, EndLsn, Timeline};
use migrations::names::{PlanName, TableName};
use migrations::plan::LogChoice;
use rows::change::Change;
use rows::progress::{LogId, Progress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// A reader's batch ends behind this many bytes of changes, so that memory stays bounded.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// [`Log::recent`] never returns more events.
pub const RECENT_MAX: usize = 1000;

/// Whose a log is. An embedded one lies in our own folder; a cluster has room for the logs of others under every name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// It was made or given up by this process.
    Us,
    /// It was made for the server of this system identifier, or filled from it.
    Server(String),
    /// It was made for another plan, or for another database, as it says itself.
    Other(String),
    /// An older strangler made it and kept nothing in it, or someone took its records away.
    Unknown,
    /// Nothing was kept in it yet, not even its name; nor does it have tables.
    Nobody,
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
    /// flushes may come as one batch, if they captured the same tables: then it is the last one's record with the
    /// messages of all.
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
    /// There is no log; for Kafka, no progress topic with the log's name in it.
    #[error("there is no log yet; it is made when the first slice is followed (`strangler sync start`)")]
    Missing,
    /// The embedded log has reached its bound.
    #[error(
        "the log holds {bytes} bytes, its bound; a slice that does not keep up is evicted, or raise `log.embedded.max`"
    )]
    Full {
        /// What it holds.
        bytes: u64,
    },
    /// A reader asks for what is no longer kept.
    #[error(
        "the log begins behind what the sink has; copy the slice again with `strangler sync drop` and `sync start`"
    )]
    Trimmed,
    /// A change cannot be kept as it is.
    #[error("{}", .0.message)]
    Refused(Finding),
    /// What was read is no log of ours.
    #[error("the log {place} is damaged: {why}; {HINT_DAMAGED}")]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong with it.
        why: String,
    },
}

const HINT_DAMAGED: &str = "restore it, or move it away (in Kafka: delete the progress topic) while the bridge is down, and \
                            copy the slices again with `strangler sync drop` and `sync start`";

impl LogError {
    /// The finding of an embedded log that cannot be written for want of room.
    pub const DISK_FULL: &str = "log.disk-full";

    /// What someone must mend before it goes on; none where waiting may be enough.
    pub fn finding(&self) -> Option<Finding> {
        match self {
            LogError::Refused(finding) => Some(finding.clone()),
            LogError::Damaged { place, why } => {
                let message = format!("the log {place} is damaged: {why}");
                Some(Finding::error("log.damaged", message, HINT_DAMAGED))
            }
            LogError::Unavailable { .. } | LogError::Missing | LogError::Full { .. } | LogError::Trimmed => {
                None
            }
        }
    }
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
    /// Opens the plan's log, making it if it is missing. `database` is the source database's name, which events
    /// carry; `state_dir` is the bridge's own folder.
    pub async fn open(
        choice: &LogChoice,
        plan: &PlanName,
        database: &str,
        state_dir: &Path,
    ) -> Result<Log, LogError> {
        match choice {
            LogChoice::Embedded { bytes_max } => {
                let path = state_dir.join("log.redb");
                Ok(Log::Embedded(embedded::EmbeddedLog::open(&path, plan, database, *bytes_max).await?))
            }
            choice => Ok(Log::Kafka(kafka::KafkaLog::open(choice, plan, database).await?)),
        }
    }

    /// Which log it is; another one after it was deleted or destroyed.
    pub fn id(&self) -> LogId {
        match self {
            Log::Embedded(log) => log.id(),
            Log::Kafka(log) => log.id(),
        }
    }

    /// Where it is, for people: `embedded log .strangler/bridge/log.redb`, `Kafka localhost:9092, topics shop.*`.
    pub fn describe(&self) -> String {
        match self {
            Log::Embedded(log) => log.describe(),
            Log::Kafka(log) => log.describe(),
        }
    }

    /// The last durable progress record; none where nothing was ever written.
    pub async fn end(&self) -> Result<Option<Progress>, LogError> {
        match self {
            Log::Embedded(log) => log.end().await,
            Log::Kafka(log) => log.end().await,
        }
    }

    /// Makes ready for rows of `tables` up to `row_bytes_max` bytes: makes the missing topics, and refuses existing
    /// ones that would lose rows.
    pub async fn prepare(
        &self,
        tables: &BTreeSet<TableName>,
        row_bytes_max: u64,
        server: &Timeline,
    ) -> Result<(), LogError> {
        match self {
            Log::Embedded(log) => log.prepare(tables, row_bytes_max).await,
            Log::Kafka(log) => log.prepare(tables, row_bytes_max, server).await,
        }
    }

    /// Begins to append. It ends the session of an earlier writer.
    pub async fn writer(&self) -> Result<Writer, LogError> {
        match self {
            Log::Embedded(log) => log.writer().await.map(Writer::Embedded),
            Log::Kafka(log) => log.writer().await.map(Writer::Kafka),
        }
    }

    /// Behind the last progress record: a reader from here sees every transaction that is completed later.
    pub async fn end_cursor(&self) -> Result<Cursor, LogError> {
        match self {
            Log::Embedded(log) => log.end_cursor().await,
            Log::Kafka(log) => log.end_cursor().await,
        }
    }

    /// Reads changes of `tables` from a cursor on; [`LogError::Trimmed`] where it is no longer kept.
    pub async fn reader(&self, tables: BTreeSet<TableName>, from: &Cursor) -> Result<Reader, LogError> {
        match self {
            Log::Embedded(log) => log.reader(tables, from).await.map(Reader::Embedded),
            Log::Kafka(log) => log.reader(tables, from).await.map(Reader::Kafka),
        }
    }

    /// The newest `n` change events of `tables` (1000 at most, no tombstones), oldest first.
    pub async fn recent(&self, tables: &BTreeSet<TableName>, n: usize) -> Result<Vec<Event>, LogError> {
        let n = n.min(RECENT_MAX);
        match self {
            Log::Embedded(log) => log.recent(tables, n).await,
            Log::Kafka(log) => log.recent(tables, n).await,
        }
    }

    /// Whether it is for us to trim. Kafka is not: others may read it.
    pub fn is_trimmed(&self) -> bool {
        matches!(self, Log::Embedded(_))
    }

    /// Drops what lies before a cursor, if [`Log::is_trimmed`].
    pub async fn trim(&self, before: &Cursor) -> Result<(), LogError> {
        match self {
            Log::Embedded(log) => log.trim(before).await,
            Log::Kafka(_) => Ok(()),
        }
    }

    /// Whose log is there, before it is taken away; none where there is no log.
    pub async fn owner(&self) -> Result<Option<Owner>, LogError> {
        match self {
            Log::Embedded(log) => Ok(log.end().await?.map(|_| Owner::Us)),
            Log::Kafka(log) => log.owner().await,
        }
    }

    /// Takes away what only these tables needed: their topics.
    pub async fn forget(&self, tables: &BTreeSet<TableName>) -> Result<(), LogError> {
        match self {
            Log::Embedded(_) => Ok(()),
            Log::Kafka(log) => log.forget(tables).await,
        }
    }

    /// Takes away the topics that this process made or prepared, and that are left.
    pub async fn forget_made(&self) -> Result<(), LogError> {
        match self {
            Log::Embedded(_) => Ok(()),
            Log::Kafka(log) => log.forget_made().await,
        }
    }

    /// Takes away the log itself; the next one has another [`LogId`]. Topics of tables are [`Log::forget`]'s.
    pub async fn destroy(&self) -> Result<(), LogError> {
        match self {
            Log::Embedded(log) => log.destroy().await,
            Log::Kafka(log) => log.destroy().await,
        }
    }

    /// Bytes that the embedded log holds, as its bound counts them; 0 for Kafka.
    pub async fn bytes(&self) -> Result<u64, LogError> {
        match self {
            Log::Embedded(log) => log.bytes().await,
            Log::Kafka(_) => Ok(0),
        }
    }
}

impl Writer {
    /// Appends a flush and returns when all of it is durable: how far the source is in the log now, where the
    /// flush has a progress record. After an error the session is over; ask for a new writer, and repeat from
    /// the last durable progress record on. What the log has already is not written twice.
    pub async fn append(&mut self, flush: Flush) -> Result<Option<Durable<EndLsn>>, LogError> {
        match self {
            Writer::Embedded(writer) => writer.append(flush).await,
            Writer::Kafka(writer) => writer.append(flush).await,
        }
    }
}

impl Reader {
    /// Waits for the next batch. It may be cancelled: nothing is lost. After [`LogError::Unavailable`] it may be
    /// asked again.
    ///
    /// A batch either ends at its progress record or has none: then it is a part of a large transaction whose
    /// rest, up to the record, is durable already.
    pub async fn next(&mut self) -> Result<Batch, LogError> {
        match self {
            Reader::Embedded(reader) => reader.next().await,
            Reader::Kafka(reader) => reader.next().await,
        }
    }
}
