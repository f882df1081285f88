//! Orders as HTTP bodies, and the rules that need no database. Knows neither SQL nor HTTP.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::money::Cents;
use super::refusal::Refusal;

pub const NOTE_BYTES_MAX: usize = 2000;
pub const LINES_MAX: usize = 50;
pub const QTY_MAX: i32 = 1000;

/// The values of the database's enum `order_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Taken, but credit and stock are still being asked for.
    Pending,
    /// Nothing done yet; only now the order can be cancelled.
    Placed,
    Packed,
    /// The pieces have left the stock.
    Shipped,
    /// Arrived; the order no longer counts against the customer's credit.
    Delivered,
    /// May be deleted.
    Cancelled,
    /// Credit or stock did not suffice. May be deleted.
    Refused,
}

impl Status {
    /// The word for it, in the database and over HTTP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Placed => "placed",
            Self::Packed => "packed",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }

    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [
            Self::Pending,
            Self::Placed,
            Self::Packed,
            Self::Shipped,
            Self::Delivered,
            Self::Cancelled,
            Self::Refused,
        ];
        all.into_iter().find(|status| status.as_str() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Number of the line, unique in the whole shop.
    pub id: i64,
    pub product: i64,
    pub qty: i32,
    /// Price of one piece when it was ordered.
    pub price: Cents,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Number of the payment, unique in the whole shop.
    pub id: i64,
    pub amount: Cents,
    /// `card`, `transfer`, …, with the payer's own reference if there is one.
    pub method: String,
    /// When, as the database writes it.
    pub paid_at: String,
}

/// An order with its items and payments: the answer to most requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub id: i64,
    pub customer: i64,
    pub status: Status,
    pub note: Option<String>,
    pub total: Cents,
    /// Sum of the payments, never more than the total.
    pub paid: Cents,
    #[serde(with = "time::serde::rfc3339")]
    pub placed_at: OffsetDateTime,
    /// Rises by one with every change of the order, its items or its payments.
    pub version: i32,
    pub items: Vec<Item>,
    pub payments: Vec<Payment>,
    /// Which side answered: `monolith` or `orders`.
    pub served_by: String,
}

impl Order {
    /// Checks that the items add up to the total, and the payments to `paid`, which is at most the total. The error
    /// says which sum is wrong.
    pub fn adds_up(&self) -> Result<(), String> {
        let items: i64 = self.items.iter().map(|item| item.price.0 * i64::from(item.qty)).sum();
        let payments: i64 = self.payments.iter().map(|payment| payment.amount.0).sum();
        if items != self.total.0 {
            return Err(format!("items make {}, total says {}", Cents(items), self.total));
        }
        if payments != self.paid.0 {
            return Err(format!("payments make {}, paid says {}", Cents(payments), self.paid));
        }
        if self.paid > self.total {
            return Err(format!("{} was paid of {}", self.paid, self.total));
        }
        Ok(())
    }
}

/// Several orders: the answer to a list or a search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Newest first.
    pub orders: Vec<Order>,
    pub served_by: String,
}

/// One line as the customer asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub product: i64,
    pub qty: i32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    pub customer: i64,
    pub items: Vec<Line>,
    #[serde(default)]
    pub note: Option<String>,
}

impl NewOrder {
    /// Checks what can be checked without a database.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] naming the field.
    pub fn check(&self) -> Result<(), Refusal> {
        if self.items.is_empty() || self.items.len() > LINES_MAX {
            return Err(Refusal::Malformed(format!("items: send 1 to {LINES_MAX} items")));
        }
        if let Some(line) = self.items.iter().find(|line| !(1..=QTY_MAX).contains(&line.qty)) {
            return Err(Refusal::Malformed(format!("qty {} is not within 1 to {QTY_MAX}", line.qty)));
        }
        check_note(self.note.as_deref())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The new note; `null` removes it.
    pub note: Option<String>,
    /// The version that the change is based on. If given, a change of another version is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    pub amount: Cents,
    pub method: String,
}

/// Body of `POST /orders/search`. A field that is left out matches everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    pub status: Option<Status>,
    pub customer: Option<i64>,
    /// Only orders whose note contains this; case does not matter.
    pub text: Option<String>,
}

/// Checks a note's length, and that Postgres can store it.
///
/// # Errors
/// [`Refusal::Malformed`] naming the limit.
pub fn check_note(note: Option<&str>) -> Result<(), Refusal> {
    match note {
        Some(text) if text.len() > NOTE_BYTES_MAX => {
            Err(Refusal::Malformed(format!("note: at most {NOTE_BYTES_MAX} bytes")))
        }
        Some(text) if text.contains('\0') => Err(Refusal::Malformed("note: no NUL characters".into())),
        _ => Ok(()),
    }
}

