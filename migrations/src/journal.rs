//! The journal: an append-only record of what was decided, and the state that it folds to.
//!
//! Stores (a Postgres table, a file) live elsewhere; here is what an entry means and which entry may follow.

use crate::crossing::Preparing;
use crate::lsn::{Monolith, Of, Position};
use crate::names::{RouteName, SliceName};
use crate::share::Share;
use crate::stage::{Epoch, Event, Hold, IllegalMove, Owner, Stage};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Names a journal. A new journal has a new id, so an agent never compares the generations of two journals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JournalId(pub Uuid);

/// The journal's length. 0 is the empty journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place, from 1, without gaps.
    pub generation: Generation,
    /// When it was written, by the store's clock: RFC 3339, UTC.
    pub at: String,
    /// Who asked: a user at a host, or a part of strangler.
    pub actor: String,
    /// Why, in the asker's words; may be empty.
    pub reason: String,
    pub slice: SliceName,
    #[serde(flatten)]
    pub event: Event,
}

/// Where a slice stands, folded from its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceState {
    pub stage: Stage,
    /// The highest epoch it has had.
    pub epoch: Epoch,
    /// Which copy this is: the generation of the entry that began it. A report about another attempt is stale.
    pub attempt: Generation,
    /// A cutover or a rehearsal that is being prepared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preparing: Option<Preparing>,
    /// Which way back this is: the generation of the entry that wanted it. A report about another one is stale.
    #[serde(default)]
    pub way_back: Generation,
    /// Writes wait at the proxies: from the start of a crossing until the owner's gate is open and the proxies know.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<Hold>,
    /// Shares that differ from `monolith`, per route.
    pub shares: BTreeMap<RouteName, Share>,
    pub paused: bool,
    /// Changes that the operator chose to leave out.
    pub skips: BTreeSet<Of<Monolith, Position>>,
    /// Whether the operator let this copy empty tables that hold rows of others.
    pub replace: bool,
}

impl SliceState {
    /// The share of a route's reads that goes to the service in the slice's present stage.
    pub fn share(&self, route: &RouteName) -> Share {
        if self.stage.is_at_service() {
            return Share::SERVICE;
        }
        self.shares.get(route).copied().unwrap_or_default()
    }

    /// Whether the service's changes are kept for a way back.
    pub fn has_way_back(&self) -> bool {
        self.preparing.is_some()
            || matches!(self.stage, Stage::Cutting { .. } | Stage::Split { .. } | Stage::Returning { .. })
    }

    /// Whether a coordinator has something to do: a crossing is prepared, under way, or not yet released.
    pub fn is_crossing(&self) -> bool {
        self.preparing.is_some() || self.hold.is_some()
    }

    /// The state after `event`, were it written at `generation`.
    pub fn after(&self, generation: Generation, event: &Event) -> Result<SliceState, IllegalMove> {
        let mut next = self.clone();
        next.stage = self.stage.after(event)?;
        self.fits(event)?;
        next.epoch = event.check_epoch(self.epoch)?;
        match event {
            Event::SyncStarted { .. } | Event::Evicted { .. } => {
                next.attempt = generation;
                next.shares.clear();
                next.skips.clear();
                next.preparing = None;
                // It was said of one copy, and of the tables that the plan had then.
                next.replace = matches!(event, Event::SyncStarted { replace: true });
            }
            Event::SyncDropped => {
                next = SliceState { epoch: next.epoch, stage: next.stage, ..SliceState::default() }
            }
            Event::Shared { routes } => {
                next.shares.extend(routes.iter().map(|(route, share)| (route.clone(), *share)));
                next.shares.retain(|_, share| *share != Share::MONOLITH);
            }
            Event::Paused => next.paused = true,
            Event::Resumed { skip } => {
                next.paused = false;
                next.skips.extend(skip);
            }
            Event::CutoverPrepared { preparing } => {
                next.preparing = Some(*preparing);
                next.way_back = generation;
            }
            Event::CutoverStarted { epoch, until, .. } | Event::RollbackStarted { epoch, until } => {
                next.preparing = None;
                next.hold = Some(Hold { epoch: *epoch, until: *until });
            }
            Event::CutoverAborted { .. } => {
                next.preparing = None;
                next.hold = None;
            }
            Event::RollbackAborted { epoch, .. } => {
                next.hold = self.hold.map(|hold| Hold { epoch: *epoch, ..hold });
            }
            // A proxy that has not heard of it may still send reads to the service, which is behind from now on.
            Event::RollbackCommitted { .. } => next.shares.clear(),
            Event::Released { .. } => next.hold = None,
            Event::CopyCompleted { .. }
            | Event::CutoverCommitted { .. }
            | Event::Confirmed
            | Event::Completed => {}
        }
        Ok(next)
    }

