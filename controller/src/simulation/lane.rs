//! A lane's next change, played: read from its source's stream, and applied in its sink together with the lane's place.

use super::Mutant;
use super::database::{Change, Databases};
use migrations::control::{Began, Condition, LaneOrder, LaneReport};
use migrations::crossing::Moment;
use migrations::gate::{Act, Side};
use migrations::journal::Generation;
use migrations::lane::{Direction, Right};
use migrations::lsn::EndLsn;
use migrations::stage::Epoch;

/// What the sink keeps of a lane.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lane {
    /// How much of the source's stream it has passed.
    pub(super) place: usize,
    pub(super) attempt: Generation,
    began: usize,
    fenced: Option<Epoch>,
    opened: Option<Epoch>,
    foreign: u64,
}

pub(super) fn source(direction: Direction) -> Side {
    match direction {
        Direction::Forward => Side::Monolith,
        Direction::Reverse => Side::Service,
    }
}

impl Databases {
    /// Whether a lane has something to do, as far as can be seen without asking its sink.
    pub(super) fn is_waiting(&mut self, direction: Direction, order: &LaneOrder) -> bool {
        let end = self.tables(source(direction)).stream.len();
        match self.lanes.get(&direction) {
            None => order.right != Right::Rest,
            Some(lane) => {
                order.right == Right::Rest
                    || lane.place < end
                    || direction == Direction::Reverse && lane.attempt != order.attempt
            }
        }
    }

    /// Does what the order says with up to so many changes. Whether the lane came on.
    pub(super) fn lane(
        &mut self,
        now: Moment,
        direction: Direction,
        order: &LaneOrder,
        changes: usize,
    ) -> bool {
        if order.right == Right::Rest {
            return self.lanes.remove(&direction).is_some();
        }
        let kept = self.lanes.get(&direction).copied();
        let is_other = |lane: &Lane| direction == Direction::Reverse && lane.attempt != order.attempt;
        let Some(mut lane) = kept.filter(|lane| !is_other(lane)) else {
            return self.begin_back(direction, order);
        };
        let before = lane.place;
        for _ in 0..changes {
            if !self.pass(now, direction, order, &mut lane) {
                break;
            }
        }
        self.lanes.insert(direction, lane);
        lane.place > before
    }

    /// The way back begins while the service's gate is shut: everything that the service writes comes after.
    fn begin_back(&mut self, direction: Direction, order: &LaneOrder) -> bool {
        if order.stage.is_at_service() {
            self.breaks(format!("I6: the lane {direction} has no place, and the slice is {:?}", order.stage));
            return false;
        }
        if self.is_open(source(direction)) {
            return false;
        }
        let place = self.tables(source(direction)).stream.len();
        let lane = Lane { place, began: place + 1, attempt: order.attempt, ..Lane::default() };
        self.lanes.insert(direction, lane);
        true
    }

    /// Passes one change, if the lane may.
    fn pass(&mut self, now: Moment, direction: Direction, order: &LaneOrder, lane: &mut Lane) -> bool {
        let from = source(direction);
        let Some((_, change)) = self.tables(from).stream.get(lane.place).copied() else { return false };
        let ignores_direction = self.mutant == Some(Mutant::NoDirection);
        match (change, order.right) {
            (Change::Turn { epoch, is_shut: true }, _) => lane.fenced = lane.fenced.max(Some(epoch)),
            (Change::Turn { epoch, .. }, _) => lane.opened = lane.opened.max(Some(epoch)),
            (Change::Lane(..), _) if !ignores_direction => {}
            (Change::Client(write) | Change::Lane(_, write), Right::Apply(epoch)) => {
                if !self.may_apply(now, from.other(), epoch) {
                    return false;
                }
                if !self.tables(from.other()).put(now, Change::Lane(direction, write)) {
                    self.breaks(format!("I7: write {} came back to the {}", write.number, from.other()));
                }
            }
            // After an opening it is the owner's: the lane waits for the right to apply it.
            _ if lane.opened >= lane.fenced && (from == Side::Monolith || lane.opened.is_some()) => {
                return false;
            }
            _ => {
                lane.foreign += 1;
                if self.mutant.is_none() {
                    self.breaks(format!("I1: someone wrote to the {from} while it was shut"));
                }
            }
        }
        lane.place += 1;
        true
    }

    /// An applier raises a shut gate to its own epoch, and writes only under it.
    fn may_apply(&mut self, now: Moment, sink: Side, epoch: Epoch) -> bool {
        let gate = self.gate(sink).unwrap_or_default();
        if gate.is_shut && gate.epoch < epoch && self.turn(now, sink, Act::Raise(epoch)).is_err() {
            return false;
        }
        self.gate(sink).is_some_and(|gate| gate.lets_apply(epoch))
    }

    /// What the bridge reports of a lane.
    pub(super) fn report(&mut self, now: Moment, direction: Direction) -> LaneReport {
        let lane = self.lanes.get(&direction).copied();
        let oldest = lane.and_then(|lane| {
            let stream = &self.tables(source(direction)).stream;
            let own = |(_, change): &&(Moment, Change)| matches!(change, Change::Client(_));
            stream.iter().skip(lane.place).find(own).map(|(at, _)| *at)
        });
        let lag = oldest.map_or(0, |at| now.since(at).as_millis());
        LaneReport {
            lag_ms: Some(u64::try_from(lag).unwrap()),
            foreign: lane.map_or(0, |lane| lane.foreign),
            fenced: lane.and_then(|lane| lane.fenced),
            began: lane
                .filter(|_| direction == Direction::Reverse)
                .map(|lane| Began { attempt: lane.attempt, at: EndLsn(lane.began as u64) }),
            ..LaneReport::caught_up(if lane.is_some() { Condition::Following } else { Condition::Idle })
        }
    }
}
