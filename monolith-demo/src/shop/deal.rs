//! Deals and calls as data: what an order's change means for the books of credit and stock. Pure.
//!
//! A [`Deal`] is one change of one order. Where the books are at hand, it is entered at once. Where they are another
//! program's, it becomes a saga: one [`Call`] after another.

use serde::{Deserialize, Serialize};

use super::money::Cents;
use super::order::Line;
use super::refusal::Refusal;

/// One change of one order that moves credit or stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deal {
    pub order: i64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A new order wants credit and stock.
    Place { customer: i64, total: Cents, pieces: Vec<Line> },
    /// A payment frees credit.
    Pay { amount: Cents },
    /// A cancelled order gives both back.
    Cancel,
}

/// One call to the books of another program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub order: i64,
    #[serde(flatten)]
    pub act: Act,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    ReserveCredit {
        customer: i64,
        amount: Cents,
    },
    ReserveStock {
        pieces: Vec<Line>,
    },
    /// `undoes` is the key of the reservation, if it may still be under way. It does nothing when it comes later.
    ReleaseStock {
        undoes: Option<String>,
    },
    ReleaseCredit {
        undoes: Option<String>,
    },
    PayCredit {
        amount: Cents,
    },
    /// Ends a pending order, where the orders are kept by the owner of the books again.
    Settle {
        placed: bool,
    },
}

impl Act {
    /// The key of the call that must do nothing from now on.
    #[must_use]
    pub fn undoes(&self) -> Option<&str> {
        match self {
            Self::ReleaseStock { undoes } | Self::ReleaseCredit { undoes } => undoes.as_deref(),
            Self::ReserveCredit { .. }
            | Self::ReserveStock { .. }
            | Self::PayCredit { .. }
            | Self::Settle { .. } => None,
        }
    }
}

/// The books' answer to a call. The same call gets the same answer for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Done,
    Refused(Reason),
}

/// Why the rules of the trade forbid something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub code: String,
    pub message: String,
}

impl Reason {
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Refusal::business(reason.code, reason.message)
    }
}
