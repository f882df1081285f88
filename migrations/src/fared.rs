//! How requests fared in a while: how many there were, how many failed, and how long they took. Proxies count, the
//! controller adds up.

use crate::gate::Side;
use crate::names::{RouteName, SliceName};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The classes of times: each holds what took no longer than this, in ms, and longer than the one before. What took longer
/// than all is in one class more.
pub const BOUNDS_MS: [u64; 24] = [
    1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000,
    10_000, 30_000,
];
pub const CLASSES: usize = BOUNDS_MS.len() + 1;

/// Requests of one kind. Two of these can be added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fared {
    pub requests: u64,
    /// Those that the upstream answered with 5xx.
    pub errors: u64,
    /// Those that the upstream did not answer: nobody was there, it broke off, or it took too long.
    pub unanswered: u64,
    /// How many took so long, by [`BOUNDS_MS`]; without the empty classes at the end.
    pub took: Vec<u64>,
}

/// How a side answered the requests of a route, or those that match none, at one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteFared {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub route: Option<(SliceName, RouteName)>,
    pub side: Side,
    #[serde(flatten)]
    pub fared: Fared,
}

/// The class of a time.
pub fn class(took: Duration) -> usize {
    let fits = |bound: &u64| took <= Duration::from_millis(*bound);
    BOUNDS_MS.iter().position(fits).unwrap_or(BOUNDS_MS.len())
}

impl Fared {
    pub fn add(&mut self, other: &Fared) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.unanswered = self.unanswered.saturating_add(other.unanswered);
        // What another version may have beyond the last class is in the last one here.
        for (class, count) in other.took.iter().enumerate() {
            let class = class.min(CLASSES - 1);
            if self.took.len() <= class {
                self.took.resize(class + 1, 0);
            }
            self.took[class] = self.took[class].saturating_add(*count);
        }
    }

    pub fn failed(&self) -> u64 {
        self.errors.saturating_add(self.unanswered)
    }

    /// 99 of 100 took no longer, in ms. None without a request, and if it is longer than the last of [`BOUNDS_MS`].
    pub fn p99_ms(&self) -> Option<u64> {
        let all = self.took.iter().fold(0u64, |all, count| all.saturating_add(*count));
        let wanted = all - all / 100;
        let mut sum = 0u64;
        let reached = self.took.iter().position(|count| {
            sum = sum.saturating_add(*count);
            sum >= wanted && sum > 0
        });
        BOUNDS_MS.get(reached?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(times: &[u64]) -> Fared {
        let mut took = vec![0; CLASSES];
        times.iter().for_each(|ms| took[class(Duration::from_millis(*ms))] += 1);
        Fared { requests: times.len() as u64, took, ..Fared::default() }
    }

    #[test]
    fn a_time_is_in_the_first_class_that_holds_it() {
        assert_eq!(class(Duration::ZERO), 0);
        assert_eq!(class(Duration::from_millis(1)), 0);
        assert_eq!(class(Duration::from_micros(1_001)), 1);
        assert_eq!(class(Duration::from_secs(31)), CLASSES - 1);
    }

    #[test]
    fn one_slow_request_in_a_hundred_does_not_count_and_two_do() {
        let mut times = vec![4; 99];
        assert_eq!(of(&[]).p99_ms(), None);
        times.push(900);
        assert_eq!(of(&times).p99_ms(), Some(5));
        times.push(900);
        times.extend([4; 20]);
        assert_eq!(of(&times).p99_ms(), Some(1_000));
        assert_eq!(of(&[60_000]).p99_ms(), None, "longer than can be told");
    }

    proptest! {
        #[test]
        fn the_sum_is_of_both(a in proptest::collection::vec(0u64..40_000, 0..50), b in proptest::collection::vec(0u64..40_000, 0..50)) {
            let mut sum = of(&a);
            sum.add(&of(&b));
            prop_assert_eq!(sum, of(&[a, b].concat()));
        }

        #[test]
        fn any_report_can_be_added(took in proptest::collection::vec(any::<u64>(), 0..60)) {
            let mut sum = Fared { took: vec![u64::MAX], ..Fared::default() };
            sum.add(&Fared { requests: u64::MAX, took, ..Fared::default() });
            prop_assert!(sum.took.len() <= CLASSES);
            sum.p99_ms();
        }
    }
}