    /// What the stage alone does not say: a crossing begins where none is, starts where it was prepared, and nothing else
    /// is decided while one is on.
    fn fits(&self, event: &Event) -> Result<(), IllegalMove> {
        let is_fit = match event {
            Event::CutoverPrepared { .. } => !self.is_crossing() && !self.paused,
            Event::CutoverStarted { .. } => self.preparing.is_some(),
            Event::CutoverAborted { .. } => self.is_crossing() && self.stage.owner() != Owner::Service,
            Event::Released { .. } => self.hold.is_some(),
            Event::RollbackStarted { .. } | Event::Completed => self.hold.is_none(),
            Event::SyncDropped | Event::Paused => !self.is_crossing(),
            _ => true,
        };
        let remedy =
            "wait for the cutover or rollback to end, or `strangler abort`; `strangler status -w` shows it";
        let stage = self.stage.name();
        if is_fit { Ok(()) } else { Err(IllegalMove::Stage { stage, event: event.name(), remedy }) }
    }
}

/// A legal move before it is written: the event, and where its slice stands after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub slice: SliceName,
    pub event: Event,
    pub after: SliceState,
}

/// Everything the journal says, folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub journal: JournalId,
    pub generation: Generation,
    /// Every slice that has an entry.
    pub slices: BTreeMap<SliceName, SliceState>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokenJournal {
    #[error("the journal's entry {found} stands where {expected} belongs")]
    Gap { expected: Generation, found: Generation },
    #[error("the journal's entry {generation} of slice {slice} is not legal")]
    Illegal {
        generation: Generation,
        slice: SliceName,
        #[source]
        source: IllegalMove,
    },
}

impl State {
    pub fn empty(journal: JournalId) -> Self {
        Self { journal, generation: Generation(0), slices: BTreeMap::new() }
    }

    /// Where a slice stands; one without entries stands at the beginning.
    pub fn slice(&self, name: &SliceName) -> SliceState {
        self.slices.get(name).cloned().unwrap_or_default()
    }

    pub fn apply(&mut self, entry: &Entry) -> Result<(), BrokenJournal> {
        let expected = self.generation.next();
        if entry.generation != expected {
            return Err(BrokenJournal::Gap { expected, found: entry.generation });
        }
        let after = self.slice(&entry.slice).after(expected, &entry.event).map_err(|source| {
            BrokenJournal::Illegal { generation: expected, slice: entry.slice.clone(), source }
        })?;
        self.take(entry.slice.clone(), after);
        Ok(())
    }

    /// The move that an event would be, were it the next entry.
    pub fn plan_move(&self, slice: &SliceName, event: Event) -> Result<Move, IllegalMove> {
        let after = self.slice(slice).after(self.generation.next(), &event)?;
        Ok(Move { slice: slice.clone(), event, after })
    }

    /// Takes a move in that was written as the next entry.
    pub fn take(&mut self, slice: SliceName, after: SliceState) {
        self.slices.insert(slice, after);
        self.generation = self.generation.next();
    }

    /// The last generation at which some requests of a slice went to the service. A proxy that acts on it, or on an older
    /// one, may still send them there.
    pub fn last_shared<'a>(
        journal: JournalId,
        entries: impl IntoIterator<Item = &'a Entry>,
        slice: &SliceName,
    ) -> Result<Option<Generation>, BrokenJournal> {
        let mut state = Self::empty(journal);
        let mut last = None;
        for entry in entries {
            state.apply(entry)?;
            let is_shared = |one: &SliceState| !one.shares.is_empty() || one.stage.is_at_service();
            if state.slices.get(slice).is_some_and(is_shared) {
                last = Some(state.generation);
            }
        }
        Ok(last)
    }

    pub fn replay<'a>(
        journal: JournalId,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Self, BrokenJournal> {
        let mut state = Self::empty(journal);
        for entry in entries {
            state.apply(entry)?;
        }
        Ok(state)
    }
}
