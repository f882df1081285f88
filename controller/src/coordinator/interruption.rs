//! What ends a step or a pause before its time.

use crate::desk::Desk;
use crate::place::Place;
use migrations::names::SliceName;
use tokio::sync::watch;
use tokio::time::Instant;

/// Returns when the slice is in another place.
pub(super) async fn left(desk: &Desk, slice: &SliceName, place: Place) {
    let mut revisions = desk.revisions();
    loop {
        revisions.mark_unchanged();
        if desk.state().is_some_and(|state| Place::of(&state.slice(slice)) != place) {
            return;
        }
        if revisions.changed().await.is_err() {
            return;
        }
    }
}

pub(super) async fn passed(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Returns when the process shall end; never if that was known before.
pub(super) async fn ended(ends: &mut watch::Receiver<bool>, is_known: bool) {
    if is_known {
        return std::future::pending().await;
    }
    // Were its sender gone, ending would be right too.
    let _ = ends.wait_for(|ends| *ends).await;
}
