//! How crossings ended since the start, counted for Prometheus.

use migrations::api::{CrossingEnd, CrossingReport};
use migrations::cutover::REHEARSED;
use prometheus::{Error, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// A hold takes a fraction of a second, and 60 s at most.
const HOLD_BUCKETS: [f64; 11] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

#[derive(Debug)]
pub(crate) struct Ends {
    ended: IntCounterVec,
    held: HistogramVec,
}

impl Ends {
    /// None only if the names below were no names.
    pub(crate) fn new() -> Option<Ends> {
        let ended = Opts::new("strangler_crossings_total", "Crossings that ended since the start.");
        let held = HistogramOpts::new("strangler_crossing_hold_seconds", "How long a crossing held writes.");
        let held = HistogramOpts { buckets: HOLD_BUCKETS.to_vec(), ..held };
        Some(Ends {
            ended: IntCounterVec::new(ended, &["slice", "verb", "end"]).ok()?,
            held: HistogramVec::new(held, &["slice", "verb"]).ok()?,
        })
    }

    /// Counts what a report says that the one before of the same crossing did not.
    pub(crate) fn note(&self, before: Option<&CrossingReport>, report: &CrossingReport) {
        let before = before.filter(|before| before.verb == report.verb && before.epoch <= report.epoch);
        let labels = [report.slice.as_str(), report.verb.as_str()];
        if let Some(end) = &report.end
            && before.is_none_or(|before| before.end.is_none())
        {
            let end = match end {
                CrossingEnd::Committed => "committed",
                CrossingEnd::Aborted { why } if why == REHEARSED => "rehearsed",
                CrossingEnd::Aborted { .. } => "aborted",
            };
            self.ended.with_label_values(&[labels[0], labels[1], end]).inc();
        }
        if let Some(ms) = report.hold_ms
            && before.is_none_or(|before| before.hold_ms.is_none())
        {
            self.held.with_label_values(&labels).observe(ms as f64 / 1e3);
        }
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), Error> {
        registry.register(Box::new(self.ended.clone()))?;
        registry.register(Box::new(self.held.clone()))
    }
}
