//! The gate as one table: what each database allows for a slice, and under which epoch. The functions that are installed
//! (`migrations/sql`) do the same, and a test holds them to it.

use crate::stage::{Epoch, Owner};
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
    #[error("the journal does not say that the writes of the slice stop under this epoch")]
    NotDecided,
}

impl Gate {
    /// The gate after `act`. `head` is there at the monolith only.
    pub fn after(self, act: Act, head: Option<Head>) -> Result<Gate, Refused> {
        let (Act::Fence(epoch) | Act::Open(epoch) | Act::Raise(epoch)) = act;
        if epoch < self.epoch {
            return Err(Refused::Stale { seen: self.epoch });
        }
        match act {
            // A monolith's gate shuts only by the journal's word; it stays shut as long as the monolith does not own.
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
    fn an_aborted_fence_that_comes_late_is_refused() {
        let aborted = Gate { epoch: Epoch(6), is_shut: false };
        assert_eq!(aborted.after(Act::Fence(Epoch(5)), None), Err(Refused::Stale { seen: Epoch(6) }));
        assert_eq!(aborted.after(Act::Fence(Epoch(6)), None), Err(Refused::Stale { seen: Epoch(6) }));
        let fenced = aborted.after(Act::Fence(Epoch(7)), None).unwrap();
        assert_eq!(fenced.after(Act::Fence(Epoch(7)), None), Ok(fenced), "fencing twice is fencing once");
    }
}
