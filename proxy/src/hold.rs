//! Writes that wait while their slice is held: bounded in count, bytes and time, and let go in turn.
//!
//! A held write is unsent and its body unread. What becomes of it is decided by the table that is in use when it goes.
//! Nothing here decides who owns a slice.

pub(crate) mod counters;
mod queue;
pub(crate) mod stay;
pub(crate) mod traffic;
mod waits;

use migrations::crossing::Moment;
use migrations::names::SliceName;
use migrations::plan::HoldBounds;
use migrations::stage::Hold;
use queue::{Place, Queue};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use traffic::Traffic;

/// A turn ends when the answer begins, or after this. Otherwise a few clients that send their bodies slowly could keep
/// all others waiting.
const TURN_MAX: Duration = Duration::from_secs(1);

pub(crate) struct Holds {
    bounds: HoldBounds,
    queue: Mutex<Queue<oneshot::Sender<Turn>>>,
}

/// A write that is held. It has a place in the queue until this is dropped.
pub(crate) struct Held {
    pub(crate) traffic: Arc<Traffic>,
    holds: Arc<Holds>,
    place: Place,
    since: Instant,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Released,
    Expired,
    /// The client left.
    Left,
}

/// The right to be sent now. Dropping it calls the next one.
pub(crate) struct Turn(Option<Arc<Holds>>);

/// A turn that ends when this is dropped, and after [`TURN_MAX`] at the latest.
pub(crate) struct Going(#[allow(dead_code, reason = "it is only dropped")] oneshot::Sender<Infallible>);

impl Holds {
    pub(crate) fn new(bounds: HoldBounds) -> Self {
        Self { bounds, queue: Mutex::new(Queue::new(bounds)) }
    }

    /// Calls nobody of the slice any more. Called before the table with the hold is in use.
    pub(crate) fn begin(&self, slice: &SliceName) {
        self.queue().hold(slice);
    }

    /// Lets the slice's writes go in turn. Called when the table without the hold is in use.
    pub(crate) fn end(self: &Arc<Self>, slice: &SliceName) {
        self.queue().release(slice);
        self.call();
    }

    /// Takes a write in. `None` if there is no room.
    pub(crate) fn take_in(self: &Arc<Self>, traffic: &Arc<Traffic>, bytes: u64) -> Option<Held> {
        let Some(place) = self.queue().enter(bytes) else {
            traffic.counters.overflowed.inc();
            return None;
        };
        traffic.note_held();
        Some(Held { traffic: traffic.clone(), holds: self.clone(), place, since: Instant::now() })
    }

    /// How much longer a write that arrived at `arrived` may wait.
    pub(crate) fn patience(&self, arrived: Instant, hold: Option<Hold>) -> Duration {
        self.bounds.patience(arrived.elapsed(), hold, now())
    }

    /// Calls as many as there are turns.
    fn call(self: &Arc<Self>) {
        loop {
            let Some(next) = self.queue().call_next() else { return };
            if let Err(mut turn) = next.send(Turn(Some(self.clone()))) {
                // It has left. Its turn goes to the next one.
                turn.0 = None;
                self.queue().end_turn();
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<oneshot::Sender<Turn>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Resolves when its slice is not held and its turn has come.
    pub(crate) fn turn(&self) -> oneshot::Receiver<Turn> {
        let (call, called) = oneshot::channel();
        self.holds.queue().wait(&self.traffic.slice, &self.place, call);
        // The hold may have ended before it was in the queue.
        self.holds.call();
        called
    }

    /// Ends the wait. Returns how long it was.
    pub(crate) fn end(self, ending: Ending) -> Duration {
        let counters = &self.traffic.counters;
        match ending {
            Ending::Released => counters.released.inc(),
            Ending::Expired => counters.expired.inc(),
            Ending::Left => counters.left.inc(),
        }
        let waited = self.since.elapsed();
        counters.seconds.observe(waited.as_secs_f64());
        waited
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holds.queue().leave(&self.traffic.slice, &self.place);
        self.traffic.note_let_go(self.since.elapsed());
    }
}

impl Turn {
    pub(crate) fn begin(self) -> Going {
        let (going, gone) = oneshot::channel();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(TURN_MAX, gone).await;
            drop(self);
        });
        Going(going)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(holds) = self.0.take() {
            holds.queue().end_turn();
            holds.call();
        }
    }
}

/// Now, by this machine's clock. It only bounds a wait.
fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
