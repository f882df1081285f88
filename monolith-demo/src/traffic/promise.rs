//! What is promised about one order, and whether what is found keeps the promise.
//!
//! Pure: knows neither where promises are written nor where orders are found.

use serde::{Deserialize, Serialize};

use crate::shop::money::Cents;
use crate::shop::order::{Order, Status};

/// An order as an answer told it: everything that a promise is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Number of the order.
    pub order: i64,
    /// Its version.
    pub version: i32,
    /// Where it stood.
    pub status: Status,
    /// Its note.
    pub note: Option<String>,
    /// Its total.
    pub total: Cents,
    /// What was paid.
    pub paid: Cents,
    /// How many lines it had.
    pub items: usize,
    /// Numbers of its payments.
    pub payments: Vec<i64>,
}

impl From<&Order> for Facts {
    fn from(order: &Order) -> Self {
        Self {
            order: order.id,
            version: order.version,
            status: order.status,
            note: order.note.clone(),
            total: order.total,
            paid: order.paid,
            items: order.items.len(),
            payments: order.payments.iter().map(|payment| payment.id).collect(),
        }
    }
}

/// How far the deletion of an order got, as far as clients know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removal {
    /// Nobody tried.
    #[default]
    None,
    /// Somebody tried; it may or may not be gone.
    Begun,
    /// It was acknowledged.
    Done,
}

/// What is promised about one order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The newest state that an answer told; none if nothing but a deletion is known.
    pub facts: Option<Facts>,
    /// Whether it may be gone.
    pub removal: Removal,
}

impl Promise {
    /// Holds the promise against what the database has: `None` when it is kept, else what is lost.
    #[must_use]
    pub fn broken_by(&self, found: Option<&Facts>) -> Option<String> {
        match (self.removal, &self.facts, found) {
            (Removal::Done, _, Some(found)) => {
                Some(format!("its deletion was acknowledged, yet it is there at version {}", found.version))
            }
            (Removal::Done | Removal::Begun, _, None) | (_, None, _) => None,
            (Removal::None, Some(facts), None) => {
                Some(format!("it was acknowledged at version {}, and is not there", facts.version))
            }
            (_, Some(facts), Some(found)) => facts.missing_in(found),
        }
    }
}

impl Facts {
    /// What of these facts a later state has lost.
    fn missing_in(&self, found: &Self) -> Option<String> {
        if found.version < self.version {
            return Some(format!("version {} was acknowledged, {} is there", self.version, found.version));
        }
        if found.version == self.version && found != self {
            return Some(format!("version {} was told as {self:?}, and is {found:?}", self.version));
        }
        let gone = self.payments.iter().find(|payment| !found.payments.contains(payment))?;
        Some(format!("payment {gone} was acknowledged, and is not there"))
    }
}
