//! Capture: reads a source's stream into the log, session after session, for as long as any table is wanted.
//!
//! The slot is confirmed only after what the log attests as durable, and only at transaction ends. Knows which tables
//! are wanted, not what is done with their changes.

use super::end::SessionEnd;
use super::opening;
use super::source::{Source, SourceError, slots};
use super::status::{Lost, Order, Status};
use crate::log::{Log, Owner};
use migrations::names::TableName;
use migrations::preflight::SlotSeen;
use migrations::sql;
use postgres::slot;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often the WAL that the slot keeps is measured.
const KEPT_WAL_INTERVAL: Duration = Duration::from_secs(10);

/// Waits between failed sessions.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, until it is asked for something else.
    Rest,
    /// Give slot and log up: what they held is lost to every lane.
    GiveUp,
    /// Give slot and log up, because nothing is wanted any more.
    LetGo,
    Capture,
}

/// Decides. `given_up` is the last loss with which slot and log were given up.
pub(crate) fn next(order: Option<&Order>, status: &Status, given_up: Option<&Lost>) -> Next {
    let Some(order) = order else { return Next::Rest };
    match status.lost_slot() {
        // Before anything else, so that no session goes on with what was given up.
        lost @ Some(_) if lost != given_up => Next::GiveUp,
        _ if order.tables.is_empty() => Next::LetGo,
        _ if status.is_lost(order) => Next::Rest,
        _ => Next::Capture,
    }
}

/// Runs capture until `orders` closes. `every` is all the tables that could ever be wanted.
pub(crate) async fn run(
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
        let next_is = |status: &Status| next(order.as_ref(), status, given_up.as_ref());
        let now = next_is(&status.borrow());
        let ended = match (now, &order) {
            (Next::GiveUp, _) => {
                let done = give_up_slots(&source, &log, &every, None).await;
                if done.is_ok() {
                    given_up = lost;
                    continue;
                }
                done
            }
            (Next::LetGo, _) => give_up_slots(&source, &log, &every, Some(&status)).await,
            (Next::Capture, Some(order)) => {
                status.send_modify(|status| status.begin(&order.tables));
                // A lane that drops a slice gets its order after us: it sees what we touch, or we see that the slice is not wanted.
                let is_wanted = orders.borrow().as_ref() == Some(order);
                if is_wanted {
                    opening::session(&source, &log, order, &mut orders, &status).await
                } else {
                    Ok(())
                }
            }
            (Next::Rest | Next::Capture, _) => Ok(()),
        };
        status.send_modify(Status::end);
        match ended {
            Ok(()) => {
                status.send_modify(|status| status.finding = None);
                // A loss of the slot is acted on at once.
                let is_due = |status: &Status| next_is(status) == Next::GiveUp;
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

/// Drops the slots, so that they keep no WAL. The log begins again with the next slice. `forget`: nothing is wanted any
/// more. Otherwise changes are lost and every slice is copied again.
async fn give_up_slots(
    source: &Source,
    log: &Log,
    every: &BTreeSet<TableName>,
    forget: Option<&watch::Sender<Status>>,
) -> Result<(), SessionEnd> {
    let client = source.connect("strangler capture").await?;
    let there = slots(&client, &source.plan).await?;
    for slot in &there {
        slot::drop_idle(&client, &slot.name).await.map_err(SourceError::from)?;
    }
    // The session that has just ended may still be closing at the server. Then this is done again.
    if let Some(slot) = slots(&client, &source.plan).await?.first() {
        return Err(SourceError::Refused(format!("slot {} is still read by a session", slot.name)).into());
    }
    let owner = log.owner().await?;
    let is_ours = is_ours(source, log, &there, owner.as_ref()).await?;
    if forget.is_some() {
        if is_ours {
            log.forget(every).await?;
        }
        // In a log of others, only what this process made is ours.
        if is_ours || matches!(owner, None | Some(Owner::Nobody)) {
            log.forget_made().await?;
        }
    }
    // The log's name goes last: until then it says whose the rest is.
    if is_ours || owner == Some(Owner::Nobody) {
        log.destroy().await?;
    }
    // From now on the bridge may be stopped: nothing is left to do.
    if let Some(status) = forget {
        status.send_modify(|status| {
            *status = Status { changes: status.changes, holds_nothing: true, ..Status::default() };
        });
    }
    Ok(())
}

/// Whether the log may be removed: this process used it, a slot of it was there, or it was filled from this server. Others
/// may keep a log under the same name.
async fn is_ours(
    source: &Source,
    log: &Log,
    slots: &[SlotSeen],
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
        tracing::warn!("{} is not of this database and plan, and stays as it is", log.describe());
    }
    Ok(is_ours)
}

/// Gives the slot up before it keeps more WAL than the plan allows, even if no session reads it.
pub(crate) async fn guard_wal(
    source: &Source,
    log: &Log,
    orders: watch::Receiver<Option<Order>>,
    status: &watch::Sender<Status>,
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
            let slots = slots(&client, &source.plan).await?;
            Ok::<_, SourceError>(
                slots.iter().find(|seen| seen.name == slot).map_or(0, |seen| seen.kept_bytes),
            )
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

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::journal::Generation;
    use migrations::lane::LaneId;

    fn attempts(generation: u64) -> BTreeSet<(LaneId, Generation)> {
        [(LaneId::forward("orders".parse().unwrap()), Generation(generation))].into()
    }

    fn order(generation: u64) -> Order {
        Order { tables: ["public.orders".parse().unwrap()].into(), attempts: attempts(generation) }
    }

    fn lost(generation: u64, with_slot: bool) -> Lost {
        Lost { attempts: attempts(generation), why: "too far behind".to_owned(), with_slot }
    }

    #[test]
    fn capture_reads_while_tables_are_wanted_and_lets_go_when_none_are() {
        let status = Status::default();
        assert_eq!(next(None, &status, None), Next::Rest);
        assert_eq!(next(Some(&order(1)), &status, None), Next::Capture);
        assert_eq!(next(Some(&Order::default()), &status, None), Next::LetGo);
    }

    #[test]
    fn a_lost_slot_is_given_up_once_and_before_anything_else() {
        let status = Status { lost: Some(lost(1, true)), ..Status::default() };
        for order in [order(1), order(2), Order::default()] {
            assert_eq!(next(Some(&order), &status, None), Next::GiveUp);
        }
        assert_eq!(next(None, &status, None), Next::Rest);
        let given_up = status.lost.as_ref();
        assert_eq!(next(Some(&order(1)), &status, given_up), Next::Rest, "the copy is not begun again yet");
        assert_eq!(next(Some(&order(2)), &status, given_up), Next::Capture);
        let again = Status { lost: Some(lost(2, true)), ..Status::default() };
        assert_eq!(next(Some(&order(2)), &again, given_up), Next::GiveUp);
    }

    #[test]
    fn a_lost_lane_alone_keeps_the_slot() {
        let status = Status { lost: Some(lost(1, false)), ..Status::default() };
        assert_eq!(next(Some(&order(1)), &status, None), Next::Rest);
        assert_eq!(next(Some(&order(2)), &status, None), Next::Capture);
    }
}
