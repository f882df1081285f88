//! Where decisions are made: the desk reads the journal, asks `migrations` what a wish comes to, and writes the decision
//! by compare-and-swap. It wakes everyone who waits for something newer.
//!
//! The journal is read again before each decision, so several controllers may share one journal.

use crate::agents::Agents;
use crate::coordinator::ready::Spare;
use crate::copies::Withheld;
use crate::course::Courses;
use crate::place::Place;
use crate::recall::Recalls;
use crate::remembered::Remembered;
use crate::store::{Draft, Store, StoreError};
use migrations::code::Code;
use migrations::control::Desired;
use migrations::finding::Finding;
use migrations::journal::{Entry, Generation, JournalId, SliceState, State};
use migrations::names::SliceName;
use migrations::plan::Plan;
use migrations::problem::Problem;
use migrations::stage::Stage;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// How often a decision is made anew after somebody else was faster. They are rare and each succeeds for someone.
const TRIES: u32 = 8;

/// What controllers, agents and people come to.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) plan: Plan,
    pub(crate) agents: Agents,
    pub(crate) courses: Courses,
    pub(crate) spare: Spare,
    pub(crate) recalls: Recalls,
    pub(crate) remembered: Remembered,
    /// This process's name in the lease of a slice.
    pub(crate) coordinator: Arc<str>,
    store: Store,
    known: Mutex<Known>,
    reading: tokio::sync::Mutex<()>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    state: Option<State>,
    trouble: Option<Finding>,
    bridge: Option<String>,
    bridge_moved: Option<Instant>,
    /// For how long this process had stood still when it looked at the journal last, whether or not it could be read.
    looked_after: Option<Duration>,
    /// Where an entry of this very controller brought a slice last, and when.
    entered: BTreeMap<SliceName, (Place, Instant)>,
}

impl Known {
    /// Keeps a state that is newer than the one that is held; whether it was. What was read before a decision may come
    /// in behind it, and takes nothing of it back.
    fn keep(&mut self, state: &State) -> bool {
        let is_newer = self
            .state
            .as_ref()
            .is_none_or(|held| held.journal != state.journal || held.generation < state.generation);
        if is_newer {
            self.state = Some(state.clone());
        }
        is_newer
    }
}

impl Desk {
    pub(crate) fn new(plan: Plan, store: Store) -> Self {
        Self {
            plan,
            agents: Agents::default(),
            courses: Courses::new(),
            spare: Spare::default(),
            recalls: Recalls::default(),
            remembered: Remembered::default(),
            coordinator: format!("{}-{}", std::process::id(), Uuid::new_v4().simple()).into(),
            store,
            known: Mutex::default(),
            reading: tokio::sync::Mutex::new(()),
            revision: watch::Sender::new(0),
        }
    }

    /// Rises whenever something newer is desired.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// What the journal said when it was read last; none before it was read once.
    pub(crate) fn state(&self) -> Option<State> {
        self.lock().state.clone()
    }

    pub(crate) fn trouble(&self) -> Option<Finding> {
        self.lock().trouble.clone()
    }

    /// Whether nothing is newer than this. A controller that stood still has to look first. While the journal cannot be read,
    /// nothing new can be written either.
    pub(crate) fn is_newest(&self, (journal, generation): (JournalId, Generation)) -> bool {
        let known = self.lock();
        let has_looked = known.looked_after == Some(self.agents.clock.stood());
        let is_known = |state: &State| state.journal == journal && state.generation == generation;
        has_looked && known.state.as_ref().is_some_and(is_known)
    }

    pub(crate) fn bridge(&self) -> Option<String> {
        self.lock().bridge.clone()
    }

