//! Latencies in buckets that grow by 5 %: constant memory, and an error of at most 5 %.

use std::time::Duration;

const SMALLEST_MICROS: f64 = 10.0;
const GROWTH: f64 = 1.05;
/// Enough for more than a minute, which is longer than any request may take.
const BUCKETS: usize = 330;

#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Latencies {
    pub fn add(&mut self, took: Duration) {
        let steps = (took.as_secs_f64() * 1e6 / SMALLEST_MICROS).max(1.0).ln() / GROWTH.ln();
        // Not negative because of `max`, and clamped, so the cast keeps the value.
        let index = (steps.ceil() as usize).min(BUCKETS - 1);
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
        }
        self.count += 1;
    }

    /// The latency in milliseconds that `part` (0 to 1) of the requests stayed within; 0 without requests.
    #[must_use]
    pub fn quantile_ms(&self, part: f64) -> f64 {
        let rank = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen >= rank {
                let micros = SMALLEST_MICROS * GROWTH.powf(index as f64);
                return (micros / 10.0).round() / 100.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_five_percent() {
        let mut latencies = Latencies::default();
        assert!(latencies.quantile_ms(0.5).abs() < f64::EPSILON);
        for millis in 1..=1000 {
            latencies.add(Duration::from_millis(millis));
        }
        for (part, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = latencies.quantile_ms(part);
            assert!((got / expected - 1.0).abs() < 0.06, "{part}: {got} instead of {expected}");
        }
        latencies.add(Duration::from_secs(3600));
        assert!(latencies.quantile_ms(1.0) > 60_000.0);
    }
}
