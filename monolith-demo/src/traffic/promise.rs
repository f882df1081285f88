//! What is promised about one order, and whether the order in the database keeps the promise. Pure.

use serde::{Deserialize, Serialize};

use crate::shop::money::Cents;
use crate::shop::order::{Order, Status};

/// The parts of an answered order that a promise covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub order: i64,
    pub version: i32,
    pub status: Status,
    pub note: Option<String>,
    pub total: Cents,
    pub paid: Cents,
    /// How many lines it had.
    pub items: usize,
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

/// How far the deletion of an order got, as clients know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removal {
    #[default]
    None,
    /// A client tried; the order may or may not be gone.
    Begun,
    Done,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// The newest state in an answer; none if only a deletion is known.
    pub facts: Option<Facts>,
    pub removal: Removal,
}

impl Promise {
    /// Compares the promise with the database: `None` if it is kept, else what is lost.
    #[must_use]
    pub fn broken_by(&self, found: Option<&Facts>) -> Option<String> {
        match (self.removal, &self.facts, found) {
            (Removal::Done, _, Some(found)) => {
                Some(format!("its deletion was acknowledged, but it exists at version {}", found.version))
            }
            (Removal::Done | Removal::Begun, _, None) | (_, None, _) => None,
            (Removal::None, Some(facts), None) => {
                Some(format!("it was acknowledged at version {}, but does not exist", facts.version))
            }
            (_, Some(facts), Some(found)) => facts.missing_in(found),
        }
    }
}

impl Facts {
    /// What a later state has lost of these facts.
    fn missing_in(&self, found: &Self) -> Option<String> {
        if found.version < self.version {
            return Some(format!(
                "version {} was acknowledged, but it has version {}",
                self.version, found.version
            ));
        }
        if found.version == self.version && found != self {
            return Some(format!("version {} was answered as {self:?}, but is {found:?}", self.version));
        }
        let gone = self.payments.iter().find(|payment| !found.payments.contains(payment))?;
        Some(format!("payment {gone} was acknowledged, but does not exist"))
    }
}
