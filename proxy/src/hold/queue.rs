//! Who waits, in which order, and who is next. Pure: no clock, no task.
//!
//! A place in the queue is bounded by count and bytes, and is kept until its owner leaves. So a write that is held a
//! second time keeps its turn before those that came later.

use migrations::names::SliceName;
use migrations::plan::HoldBounds;
use std::collections::BTreeMap;

/// So many of the writes that were held are under way at once, so that an owner with cold caches is not overrun.
pub(crate) const TURNS_MAX: usize = 64;

/// `C` calls the one that waits.
pub(super) struct Queue<C> {
    bounds: HoldBounds,
    /// The present holds, and those whose writes are not all gone.
    lanes: BTreeMap<SliceName, Lane<C>>,
    writes: u64,
    bytes: u64,
    next: u64,
    turns: usize,
}

struct Lane<C> {
    is_held: bool,
    /// By the number of the place.
    waiting: BTreeMap<u64, C>,
}

impl<C> Default for Lane<C> {
    fn default() -> Self {
        Self { is_held: false, waiting: BTreeMap::new() }
    }
}

/// A place in the queue.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    bytes: u64,
}

impl<C> Queue<C> {
    pub(super) fn new(bounds: HoldBounds) -> Self {
        Self { bounds, lanes: BTreeMap::new(), writes: 0, bytes: 0, next: 0, turns: 0 }
    }

    pub(super) fn hold(&mut self, slice: &SliceName) {
        self.lanes.entry(slice.clone()).or_default().is_held = true;
    }

    /// Those who wait for the slice may go, each in its turn.
    pub(super) fn release(&mut self, slice: &SliceName) {
        if let Some(lane) = self.lanes.get_mut(slice) {
            lane.is_held = false;
            self.tidy(slice);
        }
    }

    /// `None` if there is no room.
    pub(super) fn enter(&mut self, bytes: u64) -> Option<Place> {
        if self.writes >= self.bounds.writes_max || self.bytes.saturating_add(bytes) > self.bounds.bytes_max {
            return None;
        }
        self.writes += 1;
        self.bytes += bytes;
        self.next += 1;
        Some(Place { number: self.next, bytes })
    }

    pub(super) fn wait(&mut self, slice: &SliceName, place: &Place, call: C) {
        self.lanes.entry(slice.clone()).or_default().waiting.insert(place.number, call);
    }

    pub(super) fn leave(&mut self, slice: &SliceName, place: &Place) {
        self.writes -= 1;
        self.bytes -= place.bytes;
        if let Some(lane) = self.lanes.get_mut(slice) {
            lane.waiting.remove(&place.number);
        }
        self.tidy(slice);
    }

    /// The next one whose slice is not held, if there is a turn for it.
    pub(super) fn call_next(&mut self) -> Option<C> {
        if self.turns >= TURNS_MAX {
            return None;
        }
        let free = self.lanes.iter().filter(|(_, lane)| !lane.is_held);
        let first = free.filter_map(|(slice, lane)| Some((*lane.waiting.first_key_value()?.0, slice)));
        let slice = first.min()?.1.clone();
        let (_, call) = self.lanes.get_mut(&slice)?.waiting.pop_first()?;
        self.turns += 1;
        self.tidy(&slice);
        Some(call)
    }

    pub(super) fn end_turn(&mut self) {
        self.turns -= 1;
    }

