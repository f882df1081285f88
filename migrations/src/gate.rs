//! The gate as one table: what each database allows for a slice, and under which epoch; and what the monolith's database
//! changes together with its gate, the head and the journal. The functions that are installed (`migrations/sql`) and the
//! journal's store do the same, and a test holds them to it.

use crate::journal::{Generation, SliceState};
use crate::names::SliceName;
use crate::stage::{Epoch, Event, IllegalMove, Owner, Stage};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whose database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Monolith,
    Service,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Monolith => Side::Service,
            Side::Service => Side::Monolith,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Side::Monolith => "monolith",
            Side::Service => "service",
        })
    }
}

/// A slice's gate in one database. Shut, it lets only strangler's own role write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gate {
    pub epoch: Epoch,
    pub is_shut: bool,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at epoch {}", if self.is_shut { "shut" } else { "open" }, self.epoch)
    }
}

/// The content of the message that a fence leaves in its database's change stream, `orders@5` on the wire: whoever meets
/// it has everything that was written before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub slice: SliceName,
    pub epoch: Epoch,
}

impl Fence {
    /// What the message is called.
    pub const PREFIX: &str = "strangler.fence";

    /// None if the text is not one of ours.
    pub fn parse(content: &str) -> Option<Fence> {
        let (slice, epoch) = content.rsplit_once('@')?;
        Some(Fence { slice: slice.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) })
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.slice, self.epoch)
    }
}

/// What the journal's head says of the slice. It stands in the monolith's database only, beside that gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub owner: Owner,
    pub epoch: Epoch,
}

/// What is asked of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Shut it, wait for whoever writes, and say so in the change stream.
    Fence(Epoch),
    Open(Epoch),
    /// A shut gate is now shut under a newer epoch.
    Raise(Epoch),
}

/// Why a gate does not do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the gate has seen epoch {seen}")]
    Stale { seen: Epoch },
    #[error("the gate is open")]
    Open,
    #[error("the journal says otherwise about the slice's owner under this epoch")]
    NotDecided,
}

impl From<&SliceState> for Head {
    fn from(state: &SliceState) -> Head {
        Head { owner: state.stage.owner(), epoch: state.epoch }
    }
}

impl Gate {
    /// One that is made where none was. A service's is shut from the beginning: the monolith owns its tables.
    pub fn made(side: Side, epoch: Epoch) -> Gate {
        Gate { epoch, is_shut: side == Side::Service }
    }

    /// The gate after `act`. `head` is there at the monolith only.
    pub fn after(self, act: Act, head: Option<Head>) -> Result<Gate, Refused> {
        let (Act::Fence(epoch) | Act::Open(epoch) | Act::Raise(epoch)) = act;
        if epoch < self.epoch {
            return Err(Refused::Stale { seen: self.epoch });
        }
        match act {
            // A monolith's gate turns only by the journal's word; it stays shut as long as the monolith does not own.
            Act::Open(_) if head.is_some_and(|head| head.owner != Owner::Monolith) => {
                Err(Refused::NotDecided)
            }
            Act::Fence(_)
                if head.is_some_and(|head| head.owner == Owner::Monolith || head.epoch != epoch) =>
            {
                Err(Refused::NotDecided)
            }
            // A service has no journal at hand: one who comes late under the same epoch finds it opened again.
            Act::Fence(_) if head.is_none() && epoch == self.epoch && !self.is_shut => {
                Err(Refused::Stale { seen: self.epoch })
            }
            Act::Raise(_) if !self.is_shut => Err(Refused::Open),
            Act::Fence(_) | Act::Raise(_) => Ok(Gate { epoch, is_shut: true }),
            Act::Open(_) => Ok(Gate { epoch, is_shut: false }),
        }
    }

    /// Whether an applier under this epoch may write.
    pub fn lets_apply(self, epoch: Epoch) -> bool {
        self.is_shut && self.epoch == epoch
    }
}

/// What the monolith's database has of a slice, and changes in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The journal's length; the entries of all slices count.
    pub length: Generation,
    pub head: SliceState,
    /// None before it was made.
    pub gate: Option<Gate>,
}

