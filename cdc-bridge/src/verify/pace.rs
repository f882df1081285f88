//! How much of the databases' time a verification takes, and how many rows it reads at once.

use std::time::Duration;

/// Of four parts of time, one is worked and three are rested.
const RESTS_PER_WORK: u32 = 3;
/// So that a single slow look does not stop everything for long.
const REST_MAX: Duration = Duration::from_secs(2);

/// Rows of one look: at first, and at most.
const ROWS_FIRST: usize = 100;
const ROWS_MAX: usize = 2000;
/// What the rows of one look should come to, in bytes.
const BYTES_WANTED: usize = 512 << 10;

/// The rest after work that took so long.
pub(crate) fn rest(worked: Duration, full_speed: bool) -> Duration {
    if full_speed { Duration::ZERO } else { (worked * RESTS_PER_WORK).min(REST_MAX) }
}

/// How many rows to read next, from how large the last ones were.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stride(usize);

impl Stride {
    pub(crate) fn new() -> Stride {
        Stride(ROWS_FIRST)
    }

    pub(crate) fn rows(self) -> usize {
        self.0
    }

    pub(crate) fn learn(&mut self, rows: usize, bytes: usize) {
        let Some(each) = bytes.checked_div(rows).filter(|bytes| *bytes > 0) else { return };
        self.0 = (BYTES_WANTED / each).clamp(1, (self.0 * 2).min(ROWS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_quarters_of_the_time_are_left_to_others() {
        assert_eq!(rest(Duration::from_millis(20), false), Duration::from_millis(60));
        assert_eq!(rest(Duration::from_secs(9), false), REST_MAX);
        assert_eq!(rest(Duration::from_secs(9), true), Duration::ZERO);
    }

    #[test]
    fn large_rows_are_read_in_small_numbers() {
        let mut stride = Stride::new();
        stride.learn(100, 100 * 50);
        assert_eq!(stride.rows(), 200);
        for _ in 0..9 {
            stride.learn(200, 200 * 50);
        }
        assert_eq!(stride.rows(), ROWS_MAX);
        stride.learn(1, 16 << 20);
        assert_eq!(stride.rows(), 1);
        stride.learn(0, 0);
        assert_eq!(stride.rows(), 1);
    }
}
