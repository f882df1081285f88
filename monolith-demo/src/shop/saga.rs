//! A saga: a deal with an order, carried to the books of another program call by call. Pure.
//!
//! A new order reserves credit, then stock, and is confirmed. If one is refused, what was reserved is released in
//! reverse order, and the order is refused. [`Saga::after`] is the only place that says what comes next.

pub mod courier;
pub mod driver;
pub mod rows;

use std::time::Duration;

use uuid::Uuid;

use super::deal::{Act, Call, Deal, Reason, Verdict, What};

/// A new order that is not confirmed after this time is given up. Nobody wants it an hour later.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(5 * 60);

/// What a saga does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    ReserveCredit,
    ReserveStock,
    Confirm,
    ReleaseStock,
    ReleaseCredit,
    Refuse,
    PayCredit,
    Ended,
}

impl State {
    const ALL: [Self; 8] = [
        Self::ReserveCredit,
        Self::ReserveStock,
        Self::Confirm,
        Self::ReleaseStock,
        Self::ReleaseCredit,
        Self::Refuse,
        Self::PayCredit,
        Self::Ended,
    ];

    /// The word for it in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReserveCredit => "reserve_credit",
            Self::ReserveStock => "reserve_stock",
            Self::Confirm => "confirm",
            Self::ReleaseStock => "release_stock",
            Self::ReleaseCredit => "release_credit",
            Self::Refuse => "refuse",
            Self::PayCredit => "pay_credit",
            Self::Ended => "ended",
        }
    }

    /// Reads the word; `None` for anything else.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Where a deal begins.
    #[must_use]
    pub fn first(deal: &Deal) -> Self {
        match deal.what {
            What::Place { .. } => Self::ReserveCredit,
            What::Pay { .. } => Self::PayCredit,
            What::Cancel => Self::ReleaseStock,
        }
    }
}

/// One saga as its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saga {
    pub id: Uuid,
    pub deal: Deal,
    pub state: State,
    /// Why the order is refused, once that is known.
    pub refusal: Option<Reason>,
    /// Failed tries of this state.
    pub attempts: i32,
    /// How long ago it began.
    pub age: Duration,
}

/// What is to be done in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// A call to the books, with its key.
    Call(String, Call),
    /// The order itself is settled. The key is for the case that another program keeps it.
    Settle {
        key: String,
        placed: bool,
    },
    Nothing,
}

/// An answer that makes no sense in a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{verdict:?} makes no sense in state {}", state.as_str())]
pub struct Nonsense {
    state: State,
    verdict: Verdict,
}

impl Saga {
    /// What is to be done now.
    #[must_use]
    pub fn next(&self) -> Move {
        let act = match (self.state, &self.deal.what) {
            (State::ReserveCredit, What::Place { customer, total, .. }) => {
                Act::ReserveCredit { customer: *customer, amount: *total }
            }
            (State::ReserveStock, What::Place { pieces, .. }) => Act::ReserveStock { pieces: pieces.clone() },
            (State::ReleaseStock, what) => {
                Act::ReleaseStock { undoes: self.undone(what, State::ReserveStock) }
            }
            (State::ReleaseCredit, what) => {
                Act::ReleaseCredit { undoes: self.undone(what, State::ReserveCredit) }
            }
            (State::PayCredit, What::Pay { amount }) => Act::PayCredit { amount: *amount },
            (State::Confirm, _) => return Move::Settle { key: self.key(self.state), placed: true },
            (State::Refuse, _) => return Move::Settle { key: self.key(self.state), placed: false },
            (State::ReserveCredit | State::ReserveStock | State::PayCredit | State::Ended, _) => {
                return Move::Nothing;
            }
        };
        Move::Call(self.key(self.state), Call { order: self.deal.order, act })
    }

    /// What comes after an answer, and why the order is refused, if that is news.
    ///
    /// # Errors
    /// [`Nonsense`], for example when a release was refused.
    pub fn after(&self, verdict: Verdict) -> Result<(State, Option<Reason>), Nonsense> {
        let new = matches!(self.deal.what, What::Place { .. });
        let state = match (self.state, &verdict) {
            (State::ReserveCredit, Verdict::Done) => State::ReserveStock,
            (State::ReserveStock, Verdict::Done) => State::Confirm,
            (State::ReleaseStock, Verdict::Done) => State::ReleaseCredit,
            (State::ReleaseCredit, Verdict::Done) if new => State::Refuse,
            (State::Confirm | State::ReleaseCredit | State::PayCredit, Verdict::Done) => State::Ended,
            (State::ReserveCredit, Verdict::Refused(_)) => State::Refuse,
            (State::ReserveStock, Verdict::Refused(_)) => State::ReleaseCredit,
            // The order is gone: someone removed it by hand.
            (State::Confirm, Verdict::Refused(_)) => State::ReleaseStock,
            (State::Refuse, _) => State::Ended,
            (State::ReleaseStock | State::ReleaseCredit | State::PayCredit, Verdict::Refused(_))
            | (State::Ended, _) => return Err(Nonsense { state: self.state, verdict }),
        };
        let reason = match verdict {
            Verdict::Refused(reason) if self.refusal.is_none() => Some(reason),
            Verdict::Refused(_) | Verdict::Done => None,
        };
        Ok((state, reason))
    }

