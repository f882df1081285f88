//! What a client does next: a weighted random choice, as data. Pure.

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::shop::money::Cents;
use crate::shop::order::{Line, Order, Status};

/// A client's next request. `order` is an order that the client has seen.
#[derive(Clone, Debug)]
pub enum Wish {
    Show(i64),
    /// Read one order by its old URL, following the redirect.
    ShowOld(i64),
    /// Read the newest orders of a customer, or of all.
    List(Option<i64>),
    /// Search for an order by the reference that this client wrote into its note.
    Search {
        order: i64,
        customer: i64,
        text: String,
    },
    Products,
    Customer(i64),
    Place {
        customer: i64,
        items: Vec<Line>,
    },
    /// Change an order's note. If `careful`, only if the order still has the version last seen.
    Change {
        seen: Box<Order>,
        careful: bool,
    },
    /// Pay a part of what is open.
    Pay {
        order: i64,
        amount: Cents,
    },
    Cancel(i64),
    Remove(i64),
}

pub struct Choices<'a> {
    /// Numbers of customers; not empty.
    pub customers: &'a [i64],
    /// Numbers of products; not empty.
    pub products: &'a [i64],
    /// Orders that this client placed, as last seen, oldest first.
    pub own: &'a [Order],
    /// Orders that this client met, as last seen, oldest first.
    pub met: &'a [Order],
    /// The order that this client has just written.
    pub just_written: Option<i64>,
}

impl Choices<'_> {
    /// Three reads to one write, and after a write often a read of the same order.
    pub fn choose(&self, dice: &mut StdRng) -> Wish {
        if let Some(order) = self.just_written
            && dice.random_bool(0.5)
        {
            return Wish::Show(order);
        }
        let choice = dice.random_range(0..100);
        let wish = match choice {
            0..22 => pick(self.own, dice).map(|order| Wish::Show(order.id)),
            22..38 => pick(self.met, dice).map(|order| Wish::Show(order.id)),
            38..50 => pick(self.own, dice).map(|order| Wish::List(Some(order.customer))),
            50..56 => Some(Wish::List(None)),
            56..66 => pick(self.own, dice).and_then(search),
            66..69 => Some(Wish::Products),
            69..72 => pick(self.customers, dice).map(|customer| Wish::Customer(*customer)),
            72..75 => pick(self.met, dice).map(|order| Wish::ShowOld(order.id)),
            75..85 => None,
            85..91 => self.change(dice),
            91..96 => pick(self.own, dice).and_then(|order| pay(order, dice)),
            96..98 => latest(self.own, |order| order.status == Status::Placed && order.paid.0 == 0)
                .map(|order| Wish::Cancel(order.id)),
            _ => latest(self.own, |order| matches!(order.status, Status::Cancelled | Status::Refused))
                .map(|order| Wish::Remove(order.id)),
        };
        wish.unwrap_or_else(|| self.place(dice))
    }

    fn place(&self, dice: &mut StdRng) -> Wish {
        let customer = pick(self.customers, dice).copied().unwrap_or(1);
        let count = dice.random_range(1..=3);
        let line = |dice: &mut StdRng| Line {
            product: pick(self.products, dice).copied().unwrap_or(1),
            qty: dice.random_range(1..=3),
        };
        Wish::Place { customer, items: (0..count).map(|_| line(dice)).collect() }
    }

    /// Mostly an own order. Another client's order only with its version, so that no unseen note is overwritten.
    fn change(&self, dice: &mut StdRng) -> Option<Wish> {
        let own = dice.random_bool(0.7);
        let seen = pick(if own { self.own } else { self.met }, dice)?.clone();
        Some(Wish::Change { seen: Box::new(seen), careful: !own || dice.random_bool(0.3) })
    }
}

/// The reference in a note, if a client wrote one: `ref:` and 36 characters.
#[must_use]
pub fn reference(note: Option<&str>) -> Option<&str> {
    note.filter(|note| note.starts_with("ref:")).and_then(|note| note.get(..40))
}

fn search(order: &Order) -> Option<Wish> {
    let text = reference(order.note.as_deref())?.to_owned();
    Some(Wish::Search { order: order.id, customer: order.customer, text })
}

fn pay(order: &Order, dice: &mut StdRng) -> Option<Wish> {
    let open = order.total.0 - order.paid.0;
    if open <= 0 || matches!(order.status, Status::Pending | Status::Cancelled | Status::Refused) {
        return None;
    }
    Some(Wish::Pay { order: order.id, amount: Cents(dice.random_range(1..=open)) })
}

fn pick<'a, T>(from: &'a [T], dice: &mut StdRng) -> Option<&'a T> {
    if from.is_empty() { None } else { from.get(dice.random_range(0..from.len())) }
}

fn latest(from: &[Order], fits: impl Fn(&Order) -> bool) -> Option<&Order> {
    from.iter().rev().find(|order| fits(order))
}
