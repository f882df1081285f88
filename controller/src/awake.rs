//! The time in which this process ran. A controller that stood still heard nobody, which says nothing about who lives and
//! what they know.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often it is looked whether time passed as it should.
const TICK: Duration = Duration::from_millis(100);
/// A tick that comes so late tells of a process that stood still, and not of a busy machine.
const LATE: Duration = Duration::from_millis(500);

/// A clock that stands still with its process.
#[derive(Debug, Default)]
pub(crate) struct Awake(Mutex<Ran>);

#[derive(Debug, Default)]
struct Ran {
    /// None before the first tick: without ticks nothing is known.
    ticked: Option<Instant>,
    stood: Duration,
}

impl Ran {
    fn note(&mut self, now: Instant) {
        let Some(ticked) = self.ticked else { return };
        let late = now.saturating_duration_since(ticked + TICK);
        if late >= LATE {
            self.stood += late;
            self.ticked = Some(now);
        }
    }
}

impl Awake {
    /// Ticks for ever.
    pub(crate) async fn keep(&self) {
        loop {
            let now = Instant::now();
            self.ran(now).ticked = Some(now);
            sleep(TICK).await;
        }
    }

    pub(crate) fn now(&self) -> Instant {
        let now = Instant::now();
        let stood = self.ran(now).stood;
        now.checked_sub(stood).unwrap_or(now)
    }

    /// For how long it stood still in all.
    pub(crate) fn stood(&self) -> Duration {
        self.ran(Instant::now()).stood
    }

    fn ran(&self, now: Instant) -> MutexGuard<'_, Ran> {
        let mut ran = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ran.note(now);
        ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_stands_still_with_its_process() {
        let clock = Awake::default();
        let (began, real) = (clock.now(), Instant::now());
        let ran = || clock.now().duration_since(began);
        tokio::select! {
            () = clock.keep() => {}
            () = sleep(Duration::from_secs(3)) => {}
        }
        assert!(ran() >= Duration::from_millis(2_900), "{:?} while it ran", ran());
        // Nobody ticks.
        tokio::time::advance(Duration::from_secs(7)).await;
        assert!(ran() < Duration::from_millis(3_200), "{:?} after it stood still", ran());
        assert!(real.elapsed() - clock.stood() == ran());
        let busy = clock.stood();
        tokio::time::advance(TICK + LATE / 2).await;
        assert_eq!(clock.stood(), busy, "a busy machine is a little late");
    }
}
