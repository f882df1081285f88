//! What a session has read and the log has not: flushes that end with a progress record wherever a transaction ends.
//!
//! Pure; the session fills it and the writer empties it.

use crate::change::{Change, Column, ColumnType, Relation};
use crate::log::{Flush, LogId, Message, Progress};
use crate::source::pgoutput::WireRelation;
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::TableName;

/// A flush is closed behind this many bytes of changes.
const FLUSH_BYTES_MAX: usize = 1 << 20;

/// What was read and not yet handed to the writer.
#[derive(Debug)]
pub struct Pending {
    flush: Flush,
    bytes: usize,
    messages: Vec<Message>,
    template: Progress,
    /// The end of the last complete transaction, if it is not yet part of a progress record.
    boundary: Option<EndLsn>,
    /// The end that the last progress record told.
    told: EndLsn,
    /// What the last keepalive said: the server has sent everything before. (Other messages tell more of the WAL than
    /// what was sent.)
    quiet_until: EndLsn,
}

impl Pending {
    /// Nothing read yet; everything before `from` is in the log.
    pub fn new(log: LogId, timeline: Timeline, from: EndLsn) -> Self {
        let template =
            Progress { version: 1, log, timeline, end: from, committed_us: 0, messages: Vec::new() };
        Self {
            flush: Flush::default(),
            bytes: 0,
            messages: Vec::new(),
            template,
            boundary: None,
            told: from,
            quiet_until: from,
        }
    }

    /// Whether a flush could end here with a progress record.
    pub fn is_whole(&self, in_transaction: bool) -> bool {
        self.boundary.is_some() && !in_transaction
    }

    /// When the newest complete transaction committed: microseconds since 1970 by the source's clock; 0 before the first.
    pub fn committed_us(&self) -> i64 {
        self.template.committed_us
    }

    /// What the writer gets next; with a progress record where a transaction ends.
    pub fn take(&mut self, in_transaction: bool) -> Flush {
        let mut flush = std::mem::take(&mut self.flush);
        self.bytes = 0;
        if let (Some(end), false) = (self.boundary, in_transaction) {
            self.boundary = None;
            self.told = end;
            let messages = std::mem::take(&mut self.messages);
            flush.progress = Some(Progress { end, messages, ..self.template.clone() });
        }
        flush
    }

    /// Whether it holds as much as a flush may.
    pub fn is_full(&self) -> bool {
        self.bytes >= FLUSH_BYTES_MAX
    }

    /// Takes a change in.
    pub fn push(&mut self, change: Change) {
        self.bytes += change.size();
        self.flush.changes.push(change);
    }

    /// Takes one of our logical messages in.
    pub fn note(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// A transaction is complete.
    pub fn committed(&mut self, end: EndLsn, committed_us: i64) {
        self.boundary = Some(end);
        self.template.committed_us = committed_us;
    }

    /// A keepalive said that everything before `end` was sent.
    pub fn sent_until(&mut self, end: EndLsn) {
        self.quiet_until = end;
    }

    /// With nothing in flight, everything the server has sent is passed: it is written and then confirmed, so that WAL
    /// of other tables is not kept.
    pub fn idle(&mut self, in_transaction: bool) {
        if !in_transaction && self.boundary.is_none() && self.quiet_until > self.told {
            self.boundary = Some(self.quiet_until);
        }
    }
}

/// The stream's columns with the catalog's facts. The catalog may be younger than the stream: a column that it no
/// longer has is carried as unsupported, and stops only the slices that use it.
pub fn joined(table: TableName, wire: WireRelation, facts: Option<Relation>) -> Relation {
    let facts = facts.map(|relation| relation.columns).unwrap_or_default();
    let column = |name: &String| {
        facts.iter().find(|column| column.name == *name).cloned().unwrap_or_else(|| Column {
            name: name.clone(),
            kind: ColumnType::Unsupported("column that is gone by now".to_owned()),
            is_key: false,
            nullable: true,
        })
    };
    let columns = wire.columns.iter().map(|wire| column(&wire.name)).collect();
    Relation { table, identity: wire.identity, columns }
}
