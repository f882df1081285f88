//! Capture: reads a source's stream into the log, session after session, for as long as any table is wanted.
//!
//! The slot is confirmed only behind what the log attests as durable, and only at transaction ends. Knows which tables
//! are wanted, not what is done with their changes.

use super::begin::Slot;
use super::end::SessionEnd;
use super::opening;
use super::source::{Source, SourceError, drop_slot, kept_bytes, slots};
use super::status::{Lost, Order, Status};
use crate::log::{Log, Owner};
use migrations::names::TableName;
use migrations::sql;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often the WAL that the slot keeps is looked at.
const KEPT_WAL_INTERVAL: Duration = Duration::from_secs(10);

/// Waits between failed sessions.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Runs capture until `orders` closes. `every` is all the tables that could ever be wanted.
pub async fn run(
    source: Source,
    log: Log,
    every: BTreeSet<TableName>,
    mut orders: watch::Receiver<Option<Order>>,
    status: watch::Sender<Status>,
) {
    let mut wait = RETRY_MIN;
    let mut given_up = None;
    loop {
        let order = orders.borrow_and_update().clone();
        let began = Instant::now();
        let lost = status.borrow().lost_slot().cloned();
        let ended = match &order {
            // Before anything else, so that no session goes on with what was given up.
            Some(_) if lost.is_some() && lost != given_up => {
                let done = give_up_slots(&source, &log, &every, None).await;
                if done.is_ok() {
                    given_up = lost;
                    continue;
                }
                done
            }
            None => Ok(()),
            Some(order) if order.tables.is_empty() => {
                give_up_slots(&source, &log, &every, Some(&status)).await
            }
            Some(order) if status.borrow().is_lost(order) => Ok(()),
            Some(order) => {
                status.send_modify(|status| status.begin(&order.tables));
                // Whoever drops a slice is told behind us: either it sees what we touch, or we see that it is not wanted.
                let is_wanted = orders.borrow().as_ref() == Some(order);
                if is_wanted {
                    opening::session(&source, &log, order, &mut orders, &status).await
                } else {
                    Ok(())
                }
            }
        };
        status.send_modify(Status::end);
        match ended {
            Ok(()) => {
                status.send_modify(|status| (status.trouble, status.finding) = (None, None));
                // A loss that takes the slot with it is acted on at once, whoever has been told of it.
                let is_due = |status: &Status| {
                    order.is_some() && status.lost_slot().is_some_and(|lost| given_up.as_ref() != Some(lost))
                };
                if orders.borrow().as_ref() != order.as_ref() || is_due(&status.borrow()) {
                    continue;
                }
                let mut told = status.subscribe();
                tokio::select! {
                    open = orders.changed() => if open.is_err() { return },
                    _ = told.wait_for(is_due) => {}
                }
                wait = RETRY_MIN;
            }
            Err(end) => {
                tracing::warn!("capture: {end}");
                status.send_modify(|status| status.fail(order.unwrap_or_default(), end));
                if began.elapsed() > RETRY_MAX {
                    wait = RETRY_MIN;
                }
                tokio::select! {
                    () = sleep(wait) => wait = (wait * 2).min(RETRY_MAX),
                    changed = orders.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}

/// No slot may keep WAL, and the log begins anew with the next slice: because nothing is wanted any more (`forget`), or
/// because changes are lost and every slice is copied again.
async fn give_up_slots(
    source: &Source,
    log: &Log,
    every: &BTreeSet<TableName>,
    forget: Option<&watch::Sender<Status>>,
) -> Result<(), SessionEnd> {
    let client = source.connect("strangler capture").await?;
    let there = slots(&client, &source.plan).await?;
    for slot in &there {
        drop_slot(&client, &slot.name).await?;
    }
    // The session that has just ended may still be closing on the server's side; then this is done once more.
    if let Some(slot) = slots(&client, &source.plan).await?.first() {
        return Err(SourceError::Refused(format!("slot {} is still read by a session", slot.name)).into());
    }
    let owner = log.owner().await?;
    let is_ours = is_ours(source, log, &there, owner.as_ref()).await?;
    if forget.is_some() {
        if is_ours {
            log.forget(every).await?;
        }
        // In somebody else's log, what this process found ready was theirs.
        if is_ours || matches!(owner, None | Some(Owner::Nobody)) {
            log.forget_made().await?;
        }
    }
    // Last of what is in the log: until then it says whose the rest is.
    if is_ours || owner == Some(Owner::Nobody) {
        log.destroy().await?;
    }
    // Who sees this may stop the bridge: nothing is left to be done.
    if let Some(status) = forget {
        status.send_modify(|status| {
            *status = Status { changes: status.changes, holds_nothing: true, ..Status::default() };
        });
    }
    Ok(())
}

/// Whether there is a log that is this source's to take away, and not one that somebody else keeps under the same name:
/// this process used it, a slot of it was there, or it was filled from this server.
async fn is_ours(
    source: &Source,
    log: &Log,
    slots: &[Slot],
    owner: Option<&Owner>,
) -> Result<bool, SessionEnd> {
    let own = sql::slot(&source.plan, &log.id().0);
    let is_ours = match owner {
        None | Some(Owner::Nobody) => return Ok(false),
        Some(Owner::Us) => true,
        Some(_) if slots.iter().any(|slot| slot.name == own) => true,
        Some(Owner::Server(system_id)) => {
            *system_id == source.replication().await?.identify_system().await?.timeline.system_id
        }
        Some(Owner::Unknown | Owner::Other(_)) => false,
    };
    if !is_ours {
        tracing::warn!("{} is not of this monolith and plan, and stays as it is", log.describe());
    }
    Ok(is_ours)
}

/// Gives the slot up before it keeps more WAL than the plan allows, whether a session reads it or not.
pub async fn guard_wal(
    source: Source,
    log: Log,
    orders: watch::Receiver<Option<Order>>,
    status: watch::Sender<Status>,
) {
    loop {
        sleep(KEPT_WAL_INTERVAL).await;
        let attempts = orders.borrow().as_ref().map(|order| order.attempts.clone()).unwrap_or_default();
        if attempts.is_empty() {
            continue;
        }
        let slot = sql::slot(&source.plan, &log.id().0);
        let kept = async {
            let client = source.connect("strangler capture").await?;
            kept_bytes(&client, &slot).await
        };
        match tokio::time::timeout(KEPT_WAL_INTERVAL, kept).await {
            Ok(Ok(kept)) if kept > source.wal_kept_bytes_max => {
                let why = format!(
                    "slot {slot} kept {kept} bytes of WAL, more than limits.max_wal_kept allows ({})",
                    source.wal_kept_bytes_max
                );
                tracing::error!("{why}");
                status.send_modify(|status| status.lost = Some(Lost { attempts, why, with_slot: true }));
            }
            Ok(Err(why)) => tracing::debug!("the kept WAL is not known: {why}"),
            _ => {}
        }
    }
}
