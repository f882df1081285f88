//! Partitions back into one stream: changes by position, up to what a progress record promises. Pure.
//!
//! Every partition's records rise in position, but for what a later writer repeats. A change may be delivered when no
//! partition can still have an earlier one: when each partition of which the record promises more than was received
//! has a change waiting.

use super::record::{ProgressRecord, Sent};
use crate::log::contract::BATCH_BYTES_MAX;
use migrations::lsn::{EndLsn, Position};
use rows::change::Change;
use rows::progress::Message;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A partition reads no further ahead than this many bytes of changes of its own (one change at least).
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// The partitions of a reader, by the order in which they were added.
#[derive(Debug)]
pub(crate) struct Merge {
    partitions: Vec<Partition>,
    /// The first waiting change of each partition that has one.
    heads: BinaryHeap<Reverse<(Position, usize)>>,
    /// The end of the last record whose changes were all delivered.
    pub(crate) end: EndLsn,
    delivered: Position,
}

#[derive(Debug)]
struct Partition {
    waiting: VecDeque<(i64, Change)>,
    waiting_bytes: usize,
    /// The next record to receive.
    next: i64,
    /// The last change received, waiting or not.
    reached: Position,
    promised: Position,
}

impl Partition {
    /// More was promised than was received, and nothing is waiting.
    fn is_starving(&self) -> bool {
        self.reached < self.promised && self.waiting.is_empty()
    }
}

impl Merge {
    /// No partition yet; changes before `end` are known.
    pub(crate) fn new(end: EndLsn) -> Self {
        Self { partitions: Vec::new(), heads: BinaryHeap::new(), end, delivered: Position::default() }
    }

    /// Adds a partition that will be received from an offset on; its number.
    pub(crate) fn add(&mut self, offset: i64) -> usize {
        self.partitions.push(Partition {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            next: offset,
            reached: Position::default(),
            promised: Position::default(),
        });
        self.partitions.len() - 1
    }

    /// How many partitions there are.
    pub(crate) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Whether a record at this position is needed at all, or was seen before.
    pub(crate) fn is_new(&self, index: usize, position: Position) -> bool {
        position > self.partitions[index].reached && !self.end.is_past(position.commit)
    }

    /// A record of a partition was received: a new change, or one that changes nothing.
    pub(crate) fn receive(&mut self, index: usize, offset: i64, change: Option<Change>) {
        let partition = &mut self.partitions[index];
        partition.next = offset + 1;
        let Some(change) = change else { return };
        partition.reached = change.position;
        if partition.waiting.is_empty() {
            self.heads.push(Reverse((change.position, index)));
        }
        partition.waiting_bytes += change.size();
        partition.waiting.push_back((offset, change));
    }

    /// What a record promises of a partition.
    pub(crate) fn promise(&mut self, index: usize, sent: Sent) {
        let known = self.end.is_past(sent.last.commit);
        self.partitions[index].promised = if known { Position::default() } else { sent.last };
    }

    /// Whether a partition is to be received from now: it is awaited, or may read ahead.
    pub(crate) fn wants(&self, index: usize) -> bool {
        let partition = &self.partitions[index];
        partition.reached < partition.promised && partition.waiting_bytes < AHEAD_BYTES_MAX
    }

    /// Whether a partition that has nothing waiting was promised more.
    pub(crate) fn is_starving(&self) -> bool {
        self.partitions.iter().any(Partition::is_starving)
    }

    /// Moves changes that lie before `end` into `batch` until a partition starves or the batch is full; true when
    /// all that lie before `end` have been moved.
    pub(crate) fn advance(&mut self, end: EndLsn, batch: &mut Growing) -> bool {
        if self.is_starving() {
            return false;
        }
        while batch.bytes < BATCH_BYTES_MAX {
            let Some(Reverse((position, index))) = self.heads.peek().copied() else { return true };
            if !end.is_past(position.commit) {
                return true;
            }
            self.heads.pop();
            self.take(index, position, batch);
            if self.partitions[index].is_starving() {
                return false;
            }
        }
        false
    }

    fn take(&mut self, index: usize, position: Position, batch: &mut Growing) {
        let partition = &mut self.partitions[index];
        let Some((_, change)) = partition.waiting.pop_front() else { return };
        partition.waiting_bytes -= change.size();
        if let Some((_, next)) = partition.waiting.front() {
            self.heads.push(Reverse((next.position, index)));
        }
        // The same change may be in two partitions if their number was changed between two writers.
        if position > self.delivered {
            self.delivered = position;
            batch.bytes += change.size();
            batch.changes.push(change);
        }
    }

    /// Where each partition is to be received from by a reader that has what was delivered so far.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = i64> {
        self.partitions
            .iter()
            .map(|partition| partition.waiting.front().map_or(partition.next, |(offset, _)| *offset))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Growing {
    pub(crate) changes: Vec<Change>,
    pub(crate) bytes: usize,
    pub(crate) messages: Vec<Message>,
}

impl Growing {
    pub(crate) fn append(&mut self, mut later: Growing) {
        self.bytes += later.bytes;
        self.changes.append(&mut later.changes);
        self.messages.append(&mut later.messages);
    }

    /// The messages of a record, but those that an earlier one had.
    pub(crate) fn take_messages(&mut self, record: &mut ProgressRecord, known: EndLsn) {
        let new = std::mem::take(&mut record.progress.messages).into_iter();
        self.messages.extend(new.filter(|message| !known.is_past(message.position.commit)));
    }
}
