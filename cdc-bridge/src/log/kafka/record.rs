//! What strangler writes into the topic `<prefix>.strangler.progress`, and where a reader of it begins again. Pure.
//!
//! A record's key tells its kind: `log` is the first of all, it names the log; `tables` holds the shapes of the
//! tables whose changes follow; `progress` promises.

use crate::log::contract::Cursor;
use migrations::lsn::{EndLsn, Position};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rows::change::Relation;
use rows::envelope::header;
use rows::progress::{LogId, Point, Progress};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A header of every record of a change: the hash of its table's shape, in hexadecimal.
pub(crate) const RELATION_HEADER: &str = "strangler.relation";
/// The version of all these records.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Log(LogRecord),
    /// Shapes of tables: all that the writer's session has used so far, each table's newest.
    Tables(TablesRecord),
    Progress(Box<ProgressRecord>),
}

/// Key `log`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) version: u32,
    pub(crate) log: LogId,
    /// The system identifier of the server that it was made for (`IDENTIFY_SYSTEM`).
    pub(crate) system_id: String,
    /// The plan and the database that it was made for.
    pub(crate) made_for: MadeFor,
}

/// A server has many databases, and a database may be followed by several plans: each has a log of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MadeFor {
    pub(crate) plan: String,
    pub(crate) database: String,
}

/// Key `tables`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TablesRecord {
    pub(crate) version: u32,
    pub(crate) log: LogId,
    /// Shapes by their hash in hexadecimal.
    pub(crate) relations: BTreeMap<String, Relation>,
}

/// Key `progress`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProgressRecord {
    #[serde(flatten)]
    pub(crate) progress: Progress,
    /// Everything up to here had been acknowledged when this record was sent, so what is after it may be missing
    /// if the writer died.
    pub(crate) acknowledged: EndLsn,
    /// The last position that was sent to each partition, by topic.
    pub(crate) sent: BTreeMap<String, BTreeMap<i32, Sent>>,
}

/// What was sent to one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) last: Position,
    /// Where the changes after `acknowledged` begin.
    pub(crate) offset: i64,
}

impl Record {
    /// Reads a record; none for one of another kind or version.
    pub(crate) fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Record> {
        let value = value?;
        match key? {
            b"log" => serde_json::from_slice(value).ok().map(Record::Log),
            b"tables" => serde_json::from_slice(value).ok().map(Record::Tables),
            b"progress" => {
                serde_json::from_slice(value).ok().map(|record| Record::Progress(Box::new(record)))
            }
            _ => None,
        }
    }

    pub(crate) fn version(&self) -> u32 {
        match self {
            Record::Log(record) => record.version,
            Record::Tables(record) => record.version,
            Record::Progress(record) => record.progress.version,
        }
    }

    pub(crate) fn log(&self) -> &LogId {
        match self {
            Record::Log(record) => &record.log,
            Record::Tables(record) => &record.log,
            Record::Progress(record) => &record.progress.log,
        }
    }

    /// Its key and value.
    pub(crate) fn bytes(&self) -> Result<(&'static str, Vec<u8>), serde_json::Error> {
        Ok(match self {
            Record::Log(record) => ("log", serde_json::to_vec(record)?),
            Record::Tables(record) => ("tables", serde_json::to_vec(record)?),
            Record::Progress(record) => ("progress", serde_json::to_vec(record)?),
        })
    }
}

impl ProgressRecord {
    /// The partitions whose promised records may be missing: those that were sent to since `acknowledged`.
    pub(crate) fn doubtful(&self) -> impl Iterator<Item = (&str, i32, Sent)> {
        let all = self.sent.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, sent)| (topic.as_str(), *partition, *sent))
        });
        all.filter(|(_, _, sent)| !self.acknowledged.is_past(sent.last.commit))
    }

    /// What holds of it if its own flush did not arrive; none if nothing had been acknowledged before.
    pub(crate) fn before(&self) -> Option<Progress> {
        let known = self.acknowledged > EndLsn(0);
        known.then(|| Progress {
            end: self.acknowledged,
            committed_us: 0,
            messages: Vec::new(),
            ..self.progress.clone()
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bookmark {
    pub(crate) log: LogId,
    /// The next record of the progress topic.
    pub(crate) progress: i64,
    /// The newest `tables` record before it.
    pub(crate) tables: Option<i64>,
    /// Changes before here have been delivered.
    pub(crate) end: EndLsn,
    /// What the record before `progress` promised, if that is the one that was delivered last.
    #[serde(default)]
    pub(crate) point: Option<Point>,
    /// The next record of each partition, by topic.
    pub(crate) offsets: BTreeMap<String, BTreeMap<i32, i64>>,
}

impl Bookmark {
    /// Reads a cursor; none for one that is not Kafka's.
    pub(crate) fn read(cursor: &Cursor) -> Option<Bookmark> {
        serde_json::from_str(&cursor.0).ok()
    }

    pub(crate) fn cursor(&self) -> Cursor {
        // Strings and numbers always serialise.
        Cursor(serde_json::to_string(self).unwrap_or_default())
    }
}

/// The position in a record's headers; a tombstone counts for nothing.
pub(super) fn position(message: &OwnedMessage) -> Option<Position> {
    message.payload()?;
    let headers = message.headers()?;
    let value = headers.iter().find(|found| found.key == header::POSITION)?.value?;
    std::str::from_utf8(value).ok()?.parse().ok()
}
