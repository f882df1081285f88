//! Where the journal is kept: in schema `strangler` of the monolith's database, or in a file where the plan has no
//! database. One contract for both. Which entry may follow is for the desk to decide.

mod file;
mod table;

pub use file::forget_elsewhere;

use file::JournalFile;
use migrations::code::Code;
use migrations::crossing::Moment;
use migrations::journal::{BrokenJournal, Entry, Generation, JournalId, Move, State};
use migrations::names::SliceName;
use migrations::plan::Plan;
use migrations::problem::Diagnostic;
use postgres::ConnectError;
use std::path::Path;
use std::time::Duration;
use table::JournalTable;

#[derive(Debug)]
pub enum Store {
    /// In the monolith's database; beside it the file that a plan without database had before.
    Postgres(JournalTable, JournalFile),
    File(JournalFile),
    /// In the simulation's database.
    #[cfg(test)]
    Played(crate::simulation::Connection),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub actor: String,
    pub reason: String,
    pub decided: Move,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub journal: JournalId,
    /// How long it is: one that has become shorter was set back to an older state.
    pub length: Generation,
    /// Its entries after the place that was asked for.
    pub entries: Vec<Entry>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("someone else decided first: the journal is longer than {0}")]
    Conflict(Generation),
    #[error("the journal cannot be reached")]
    Unreachable(#[source] ConnectError),
    /// The database or the file system refused. Nothing was written.
    #[error("the journal cannot be used: {why}")]
    Refused { why: String, remedy: String },
    /// The connection broke while the entry was written: it may stand in the journal or not.
    #[error("the answer to a journal entry was lost: {why}")]
    Uncertain { why: String },
    #[error("the journal is damaged at entry {place}: {why}")]
    Damaged { place: u64, why: String },
    #[error("the journal has {found} entries and had {known}: it was set back to an older state")]
    Rewound { known: Generation, found: Generation, remedy: &'static str },
    /// It went into the monolith's database, which the plan does not name any more.
    #[error(
        "the journal is in the monolith's database, and the plan names no `database` of the monolith any more"
    )]
    Elsewhere { remedy: String },
    #[error(transparent)]
    Broken(#[from] BrokenJournal),
}

impl Diagnostic for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::Conflict(_) => Code::JournalConflict,
            StoreError::Unreachable(_) => Code::JournalUnreachable,
            StoreError::Refused { .. } => Code::JournalRefused,
            StoreError::Uncertain { .. } => Code::JournalUncertain,
            StoreError::Rewound { .. } => Code::JournalRewound,
            StoreError::Elsewhere { .. } => Code::JournalElsewhere,
            StoreError::Damaged { .. } | StoreError::Broken(_) => Code::JournalDamaged,
        }
    }

    fn remedy(&self) -> String {
        match self {
            StoreError::Conflict(_) => "read `strangler journal` and ask again".to_owned(),
            StoreError::Unreachable(source) => source.remedy(),
            StoreError::Refused { remedy, .. } | StoreError::Elsewhere { remedy } => remedy.clone(),
            StoreError::Uncertain { .. } => "look at `strangler journal` before asking again".to_owned(),
            StoreError::Rewound { remedy, .. } => (*remedy).to_owned(),
            StoreError::Damaged { .. } | StoreError::Broken(_) => {
                "stop every controller and restore the journal from a backup".to_owned()
            }
        }
    }
}

impl Store {
    /// The store that the plan asks for. Connects lazily: a database that is down is met at the first question.
    pub fn of(plan: &Plan, state_dir: &Path) -> Store {
        let file = JournalFile::new(state_dir.join("journal.jsonl"));
        match &plan.monolith.database {
            Some(url) => Store::Postgres(JournalTable::new(url.clone()), file),
            None => Store::File(file),
        }
    }

    /// The journal's id, its length and its entries after `after`. A table that is still empty first takes over what the
    /// file has: a plan that gets its first database goes on with what was decided, and no route goes back.
    pub async fn load(&self, after: Generation) -> Result<Loaded, StoreError> {
        match self {
            Store::Postgres(table, file) => {
                let loaded = table.load(after).await?;
                if loaded.length > Generation(0) {
                    file.give_way().await;
                    return Ok(loaded);
                }
                let Some(before) = file.before_the_table().await? else { return Ok(loaded) };
                take_over(table, &before).await?;
                file.give_way().await;
                table.load(after).await
            }
            Store::File(file) => file.load(after).await,
            #[cfg(test)]
            Store::Played(played) => played.load(after).await,
        }
    }

    /// That the journal is shorter than it was. Every part that knew more would ignore what is decided from here on,
    /// so the journal needs a new id, which all of them follow.
    pub(crate) fn rewound(&self, known: Generation, found: Generation) -> StoreError {
        let remedy = if self.has_gates() {
            "check that the slices match the journal; then run in the monolith's database, as its administrator: UPDATE strangler.journal_id SET id = gen_random_uuid();"
        } else {
            "check that the slices match the journal; then change the id in the first line of journal.jsonl"
        };
        StoreError::Rewound { known, found, remedy }
    }

    /// Whether slices can be cut over by this journal: it stands beside the monolith's gates.
    pub(crate) fn has_gates(&self) -> bool {
        !matches!(self, Store::File(_))
    }

    /// Writes the entry after `expected`, if the journal is exactly that long: a compare-and-swap.
    pub async fn append(&self, expected: Generation, draft: &Draft) -> Result<Entry, StoreError> {
        match self {
            Store::Postgres(table, _) => table.append(expected, draft).await,
            Store::File(file) => file.append(expected, draft).await,
            #[cfg(test)]
            Store::Played(played) => played.append(expected, draft).await,
        }
    }

    /// The time by the clock that the journal's moments and leases are of.
    pub async fn now(&self) -> Result<Moment, StoreError> {
        match self {
            Store::Postgres(table, _) => table.now().await,
            Store::File(_) => Ok(file::now()),
            #[cfg(test)]
            Store::Played(played) => played.now().await,
        }
    }

    /// Becomes the coordinator of a slice for so long, unless another one is. Whoever has it already keeps it.
    pub async fn take_lease(
        &self,
        slice: &SliceName,
        coordinator: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        match self {
            Store::Postgres(table, _) => table.take_lease(slice, coordinator, time).await,
            // A plan without a database has no tables, so nothing that a coordinator could move.
            Store::File(_) => Ok(false),
            #[cfg(test)]
            Store::Played(played) => played.take_lease(coordinator, time).await,
        }
    }
}

/// Another controller may do the same at the same time: both write the same entries, and one of the two succeeds.
async fn take_over(table: &JournalTable, before: &Loaded) -> Result<(), StoreError> {
    let state = State::replay(before.journal, &before.entries)?;
    match table.take_over(&before.entries, &state).await {
        Ok(()) => {
            tracing::info!(
                entries = before.length.0,
                "the journal moved from its file to the monolith's database"
            );
            Ok(())
        }
        Err(StoreError::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
