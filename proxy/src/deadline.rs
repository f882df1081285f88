//! How long a connection waits for the next thing to happen.
//!
//! A request waits about six times, and what it waits for nearly always comes. So one timer serves all waits of a
//! connection. It is moved only for an earlier end. When it rings too early, it is set to the later one.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};

pub(crate) struct Deadline {
    end: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    pub(crate) fn after(patience: Duration) -> Self {
        Self { end: Instant::now() + patience, timer: Box::pin(sleep(patience)) }
    }

    pub(crate) fn set(&mut self, patience: Duration) {
        self.end = Instant::now() + patience;
        if self.end < self.timer.deadline() {
            self.timer.as_mut().reset(self.end);
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Tokio makes a busy task wait. It would then outlive its time.
            ready!(pin!(unconstrained(self.timer.as_mut())).poll(cx));
            if Instant::now() >= self.end {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.end);
        }
    }
}