    fn tidy(&mut self, slice: &SliceName) {
        if self.lanes.get(slice).is_some_and(|lane| !lane.is_held && lane.waiting.is_empty()) {
            self.lanes.remove(slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn slice(name: &str) -> SliceName {
        name.parse().unwrap()
    }

    fn queue(writes_max: u64, bytes_max: u64) -> Queue<usize> {
        let mut bounds = migrations::plan::HoldBounds::default();
        (bounds.writes_max, bounds.bytes_max) = (writes_max, bytes_max);
        Queue::new(bounds)
    }

    fn drain(queue: &mut Queue<usize>) -> Vec<usize> {
        std::iter::from_fn(|| queue.call_next()).collect()
    }

    #[test]
    fn writes_go_in_their_order_and_only_when_their_slice_is_free() {
        let (mut queue, orders, stock) = (queue(100, 100), slice("orders"), slice("stock"));
        queue.hold(&orders);
        queue.hold(&stock);
        let places: Vec<_> = (0..4).map(|_| queue.enter(1).unwrap()).collect();
        for (number, of) in [&orders, &stock, &orders, &stock].into_iter().enumerate() {
            queue.wait(of, &places[number], number);
        }
        assert!(drain(&mut queue).is_empty());
        queue.release(&stock);
        assert_eq!(drain(&mut queue), [1, 3]);
        queue.release(&orders);
        assert_eq!(drain(&mut queue), [0, 2]);
    }

    #[test]
    fn a_write_that_is_held_again_keeps_its_place_before_those_that_came_later() {
        let (mut queue, orders) = (queue(100, 100), slice("orders"));
        queue.hold(&orders);
        let (first, second) = (queue.enter(1).unwrap(), queue.enter(1).unwrap());
        queue.wait(&orders, &first, 1);
        queue.release(&orders);
        assert_eq!(drain(&mut queue), [1]);
        queue.hold(&orders);
        queue.end_turn();
        queue.wait(&orders, &second, 2);
        queue.wait(&orders, &first, 1);
        assert!(drain(&mut queue).is_empty());
        queue.release(&orders);
        assert_eq!(drain(&mut queue), [1, 2]);
    }

    #[test]
    fn there_are_as_many_turns_as_the_bound_says_and_each_is_used_again() {
        let (mut queue, orders) = (queue(1_000, 1_000), slice("orders"));
        let places: Vec<_> = (0..100).map(|_| queue.enter(1).unwrap()).collect();
        places.iter().enumerate().for_each(|(number, place)| queue.wait(&orders, place, number));
        assert_eq!(drain(&mut queue).len(), TURNS_MAX);
        (0..10).for_each(|_| queue.end_turn());
        assert_eq!(drain(&mut queue), (TURNS_MAX..TURNS_MAX + 10).collect::<Vec<_>>());
    }

    proptest! {
        /// Compared with a list: bounds and order hold, nothing is called twice, and nothing is left behind.
        #[test]
        fn it_is_a_bounded_queue(moves in prop::collection::vec((0..5u8, 0..50usize, 0..40u64), 0..300)) {
            let (mut queue, orders) = (queue(20, 200), slice("orders"));
            let (mut waiting, mut gone, mut is_held) = (VecDeque::new(), Vec::new(), false);
            for (number, (what, which, bytes)) in moves.into_iter().enumerate() {
                match what {
                    0 | 1 => {
                        is_held = what == 0;
                        if is_held { queue.hold(&orders) } else { queue.release(&orders) }
                    }
                    2 => {
                        let all = waiting.iter().chain(&gone);
                        let sum: u64 = all.clone().map(|(_, place): &(usize, Place)| place.bytes).sum();
                        let fits = all.count() < 20 && sum + bytes <= 200;
                        let place = queue.enter(bytes);
                        prop_assert_eq!(place.is_some(), fits);
                        if let Some(place) = place {
                            queue.wait(&orders, &place, number);
                            waiting.push_back((number, place));
                        }
                    }
                    3 => {
                        let called = queue.call_next();
                        let expected = if is_held { None } else { waiting.front().map(|(n, _)| *n) };
                        prop_assert_eq!(called, expected);
                        if called.is_some() {
                            gone.extend(waiting.pop_front());
                        }
                    }
                    _ if which % 2 == 0 && !gone.is_empty() => {
                        queue.leave(&orders, &gone.swap_remove(which % gone.len()).1);
                        queue.end_turn();
                    }
                    _ if !waiting.is_empty() => {
                        let (_, place) = waiting.remove(which % waiting.len()).unwrap();
                        queue.leave(&orders, &place);
                    }
                    _ => {}
                }
            }
            waiting.iter().chain(&gone).for_each(|(_, place)| queue.leave(&orders, place));
            queue.release(&orders);
            prop_assert!(queue.lanes.is_empty() && (queue.writes, queue.bytes) == (0, 0));
        }
    }
}
