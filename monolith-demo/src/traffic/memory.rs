//! What one client has seen, and whether a new answer goes back in time. Pure.
//!
//! The only thing known of other clients is whether one of them started to delete an order.

use std::collections::BTreeMap;

use crate::shop::order::Order;

/// The most orders that a client remembers. The oldest are forgotten first.
const ORDERS_MAX: usize = 20_000;

/// A note that starts like this marks a probe, which clients ignore.
pub const PROBE: &str = "lag-probe";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    There { version: i32, written: bool, customer: i64 },
    Gone,
}

#[derive(Clone, Debug, Default)]
pub struct Memory {
    orders: BTreeMap<i64, Known>,
}

impl Memory {
    /// An answer contained the order. Returns what is wrong with it.
    pub fn saw(&mut self, order: &Order, written: bool) -> Option<String> {
        if is_probe(order) {
            return None;
        }
        if let Err(sums) = order.adds_up() {
            return Some(format!("order {} at version {} does not add up: {sums}", order.id, order.version));
        }
        let there = Known::There { version: order.version, written, customer: order.customer };
        match self.orders.get(&order.id) {
            Some(Known::Gone) => {
                return Some(format!("order {} came back after it was gone", order.id));
            }
            Some(Known::There { version, written, .. }) if *version > order.version => {
                let how = if *written { "acknowledged a write at" } else { "read" };
                return Some(format!(
                    "order {} went back in time: {how} version {version}, then read {} from {}",
                    order.id, order.version, order.served_by
                ));
            }
            Some(Known::There { version, .. }) if *version == order.version => {}
            _ => {
                self.orders.insert(order.id, there);
            }
        }
        if self.orders.len() > ORDERS_MAX {
            self.orders.pop_first();
        }
        None
    }

    /// The order was not there. `excused` if any client started to delete it.
    pub fn missed(&mut self, order: i64, excused: bool) -> Option<String> {
        match self.orders.get(&order) {
            Some(Known::There { version, .. }) if !excused => {
                Some(format!("order {order}, seen at version {version}, vanished"))
            }
            Some(Known::There { .. }) => {
                self.orders.insert(order, Known::Gone);
                None
            }
            _ => None,
        }
    }

    /// This client deleted the order, and it was acknowledged.
    pub fn removed(&mut self, order: i64) {
        self.orders.insert(order, Known::Gone);
    }

    /// A list of the newest orders, of one customer or of all, must hold every order in its range that this client has
    /// seen. `excused` says whether any client started to delete an order.
    pub fn listed(
        &mut self,
        customer: Option<i64>,
        limit: usize,
        list: &[Order],
        excused: impl Fn(i64) -> bool,
    ) -> Option<String> {
        let descending = list.windows(2).all(|pair| matches!(pair, [a, b] if a.id > b.id));
        if !descending || list.len() > limit {
            return Some(format!("a list of {limit} orders, newest first, is neither"));
        }
        let from = if list.len() < limit { i64::MIN } else { list.last().map_or(i64::MIN, |o| o.id) };
        for (id, known) in self.orders.range(from..) {
            let Known::There { customer: whose, version, .. } = known else { continue };
            let wanted = customer.is_none_or(|customer| customer == *whose);
            if wanted && !excused(*id) && list.binary_search_by(|order| id.cmp(&order.id)).is_err() {
                return Some(format!("order {id}, seen at version {version}, is missing from a list"));
            }
        }
        list.iter().find_map(|order| self.saw(order, false))
    }
}

/// Is this order a probe, which may vanish at any time?
#[must_use]
pub fn is_probe(order: &Order) -> bool {
    order.note.as_deref().is_some_and(|note| note.starts_with(PROBE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::money::Cents;
    use crate::shop::order::{Item, Status};

    fn order(id: i64, version: i32) -> Order {
        Order {
            id,
            customer: 5,
            status: Status::Placed,
            note: None,
            total: Cents(200),
            paid: Cents(0),
            placed_at: time::OffsetDateTime::UNIX_EPOCH,
            version,
            items: vec![Item { id: 1, product: 1, qty: 2, price: Cents(100) }],
            payments: vec![],
            served_by: "monolith".into(),
        }
    }

    #[test]
    fn reads_never_go_back_to_an_older_version() {
        let mut memory = Memory::default();
        for version in [1, 1, 3] {
            assert_eq!(memory.saw(&order(1, version), false), None);
        }
        assert!(memory.saw(&order(1, 2), false).unwrap().contains("back in time"));
    }

    #[test]
    fn no_later_read_is_older_than_an_acknowledged_write() {
        let mut memory = Memory::default();
        assert_eq!(memory.saw(&order(1, 2), true), None);
        assert!(memory.saw(&order(1, 1), false).unwrap().contains("acknowledged"));
    }

    #[test]
    fn a_seen_order_vanishes_only_after_a_deletion_and_stays_gone() {
        let mut memory = Memory::default();
        assert_eq!(memory.missed(1, false), None);
        memory.saw(&order(1, 1), false);
        assert!(memory.missed(1, false).is_some());
        assert_eq!(memory.missed(1, true), None);
        assert!(memory.saw(&order(1, 1), false).unwrap().contains("came back"));
    }

    #[test]
    fn an_order_whose_sums_are_wrong_is_reported() {
        let mut memory = Memory::default();
        assert!(memory.saw(&Order { total: Cents(201), ..order(1, 1) }, false).is_some());
        assert!(memory.saw(&Order { paid: Cents(1), ..order(1, 1) }, false).is_some());
    }

    #[test]
    fn a_list_holds_every_order_in_its_range() {
        let mut memory = Memory::default();
        memory.saw(&order(10, 1), false);
        memory.saw(&order(20, 1), true);
        let list = |ids: &[i64]| ids.iter().map(|id| order(*id, 1)).collect::<Vec<_>>();
        assert_eq!(memory.listed(None, 2, &list(&[30, 20]), |_| false), None);
        assert!(memory.listed(None, 2, &list(&[30, 10]), |_| false).unwrap().contains("missing"));
        assert!(memory.listed(Some(5), 3, &list(&[30, 20]), |_| false).is_some());
        assert_eq!(memory.listed(Some(6), 3, &list(&[]), |_| false), None);
        assert_eq!(memory.listed(None, 3, &list(&[30, 20]), |id| id == 10), None);
        assert!(memory.listed(None, 2, &list(&[20, 30]), |_| false).is_some());
    }

    #[test]
    fn probes_are_ignored() {
        let mut memory = Memory::default();
        let probe = Order { note: Some(format!("{PROBE} 1")), total: Cents(0), ..order(1, 9) };
        assert_eq!(memory.saw(&probe, false), None);
        assert_eq!(memory.missed(1, false), None);
    }
}
