//! The writes of one slice at this proxy: how many are under way, how many wait, and which hold is acted on.
//!
//! It outlives table swaps. A write of a slice that is not held touches two atomics here and no lock.

use super::counters::HoldCounters;
use super::waits::Waits;
use migrations::control::SliceTraffic;
use migrations::names::SliceName;
use migrations::stage::{Epoch, Hold};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;

/// No hold has this epoch.
const NOT_HELD: u64 = u64::MAX;

pub(crate) struct Traffic {
    pub(crate) slice: SliceName,
    pub(crate) counters: HoldCounters,
    in_flight: AtomicU64,
    held: AtomicU64,
    waits: Waits,
    epoch: AtomicU64,
    began: Notify,
    /// The controller's report of it is outdated.
    news: Arc<Notify>,
}

/// A write that counts as in flight until this is dropped.
pub(crate) struct InFlight(pub(crate) Arc<Traffic>);

impl Traffic {
    pub(crate) fn new(slice: SliceName, counters: HoldCounters, news: Arc<Notify>) -> Self {
        Self {
            slice,
            counters,
            in_flight: AtomicU64::new(0),
            held: AtomicU64::new(0),
            waits: Waits::new(),
            epoch: AtomicU64::new(NOT_HELD),
            began: Notify::new(),
            news,
        }
    }

    /// Counts a write. Whether its slice is held must be asked afterwards: see `Tables::enter`.
    pub(crate) fn count(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, SeqCst);
        InFlight(self.clone())
    }

    /// Acts on the hold of the table that is in use now.
    pub(crate) fn set_hold(&self, hold: Option<Hold>) {
        let epoch = hold.map_or(NOT_HELD, |hold| hold.epoch.0);
        if epoch != NOT_HELD && !self.is_held() {
            self.waits.clear();
        }
        let before = self.epoch.swap(epoch, SeqCst);
        if epoch != NOT_HELD {
            self.began.notify_waiters();
        }
        let slice = &self.slice;
        match (before, hold) {
            (NOT_HELD, Some(hold)) => tracing::info!(%slice, epoch = hold.epoch.0, "writes are held"),
            (NOT_HELD, None) | (_, Some(_)) => {}
            (_, None) => tracing::info!(%slice, epoch = before, "writes go on"),
        }
    }

    /// Waits until the slice is held. Returns at once if it is.
    pub(crate) async fn is_stopped(&self) {
        loop {
            let began = self.began.notified();
            if self.is_held() {
                return;
            }
            began.await;
        }
    }

    pub(crate) fn seen(&self) -> SliceTraffic {
        // The hold is read first: then no write that it must stop is missing in the count.
        let epoch = self.epoch.load(SeqCst);
        SliceTraffic {
            holds: (epoch != NOT_HELD).then_some(Epoch(epoch)),
            held: self.held.load(SeqCst),
            in_flight: self.in_flight.load(SeqCst),
            held_ms_p99: self.waits.p99_ms(),
            held_ms_max: self.waits.max_ms(),
        }
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&self) {
        let seen = self.seen();
        self.counters.held.set(seen.held as i64);
        self.counters.in_flight.set(seen.in_flight as i64);
    }

    pub(super) fn note_held(&self) {
        self.held.fetch_add(1, SeqCst);
        self.news.notify_one();
    }

    pub(super) fn note_let_go(&self, waited: Duration) {
        self.waits.note(waited);
        self.held.fetch_sub(1, SeqCst);
        self.news.notify_one();
    }

    fn is_held(&self) -> bool {
        self.epoch.load(SeqCst) != NOT_HELD
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Self(traffic) = self;
        traffic.in_flight.fetch_sub(1, SeqCst);
        // Either this sees the hold, or whoever begins the hold sees the lower count.
        if traffic.is_held() {
            traffic.news.notify_one();
        }
    }
}
