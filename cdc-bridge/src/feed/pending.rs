//! What a session has read and the log has not: flushes that end with a progress record wherever a transaction ends.
//!
//! Pure; the session fills it and the writer empties it.

use crate::log::Flush;
use migrations::lsn::EndLsn;
use rows::change::Change;
use rows::progress::{Membership, Message, Progress, Seals};
use std::collections::BTreeSet;

/// A flush is closed after this many bytes of changes.
const FLUSH_BYTES_MAX: usize = 1 << 20;

/// … or after this many bytes were read since its first change. A change is a slice of the block that it was read with:
/// a few wanted rows among many others would keep all those blocks in memory.
const READ_BYTES_MAX: usize = 8 << 20;

/// What was read and not yet handed to the writer.
#[derive(Debug)]
pub(crate) struct Pending {
    flush: Flush,
    bytes: usize,
    /// What was read since the first pending change, in bytes.
    read: usize,
    messages: Vec<Message>,
    template: Progress,
    /// The tables whose changes are not kept now.
    missing: BTreeSet<Membership>,
    /// Those of which something may be missing in the transactions that have ended, and in the open one.
    missed: [BTreeSet<Membership>; 2],
    /// The last complete transaction, if it is not yet part of a progress record.
    boundary: Option<Boundary>,
    /// The end in the last progress record.
    told: EndLsn,
    /// What the last keepalive said: the server has sent everything before. (Other messages
    /// speak of WAL that was not sent yet.)
    quiet_until: EndLsn,
}

/// Where a transaction ended, and how much of what is pending belongs to it and those before.
#[derive(Debug, Clone, Copy)]
struct Boundary {
    end: EndLsn,
    changes: usize,
    bytes: usize,
    messages: usize,
}

impl Pending {
    /// Nothing read yet; the log is as this record says, and what follows it captures what the record does.
    pub(crate) fn new(begins: Progress) -> Self {
        Self {
            flush: Flush::default(),
            bytes: 0,
            read: 0,
            messages: Vec::new(),
            missing: BTreeSet::new(),
            missed: Default::default(),
            boundary: None,
            told: begins.end,
            quiet_until: begins.end,
            template: begins,
        }
    }

    pub(crate) fn seals(&self) -> Option<&Seals> {
        self.template.seals.as_ref()
    }

    /// The records from now on have these seals: those that end after the place that is returned.
    pub(crate) fn seal(&mut self, seals: Seals) -> EndLsn {
        self.template.seals = Some(seals);
        self.told
    }

    /// Whether a flush could end with a progress record.
    pub(crate) fn has_boundary(&self) -> bool {
        self.boundary.is_some()
    }

    /// What the writer gets next: everything up to the last transaction's end, with a progress record; or, where none
    /// has ended since, a part of the one that is open.
    pub(crate) fn take(&mut self) -> Flush {
        self.read = 0;
        let Some(boundary) = self.boundary.take() else {
            self.bytes = 0;
            return std::mem::take(&mut self.flush);
        };
        let open = self.flush.changes.split_off(boundary.changes);
        let mut flush = std::mem::replace(&mut self.flush, Flush { changes: open, progress: None });
        self.bytes -= boundary.bytes;
        self.told = boundary.end;
        let open = self.messages.split_off(boundary.messages);
        let messages = std::mem::replace(&mut self.messages, open);
        let mut captured = self.template.captured.clone();
        captured.retain(|one| self.missed.iter().all(|missed| !missed.contains(one)));
        self.missed[0].clear();
        flush.progress = Some(Progress { end: boundary.end, messages, captured, ..self.template.clone() });
        flush
    }

