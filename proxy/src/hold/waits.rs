//! How long the writes of one hold waited, in a bounded table: to the millisecond up to a second, and to 1/16 beyond.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Waits below this many milliseconds have a place of their own.
const EXACT: u64 = 1 << 10;
/// Places for each doubling beyond.
const STEPS: u64 = 16;
/// Beyond 2^20 ms, about 17 min, all waits are one.
const DOUBLINGS: u64 = 10;
const PLACES: usize = (EXACT + STEPS * DOUBLINGS) as usize;

pub(super) struct Waits {
    counts: Box<[AtomicU32]>,
    max_ms: AtomicU64,
}

impl Waits {
    pub(super) fn new() -> Self {
        Self { counts: (0..PLACES).map(|_| AtomicU32::new(0)).collect(), max_ms: AtomicU64::new(0) }
    }

    pub(super) fn clear(&self) {
        self.counts.iter().for_each(|count| count.store(0, Relaxed));
        self.max_ms.store(0, Relaxed);
    }

    pub(super) fn note(&self, waited: Duration) {
        let ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        self.max_ms.fetch_max(ms, Relaxed);
        if let Some(count) = self.counts.get(place(ms)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn max_ms(&self) -> u64 {
        self.max_ms.load(Relaxed)
    }

    /// 99 of 100 writes waited no longer than this.
    pub(super) fn p99_ms(&self) -> u64 {
        let counts: Vec<u64> = self.counts.iter().map(|count| u64::from(count.load(Relaxed))).collect();
        let total: u64 = counts.iter().sum();
        let mut longer = total / 100;
        let found = counts.iter().enumerate().rev().find(|(_, count)| match longer.checked_sub(**count) {
            Some(rest) => {
                longer = rest;
                false
            }
            None => true,
        });
        found.map_or(0, |(place, _)| longest(place).min(self.max_ms()))
    }
}

fn place(ms: u64) -> usize {
    let ms = ms.min((EXACT << DOUBLINGS) - 1);
    if ms < EXACT {
        return ms as usize;
    }
    let doubling = u64::from(ms.ilog2() - EXACT.ilog2());
    let step = (ms - (EXACT << doubling)) * STEPS / (EXACT << doubling);
    (EXACT + doubling * STEPS + step) as usize
}

/// The longest wait that has this place.
fn longest(place: usize) -> u64 {
    let place = place as u64;
    if place < EXACT {
        return place;
    }
    let (doubling, step) = ((place - EXACT) / STEPS, (place - EXACT) % STEPS);
    (EXACT << doubling) / STEPS * (STEPS + step + 1) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn p99_is_the_sorted_waits_own_or_little_above(mut waits in prop::collection::vec(0u64..100_000, 1..400)) {
            let noted = Waits::new();
            waits.iter().for_each(|ms| noted.note(Duration::from_millis(*ms)));
            waits.sort_unstable();
            let exact = waits[waits.len() - 1 - waits.len() / 100];
            let p99 = noted.p99_ms();
            prop_assert!(exact <= p99 && p99 <= exact + exact / 16, "{exact} {p99}");
            prop_assert_eq!(noted.max_ms(), waits[waits.len() - 1]);
            noted.clear();
            prop_assert_eq!((noted.p99_ms(), noted.max_ms()), (0, 0));
        }

        #[test]
        fn every_wait_has_a_place(ms: u64) {
            prop_assert!(place(ms) < PLACES);
        }
    }
}
