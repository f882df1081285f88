//! Why a step is not done, and whether it is worth another try.

use postgres::{Refusal, in_words};
use std::time::Duration;
use tokio_postgres::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It may be done at the next try.
    Again(String),
    /// Someone decided otherwise meanwhile, or the database knows more than the journal.
    Stale(String),
    Final(String),
}

impl Trouble {
    pub(super) fn of(error: &Error) -> Trouble {
        let words = in_words(error);
        match error.code().map(|code| code.code()) {
            Some("STR02") => Trouble::Stale(words),
            // A statement that had no time, or fell victim to a deadlock, may go through next time.
            _ if Refusal::of(error).may_pass() => Trouble::Again(words),
            _ => Trouble::Final(words),
        }
    }

    pub(super) fn late(what: &str, after: Duration) -> Trouble {
        Trouble::Again(format!("{what} did not answer within {} s", after.as_secs_f32()))
    }
}
