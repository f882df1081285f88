//! The progress record: how far a source has been written into a log, and which messages came with it.

use migrations::lsn::{EndLsn, Position, Timeline};
use migrations::names::TableName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Names a log. A new store gets a new name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogId(pub String);

/// A table's membership in the publication: a hash of what the source's catalog says about it. After every change of how
/// the table is published it is another one, even if the change was taken back: what was written in between may not have
/// been captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Membership(pub i64);

pub type Captured = BTreeMap<TableName, Membership>;

/// How far a source has been written into the log. JSON, versioned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub version: u32,
    pub log: LogId,
    #[serde(flatten)]
    pub timeline: Timeline,
    /// Every transaction whose commit record ends at or before here is in the log.
    pub end: EndLsn,
    /// When the newest of those transactions committed: microseconds since 1970 by the source's clock; 0 if unknown.
    pub committed_us: i64,
    /// The logical messages (fences, barriers) since the record before, with their positions.
    #[serde(default)]
    pub messages: Vec<Message>,
    /// The memberships whose changes are in the log since the record before. Changes of other tables were not kept.
    #[serde(default)]
    pub captured: BTreeSet<Membership>,
    /// What the source's database must hold, too, if both are of one history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seals: Option<Seals>,
}

impl Progress {
    /// Tells the record from those of other histories, whose positions may be the same.
    pub fn point(&self) -> Point {
        let seal = self.seals.as_ref().map_or("", |seals| seals.held.0.as_str());
        Point(format!("{} {seal}", self.end))
    }
}

/// Where a log is, in which history of its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Point(pub String);

/// A random name that log and source share for a while. One of them that was set back to an earlier moment has an older
/// seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seal(pub String);

/// The source holds one of the two, at any moment: the log has both before the source gets the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seals {
    pub held: Seal,
    pub next: Seal,
}

/// One of our logical messages, seen in the source's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub position: Position,
    /// `strangler.…`.
    pub prefix: String,
    pub content: String,
}
