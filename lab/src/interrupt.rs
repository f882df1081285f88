//! Ctrl-C as an ordinary error, so that everything that was started is ended by its owner's `Drop`.
//!
//! Only `xtask` raises it. What waits here checks it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

/// How often waiting code checks for an interruption.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Someone asked this program to end.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Notes that someone asked.
pub fn raise() {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// Fails with [`Interrupted`] once a signal has come, and ever after.
pub fn check() -> Result<()> {
    if SIGNALS.load(Ordering::SeqCst) > 0 {
        bail!(Interrupted);
    }
    Ok(())
}

/// Forgets past interruptions, so that the next one counts again.
pub fn forgive() {
    SIGNALS.store(0, Ordering::SeqCst);
}

/// Sleeps, but not through an interruption.
pub fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK_EVERY));
    }
}

/// Asks again and again until there is an answer; `what` names what was waited for.
pub fn await_until<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("{what} did not happen within {} s", limit.as_secs());
        }
        sleep(pause)?;
    }
}