    /// Whether it holds as much as a flush may.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= FLUSH_BYTES_MAX || self.read >= READ_BYTES_MAX
    }

    /// This many bytes were read, wanted or not.
    pub(crate) fn passed(&mut self, bytes: usize) {
        if !self.flush.changes.is_empty() {
            self.read += bytes;
        }
    }

    pub(crate) fn push(&mut self, change: Change) {
        self.bytes += change.size();
        self.flush.changes.push(change);
    }

    /// From here on changes of a table are kept, or not. Each record that covers one that is not says so.
    pub(crate) fn keeps(&mut self, table: Membership, is_kept: bool) {
        if is_kept {
            self.missing.remove(&table);
        } else {
            self.missing.insert(table);
            self.missed[1].insert(table);
        }
    }

    pub(crate) fn note(&mut self, message: Message) {
        self.messages.push(message);
    }

    pub(crate) fn committed(&mut self, end: EndLsn, committed_us: i64) {
        self.template.committed_us = committed_us;
        let [ended, open] = &mut self.missed;
        ended.append(open);
        open.clone_from(&self.missing);
        self.end_at(end);
    }

    pub(crate) fn sent_until(&mut self, end: EndLsn) {
        self.quiet_until = end;
    }

    /// With nothing in flight, everything the server has sent is passed: it is written and then confirmed, so that WAL
    /// of other tables is not kept.
    pub(crate) fn idle(&mut self, in_transaction: bool) {
        if !in_transaction && self.boundary.is_none() && self.quiet_until > self.told {
            self.end_at(self.quiet_until);
        }
    }

    fn end_at(&mut self, end: EndLsn) {
        let (changes, messages) = (self.flush.changes.len(), self.messages.len());
        self.boundary = Some(Boundary { end, changes, bytes: self.bytes, messages });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::lsn::{CommitLsn, Position, Timeline};
    use proptest::prelude::*;
    use rows::change::{Operation, Relation, ReplicaIdentity, Transaction};
    use rows::progress::LogId;
    use std::sync::Arc;

    fn pending() -> Pending {
        Pending::new(Progress {
            version: 1,
            log: LogId("log".into()),
            timeline: Timeline { system_id: "1".into(), timeline: 1 },
            end: EndLsn(0),
            committed_us: 0,
            messages: vec![],
            captured: [Membership(7)].into(),
            seals: None,
        })
    }

    fn change(commit: u64, ordinal: u64) -> Change {
        let relation =
            Relation { table: "t".parse().unwrap(), identity: ReplicaIdentity::Default, columns: Vec::new() };
        Change {
            position: Position { commit: CommitLsn(commit), ordinal },
            lsn: 0,
            transaction: Transaction { xid: 1, committed_us: 0 },
            relation: Arc::new(relation),
            mark: None,
            operation: Operation::Truncate,
        }
    }

    fn message(commit: u64, ordinal: u64) -> Message {
        let position = Position { commit: CommitLsn(commit), ordinal };
        Message { position, prefix: "strangler.barrier".into(), content: String::new() }
    }

    #[test]
    fn a_record_says_of_which_tables_changes_are_missing_until_it() {
        let mut pending = pending();
        let captured = |pending: &mut Pending, end| {
            pending.committed(EndLsn(end), 0);
            !pending.take().progress.unwrap().captured.is_empty()
        };
        assert!(captured(&mut pending, 10));
        pending.keeps(Membership(7), false);
        assert!(!captured(&mut pending, 20));
        assert!(!captured(&mut pending, 30), "it is missing still");
        pending.keeps(Membership(7), true);
        assert!(!captured(&mut pending, 40), "it was missing when the transaction began");
        assert!(captured(&mut pending, 50));
        // A record for what ended before does not settle what the open transaction lacks.
        pending.committed(EndLsn(60), 0);
        pending.keeps(Membership(7), false);
        pending.keeps(Membership(7), true);
        assert!(pending.take().progress.unwrap().captured.is_empty());
        assert!(!captured(&mut pending, 70));
    }

    proptest! {
        /// Wherever flushes are taken, a record comes exactly after the transactions that it speaks of, and every change
        /// and message comes once and in order.
        #[test]
        fn records_stand_where_transactions_end(script in prop::collection::vec((0usize..4, 0usize..3, any::<bool>(), any::<bool>()), 1..40)) {
            let (mut pending, mut flushes, mut written) = (pending(), Vec::new(), Vec::new());
            for (n, (changes, messages, inside, behind)) in script.into_iter().enumerate() {
                let commit = (n as u64 + 1) * 10;
                for ordinal in 0..changes as u64 {
                    pending.push(change(commit, ordinal));
                    written.push(Position { commit: CommitLsn(commit), ordinal });
                    if inside {
                        flushes.push(pending.take());
                    }
                }
                (0..messages as u64).for_each(|ordinal| pending.note(message(commit, 100 + ordinal)));
                if inside {
                    flushes.push(pending.take());
                }
                pending.committed(EndLsn(commit + 5), 0);
                if behind {
                    flushes.push(pending.take());
                }
            }
            flushes.push(pending.take());
            let mut seen = Vec::new();
            for flush in flushes {
                seen.extend(flush.changes.iter().map(|change| change.position));
                let Some(progress) = flush.progress else { continue };
                let told = |commit: CommitLsn| commit.0 + 5 <= progress.end.0;
                prop_assert_eq!(&progress.captured, &[Membership(7)].into());
                prop_assert!(seen.iter().all(|position| told(position.commit)));
                prop_assert!(progress.messages.iter().all(|message| told(message.position.commit)));
                let all = written.iter().filter(|position| told(position.commit)).count();
                prop_assert_eq!(seen.len(), all);
            }
            prop_assert_eq!(seen, written);
        }
    }
}
