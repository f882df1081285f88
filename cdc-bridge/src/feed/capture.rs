//! Capture: reads a source's stream into the log, session after session, for as long as any table is wanted.
//!
//! The slot is confirmed only after what the log attests as durable, and only at transaction ends. Knows which tables
//! are wanted, not what is done with their changes.

use super::end::SessionEnd;
use super::opening;
use super::source::{Source, SourceError, slots};
use super::status::{Order, Status};
use super::unsendable::Search;
use crate::log::{Log, Owner};
use migrations::preflight::SlotSeen;
use migrations::sql;
use postgres::slot;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often the WAL that the slot keeps is measured.
const KEPT_WAL_INTERVAL: Duration = Duration::from_secs(10);

/// Waits between failed sessions.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, until it is asked for something else.
    Rest,
    /// Give slot and log up: what they held is lost to every lane.
    GiveUp,
    /// Give slot and log up, because nothing is wanted any more.
    LetGo,
    /// Read the stream for the lanes of this order, which are those that are not lost.
    Capture(Order),
}

pub(crate) fn next(order: Option<&Order>, status: &Status) -> Next {
    let Some(order) = order else { return Next::Rest };
    // Before anything else, so that no session goes on with what was given up.
    if status.gives_up {
        return Next::GiveUp;
    }
    if order.tables.is_empty() {
        return Next::LetGo;
    }
    let left = order.without(&status.lost);
    if left.tables.is_empty() { Next::Rest } else { Next::Capture(left) }
}

/// Runs capture until `orders` closes.
pub(crate) async fn run(
    source: Source,
    log: Log,
    mut orders: watch::Receiver<Option<Order>>,
    status: watch::Sender<Status>,
) {
    let (mut wait, mut search) = (RETRY_MIN, Search::default());
    loop {
        let order = orders.borrow_and_update().clone();
        if let Some(order) = &order {
            status.send_if_modified(|status| {
                let before = status.lost.len();
                status.forget(order);
                status.lost.len() != before
            });
        }
        let began = Instant::now();
        let now = next(order.as_ref(), &status.borrow());
        let ended = match &now {
            Next::GiveUp => match give_up_slots(&source, &log, None).await {
                Ok(()) => {
                    status.send_modify(|status| status.gives_up = false);
                    continue;
                }
                failed => failed,
            },
            Next::LetGo => give_up_slots(&source, &log, Some(&status)).await,
            Next::Capture(left) => {
                status.send_modify(|status| status.holds_nothing = false);
                let ended = opening::session(&source, &log, left, &mut orders, &status).await;
                search.explained(&sql::slot(&source.plan, &log.id().0), &left.tables, ended)
            }
            Next::Rest => Ok(()),
        };
        status.send_modify(Status::end);
        match ended {
            Ok(()) => {
                status.send_modify(|status| status.finding = None);
                // A loss is acted on at once.
                let is_due = |status: &Status| next(order.as_ref(), status) != now;
                let is_outdated = *orders.borrow() != order;
                if is_outdated || is_due(&status.borrow()) {
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
                status.send_modify(|status| status.fail(&order.unwrap_or_default(), end));
                if began.elapsed() > RETRY_MAX {
                    wait = RETRY_MIN;
                }
                let rest = async {
                    search.go_on(&source, &status).await;
                    sleep(wait).await;
                };
                tokio::select! {
                    () = rest => wait = (wait * 2).min(RETRY_MAX),
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
        let order = orders.borrow().clone().unwrap_or_default();
        if order.tables.is_empty() {
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
                status.send_modify(|status| status.lose_all(&order, &why));
            }
            Ok(Err(why)) => tracing::debug!("the kept WAL is not known: {why}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::status::Attempt;
    use migrations::journal::Generation;
    use migrations::lane::LaneId;

    fn lane(slice: &str, generation: u64) -> Attempt {
        (LaneId::forward(slice.parse().unwrap()), Generation(generation))
    }

    /// An order for these lanes, each with a table of its name.
    fn order(lanes: &[Attempt]) -> Order {
        let table = |lane: &Attempt| format!("public.{}", lane.0.slice).parse().unwrap();
        Order::of(lanes.iter().map(|lane| (lane.clone(), [table(lane)].into())).collect())
    }

    #[test]
    fn capture_reads_while_tables_are_wanted_and_lets_go_when_none_are() {
        let status = Status::default();
        let wanted = order(&[lane("orders", 1)]);
        assert_eq!(next(None, &status), Next::Rest);
        assert_eq!(next(Some(&wanted), &status), Next::Capture(wanted));
        assert_eq!(next(Some(&Order::default()), &status), Next::LetGo);
    }

    #[test]
    fn a_lost_slot_is_given_up_before_anything_else_and_then_waits_for_new_copies() {
        let (first, second) = (order(&[lane("orders", 1)]), order(&[lane("orders", 2)]));
        let mut status = Status::default();
        status.lose_all(&first, "too far behind");
        for order in [&first, &second, &Order::default()] {
            assert_eq!(next(Some(order), &status), Next::GiveUp);
        }
        assert_eq!(next(None, &status), Next::Rest);
        status.gives_up = false;
        assert_eq!(next(Some(&first), &status), Next::Rest, "the copy is not begun again yet");
        assert_eq!(next(Some(&second), &status), Next::Capture(second));
    }

    #[test]
    fn a_lost_lane_does_not_stop_the_others_of_its_feed() {
        let (orders, items) = (lane("orders", 1), lane("items", 1));
        let both = order(&[orders.clone(), items.clone()]);
        let mut status = Status::default();
        status.lose(orders.clone(), "the log is full");
        assert!(status.is_lost(&both));
        assert_eq!(next(Some(&both), &status), Next::Capture(order(std::slice::from_ref(&items))));
        let again = order(&[lane("orders", 2), items.clone()]);
        assert_eq!(next(Some(&again), &status), Next::Capture(again));
        // A lane that rested meanwhile begins with nothing lost.
        status.forget(&order(&[items]));
        assert_eq!(next(Some(&both), &status), Next::Capture(both));
    }
}
