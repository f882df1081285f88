//! What is published of a log in Kafka (`log.kafka.publish`): the options of Debezium's PostgreSQL connector, Connect's
//! `JsonConverter` and Debezium's transforms that a consumer notices, as they name and default them.

use crate::fingerprint::Fingerprint;
use crate::names::TableName;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub decimals: Decimals,
    pub times: Times,
    /// Whether a tombstone follows each delete (`tombstones.on.delete`).
    pub has_tombstones: bool,
    pub skipped: Skipped,
    /// Whether keys and values carry their Connect schema (`schemas.enable`).
    pub has_schemas: bool,
    /// Whether a null is written as its column's default (`replace.null.with.default`).
    pub replaces_null: bool,
    /// Whether values are the rows alone, as the transform `ExtractNewRecordState` writes them.
    pub is_unwrapped: bool,
    /// Tables whose inserts go to `outbox.event.<aggregatetype>`, as the transform `EventRouter` sends them.
    pub outbox: BTreeSet<TableName>,
    /// How often a heartbeat is published (`heartbeat.interval.ms`); 0 for never.
    pub heartbeat_ms: u64,
}

impl Default for Publish {
    /// Connect's own default of `schemas.enable` is true. Most who read JSON set it to false, so here it is.
    fn default() -> Self {
        Self {
            decimals: Decimals::Precise,
            times: Times::Adaptive,
            has_tombstones: true,
            skipped: Skipped { truncates: true, ..Skipped::default() },
            has_schemas: false,
            replaces_null: true,
            is_unwrapped: false,
            outbox: BTreeSet::new(),
            heartbeat_ms: 0,
        }
    }
}

/// How `numeric` and `money` are written (`decimal.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decimals {
    Precise,
    String,
    Double,
}

impl Decimals {
    pub(super) const WORDS: [(&str, Self); 3] =
        [("precise", Self::Precise), ("string", Self::String), ("double", Self::Double)];
}

/// How dates and times without a zone are written (`time.precision.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Milliseconds up to three digits of a second, else microseconds.
    Adaptive,
    /// The same, but times of a day always in microseconds.
    AdaptiveTimeMicroseconds,
    /// Connect's own types: milliseconds.
    Connect,
    Isostring,
    Microseconds,
    Nanoseconds,
}

impl Times {
    pub(super) const WORDS: [(&str, Self); 6] = [
        ("adaptive", Self::Adaptive),
        ("adaptive_time_microseconds", Self::AdaptiveTimeMicroseconds),
        ("connect", Self::Connect),
        ("isostring", Self::Isostring),
        ("microseconds", Self::Microseconds),
        ("nanoseconds", Self::Nanoseconds),
    ];
}

/// Operations that are not published (`skipped.operations`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    pub creates: bool,
    pub updates: bool,
    pub deletes: bool,
    pub truncates: bool,
}

impl Publish {
    pub(super) fn put(&self, print: &mut Fingerprint) {
        let word =
            |words: &[(&'static str, bool)]| words.iter().find(|(_, is)| *is).map_or("", |(word, _)| word);
        print.put("decimals", word(&Decimals::WORDS.map(|(word, mode)| (word, mode == self.decimals))));
        print.put("times", word(&Times::WORDS.map(|(word, mode)| (word, mode == self.times))));
        print.put("tombstones", self.has_tombstones);
        for skipped in
            [self.skipped.creates, self.skipped.updates, self.skipped.deletes, self.skipped.truncates]
        {
            print.put("skipped", skipped);
        }
        print.put("schemas", self.has_schemas);
        print.put("replace_null", self.replaces_null);
        print.put("unwrap", self.is_unwrapped);
        for table in &self.outbox {
            print.put("outbox", table);
        }
        if self.heartbeat_ms > 0 {
            print.put("heartbeat", self.heartbeat_ms);
        }
    }
}
