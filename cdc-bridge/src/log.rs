//! The log: it keeps captured changes durably until every sink has them. One contract, two adapters.
//!
//! The contract, held by one test suite for both: a writer appends flushes of changes in position order and ends a
//! flush with a [`Progress`] record where a transaction ends; what [`Writer::append`] returns is durable. After a
//! crash a new writer may repeat changes from any earlier transaction on, byte for byte the same. A reader delivers
//! each change once, in strictly rising position, and only up to what a progress record promises.

// An error that carries a finding is large, and rare.
#![allow(clippy::result_large_err)]

mod contract;
mod embedded;
mod floor;
mod kafka;

pub use contract::{BATCH_BYTES_MAX, Batch, Cursor, Event, Flush, LogError, Owner, RECENT_MAX};
pub use kafka::{out_of_reach, unknown_options};
use migrations::lsn::{Durable, EndLsn, Timeline};
use migrations::names::{PlanName, TableName};
use migrations::plan::LogChoice;
use migrations::sql::Database;
use rows::envelope::Context;
use rows::progress::{LogId, Progress};
use std::collections::BTreeSet;
use std::path::Path;

/// A log of either kind. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Log {
    Embedded(embedded::EmbeddedLog),
    Kafka(kafka::KafkaLog),
}

/// Appends to a log; there is one at a time.
#[derive(Debug)]
pub enum Writer {
    Embedded(embedded::EmbeddedWriter),
    Kafka(kafka::KafkaWriter),
}

#[derive(Debug)]
pub enum Reader {
    Embedded(embedded::EmbeddedReader),
    Kafka(kafka::KafkaReader),
}

impl Log {
    /// Opens the log of one of the plan's databases, making it if it is missing. `name` is the database's own name, which
    /// events carry; `state_dir` is the bridge's own folder.
    pub async fn open(
        choice: &LogChoice,
        plan: &PlanName,
        database: &Database,
        name: &str,
        state_dir: &Path,
    ) -> Result<Log, LogError> {
        let context = context(choice, plan, database, name);
        match choice {
            LogChoice::Embedded { bytes_max } => {
                let file = match database {
                    Database::Monolith => "log.redb".to_owned(),
                    Database::Service(service) => format!("log-{service}.redb"),
                };
                let path = state_dir.join(file);
                Ok(Log::Embedded(embedded::EmbeddedLog::open(&path, plan, context, *bytes_max).await?))
            }
            choice => Ok(Log::Kafka(kafka::KafkaLog::open(choice, plan, context).await?)),
        }
    }

    pub fn context(&self) -> &Context {
        match self {
            Log::Embedded(log) => log.context(),
            Log::Kafka(log) => log.context(),
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

    /// The last durable progress record; none if nothing was ever written.
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

    /// Whose log is there, before it is removed; none if there is no log.
    pub async fn owner(&self) -> Result<Option<Owner>, LogError> {
        match self {
            Log::Embedded(log) => Ok(log.end().await?.map(|_| Owner::Us)),
            Log::Kafka(log) => log.owner().await,
        }
    }

    /// Removes what only these tables needed: their topics.
    pub async fn forget(&self, tables: &BTreeSet<TableName>) -> Result<(), LogError> {
        match self {
            Log::Embedded(_) => Ok(()),
            Log::Kafka(log) => log.forget(tables).await,
        }
    }

    /// Removes the topics that this process made or prepared, and that are left.
    pub async fn forget_made(&self) -> Result<(), LogError> {
        match self {
            Log::Embedded(_) => Ok(()),
            Log::Kafka(log) => log.forget_made().await,
        }
    }

    /// Removes the log itself; the next one has another [`LogId`]. Topics of tables are [`Log::forget`]'s.
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

/// What events say of their source. The prefix is the topics' where there are topics, else the plan's name; a service
/// has one of its own.
fn context(choice: &LogChoice, plan: &PlanName, database: &Database, name: &str) -> Context {
    let (prefix, publish) = match choice {
        LogChoice::Kafka { topic_prefix, publish, .. } => (topic_prefix.clone(), publish.clone()),
        _ => (plan.to_string(), None),
    };
    let publish = publish.unwrap_or_default();
    let prefix = match database {
        Database::Monolith => prefix,
        Database::Service(service) => format!("{prefix}-{service}"),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Context { prefix, database: name.to_owned(), version, publish }
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
