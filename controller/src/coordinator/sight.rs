//! What a coordinator has seen of a slice in its present place. A new place, and nothing of it counts any more.

use crate::agents::Agents;
use crate::place::Place;
use migrations::control::{Condition, LaneReport};
use migrations::crossing::{Digest, Moment};
use migrations::cutover::{Compared, LaneSeen, Seen};
use migrations::gate::{Gate, Side};
use migrations::journal::{Generation, SliceState, State};
use migrations::lane::Direction;
use migrations::names::SliceName;
use migrations::plan::Plan;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Sight {
    pub(super) place: Option<Place>,
    /// When this coordinator saw the slice come here; none if it found it here.
    pub(super) since: Option<Instant>,
    /// The journal's length when it was first seen here: whoever acts on that, or on more, knows.
    arrived: Generation,
    foreign: Foreign,
    pub(super) monolith: Option<Gate>,
    pub(super) service: Option<Gate>,
    pub(super) ready: Option<Digest>,
    pub(super) is_reserved: bool,
    /// Whether all that can be was made ready for a rollback.
    pub(super) is_made_ready: bool,
    pub(super) compared: Option<Compared>,
    pub(super) is_numbered: bool,
    pub(super) failed: Option<String>,
    /// How often the present step was tried, and why it was not done.
    pub(super) tries: u32,
    pub(super) trouble: Option<String>,
}

/// Foreign writes are counted since the bridge's start; what was there before the crossing is none of its own.
#[derive(Debug, Clone, Copy, Default)]
struct Foreign {
    before: u64,
    last: u64,
    during: u64,
}

impl Foreign {
    fn since(counted: u64) -> Foreign {
        Foreign { before: counted, last: counted, during: 0 }
    }

    /// A count that fell is another bridge's, which began at nothing.
    fn count(&mut self, counted: u64) -> u64 {
        if counted < self.last {
            self.before = 0;
        }
        self.last = counted;
        self.during = self.during.max(counted.saturating_sub(self.before));
        self.during
    }
}

type Lanes = BTreeMap<Direction, LaneReport>;

impl Sight {
    /// The slice came to a place, or was found there.
    pub(super) fn enter(&mut self, place: Place, since: Option<Instant>, state: &State, lanes: &Lanes) {
        let goes_on = self.place.is_some_and(|before| before.is_preparing) && since.is_some();
        let reverse = lanes.get(&Direction::Reverse).map_or(0, |lane| lane.foreign);
        *self = Sight {
            place: Some(place),
            since,
            arrived: state.generation,
            // Whoever wrote while the cutover was prepared wrote into it.
            foreign: if goes_on { self.foreign } else { Foreign::since(reverse) },
            is_reserved: goes_on && self.is_reserved,
            ..Sight::default()
        };
    }

    /// Whether the crossing is decided, and only the release is left.
    pub(super) fn is_decided(&self) -> bool {
        self.place.is_some_and(|place| place.is_held && !matches!(place.stage, "cutting" | "returning"))
    }

    pub(super) fn gate(&mut self, side: Side) -> &mut Option<Gate> {
        match side {
            Side::Monolith => &mut self.monolith,
            Side::Service => &mut self.service,
        }
    }

    pub(super) fn seen(
        &mut self,
        plan: &Plan,
        agents: &Agents,
        name: &SliceName,
        (state, slice): (&State, &SliceState),
        moment: impl Fn(Instant) -> Moment,
    ) -> Seen {
        let lanes = agents.lanes(name);
        let mut reverse = lane(lanes.get(&Direction::Reverse), slice);
        reverse.foreign = self.foreign.count(reverse.foreign);
        let generations = self.arrived..=state.generation;
        let epoch = slice.hold.map(|hold| hold.epoch);
        Seen {
            plan: plan.hash.parse().unwrap_or_default(),
            since: self.since.map(moment),
            ready: self.ready,
            is_reserved: self.is_reserved,
            monolith: self.monolith,
            service: self.service,
            proxies: agents.proxies(state.journal, &generations, &plan.hash, (name, epoch)),
            forward: lane(lanes.get(&Direction::Forward), slice),
            reverse,
            compared: self.compared,
            is_numbered: self.is_numbered,
            failed: self.failed.clone(),
        }
    }
}

/// A lane as its bridge reports it; none is one that does not follow. What it keeps for an earlier way back counts for
/// nothing.
pub(crate) fn lane(report: Option<&LaneReport>, state: &SliceState) -> LaneSeen {
    let Some(report) = report else { return LaneSeen::default() };
    LaneSeen {
        is_following: matches!(report.condition, Condition::Following),
        is_broken: matches!(report.condition, Condition::Stopped { .. } | Condition::Lost { .. }),
        // What nobody knows is not within any bound.
        lag: report.lag_ms.map_or(Duration::MAX, Duration::from_millis),
        fenced: report.fenced,
        foreign: report.foreign,
        began: report.began.filter(|began| began.attempt == state.way_back).map(|began| began.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_during_the_crossing_counts_as_foreign() {
        let mut foreign = Foreign::since(7);
        assert_eq!([7, 7, 9].map(|counted| foreign.count(counted)), [0, 0, 2]);
        assert_eq!(foreign.count(0), 2, "another bridge counts anew, and takes nothing back");
        assert_eq!(foreign.count(3), 3);
    }
}
