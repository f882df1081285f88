//! The coordinator: where a slice is crossing, one controller of all drives it, by a lease. Any other takes over when that
//! lease has run out; the journal's compare-and-swap and the gates' epochs keep a late one from doing harm.

mod compare;
mod driver;
mod hands;
mod interruption;
mod lease;
pub(crate) mod ready;
mod reservation;
mod sequences;
mod shapes;
pub(crate) mod sight;
mod trouble;
mod work;

pub(crate) use compare::Line;
#[cfg(test)]
pub(crate) use {trouble::Trouble, work::Done};

use crate::agents::HEARD_AFTER;
use crate::desk::Desk;
use driver::Driver;
use lease::Lease;
use migrations::names::SliceName;
use ready::{READY_MAX, Ready};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// How often a lease that another coordinator holds is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Longer than a lease runs that is not renewed.
const LEAD_MAX: Duration = Duration::from_secs(6);
const LEAD_PAUSE: Duration = Duration::from_millis(100);

/// Drives whatever is crossing, until the process ends.
pub(crate) async fn run(desk: Arc<Desk>, line: Option<Arc<Line>>, mut ends: watch::Receiver<bool>) {
    if !desk.store().has_gates() {
        return;
    }
    let Some(line) = line else { return };
    // No hold begins before it is known whose writes are to be waited for.
    tokio::select! {
        biased;
        () = tokio::time::sleep(HEARD_AFTER) => {}
        _ = ends.wait_for(|ended| *ended) => return,
    }
    let mut revisions = desk.revisions();
    let mut tick = tokio::time::interval(ASK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drivers = JoinSet::new();
    let mut driven: BTreeMap<SliceName, AbortHandle> = BTreeMap::new();
    loop {
        revisions.mark_unchanged();
        driven.retain(|_, driver| !driver.is_finished());
        for slice in crossing(&desk) {
            driven.entry(slice).or_insert_with_key(|slice| {
                drivers.spawn(drive(Arc::clone(&desk), slice.clone(), Arc::clone(&line), ends.clone()))
            });
        }
        while let Some(ended) = drivers.try_join_next() {
            if let Err(broken) = ended
                && broken.is_panic()
            {
                tracing::error!("a coordinator broke, and begins anew");
            }
        }
        tokio::select! {
            biased;
            _ = tick.tick() => {}
            _ = revisions.changed() => {}
            _ = ends.wait_for(|ended| *ended) => break,
        }
    }
    // They give up or finish what they are at; the caller's patience bounds it.
    while drivers.join_next().await.is_some() {}
}

/// Makes ready what a rollback needs, while nobody waits for it. If that is not to be had, the rollback finds out itself.
pub(crate) async fn make_ready(desk: &Desk, name: &SliceName) {
    let Some(slice) = desk.plan.slices.get(name) else { return };
    match tokio::time::timeout(READY_MAX, Ready::to_return(&desk.plan, slice)).await {
        Ok(Ok(ready)) => desk.spare.keep(name, ready),
        Ok(Err(trouble)) => tracing::info!(slice = %name, ?trouble, "nothing is ready before the rollback"),
        Err(_) => tracing::info!(slice = %name, "nothing was ready in time before the rollback"),
    }
}

/// Makes this controller the next to drive a slice that needs no coordinator yet. Another one that finds a return under way,
/// and has not seen it begin, gives it up. One that drove lately is waited for.
pub(crate) async fn lead(desk: &Desk, name: &SliceName) {
    let led = async {
        while matches!(desk.store().take_lease(name, &desk.coordinator, lease::LENGTH).await, Ok(false)) {
            tokio::time::sleep(LEAD_PAUSE).await;
        }
    };
    if tokio::time::timeout(LEAD_MAX, led).await.is_err() {
        tracing::warn!(slice = %name, "another coordinator keeps the lease; it drives what begins now");
    }
}

/// The plan's slices for which there is something to do here.
fn crossing(desk: &Desk) -> Vec<SliceName> {
    let Some(state) = desk.state() else { return Vec::new() };
    let needs = |name: &&SliceName| desk.is_to_drive(name, &state.slice(name));
    desk.plan.slices.keys().filter(needs).cloned().collect()
}

async fn drive(desk: Arc<Desk>, name: SliceName, line: Arc<Line>, ends: watch::Receiver<bool>) {
    let Some(slice) = desk.plan.slices.get(&name) else { return };
    let lease = match Lease::take(desk.store(), &name, &desk.coordinator).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return tracing::debug!(slice = %name, "another coordinator drives it"),
        Err(error) => return tracing::warn!(slice = %name, %error, "the lease could not be had yet"),
    };
    tracing::info!(slice = %name, coordinator = &*desk.coordinator, "drives a crossing");
    let mut driver = Driver::new(&desk, slice, &lease, &line, ends);
    tokio::select! {
        biased;
        () = driver.run() => {}
        // What was seen under that lease counts no more.
        () = lease.keep() => desk.forget(&name),
    }
    desk.courses.alarm(&name, None);
}
