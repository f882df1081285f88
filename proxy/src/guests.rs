//! The clients' connections that are here: how many, and which one leaves when there is no room for another.
//!
//! The connection that has waited longest leaves: between two requests, or for the rest of a head. A connection with a request
//! under way never has to leave.

use prometheus::{IntCounter, IntGauge};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// A seat whose guest has a request under way.
const BUSY: u64 = 0;
/// A seat whose guest was asked to leave. Every value between these two is the time since when the guest waits.
const GONE: u64 = u64::MAX;
/// If all guests have requests under way, the listener checks this often whether one has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) struct Guests {
    places: usize,
    opened: Instant,
    present: Mutex<Present>,
    has_left: Notify,
    count: IntGauge,
    evicted: IntCounter,
}

#[derive(Default)]
struct Present {
    seats: HashMap<u64, Guest>,
    next: u64,
    /// Seats by the time since when their guests wait, the oldest last. Guests that began to wait later are missing here. So the
    /// last guest in this list that still waits has waited longest of all.
    waiting: Vec<(u64, u64)>,
}

struct Guest {
    since: Arc<AtomicU64>,
    task: Option<AbortHandle>,
}

/// A client's place. It is free when this is dropped.
pub(crate) struct Seat {
    guests: Arc<Guests>,
    number: u64,
    since: Arc<AtomicU64>,
}

impl Guests {
    pub(crate) fn new(places: usize, count: IntGauge, evicted: IntCounter) -> Arc<Self> {
        let (present, has_left) = (Mutex::default(), Notify::new());
        Arc::new(Self { places, opened: Instant::now(), present, has_left, count, evicted })
    }

    /// Waits until there is room for one more.
    pub(crate) async fn room(&self) {
        while !self.has_room() {
            let left = self.has_left.notified();
            self.make_room();
            let _ = tokio::time::timeout(LOOK_EVERY, left).await;
        }
    }

    /// Runs a visit in a task of its own.
    pub(crate) fn seat<V>(self: &Arc<Self>, visit: impl FnOnce(Seat) -> V)
    where
        V: Future<Output = ()> + Send + 'static,
    {
        let since = Arc::new(AtomicU64::new(self.now()));
        let number = {
            let mut present = self.present();
            present.next += 1;
            let number = present.next;
            present.seats.insert(number, Guest { since: since.clone(), task: None });
            number
        };
        self.count.inc();
        let seat = Seat { guests: self.clone(), number, since };
        // A runtime that ends drops the visit at once, so this happens outside the lock.
        let task = tokio::spawn(visit(seat)).abort_handle();
        if let Some(guest) = self.present().seats.get_mut(&number) {
            guest.task = Some(task);
        }
    }

    /// Asks the guest that has waited longest to leave. `false` if none waits.
    pub(crate) fn make_room(&self) -> bool {
        let mut present = self.present();
        let is_done = present.ask_oldest() || {
            present.look_round();
            present.ask_oldest()
        };
        if is_done {
            self.evicted.inc();
        }
        is_done
    }

    pub(crate) fn has_room(&self) -> bool {
        self.present().seats.len() < self.places
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In nanoseconds; never [`BUSY`].
    fn now(&self) -> u64 {
        self.opened.elapsed().as_nanos() as u64 + 1
    }
}

impl Present {
    fn ask_oldest(&mut self) -> bool {
        while let Some((since, number)) = self.waiting.pop() {
            let Some(guest) = self.seats.get(&number) else { continue };
            let Some(task) = &guest.task else { continue };
            if guest.since.compare_exchange(since, GONE, SeqCst, SeqCst).is_ok() {
                task.abort();
                return true;
            }
        }
        false
    }

    fn look_round(&mut self) {
        let seats = self.seats.iter().map(|(number, guest)| (guest.since.load(SeqCst), *number));
        self.waiting = seats.filter(|(since, _)| !matches!(*since, BUSY | GONE)).collect();
        self.waiting.sort_unstable_by(|one, other| other.cmp(one));
    }
}

impl Seat {
    /// It waits for a request from now on.
    pub(crate) fn rest(&self) {
        let _ = self.since.compare_exchange(BUSY, self.guests.now(), SeqCst, SeqCst);
    }

    /// A request is here. `false` if the guest was asked to leave.
    pub(crate) fn begin(&self) -> bool {
        let since = self.since.load(SeqCst);
        since != GONE && self.since.compare_exchange(since, BUSY, SeqCst, SeqCst).is_ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.guests.present().seats.remove(&self.number);
        self.guests.count.dec();
        self.guests.has_left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    /// Says who has left.
    struct Leaving(u32, UnboundedSender<u32>);

    impl Drop for Leaving {
        fn drop(&mut self) {
            let _ = self.1.send(self.0);
        }
    }

    #[tokio::test]
    async fn the_guest_that_has_waited_longest_leaves_and_none_with_a_request() {
        let (gauge, evicted) = (IntGauge::new("a", "a").unwrap(), IntCounter::new("b", "b").unwrap());
        let guests = Guests::new(4, gauge.clone(), evicted.clone());
        let (sender, mut left) = unbounded_channel();
        let come = |name: u32, works: bool, returns: bool| {
            let leaving = Leaving(name, sender.clone());
            guests.seat(move |seat| async move {
                if works {
                    assert!(seat.begin());
                }
                if returns {
                    seat.rest();
                }
                std::future::pending::<()>().await;
                drop((leaving, seat));
            });
        };
        // The first waits longest, but its request is under way. The second has just ended one.
        come(1, true, false);
        come(2, true, true);
        come(3, false, false);
        come(4, false, false);
        for name in 5..8 {
            tokio::task::yield_now().await;
            guests.room().await;
            come(name, true, false);
        }
        let order = [left.recv().await, left.recv().await, left.recv().await];
        assert_eq!((order, evicted.get(), gauge.get()), ([Some(3), Some(4), Some(2)], 3, 4));
        tokio::task::yield_now().await;
        assert!(tokio::time::timeout(Duration::from_millis(100), guests.room()).await.is_err());
        assert!(!guests.make_room());
    }
}
