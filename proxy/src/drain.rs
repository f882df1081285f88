//! How the proxy ends: nothing new is accepted, what is under way ends by itself, and what does not is cut off at a deadline.
//!
//! Connections see the end here. Each is counted, so that the proxy ends with the last one.

use pingora::server::ShutdownWatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// A silent connection stays open for so long, so that a request that is already on its way is answered. The answer closes
/// the connection.
const LINGER_WITH_SUCCESSOR: Duration = Duration::from_secs(5);
/// Nobody else would answer a new connection.
const LINGER_ALONE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A connection that was accepted is counted a moment later, when its task runs.
const SETTLED_LOOKS: u32 = 5;

pub(crate) struct Drain {
    begun: watch::Sender<bool>,
    has_successor: AtomicBool,
    visits: Arc<AtomicUsize>,
    lessons: Arc<AtomicUsize>,
}

/// Counts one of a kind until it is dropped.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn one_of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Drain {
    pub(crate) fn new() -> Self {
        let (visits, lessons) = (Arc::default(), Arc::default());
        Self { begun: watch::Sender::new(false), has_successor: AtomicBool::new(false), visits, lessons }
    }

    /// Turns true when the proxy accepts nothing more.
    pub(crate) fn begun(&self) -> ShutdownWatch {
        self.begun.subscribe()
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    pub(crate) fn begin(&self, has_successor: bool) {
        self.has_successor.store(has_successor, SeqCst);
        self.begun.send_replace(true);
    }

    /// Whether no process serves after this one. What is held is refused then: nobody would see its end.
    pub(crate) fn is_last(&self) -> bool {
        self.has_begun() && !self.has_successor.load(SeqCst)
    }

    pub(crate) fn linger(&self) -> Duration {
        if self.has_successor.load(SeqCst) { LINGER_WITH_SUCCESSOR } else { LINGER_ALONE }
    }

    /// A client's connection.
    pub(crate) fn visit(&self) -> Counted {
        Counted::one_of(&self.visits)
    }

    /// A request from which its client may learn something that the successor cannot know: a write until it has ended, a
    /// read until its answer has begun.
    pub(crate) fn lesson(&self) -> Counted {
        Counted::one_of(&self.lessons)
    }

    /// Waits for the last connection's end.
    pub(crate) async fn empty(&self) {
        settled(&self.visits).await;
    }

    /// Waits until no client learns anything more. A silent connection may bring a request while it lingers.
    pub(crate) async fn quiet(&self) {
        tokio::select! {
            () = sleep(self.linger()) => {}
            () = self.empty() => {}
        }
        settled(&self.lessons).await;
    }
}

async fn settled(count: &AtomicUsize) {
    let mut looks = 0;
    while looks < SETTLED_LOOKS {
        looks = if count.load(SeqCst) == 0 { looks + 1 } else { 0 };
        sleep(LOOK_EVERY).await;
    }
}
