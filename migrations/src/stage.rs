//! The life of a slice: its stages, the events that move it, and the one function that says which moves are legal.
//!
//! Knows nothing of how a stage is reached or of the plan; whether a *route* may be shared is the plan's to say.

use crate::code::Code;
use crate::crossing::{Crossing, Moment, Preparing};
use crate::lsn::{CommitLsn, Monolith, Of, Position};
use crate::names::RouteName;
use crate::problem::Diagnostic;
use crate::share::Share;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A number per slice that only rises: at cutting, at returning, and whenever one of them is aborted. Databases refuse an
/// older one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    Monolith,
    /// Nobody, for the moment of a cutover or a rollback.
    Nobody,
    Service,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Owner::Monolith => "monolith",
            Owner::Nobody => "nobody",
            Owner::Service => "service",
        })
    }
}

/// Where a slice stands in its life. Each stage carries what proves it. Its epoch is the slice's own
/// ([`crate::journal::SliceState`]), which outlives the stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// Untouched: everything is the monolith's.
    #[default]
    Monolith,
    Copying,
    /// Copied, and every change is applied after it.
    Following {
        /// Transactions with this commit LSN or a later one are applied after the copy.
        copied_at: Of<Monolith, CommitLsn>,
    },
    /// Writes are stopped on the way to the service.
    Cutting {
        /// As in [`Stage::Following`], to return to.
        copied_at: Of<Monolith, CommitLsn>,
        #[serde(flatten)]
        crossing: Crossing,
    },
    /// The service owns the tables.
    Split {
        copied_at: Of<Monolith, CommitLsn>,
        #[serde(flatten)]
        crossing: Crossing,
        /// When everything returns by itself, unless someone confirms.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        returns_at: Option<Moment>,
    },
    /// Writes are stopped on the way back.
    Returning {
        copied_at: Of<Monolith, CommitLsn>,
        #[serde(flatten)]
        crossing: Crossing,
        /// As in [`Stage::Split`]: none where only a person wanted it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        returns_at: Option<Moment>,
    },
    Retired,
}

/// Writes of a slice wait at the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub epoch: Epoch,
    /// A write that still waits then is refused.
    pub until: Moment,
}

