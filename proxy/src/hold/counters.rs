//! What is counted of holds, for Prometheus.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// A hold takes a fraction of a second. Writes wait for ten seconds at most, by default.
const WAIT_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

pub(crate) struct HoldMetrics {
    held: IntGaugeVec,
    in_flight: IntGaugeVec,
    outcomes: IntCounterVec,
    seconds: HistogramVec,
    upgrades_closed: IntCounterVec,
}

/// Those of one slice.
pub(crate) struct HoldCounters {
    /// Brought up to date when the metrics are read, like `in_flight`.
    pub(super) held: IntGauge,
    pub(super) in_flight: IntGauge,
    /// How long a write was held.
    pub(super) seconds: Histogram,
    pub(super) released: IntCounter,
    pub(super) expired: IntCounter,
    pub(super) overflowed: IntCounter,
    pub(super) left: IntCounter,
    pub(crate) upgrades_closed: IntCounter,
}

impl HoldMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let slice: &[&str] = &["slice"];
        let of = |name: &str, help: &str| Opts::new(format!("strangler_proxy_{name}"), help);
        let seconds = of("hold_seconds", "Time that a write was held");
        let seconds = HistogramOpts { common_opts: seconds, buckets: WAIT_BUCKETS.to_vec() };
        let closed = of("upgrades_closed_total", "Upgraded connections that a hold closed");
        let outcomes = of("held_total", "Writes that met a hold, by how their wait ended");
        let metrics = Self {
            held: IntGaugeVec::new(of("held", "Writes that are held"), slice)?,
            in_flight: IntGaugeVec::new(of("in_flight", "Writes that were sent and are not ended"), slice)?,
            outcomes: IntCounterVec::new(outcomes, &["slice", "outcome"])?,
            seconds: HistogramVec::new(seconds, slice)?,
            upgrades_closed: IntCounterVec::new(closed, slice)?,
        };
        registry.register(Box::new(metrics.held.clone()))?;
        registry.register(Box::new(metrics.in_flight.clone()))?;
        registry.register(Box::new(metrics.outcomes.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.upgrades_closed.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn of(&self, slice: &str) -> HoldCounters {
        let outcome = |outcome| self.outcomes.with_label_values(&[slice, outcome]);
        HoldCounters {
            held: self.held.with_label_values(&[slice]),
            in_flight: self.in_flight.with_label_values(&[slice]),
            seconds: self.seconds.with_label_values(&[slice]),
            released: outcome("released"),
            expired: outcome("expired"),
            overflowed: outcome("overflowed"),
            left: outcome("left"),
            upgrades_closed: self.upgrades_closed.with_label_values(&[slice]),
        }
    }
}
