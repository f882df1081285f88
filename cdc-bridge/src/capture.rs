//! Capture: reads a source's stream into the log, session after session, for as long as any table is wanted.
//!
//! The slot is confirmed only behind what the log attests as durable, and only at transaction ends. Knows which tables
//! are wanted, not what is done with their changes.

pub mod pending;
mod status;

use crate::log::{Flush, Log, LogError, Owner, Progress};
use crate::replication::ReplicationError;
use crate::replication::frame::FrameError;
use crate::session::{Session, other_table};
use crate::source::assemble::{AssembleError, Assembler};
use crate::source::begin::{Begin, Slot, decide, other_server, set_back};
use crate::source::pgoutput::DecodeError;
use crate::source::{Source, SourceError, blocked, create_slot, drop_slot, kept_bytes, published, slots};
use migrations::finding::Finding;
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::TableName;
use migrations::sql;
use pending::Pending;
pub use status::{Lost, Order, Status};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// Flushes waiting for the log; more would only be memory.
const FLUSHES_WAITING_MAX: usize = 1;

/// How often the WAL that the slot keeps is looked at.
const KEPT_WAL_INTERVAL: Duration = Duration::from_secs(10);

/// Waits between failed sessions.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Why a session ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The stream makes no sense.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// A message makes no sense.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Someone must look.
    #[error("{}", .0.message)]
    Stop(Box<Finding>),
    /// What lies between is gone: every slice must be copied again.
    #[error("{0}")]
    Lost(String),
    /// The server closed it.
    #[error("the stream ended; it is opened again")]
    Ended,
}

impl From<ReplicationError> for SessionEnd {
    fn from(error: ReplicationError) -> Self {
        match error {
            ReplicationError::Frame(FrameError::TooLarge { bytes, .. }) => {
                SessionEnd::Stop(Box::new(row_too_large(bytes)))
            }
            other => SessionEnd::Source(other.into()),
        }
    }
}

impl From<tokio_postgres::Error> for SessionEnd {
    fn from(error: tokio_postgres::Error) -> Self {
        SessionEnd::Source(error.into())
    }
}