/// What happened to a slice, as the journal records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// `sync start`: copy, then follow.
    SyncStarted {
        /// The copy may empty sink tables that hold rows which strangler did not bring (`--replace`).
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        replace: bool,
    },
    /// Every row is in the sink.
    CopyCompleted { copied_at: Of<Monolith, CommitLsn> },
    /// The stream could not be kept, e.g. it would have kept too much WAL: the slice is copied again.
    Evicted { why: String },
    /// `sync drop`: the copy is given up.
    SyncDropped,
    /// Reads (and, without tables, writes) are shared anew, per route; routes left out stay as they are.
    Shared { routes: BTreeMap<RouteName, Share> },
    /// Applying stops until resumed; capture goes on.
    Paused,
    Resumed {
        /// A change to leave out for ever, chosen by the operator.
        #[serde(skip_serializing_if = "Option::is_none")]
        skip: Option<Of<Monolith, Position>>,
    },
    /// `cutover` or `rehearse` is wanted: the way back is made before anything is stopped.
    CutoverPrepared {
        #[serde(flatten)]
        preparing: Preparing,
    },
    /// Writes stop at the monolith.
    CutoverStarted {
        epoch: Epoch,
        #[serde(flatten)]
        crossing: Crossing,
        /// When it is given up, unless it is decided by then.
        until: Moment,
    },
    /// The point of no return: the service owns the tables.
    CutoverCommitted {
        epoch: Epoch,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        returns_at: Option<Moment>,
    },
    /// A cutover, or its preparation, is given up; the monolith owns the tables.
    CutoverAborted {
        epoch: Epoch,
        /// Why, for the reader of the journal.
        why: String,
    },
    /// The new owner's gate is open and the proxies know: what they hold may go.
    Released { epoch: Epoch },
    /// `rollback`, or the time of `--for` is over: writes stop at the service.
    RollbackStarted { epoch: Epoch, until: Moment },
    /// The monolith owns the tables again, with everything the service wrote.
    RollbackCommitted { epoch: Epoch },
    /// A rollback is given up; the service still owns the tables.
    RollbackAborted {
        epoch: Epoch,
        /// Why, for the reader of the journal.
        why: String,
        /// When it is tried again by itself.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        returns_at: Option<Moment>,
    },
    /// `confirm`: nothing returns by itself any more.
    Confirmed,
    /// `complete`: no way back any more.
    Completed,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalMove {
    #[error("a slice that is {stage} cannot take `{event}`")]
    Stage { stage: &'static str, event: &'static str, remedy: &'static str },
    #[error("epoch {got} is stale: epoch {current} is in force")]
    StaleEpoch { current: Epoch, got: Epoch },
}

impl Diagnostic for IllegalMove {
    fn code(&self) -> Code {
        match self {
            IllegalMove::Stage { .. } => Code::SliceStage,
            IllegalMove::StaleEpoch { .. } => Code::JournalConflict,
        }
    }

    fn remedy(&self) -> String {
        match self {
            IllegalMove::Stage { remedy, .. } => (*remedy).to_owned(),
            IllegalMove::StaleEpoch { .. } => "read `strangler journal` and ask again".to_owned(),
        }
    }
}

impl Stage {
    /// Every legal move. Anything else is an error that names what can be done instead. Epochs are checked by
    /// [`Event::check_epoch`], holds and preparation by [`crate::journal::SliceState::after`].
    pub fn after(self, event: &Event) -> Result<Stage, IllegalMove> {
        use Event as E;
        use Stage as S;
        let illegal =
            || Err(IllegalMove::Stage { stage: self.name(), event: event.name(), remedy: self.remedy() });
        match self {
            S::Monolith => match event {
                E::SyncStarted { .. } => Ok(S::Copying),
                E::Shared { .. } => Ok(self),
                _ => illegal(),
            },
            S::Copying => match event {
                E::CopyCompleted { copied_at } => Ok(S::Following { copied_at: *copied_at }),
                E::Evicted { .. } | E::Released { .. } | E::Paused | E::Resumed { .. } => Ok(S::Copying),
                // Where all reads are at the monolith already, they may be sent there once more.
                E::Shared { routes } if routes.values().all(|share| *share == Share::MONOLITH) => {
                    Ok(S::Copying)
                }
                E::SyncDropped => Ok(S::Monolith),
                _ => illegal(),
            },
            S::Following { copied_at } => match event {
                E::CutoverStarted { crossing, .. } => Ok(S::Cutting { copied_at, crossing: *crossing }),
                E::Evicted { .. } => Ok(S::Copying),
                E::SyncDropped => Ok(S::Monolith),
                E::CutoverPrepared { .. } | E::CutoverAborted { .. } | E::Released { .. } => Ok(self),
                E::Shared { .. } | E::Paused | E::Resumed { .. } => Ok(self),
                _ => illegal(),
            },
            S::Cutting { copied_at, crossing } => match event {
                E::CutoverCommitted { returns_at, .. } => {
                    Ok(S::Split { copied_at, crossing, returns_at: *returns_at })
                }
                E::CutoverAborted { .. } => Ok(S::Following { copied_at }),
                _ => illegal(),
            },
            S::Split { copied_at, crossing, returns_at } => match event {
                E::RollbackStarted { .. } => Ok(S::Returning { copied_at, crossing, returns_at }),
                E::Confirmed => Ok(S::Split { copied_at, crossing, returns_at: None }),
                E::Completed => Ok(S::Retired),
                E::Released { .. } | E::Paused | E::Resumed { .. } => Ok(self),
                _ => illegal(),
            },
            S::Returning { copied_at, crossing, .. } => match event {
                E::RollbackCommitted { .. } => Ok(S::Following { copied_at }),
                E::RollbackAborted { returns_at, .. } => {
                    Ok(S::Split { copied_at, crossing, returns_at: *returns_at })
                }
                _ => illegal(),
            },
            S::Retired => illegal(),
        }
    }

    pub fn owner(self) -> Owner {
        match self {
            Stage::Monolith | Stage::Copying | Stage::Following { .. } => Owner::Monolith,
            Stage::Cutting { .. } | Stage::Returning { .. } => Owner::Nobody,
            Stage::Split { .. } | Stage::Retired => Owner::Service,
        }
    }

    /// Whether the service answers the slice's requests.
    pub fn is_at_service(self) -> bool {
        matches!(self, Stage::Split { .. } | Stage::Returning { .. } | Stage::Retired)
    }

    /// The stage's name in the journal, the API and on the terminal.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Monolith => "monolith",
            Stage::Copying => "copying",
            Stage::Following { .. } => "following",
            Stage::Cutting { .. } => "cutting",
            Stage::Split { .. } => "split",
            Stage::Returning { .. } => "returning",
            Stage::Retired => "retired",
        }
    }

    /// Whether changes of the slice's tables must be captured in this stage.
    pub fn is_captured(self) -> bool {
        !matches!(self, Stage::Monolith | Stage::Retired)
    }

    fn remedy(self) -> &'static str {
        match self {
            Stage::Monolith => "begin with `strangler sync start`",
            Stage::Copying => "wait until `strangler sync status` says following, or `strangler sync drop`",
            Stage::Following { .. } => {
                "share its reads with `strangler route set`, move its writes with `strangler cutover`, or `strangler sync drop`"
            }
            Stage::Cutting { .. } => {
                "wait for the cutover to end, or `strangler abort`; `strangler status -w` shows it"
            }
            Stage::Split { .. } => "the service owns it: `strangler rollback` gives it back",
            Stage::Returning { .. } => {
                "wait for the rollback to end, or `strangler abort`; `strangler status -w` shows it"
            }
            Stage::Retired => "its move is final",
        }
    }
}

