//! What a lane sees of tables that it only watches: whose writes they are.
//!
//! The gate says so in the stream itself: between a fence and the next opening nobody may write but strangler. What the
//! new owner writes after that may come before the bridge is told of the right to apply it. Pure.

use super::plan::LanePlan;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lane::{Direction, Turn};
use migrations::lsn::Position;
use migrations::names::TableName;
use migrations::stage::Epoch;
use rows::change::Change;
use serde::{Deserialize, Serialize};

/// The last turns of the gate of a lane's source that the lane has passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Border {
    pub(crate) fenced: Option<Epoch>,
    pub(crate) opened: Option<Epoch>,
}

impl Border {
    fn pass(&mut self, turn: &Turn) {
        let last = if turn.is_shut { &mut self.fenced } else { &mut self.opened };
        *last = (*last).max(Some(turn.epoch));
    }

    /// Whether the source's own application may write. A lane back begins while it may not.
    fn is_open(self, direction: Direction) -> bool {
        self.opened >= self.fenced && (direction == Direction::Forward || self.opened.is_some())
    }
}

/// Tells the writes of others from those of the owner.
#[derive(Debug)]
pub(crate) struct Watch {
    direction: Direction,
    pub(crate) border: Border,
    /// What was found so far and nobody has settled.
    pub(crate) foreign: Option<Foreign>,
    /// Transactions that are not judged yet: the turns among them come with the next record.
    pending: Vec<Foreign>,
}

impl Watch {
    pub(crate) fn new(direction: Direction, border: Border, foreign: Option<Foreign>) -> Watch {
        Watch { direction, border, foreign, pending: Vec::new() }
    }

    /// Changes of watched tables that no lane of ours made, in their order.
    pub(crate) fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let (table, position) = (change.relation.table.clone(), change.position);
            let one = Foreign { count: 1, table, first: position, last: position };
            match self.pending.last_mut() {
                Some(last) if last.last.commit == position.commit => *last = last.and(&one),
                _ => self.pending.push(one),
            }
        }
    }

    /// A record was reached, and these turns with it. What of the changes before it is of others is counted; whether
    /// others are the owner's.
    pub(crate) fn judge(&mut self, mut turns: Vec<(Position, Turn)>) -> Judged {
        turns.sort_by_key(|(position, _)| *position);
        let mut turns = turns.into_iter().peekable();
        let mut judged = Judged::default();
        for found in std::mem::take(&mut self.pending) {
            while let Some((_, turn)) = turns.next_if(|(position, _)| *position < found.first) {
                self.border.pass(&turn);
            }
            if self.border.is_open(self.direction) {
                judged.has_own = true;
            } else {
                let earlier = judged.foreign.take();
                judged.foreign = Some(earlier.map_or(found.clone(), |earlier| earlier.and(&found)));
            }
        }
        turns.for_each(|(_, turn)| self.border.pass(&turn));
        if let Some(found) = &judged.foreign {
            self.foreign = Some(self.foreign.take().map_or(found.clone(), |earlier| earlier.and(found)));
        }
        judged
    }
}

/// What a lane that watches found up to a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) foreign: Option<Foreign>,
    /// The owner has written: the lane waits for the right to apply it.
    pub(crate) has_own: bool,
}

/// Writes of others, from the first to the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Foreign {
    pub(crate) count: u64,
    /// The first one's table.
    pub(crate) table: TableName,
    pub(crate) first: Position,
    pub(crate) last: Position,
}

impl Foreign {
    /// Both, where `later` was found after this.
    fn and(&self, later: &Foreign) -> Foreign {
        Foreign { count: self.count + later.count, last: later.last, ..self.clone() }
    }

    /// What a lane reports while it watches.
    pub(crate) fn alarm(&self, plan: &LanePlan) -> Finding {
        let slice = &plan.id.slice;
        let owner = match plan.id.direction {
            Direction::Forward => format!("service {}", plan.slice.service),
            Direction::Reverse => "the monolith".to_owned(),
        };
        Finding::error(
            Code::SliceForeignWrites,
            format!("{} while {owner} owns it", self.told(plan)),
            format!(
                "find the writer with `strangler writers {slice}` and stop it; then compare both sides: `strangler verify \
                 {slice}`"
            ),
        )
    }

    /// What stops a lane that may apply again: the changes were made to what another owner wrote at the same time.
    pub(crate) fn unsettled(&self, plan: &LanePlan) -> Finding {
        let slice = &plan.id.slice;
        Finding::error(
            Code::SliceForeignWrites,
            format!(
                "{} while service {} owned it, so both sides may differ",
                self.told(plan),
                plan.slice.service
            ),
            format!(
                "copy the slice again: `strangler sync drop {slice}`, then `strangler sync start {slice}`; or go on with what \
                 there is, `strangler sync resume {slice} --skip {}`, and then compare and repair: `strangler verify {slice} \
                 --repair`",
                self.last
            ),
        )
    }

    fn told(&self, plan: &LanePlan) -> String {
        let Foreign { count, table, first, last } = self;
        format!(
            "{count} change(s) of slice {} in {} were not made by strangler (from {first} of table {table} to {last})",
            plan.id.slice, plan.feed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::lsn::CommitLsn;
    use rows::change::{Operation, Relation, ReplicaIdentity, Transaction};
    use std::sync::Arc;

    fn at(commit: u64) -> Position {
        Position { commit: CommitLsn(commit), ordinal: 1 }
    }

    fn change(commit: u64) -> Change {
        let table = "public.orders".parse().unwrap();
        let relation = Relation { table, identity: ReplicaIdentity::Default, columns: Vec::new() };
        Change {
            position: at(commit),
            lsn: 0,
            transaction: Transaction { xid: 1, committed_us: 0 },
            relation: Arc::new(relation),
            mark: None,
            operation: Operation::Truncate,
        }
    }

    fn turn(commit: u64, epoch: u64, is_shut: bool) -> (Position, Turn) {
        (at(commit), Turn { slice: "orders".parse().unwrap(), epoch: Epoch(epoch), is_shut })
    }

    fn found(judged: &Judged) -> (u64, bool) {
        (judged.foreign.as_ref().map_or(0, |foreign| foreign.count), judged.has_own)
    }

    #[test]
    fn between_a_fence_and_an_opening_every_write_is_foreign_and_after_it_none_is() {
        let mut watch = Watch::new(Direction::Forward, Border::default(), None);
        watch.take([10, 30, 50].map(change));
        let judged = watch.judge(vec![turn(40, 2, false), turn(20, 1, true)]);
        assert_eq!(found(&judged), (1, true));
        assert_eq!((at(30), at(30)), judged.foreign.map(|foreign| (foreign.first, foreign.last)).unwrap());
        // A part of a record has no turns yet, so it waits for them.
        watch.take([60, 70].map(change));
        watch.take([70, 80].map(change));
        assert_eq!(found(&watch.judge(vec![turn(65, 3, true)])), (3, true));
        assert_eq!(watch.foreign.as_ref().map(|foreign| (foreign.count, foreign.first)), Some((4, at(30))));
        assert_eq!(watch.border, Border { fenced: Some(Epoch(3)), opened: Some(Epoch(2)) });
        assert_eq!(watch.judge(Vec::new()), Judged::default());
    }

    #[test]
    fn a_service_owns_nothing_before_its_gate_was_opened() {
        let mut watch = Watch::new(Direction::Reverse, Border::default(), None);
        watch.take([10, 30].map(change));
        assert_eq!(found(&watch.judge(vec![turn(20, 1, false)])), (1, true));
    }
}
