//! Locks whose content is right whatever happened to a thread that held them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic of another thread leaves numbers that are right either way.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