/// An order that is locked for a change.
#[derive(Clone, Copy, Debug)]
pub struct Locked {
    /// Its version before the change.
    pub version: i32,
    pub status: Status,
    pub total: Cents,
    pub paid: Cents,
}

impl Locked {
    /// May the note be changed by someone who saw version `based_on`?
    ///
    /// # Errors
    /// [`Refusal::Business`] `version` when the order changed meanwhile.
    pub fn may_change(&self, based_on: Option<i32>) -> Result<(), Refusal> {
        match based_on {
            Some(version) if version != self.version => Err(Refusal::business(
                "version",
                format!("the order is at version {}, not {version}: read it again", self.version),
            )),
            _ => Ok(()),
        }
    }

    /// May this amount be paid?
    ///
    /// # Errors
    /// [`Refusal::Malformed`] unless it is more than nothing, [`Refusal::Business`] for an order that is pending,
    /// refused or cancelled, or more than is open.
    pub fn may_pay(&self, amount: Cents) -> Result<(), Refusal> {
        if amount.0 <= 0 {
            return Err(Refusal::Malformed("amount: pay more than nothing".into()));
        }
        match self.status {
            Status::Placed | Status::Packed | Status::Shipped | Status::Delivered => {}
            Status::Pending => {
                return Err(Refusal::business("pending", "credit and stock are still being asked for"));
            }
            Status::Cancelled => return Err(Refusal::business("cancelled", "the order was cancelled")),
            Status::Refused => return Err(Refusal::business("refused", "the order was refused")),
        }
        if self.paid.0 + amount.0 > self.total.0 {
            let open = Cents(self.total.0 - self.paid.0);
            return Err(Refusal::business("overpaid", format!("only {open} is open")));
        }
        Ok(())
    }

    /// May it be cancelled?
    ///
    /// # Errors
    /// [`Refusal::Business`] unless it is placed and unpaid.
    pub fn may_cancel(&self) -> Result<(), Refusal> {
        if self.status != Status::Placed {
            return Err(Refusal::business("status", format!("the order is {}", self.status.as_str())));
        }
        if self.paid.0 > 0 {
            return Err(Refusal::business("paid", format!("{} was paid already", self.paid)));
        }
        Ok(())
    }

    /// May it be deleted?
    ///
    /// # Errors
    /// [`Refusal::Business`] unless it is cancelled or refused.
    pub fn may_remove(&self) -> Result<(), Refusal> {
        if matches!(self.status, Status::Cancelled | Status::Refused) {
            return Ok(());
        }
        Err(Refusal::business("status", format!("the order is {}: cancel it first", self.status.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked(status: Status, total: i64, paid: i64) -> Locked {
        Locked { version: 3, status, total: Cents(total), paid: Cents(paid) }
    }

    #[test]
    fn a_payment_beyond_the_open_amount_is_refused() {
        let order = locked(Status::Placed, 1000, 400);
        assert!(order.may_pay(Cents(600)).is_ok());
        assert!(order.may_pay(Cents(601)).is_err());
        assert!(order.may_pay(Cents(0)).is_err());
        for closed in [Status::Pending, Status::Cancelled, Status::Refused] {
            assert!(locked(closed, 1000, 0).may_pay(Cents(1)).is_err());
        }
    }

    #[test]
    fn only_placed_and_unpaid_orders_are_cancelled_and_only_cancelled_ones_deleted() {
        assert!(locked(Status::Placed, 1000, 0).may_cancel().is_ok());
        assert!(locked(Status::Placed, 1000, 1).may_cancel().is_err());
        assert!(locked(Status::Packed, 1000, 0).may_cancel().is_err());
        assert!(locked(Status::Pending, 1000, 0).may_cancel().is_err());
        for done in [Status::Cancelled, Status::Refused] {
            assert!(locked(done, 1000, 0).may_remove().is_ok());
        }
        for alive in [Status::Placed, Status::Pending] {
            assert!(locked(alive, 1000, 0).may_remove().is_err());
        }
    }

    #[test]
    fn a_change_based_on_an_older_version_is_refused() {
        let order = locked(Status::Placed, 1000, 0);
        assert!(order.may_change(None).is_ok());
        assert!(order.may_change(Some(3)).is_ok());
        assert!(order.may_change(Some(2)).is_err());
    }
}
