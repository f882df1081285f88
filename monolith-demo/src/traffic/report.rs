//! A run's counts while it runs, and its report at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::incidents::{self, Incident, Kind};
use super::latency::Latencies;

/// How many examples of each kind are kept.
pub const SAMPLES_MAX: usize = 20;

#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub requests: u64,
    /// Requests that got a 5xx or no answer.
    pub failed: u64,
    /// Answers that broke a rule.
    pub wrong: u64,
    /// Requests refused for business reasons, which is correct.
    pub refused: u64,
    /// Writes that were put off with a 503 and Retry-After.
    pub deferred: u64,
    /// New orders that were taken, but not confirmed at once.
    pub pending: u64,
    /// What was looked at while the run went on.
    pub watch: Watch,
    /// Which side answered, by the header `x-served-by`; `nobody` if it was missing.
    pub by_served: BTreeMap<String, u64>,
    pub latencies: Latencies,
    /// Examples of what was wrong or failed.
    pub samples: Vec<String>,
}

/// What was seen in the databases again and again, whoever owned the orders at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Watch {
    /// How often the databases were looked at.
    pub looks: u64,
    /// Customers whose open orders exceeded their credit, summed over all looks.
    pub credit_exceeded: u64,
    /// Products with a negative stock, summed over all looks.
    pub stock_negative: u64,
}

#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Counts>,
    /// Where each incident is written, if anyone wants to know.
    incidents: Option<File>,
}

impl Tally {
    pub(super) fn noting(incidents: Option<File>) -> Self {
        Self { counts: Mutex::default(), incidents }
    }

    pub fn answered(&self, served_by: &str, took: Duration) {
        let mut counts = self.lock();
        counts.requests += 1;
        counts.latencies.add(took);
        if let Some(count) = counts.by_served.get_mut(served_by) {
            *count += 1;
        } else if counts.by_served.len() < SAMPLES_MAX {
            counts.by_served.insert(served_by.to_owned(), 1);
        }
    }

    pub fn unanswered(&self, took: Duration) {
        let mut counts = self.lock();
        counts.requests += 1;
        counts.latencies.add(took);
    }

    /// Counts what did not go well, and writes it down.
    pub fn incident(&self, incident: &Incident) {
        let mut counts = self.lock();
        let (count, word) = match incident.kind {
            Kind::Failed => (&mut counts.failed, "failed"),
            Kind::PutOff => (&mut counts.deferred, "put off"),
            Kind::Wrong => (&mut counts.wrong, "wrong"),
        };
        *count += 1;
        keep_sample(&mut counts.samples, || format!("{word}: {}", incident.what));
        if let Some(file) = &self.incidents {
            incidents::write(file, incident);
        }
    }

    /// Counts a refusal for business reasons.
    pub fn refused(&self) {
        self.lock().refused += 1;
    }

    /// Counts a new order that is not confirmed yet.
    pub fn pending(&self) {
        self.lock().pending += 1;
    }

    /// Counts a look at the databases.
    pub fn looked(&self, exceeded: u64, negative: u64) {
        let watch = &mut self.lock().watch;
        watch.looks += 1;
        watch.credit_exceeded += exceeded;
        watch.stock_negative += negative;
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A panic while counting leaves no half-made change that matters.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub fn keep_sample(samples: &mut Vec<String>, sample: impl FnOnce() -> String) {
    if samples.len() < SAMPLES_MAX {
        samples.push(sample());
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Proof {
    /// Which side's database was compared with the promises: the one that acknowledged the last write.
    pub owner: String,
    /// Promises that the owner's database does not keep.
    pub lost: u64,
    /// Client references that are in a database more than once.
    pub doubled: u64,
    /// Rows that differ between the two sides; none if there was no second side.
    pub differences: Option<u64>,
    /// Rows compared on the monolith's side.
    pub rows: u64,
    /// Promises that were compared with the database.
    pub promises: u64,
    /// Failed writes that may or may not have been done.
    pub unknown: u64,
    /// Sagas that did not end in time, and orders that stayed pending.
    pub sagas_open: u64,
    /// Open orders whose credit or stock is not in the monolith's books, and entries there without an open order.
    pub books_differ: u64,
    /// Examples of what is lost, doubled or different.
    pub proof_samples: Vec<String>,
}

impl Proof {
    /// Is nothing lost, doubled, different or left open?
    #[must_use]
    pub fn holds(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.differences.unwrap_or(0) == 0
            && self.sagas_open == 0
            && self.books_differ == 0
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub requests: u64,
    /// Requests that got a 5xx or no answer.
    pub failed: u64,
    /// Answers that broke a rule.
    pub wrong: u64,
    /// Requests refused for business reasons.
    pub refused: u64,
    /// Writes that were put off with a 503 and Retry-After.
    pub deferred: u64,
    /// New orders that were taken, but not confirmed at once.
    pub pending: u64,
    #[serde(flatten)]
    pub watch: Watch,
    #[serde(flatten)]
    pub proof: Proof,
    pub by_served: BTreeMap<String, u64>,
    /// Half of the requests took at most this, in milliseconds.
    pub latency_ms_p50: f64,
    /// All but one in a hundred took at most this, in milliseconds.
    pub latency_ms_p99: f64,
    /// How long the run took, without the proof.
    pub seconds: f64,
    /// Examples of what failed or was wrong.
    pub samples: Vec<String>,
}

impl Report {
    #[must_use]
    pub fn new(counts: Counts, proof: Proof, took: Duration) -> Self {
        let mut by_served = counts.by_served;
        for side in ["monolith", "orders"] {
            by_served.entry(side.to_owned()).or_default();
        }
        Self {
            requests: counts.requests,
            failed: counts.failed,
            wrong: counts.wrong,
            refused: counts.refused,
            deferred: counts.deferred,
            pending: counts.pending,
            watch: counts.watch,
            proof,
            by_served,
            latency_ms_p50: counts.latencies.quantile_ms(0.5),
            latency_ms_p99: counts.latencies.quantile_ms(0.99),
            seconds: (took.as_secs_f64() * 100.0).round() / 100.0,
            samples: counts.samples,
        }
    }

    /// Did everything hold, with at most this many failed requests?
    #[must_use]
    pub fn holds(&self, failed_max: u64) -> bool {
        let Watch { credit_exceeded, stock_negative, .. } = self.watch;
        self.failed <= failed_max
            && self.wrong == 0
            && (credit_exceeded, stock_negative) == (0, 0)
            && self.proof.holds()
    }
}