/// Why an entry is not written. Nothing changes then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    #[error("the journal is longer or shorter than {0}")]
    Conflict(Generation),
    #[error(transparent)]
    Illegal(#[from] IllegalMove),
    /// The service becomes the owner only while nobody can write at the monolith.
    #[error("the monolith's gate is not shut at epoch {0}")]
    NotShut(Epoch),
    #[error("the monolith has no gate")]
    NoGate,
    #[error(transparent)]
    Gate(#[from] Refused),
    /// It was aborted or decided before.
    #[error("nothing is under way at epoch {0}")]
    NothingToAbort(Epoch),
}

impl Ledger {
    /// Writes an event as the entry after `expected`.
    pub fn append(&self, expected: Generation, event: &Event) -> Result<Ledger, Unwritten> {
        if self.length != expected {
            return Err(Unwritten::Conflict(expected));
        }
        let length = expected.next();
        let head = self.head.after(length, event)?;
        let gate = match event {
            Event::CutoverCommitted { epoch, .. } => {
                let shut = Some(Gate { epoch: *epoch, is_shut: true });
                if self.gate == shut { shut } else { return Err(Unwritten::NotShut(*epoch)) }
            }
            Event::CutoverAborted { epoch, .. } | Event::RollbackCommitted { epoch } => {
                let gate = self.gate.ok_or(Unwritten::NoGate)?;
                Some(gate.after(Act::Open(*epoch), Some(Head::from(&head)))?)
            }
            // It stays as shut as it is.
            Event::RollbackAborted { epoch, .. } => {
                self.gate.map(|gate| Gate { epoch: gate.epoch.max(*epoch), ..gate })
            }
            _ => self.gate,
        };
        Ok(Ledger { length, head, gate })
    }

    /// Gives up what is under way at this epoch, as `strangler.abort` does in the database.
    pub fn abort(&self, epoch: Epoch, why: String) -> Result<Ledger, Unwritten> {
        let nothing = Unwritten::NothingToAbort(epoch);
        if self.head.epoch != epoch {
            return Err(nothing);
        }
        let next = epoch.next();
        let event = match self.head.stage {
            Stage::Following { .. } | Stage::Cutting { .. } if self.head.is_crossing() => {
                Event::CutoverAborted { epoch: next, why }
            }
            Stage::Returning { .. } => Event::RollbackAborted { epoch: next, why, returns_at: None },
            _ => return Err(nothing),
        };
        self.append(self.length, &event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn act() -> impl Strategy<Value = Act> {
        let epoch = || (0u64..6).prop_map(Epoch);
        prop_oneof![epoch().prop_map(Act::Fence), epoch().prop_map(Act::Open), epoch().prop_map(Act::Raise)]
    }

    proptest! {
        #[test]
        fn a_gate_never_goes_back_to_an_older_epoch(acts in proptest::collection::vec(act(), 0..40)) {
            let mut gate = Gate::default();
            for act in acts {
                let before = gate;
                gate = gate.after(act, None).unwrap_or(gate);
                prop_assert!(gate.epoch >= before.epoch);
                if let Act::Raise(_) = act {
                    prop_assert_eq!(gate.is_shut, before.is_shut, "raising turns nothing");
                }
            }
        }

        #[test]
        fn a_monolith_that_owns_is_never_fenced(epoch in 0u64..6, head in 0u64..6, is_shut: bool) {
            let gate = Gate { epoch: Epoch(0), is_shut };
            let head = Head { owner: Owner::Monolith, epoch: Epoch(head) };
            prop_assert_eq!(gate.after(Act::Fence(Epoch(epoch)), Some(head)), Err(Refused::NotDecided));
        }
    }

    #[test]
    fn a_fences_message_reads_back() {
        let fence = Fence { slice: "orders".parse().unwrap(), epoch: Epoch(5) };
        assert_eq!(fence.to_string(), "orders@5");
        assert_eq!(Fence::parse("orders@5"), Some(fence));
        for other in ["", "orders", "orders@", "orders@-1", "Orders@5", "orders/forward@5"] {
            assert_eq!(Fence::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_monolith_that_does_not_own_is_never_opened() {
        let gate = Gate { epoch: Epoch(5), is_shut: true };
        for owner in [Owner::Nobody, Owner::Service] {
            let head = Head { owner, epoch: Epoch(5) };
            for epoch in [5, 6] {
                assert_eq!(gate.after(Act::Open(Epoch(epoch)), Some(head)), Err(Refused::NotDecided));
            }
        }
    }

    #[test]
    fn an_aborted_fence_that_comes_late_is_refused() {
        let aborted = Gate { epoch: Epoch(6), is_shut: false };
        assert_eq!(aborted.after(Act::Fence(Epoch(5)), None), Err(Refused::Stale { seen: Epoch(6) }));
        assert_eq!(aborted.after(Act::Fence(Epoch(6)), None), Err(Refused::Stale { seen: Epoch(6) }));
        let fenced = aborted.after(Act::Fence(Epoch(7)), None).unwrap();
        assert_eq!(fenced.after(Act::Fence(Epoch(7)), None), Ok(fenced), "fencing twice is fencing once");
    }
}
