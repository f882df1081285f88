//! How long is waited for the next thing to happen on a connection.
//!
//! A request waits half a dozen times, and nearly always in vain: what it waits for comes. So one timer serves all waits
//! of a connection. It is set anew only for an earlier end; when it rings too early it is set to the later one.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};

/// When to give up.
pub struct Deadline {
    end: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// Gives up after so long.
    pub fn after(patience: Duration) -> Self {
        Self { end: Instant::now() + patience, timer: Box::pin(sleep(patience)) }
    }

    /// Gives up after so long from now on.
    pub fn set(&mut self, patience: Duration) {
        self.end = Instant::now() + patience;
        if self.end < self.timer.deadline() {
            self.timer.as_mut().reset(self.end);
        }
    }

    /// Ready when it is time to give up.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // A task that has done much is told to wait by Tokio, and would then outlive its time.
            ready!(pin!(unconstrained(self.timer.as_mut())).poll(cx));
            if Instant::now() >= self.end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.end);
        }
    }
}