impl Event {
    /// The event's name in the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Event::SyncStarted { .. } => "sync-started",
            Event::CopyCompleted { .. } => "copy-completed",
            Event::Evicted { .. } => "evicted",
            Event::SyncDropped => "sync-dropped",
            Event::Shared { .. } => "shared",
            Event::Paused => "paused",
            Event::Resumed { .. } => "resumed",
            Event::CutoverPrepared { .. } => "cutover-prepared",
            Event::CutoverStarted { .. } => "cutover-started",
            Event::CutoverCommitted { .. } => "cutover-committed",
            Event::CutoverAborted { .. } => "cutover-aborted",
            Event::RollbackStarted { .. } => "rollback-started",
            Event::RollbackCommitted { .. } => "rollback-committed",
            Event::RollbackAborted { .. } => "rollback-aborted",
            Event::Released { .. } => "released",
            Event::Confirmed => "confirmed",
            Event::Completed => "completed",
        }
    }

    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Event::CutoverStarted { epoch, .. }
            | Event::CutoverCommitted { epoch, .. }
            | Event::CutoverAborted { epoch, .. }
            | Event::Released { epoch }
            | Event::RollbackStarted { epoch, .. }
            | Event::RollbackCommitted { epoch }
            | Event::RollbackAborted { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }

    /// Whether the event brings a new epoch. A start does, and so does every abort: whoever still acts under the old one
    /// is refused at every gate.
    pub fn raises_epoch(&self) -> bool {
        matches!(
            self,
            Event::CutoverStarted { .. }
                | Event::CutoverAborted { .. }
                | Event::RollbackStarted { .. }
                | Event::RollbackAborted { .. }
        )
    }

    /// Checks the event's epoch against the highest that its slice has had. The epoch after the event.
    pub fn check_epoch(&self, current: Epoch) -> Result<Epoch, IllegalMove> {
        let Some(got) = self.epoch() else { return Ok(current) };
        let is_legal = if self.raises_epoch() { got > current } else { got == current };
        if is_legal { Ok(got) } else { Err(IllegalMove::StaleEpoch { current, got }) }
    }
}