    /// Whether the bridge's address changed so lately that an agent between two polls may have missed it.
    pub(crate) fn bridge_moved_within(&self, time: Duration) -> bool {
        self.lock().bridge_moved.is_some_and(|moved| moved.elapsed() < time)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Where an entry of this controller brought a slice last, and when.
    pub(crate) fn entered(&self, slice: &SliceName) -> Option<(Place, Instant)> {
        self.lock().entered.get(slice).copied()
    }

    /// As if another controller had brought the slice where it is.
    pub(crate) fn forget(&self, slice: &SliceName) {
        self.lock().entered.remove(slice);
    }

    /// Whether this controller is one to drive a slice. Any may end what is under way; but a return that will be due is left
    /// to one that hears of the slice's lanes, for it needs them.
    pub(crate) fn is_to_drive(&self, slice: &SliceName, state: &SliceState) -> bool {
        Place::needs_coordinator(state) && (state.is_crossing() || !self.agents.lanes(slice).is_empty())
    }

    /// The document for the agents; none before the journal was read once.
    pub(crate) fn desired(&self) -> Option<Desired> {
        let state = self.state()?;
        Some(Desired::from(&self.plan, &state, self.bridge()))
    }

    /// The followed slices whose copies must not be read for now, and why.
    pub(crate) fn withheld(&self) -> BTreeMap<SliceName, Withheld> {
        let Some(state) = self.state() else { return BTreeMap::new() };
        let max = Duration::from_millis(self.plan.limits.staleness_ms_max);
        let followed = self.plan.slices.values().filter(|slice| !slice.is_stateless()).filter(|slice| {
            matches!(state.slice(&slice.name).stage, Stage::Following { .. } | Stage::Cutting { .. })
        });
        followed
            .filter_map(|slice| Some((slice.name.clone(), self.agents.withheld(&slice.name, max)?)))
            .collect()
    }

    /// Looks whether the live bridge is where it was, and wakes the agents if not.
    pub(crate) fn look_for_bridge(&self) {
        let bridge = self.agents.bridge();
        let mut known = self.lock();
        if known.bridge == bridge {
            return;
        }
        // Agents keep the last address while no bridge is live: a barrier that nobody answers is as good as none.
        if bridge.is_some() {
            known.bridge = bridge;
            known.bridge_moved = Some(Instant::now());
            drop(known);
            self.wake();
        }
    }

    /// Reads what is new in the journal; the newest state that is known with it.
    pub(crate) async fn refresh(&self) -> Result<State, StoreError> {
        let _one_at_a_time = self.reading.lock().await;
        let stood = self.agents.clock.stood();
        let read = self.read().await;
        let mut known = self.lock();
        known.looked_after = Some(stood);
        match read {
            Ok(state) => {
                if known.trouble.take().is_some() {
                    tracing::info!("the journal can be read again");
                }
                let is_news = known.keep(&state);
                let newest = known.state.clone().unwrap_or(state);
                drop(known);
                if is_news {
                    self.wake();
                }
                Ok(newest)
            }
            Err(error) => {
                let finding = finding(&error);
                if known.trouble.as_ref() != Some(&finding) {
                    let (error, remedy) = (&finding.message, &finding.remedy);
                    tracing::error!(%error, %remedy, "the journal cannot be read");
                }
                known.trouble = Some(finding);
                Err(error)
            }
        }
    }

    /// What the journal says now, for a decision. Refused while live agents act on more than it holds: they would ignore
    /// what is decided, and be taken for those that follow.
    pub(crate) async fn present(&self) -> Result<State, Problem> {
        let acts_on = self.agents.acts_on();
        let state = self.refresh().await?;
        match self.behind(&acts_on, &state) {
            Some(rewound) => Err(rewound.into()),
            None => Ok(state),
        }
    }

    /// That live agents act on more than the journal holds: it was set back while this controller did not run, and they
    /// ignore what it decides. `acts_on` is to be asked for before the state is read, for the journal may grow.
    pub(crate) fn behind(&self, acts_on: &BTreeMap<JournalId, Generation>, state: &State) -> Option<Finding> {
        let known = *acts_on.get(&state.journal)?;
        (known > state.generation).then(|| finding(&self.store.rewound(known, state.generation)))
    }

    pub(crate) async fn entries(&self, after: Generation) -> Result<Vec<Entry>, StoreError> {
        Ok(self.store.load(after).await?.entries)
    }

    /// Decides: reads the journal, asks `make` what the wish comes to now, and writes it. `make` is asked again
    /// whenever somebody else wrote in between. None where it finds nothing to decide.
    pub(crate) async fn decide(
        &self,
        make: impl Fn(&State) -> Result<Option<Draft>, Problem>,
    ) -> Result<(State, Option<Entry>), Problem> {
        for _ in 0..TRIES {
            let mut state = self.present().await?;
            let Some(draft) = make(&state)? else { return Ok((state, None)) };
            match self.store.append(state.generation, &draft).await {
                Ok(entry) => {
                    tracing::info!(
                        generation = entry.generation.0, slice = %entry.slice, event = entry.event.name(),
                        actor = entry.actor, "decided"
                    );
                    let (slice, after) = (draft.decided.slice, draft.decided.after);
                    self.lock().entered.insert(slice.clone(), (Place::of(&after), Instant::now()));
                    state.take(slice, after);
                    self.take(&state);
                    return Ok((state, Some(entry)));
                }
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let message = format!("others decided faster {TRIES} times in a row");
        Err(Problem::new(Code::JournalConflict, message, "read `strangler journal` and ask again"))
    }

    /// Keeps a newer state, and wakes who waits for it.
    fn take(&self, state: &State) {
        self.lock().keep(state);
        self.wake();
    }

    async fn read(&self) -> Result<State, StoreError> {
        let held = self.state();
        let after = held.as_ref().map_or(Generation(0), |state| state.generation);
        let read = self.store.load(after).await?;
        match held {
            // What this controller knows did not happen by the journal, and others act on it.
            Some(state) if state.journal == read.journal && read.length < after => {
                Err(self.store.rewound(after, read.length))
            }
            Some(state) if state.journal == read.journal => extend(state, &read.entries),
            // Another journal took the old one's place, e.g. after a new install: its beginning counts too.
            Some(_) if after > Generation(0) => {
                let read = self.store.load(Generation(0)).await?;
                Ok(State::replay(read.journal, &read.entries)?)
            }
            _ => Ok(State::replay(read.journal, &read.entries)?),
        }
    }

    fn wake(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere leaves it whole: each field is set at once.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn extend(mut state: State, entries: &[Entry]) -> Result<State, StoreError> {
    for entry in entries {
        state.apply(entry)?;
    }
    Ok(state)
}

/// What is wrong with the journal, for the status.
fn finding(error: &StoreError) -> Finding {
    let Problem { code, message, remedy, .. } = Problem::of(error);
    Finding::error(code, message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::journal::BrokenJournal;
    use postgres::ConnectError;
    use uuid::Uuid;

    #[test]
    fn what_is_known_never_goes_back() {
        let state = |journal, generation| State {
            generation: Generation(generation),
            ..State::empty(JournalId(Uuid::from_u128(journal)))
        };
        let mut known = Known::default();
        assert!(known.keep(&state(1, 4)) && known.keep(&state(1, 5)));
        assert!(!known.keep(&state(1, 4)) && !known.keep(&state(1, 5)));
        assert_eq!(known.state, Some(state(1, 5)));
        assert!(known.keep(&state(2, 0)), "another journal is news, however young it is");
    }

    #[test]
    fn what_to_do_is_said_once_and_behind_the_causes() {
        let source = ConnectError::Refused {
            url: "postgres://us@db/shop".to_owned(),
            why: "connection refused".to_owned(),
            remedy: "start the server".to_owned(),
        };
        let unreachable = finding(&StoreError::Unreachable(source));
        assert_eq!(
            (unreachable.message.as_str(), unreachable.remedy.as_str()),
            (
                "the journal cannot be reached: no connection to postgres://us@db/shop: connection refused",
                "start the server"
            )
        );
        let gap = BrokenJournal::Gap { expected: Generation(4), found: Generation(5) };
        let broken = finding(&StoreError::Broken(gap));
        assert_eq!(broken.message, "the journal's entry 5 stands where 4 belongs");
    }
}
