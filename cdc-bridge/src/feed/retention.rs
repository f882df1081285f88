//! How long the log keeps changes: it is trimmed up to its slowest reader. If it is full, that reader is given up, so that
//! one poisoned slice cannot fill the source's disk with WAL.

use super::status::{Attempt, Order, Status};
use crate::log::{Cursor, Log};
use migrations::lsn::EndLsn;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep;

/// How often the log is trimmed up to its readers.
const TRIM_INTERVAL: Duration = Duration::from_secs(2);
/// The log is trimmed only above this size, so that `tail` has something to show.
const HISTORY_BYTES: u64 = 16 << 20;
/// How long a full log waits for a slice whose needs are not known.
const BLIND_MAX: Duration = Duration::from_secs(30);

/// A reader of the log as it was a moment ago.
pub(crate) struct Reading {
    pub(crate) lane: Attempt,
    /// Everything before is in its database.
    pub(crate) durable: EndLsn,
    /// Everything before this in the log is no longer needed; none until it is known.
    pub(crate) cursor: Option<Cursor>,
    /// Everything before this in the log was read. The sink's database may not have noted it.
    pub(crate) seen: Option<Cursor>,
}

impl Reading {
    /// Whether it has taken all that the log promises; its database may not have noted it yet.
    fn has_seen(&self, end: &Cursor) -> bool {
        [&self.seen, &self.cursor].into_iter().flatten().any(|cursor| cursor == end)
    }
}

/// Trims the log up to its slowest reader; if it is full, that reader is given up.
///
/// What is not published yet is kept, too, for as long as the log has room: `published` says how far it is, if anything is
/// published and that is known.
///
/// The trim goes to where that reader was at the trim before, so that something is left for `tail`. The first trim, and
/// the trim of a full log, goes to where the reader is now.
pub(crate) async fn run(
    log: &Log,
    orders: watch::Receiver<Option<Order>>,
    status: &watch::Sender<Status>,
    (readers, published): (impl Fn() -> Vec<Reading>, impl Fn() -> Option<Option<(EndLsn, Cursor)>>),
) {
    let mut earlier: Option<Cursor> = None;
    let mut blind = None;
    loop {
        sleep(TRIM_INTERVAL).await;
        if orders.borrow().as_ref().is_none_or(|order| order.tables.is_empty()) {
            continue;
        }
        let is_full = status.borrow().is_full;
        let bytes = log.bytes();
        let Ok(end) = log.end_cursor().await else { continue };
        let readers = readers();
        if let Some(unknown) = readers.iter().find(|reader| reader.cursor.is_none()) {
            // Its database does not answer, so its needs are not known. The log waits for a while.
            let since = *blind.get_or_insert_with(Instant::now);
            if is_full && since.elapsed() > BLIND_MAX {
                furthest_behind(status, unknown);
            }
            continue;
        }
        blind = None;
        let slowest = readers.iter().min_by_key(|reader| reader.durable);
        let mut now = slowest.and_then(|slowest| slowest.cursor.clone()).unwrap_or_else(|| end.clone());
        if !is_full && bytes <= HISTORY_BYTES {
            continue;
        }
        match published() {
            Some(Some((_, place))) if !is_full && place.key() < now.key() => now = place,
            Some(None) if !is_full => continue,
            _ => {}
        }
        let before = if is_full { now.clone() } else { earlier.take().unwrap_or_else(|| now.clone()) };
        earlier = Some(now);
        if let Err(why) = log.trim(&before).await {
            tracing::warn!("the log cannot be trimmed: {why}");
        }
        let has_room = log.bytes() < bytes;
        match slowest {
            _ if !is_full => {}
            // The next report is about the log as it is now.
            _ if has_room => {
                status.send_modify(|status| status.is_full = false);
            }
            Some(slowest) if !slowest.has_seen(&end) => furthest_behind(status, slowest),
            _ => too_large(status, &orders.borrow().clone().unwrap_or_default()),
        }
    }
}

/// The slowest reader is given up, so that the others go on.
fn furthest_behind(status: &watch::Sender<Status>, reader: &Reading) {
    let why = "the log is full, and this slice is the furthest behind";
    status.send_modify(|status| {
        status.is_full = false;
        status.lose(reader.lane.clone(), why);
    });
}

/// Every reader has everything, and the log is full of a transaction that has not ended: nothing can make room for it.
/// Capture begins again after the transaction, and new copies bring its rows.
fn too_large(status: &watch::Sender<Status>, order: &Order) {
    let why = "one transaction is larger than the whole log: it is skipped and the slice is copied again; raise \
               the log's `max` in the plan if such transactions come again";
    status.send_modify(|status| {
        status.is_full = false;
        status.lose_all(order, why);
    });
}
