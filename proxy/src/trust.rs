//! Whether an upstream's connections may be used again.
//!
//! An upstream that sends more than it was asked for answers the next request on that connection with it. Nothing in the bytes
//! tells that. So the first connection to an address is watched after its answer, for a while, before any is used again. Bytes
//! that nobody asked for end the trust, whenever they come.

use prometheus::IntCounter;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long the first connection must be quiet.
pub(crate) const TRIAL: Duration = Duration::from_secs(1);
/// After bytes that nobody asked for, no connection is used again for this long. Then there is another trial.
const DISTRUST: Duration = Duration::from_secs(600);

const UNTRIED: u64 = 0;
const ON_TRIAL: u64 = 1;
const TRUSTED: u64 = 2;
/// Larger states are the seconds until another trial, and this.
const DISTRUSTED: u64 = 3;

pub(crate) struct Trust {
    state: AtomicU64,
    since: Instant,
    /// For the log.
    upstream: String,
    unasked: IntCounter,
}

impl Trust {
    pub(crate) fn new(upstream: String, unasked: IntCounter) -> Self {
        Self { state: AtomicU64::new(UNTRIED), since: Instant::now(), upstream, unasked }
    }

    pub(crate) fn is_given(&self) -> bool {
        self.state.load(Relaxed) == TRUSTED
    }

    /// Whether a trial is due, which the caller now holds.
    pub(crate) fn begin_trial(&self) -> bool {
        let state = self.state.load(Relaxed);
        let is_due = match state {
            UNTRIED => true,
            ON_TRIAL | TRUSTED => false,
            until => until - DISTRUSTED <= self.since.elapsed().as_secs(),
        };
        is_due && self.state.compare_exchange(state, ON_TRIAL, Relaxed, Relaxed).is_ok()
    }

    /// The connection on trial was quiet. Or it ended, and another one must be tried.
    pub(crate) fn end_trial(&self, was_quiet: bool) {
        let state = if was_quiet { TRUSTED } else { UNTRIED };
        // Another connection may have said more meanwhile.
        let _ = self.state.compare_exchange(ON_TRIAL, state, Relaxed, Relaxed);
    }

    /// Bytes came that nobody asked for.
    pub(crate) fn end(&self) {
        self.unasked.inc();
        let until = (self.since.elapsed() + DISTRUST).as_secs();
        if self.state.swap(until + DISTRUSTED, Relaxed) <= TRUSTED {
            tracing::warn!(
                upstream = self.upstream,
                "it sent bytes after the end of an answer; each request gets a connection of its own for ten minutes"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_follows_a_trial_and_ends_with_bytes_nobody_asked_for() {
        let trust = Trust::new(String::new(), IntCounter::new("a", "a").unwrap());
        assert!(!trust.is_given() && trust.begin_trial() && !trust.begin_trial());
        trust.end_trial(false);
        assert!(!trust.is_given() && trust.begin_trial());
        trust.end_trial(true);
        assert!(trust.is_given() && !trust.begin_trial());
        trust.end();
        assert!(!trust.is_given() && !trust.begin_trial());
        trust.end_trial(true);
        assert!(!trust.is_given(), "the trial that ends now began before");
        let past = Trust { since: Instant::now().checked_sub(DISTRUST).unwrap(), ..trust };
        past.state.store(DISTRUSTED + DISTRUST.as_secs(), Relaxed);
        assert!(past.begin_trial());
    }
}
