//! The lease that makes one controller a slice's coordinator, and with it the clock of the journal's database.

use crate::store::{Store, StoreError};
use migrations::crossing::Moment;
use migrations::names::SliceName;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// After a coordinator died, so long nobody drives the slice.
pub(super) const LENGTH: Duration = Duration::from_secs(5);
const RENEWED_EVERY: Duration = Duration::from_secs(1);
/// An answer that took longer says the time too roughly, if a better one can be had.
const QUICK: Duration = Duration::from_millis(250);
/// How often a coordinator that begins asks for the time until an answer is quick.
const CLOCK_TRIES: u32 = 3;

/// A moment of the database's clock and ours at the same time.
#[derive(Debug, Clone, Copy)]
struct Clock {
    at: Instant,
    moment: Moment,
    /// How long the database took to say so.
    took: Duration,
}

#[derive(Debug)]
pub(super) struct Lease<'a> {
    store: &'a Store,
    slice: &'a SliceName,
    coordinator: &'a str,
    taken: Instant,
    clock: Mutex<Clock>,
}

impl<'a> Lease<'a> {
    /// None while another coordinator's lease runs.
    pub(super) async fn take(
        store: &'a Store,
        slice: &'a SliceName,
        coordinator: &'a str,
    ) -> Result<Option<Lease<'a>>, StoreError> {
        let asked = Instant::now();
        if !store.take_lease(slice, coordinator, LENGTH).await? {
            return Ok(None);
        }
        let mut best = clock(store).await?;
        for _ in 1..CLOCK_TRIES {
            if best.took > QUICK {
                best = best.or_better(clock(store).await?);
            }
        }
        Ok(Some(Lease { store, slice, coordinator, taken: asked, clock: Mutex::new(best) }))
    }

    /// Keeps the lease; returns when it is lost.
    pub(super) async fn keep(&self) {
        let mut until = self.taken + LENGTH;
        loop {
            tokio::time::sleep(RENEWED_EVERY).await;
            let asked = Instant::now();
            let renewing = async {
                let is_ours = self.store.take_lease(self.slice, self.coordinator, LENGTH).await?;
                Ok::<_, StoreError>(is_ours.then_some(clock(self.store).await?))
            };
            match tokio::time::timeout_at(until, renewing).await {
                Ok(Ok(Some(clock))) => {
                    let better = self.clock().or_better(clock);
                    *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = better;
                    until = asked + LENGTH;
                }
                Ok(Err(error)) if Instant::now() < until => {
                    tracing::warn!(slice = %self.slice, %error, "the lease could not be renewed yet");
                }
                _ => {
                    tracing::warn!(slice = %self.slice, "the lease was lost: another coordinator may go on");
                    return;
                }
            }
        }
    }

    pub(super) fn now(&self) -> Moment {
        let clock = self.clock();
        clock.moment.after(clock.at.elapsed())
    }

    /// When a moment comes, by our own clock.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        let clock = self.clock();
        clock.at + moment.since(clock.moment)
    }

    pub(super) fn moment(&self, instant: Instant) -> Moment {
        let clock = self.clock();
        match instant.checked_duration_since(clock.at) {
            Some(later) => clock.moment.after(later),
            None => {
                let earlier = clock.at.duration_since(instant).as_millis();
                Moment(clock.moment.0.saturating_sub(u64::try_from(earlier).unwrap_or(u64::MAX)))
            }
        }
    }

    fn clock(&self) -> Clock {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// The newer one, unless it is rougher than it needs to be.
    fn or_better(self, newer: Clock) -> Clock {
        if newer.took <= QUICK.max(self.took) { newer } else { self }
    }
}

/// The answer is on its way for a while, so our clock is rather behind. Were it ahead, writes would be held for longer than
/// was wished: the end of a hold is a moment of this clock.
async fn clock(store: &Store) -> Result<Clock, StoreError> {
    let asked = Instant::now();
    let moment = store.now().await?;
    let at = Instant::now();
    Ok(Clock { at, moment, took: at.duration_since(asked) })
}