    /// Whether a new order has waited too long for an answer. Then all of it is released, whatever was reserved.
    #[must_use]
    pub fn gives_up(&self) -> Option<(State, Reason)> {
        let asks = matches!(self.state, State::ReserveCredit | State::ReserveStock);
        let reason = || Reason::new("timeout", "credit and stock could not be reserved in time");
        (asks && self.age >= GIVE_UP_AFTER).then(|| (State::ReleaseStock, reason()))
    }

    fn key(&self, state: State) -> String {
        format!("{}/{}", self.id, state.as_str())
    }

    /// A new order's own reservation may still be under way. One that is cancelled has been answered long ago.
    fn undone(&self, what: &What, reservation: State) -> Option<String> {
        matches!(what, What::Place { .. }).then(|| self.key(reservation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::money::Cents;

    fn saga(what: What) -> Saga {
        let deal = Deal { order: 7, what };
        let state = State::first(&deal);
        Saga { id: Uuid::nil(), deal, state, refusal: None, attempts: 0, age: Duration::ZERO }
    }

    fn place() -> Saga {
        saga(What::Place { customer: 1, total: Cents(100), pieces: vec![] })
    }

    /// The states that a saga passes, when the calls in `refusing` are refused.
    fn way(mut saga: Saga, refusing: &[State]) -> (Vec<State>, Option<String>) {
        let mut states = vec![saga.state];
        while saga.state != State::Ended {
            let refused = refusing.contains(&saga.state);
            let reason = Reason::new(saga.state.as_str(), "");
            let verdict = if refused { Verdict::Refused(reason) } else { Verdict::Done };
            let (state, reason) = saga.after(verdict).unwrap();
            saga = Saga { state, refusal: reason.or(saga.refusal.take()), ..saga };
            states.push(state);
        }
        (states, saga.refusal.map(|reason| reason.code))
    }

    #[test]
    fn what_was_reserved_is_released_in_reverse_order() {
        use State::{
            Confirm, Ended, PayCredit, Refuse, ReleaseCredit, ReleaseStock, ReserveCredit, ReserveStock,
        };
        let code = |word: &str| Some(word.to_owned());
        assert_eq!(way(place(), &[]), (vec![ReserveCredit, ReserveStock, Confirm, Ended], None));
        assert_eq!(
            way(place(), &[ReserveCredit]),
            (vec![ReserveCredit, Refuse, Ended], code("reserve_credit"))
        );
        assert_eq!(
            way(place(), &[ReserveStock]),
            (vec![ReserveCredit, ReserveStock, ReleaseCredit, Refuse, Ended], code("reserve_stock"))
        );
        let all = vec![ReserveCredit, ReserveStock, Confirm, ReleaseStock, ReleaseCredit, Refuse, Ended];
        // The order vanished, so it cannot be refused either.
        assert_eq!(way(place(), &[Confirm, Refuse]), (all, code("confirm")));
        assert_eq!(way(saga(What::Cancel), &[]), (vec![ReleaseStock, ReleaseCredit, Ended], None));
        assert_eq!(way(saga(What::Pay { amount: Cents(1) }), &[]), (vec![PayCredit, Ended], None));
    }

    #[test]
    fn a_release_that_is_refused_is_nonsense_and_changes_nothing() {
        let refused = || Verdict::Refused(Reason::new("no", ""));
        assert!(saga(What::Cancel).after(refused()).is_err());
        assert!(saga(What::Pay { amount: Cents(1) }).after(refused()).is_err());
        assert!(Saga { state: State::Ended, ..place() }.after(Verdict::Done).is_err());
    }

    #[test]
    fn only_a_new_order_that_still_asks_is_given_up() {
        let old = |saga: Saga, state| Saga { state, age: GIVE_UP_AFTER, ..saga };
        assert_eq!(place().gives_up(), None);
        assert_eq!(old(place(), State::ReserveStock).gives_up().unwrap().0, State::ReleaseStock);
        for state in [State::Confirm, State::ReleaseStock, State::ReleaseCredit, State::Refuse] {
            assert_eq!(old(place(), state).gives_up(), None, "{state:?}");
        }
    }

    #[test]
    fn a_release_names_the_reservation_that_may_still_come() {
        let undone = |saga: Saga| match saga.next() {
            Move::Call(_, call) => call.act.undoes().map(str::to_owned),
            other => panic!("{other:?}"),
        };
        let given_up = Saga { state: State::ReleaseStock, ..place() };
        assert_eq!(undone(given_up), Some(format!("{}/reserve_stock", Uuid::nil())));
        assert_eq!(undone(saga(What::Cancel)), None);
    }

    #[test]
    fn every_state_reads_back_from_its_word() {
        for state in State::ALL {
            assert_eq!(State::from_word(state.as_str()), Some(state));
        }
        assert_eq!(State::from_word("nonsense"), None);
    }
}