impl From<crate::connect::ConnectError> for SessionEnd {
    fn from(error: crate::connect::ConnectError) -> Self {
        SessionEnd::Source(error.into())
    }
}

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
                if is_wanted { session(&source, &log, order, &mut orders, &status).await } else { Ok(()) }
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
        Some(Owner::Unknown) => false,
    };
    if !is_ours {
        tracing::warn!("{} is not of this monolith and stays as it is", log.describe());
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

/// One session of the stream, from the checks at its start to its end.
async fn session(
    source: &Source,
    log: &Log,
    order: &Order,
    orders: &mut watch::Receiver<Option<Order>>,
    status: &watch::Sender<Status>,
) -> Result<(), SessionEnd> {
    let client = source.connect("strangler capture").await?;
    let timeline = source.replication().await?.identify_system().await?.timeline;
    // Nothing is made in a log that another monolith fills.
    if let Some(Owner::Server(system_id)) = log.owner().await?
        && system_id != timeline.system_id
    {
        return Err(SessionEnd::Stop(Box::new(other_server(&format!("system {system_id}"), &timeline))));
    }
    log.prepare(&order.tables, source.row_bytes_max, &timeline).await?;
    let slot = sql::slot(&source.plan, &log.id().0);
    let published = published(&client, &source.plan, &order.tables).await?;
    if let Some(missing) = order.tables.iter().find(|table| !published.values().any(|known| known == *table))
    {
        return Err(SessionEnd::Stop(Box::new(other_table(missing))));
    }
    let from = begin(source, log, &client, &slot, &timeline).await?;
    let mut stream = source.replication().await?;
    // A name may lead to another server by now; the positions would mean nothing there.
    let system = stream.identify_system().await?;
    if system.timeline != timeline {
        return Err(SessionEnd::Ended);
    }
    if from > system.end {
        return Err(SessionEnd::Stop(Box::new(set_back(from, &timeline))));
    }
    let publication = sql::publication(&source.plan);
    stream.start(&slot, from, &publication).await.map_err(|error| taken(&slot, error))?;
    status.send_modify(|status| {
        *status = Status {
            slot: slot.clone(),
            timeline: Some(timeline.clone()),
            tables: order.tables.clone(),
            touched: order.tables.clone(),
            captured: from.max(status.captured),
            changes: status.changes,
            server_end: status.server_end.max(system.end),
            ..Status::default()
        };
    });
    tracing::info!(%slot, %from, tables = order.tables.len(), "capture began");

    let (flushes, waiting) = mpsc::channel(FLUSHES_WAITING_MAX);
    let (durable, confirmed) = watch::channel(from);
    let last = confirmed.clone();
    let writing = write(log, waiting, durable, status);
    let reading = Session {
        order,
        client: &client,
        status,
        assembler: Assembler::new(),
        pending: Pending::new(log.id(), timeline, from),
        published,
        source,
        committed_pg_us: 0,
        age_us: 0,
    };
    // The writer ends with an error, or when the reader is done and everything it handed over is durable.
    let (read, written) = tokio::join!(reading.run(&mut stream, flushes, confirmed, orders), writing);
    let end = *last.borrow();
    stream.close(end).await;
    written?;
    read
}

/// Decides how the session begins, and does it: the slot exists and the log knows where it starts.
async fn begin(
    source: &Source,
    log: &Log,
    client: &Client,
    slot: &str,
    timeline: &Timeline,
) -> Result<EndLsn, SessionEnd> {
    let end = log.end().await?;
    let slots = slots(client, &source.plan).await?;
    let from = match decide(slot, &slots, end.as_ref(), timeline) {
        Begin::Resume(from) => return Ok(from),
        Begin::Anew => create_slot(source, client, slot).await?,
        // It was never finished: whoever makes it still waits for a transaction.
        Begin::Adopt(EndLsn(0)) => return Err(blocked(source, slot).await.into()),
        Begin::Adopt(from) => from,
        Begin::Stop(finding) => return Err(SessionEnd::Stop(Box::new(finding))),
        Begin::Lost(why) => return Err(SessionEnd::Lost(why)),
    };
    let progress = Progress {
        version: 1,
        log: log.id(),
        timeline: timeline.clone(),
        end: from,
        committed_us: 0,
        messages: Vec::new(),
    };
    log.writer().await?.append(Flush { changes: Vec::new(), progress: Some(progress) }).await?;
    Ok(from)
}

fn taken(slot: &str, error: ReplicationError) -> SessionEnd {
    let words = error.to_string();
    if words.contains("is active for PID") {
        return SessionEnd::Source(SourceError::Refused(format!(
            "slot {slot} is read by another bridge ({words}); stop one of the two"
        )));
    }
    error.into()
}

fn row_too_large(bytes: usize) -> Finding {
    Finding::error(
        "capture.row-too-large",
        format!("the stream stands at a message of {bytes} bytes, more than four times limits.max_row"),
        "raise limits.max_row in the plan and start the bridge again",
    )
}

/// Appends flushes in order and tells what is durable.
async fn write(
    log: &Log,
    mut flushes: mpsc::Receiver<Flush>,
    durable: watch::Sender<EndLsn>,
    status: &watch::Sender<Status>,
) -> Result<(), SessionEnd> {
    let mut writer = log.writer().await?;
    while let Some(flush) = flushes.recv().await {
        let changes = flush.changes.len() as u64;
        let end = writer.append(flush).await?;
        // Nobody waits for these; who reports the lag reads them.
        status.send_if_modified(|status| {
            status.changes += changes;
            if let Some(end) = end {
                status.captured = status.captured.max(*end.get());
            }
            false
        });
        if let Some(end) = end {
            let _ = durable.send(*end.get());
        }
    }
    Ok(())
}
