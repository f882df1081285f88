//! Wakes the thread of a reader.

use super::lock::locked;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// After this time a reader checks for errors, and whether it is still wanted, even if nothing woke it.
const NAP: Duration = Duration::from_millis(100);

/// Wakes the reader's thread when any of its queues has something.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *locked(&self.rung) = true;
        self.heard.notify_all();
    }

    pub(super) fn wait(&self) {
        let waited = self.heard.wait_timeout_while(locked(&self.rung), NAP, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}
