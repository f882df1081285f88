//! Capture: reads a source's stream into the log, session after session, for as long as any table is wanted.
//!
//! The slot is confirmed only behind what the log attests as durable, and only at transaction ends. Knows which tables
//! are wanted, not what is done with their changes.

pub mod pending;

use crate::log::{Flush, Log, LogError, Progress};
use crate::session::Session;
use crate::source::assemble::{AssembleError, Assembler};
use crate::source::begin::{Begin, decide};
use crate::source::pgoutput::DecodeError;
use crate::source::{Source, SourceError, create_slot, drop_slot, slots};
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::{SliceName, TableName};
use migrations::sql;
use pending::Pending;
use pgwire_replication::PgWireError;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// Flushes waiting for the log; more would only be memory.
const FLUSHES_WAITING_MAX: usize = 1;

/// Waits between failed sessions.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What capture is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// The tables whose changes are kept.
    pub tables: BTreeSet<TableName>,
    /// Which copy each slice is, so that a loss is told once.
    pub attempts: BTreeSet<(SliceName, Generation)>,
}

/// How capture stands.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The slot in use.
    pub slot: String,
    /// The server's history, once a session began.
    pub timeline: Option<Timeline>,
    /// The tables that the running session captures; empty while none runs.
    pub tables: BTreeSet<TableName>,
    /// Everything before is durable in the log.
    pub captured: EndLsn,
    /// The newest end of WAL that the server told.
    pub server_end: EndLsn,
    /// Changes captured since the start.
    pub changes: u64,
    /// What keeps capture from running, in words.
    pub trouble: Option<String>,
    /// What must be looked at before it can run.
    pub finding: Option<Finding>,
    /// Copies whose changes are lost, and why: they must be begun again.
    pub lost: Option<(BTreeSet<(SliceName, Generation)>, String)>,
    /// The log is at its bound: its slowest reader must be given up.
    pub is_full: bool,
}

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

/// Runs capture until `orders` closes.
pub async fn run(
    source: Source,
    log: Log,
    mut orders: watch::Receiver<Option<Order>>,
    status: watch::Sender<Status>,
) {
    let mut wait = RETRY_MIN;
    loop {
        let order = orders.borrow_and_update().clone();
        let began = Instant::now();
        let ended = match &order {
            None => Ok(()),
            Some(order) if order.tables.is_empty() => give_up_slots(&source, &log, &status).await,
            Some(order) if is_lost(&status, order) => Ok(()),
            Some(order) => session(&source, &log, order, &mut orders, &status).await,
        };
        status.send_modify(|status| status.tables.clear());
        match ended {
            Ok(()) => {
                status.send_modify(|status| (status.trouble, status.finding) = (None, None));
                if orders.borrow().as_ref() != order.as_ref() {
                    continue;
                }
                if orders.changed().await.is_err() {
                    return;
                }
                wait = RETRY_MIN;
            }
            Err(end) => {
                report(&status, order.unwrap_or_default(), end);
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

fn is_lost(status: &watch::Sender<Status>, order: &Order) -> bool {
    let status = status.borrow();
    status.lost.as_ref().is_some_and(|(attempts, _)| !attempts.is_disjoint(&order.attempts))
}

fn report(status: &watch::Sender<Status>, order: Order, end: SessionEnd) {
    tracing::warn!("capture: {end}");
    status.send_modify(|status| {
        status.trouble = Some(end.to_string());
        status.is_full = matches!(end, SessionEnd::Log(LogError::Full { .. }));
        status.finding = None;
        match end {
            SessionEnd::Stop(finding) => status.finding = Some(*finding),
            SessionEnd::Log(LogError::Refused(finding)) => status.finding = Some(finding),
            SessionEnd::Lost(why) => status.lost = Some((order.attempts, why)),
            _ => {}
        }
    });
}

/// Nothing is wanted: no slot may keep WAL, and the log begins anew with the next slice.
async fn give_up_slots(source: &Source, log: &Log, status: &watch::Sender<Status>) -> Result<(), SessionEnd> {
    let client = source.connect("strangler capture").await?;
    for slot in slots(&client, &source.plan).await? {
        drop_slot(&client, &slot.name).await?;
    }
    // The session that has just ended may still be closing on the server's side; then this is done once more.
    if let Some(slot) = slots(&client, &source.plan).await?.first() {
        return Err(SourceError::Refused(format!("slot {} is still read by a session", slot.name)).into());
    }
    if log.end().await?.is_some() {
        log.destroy().await?;
    }
    status.send_modify(|status| *status = Status { changes: status.changes, ..Status::default() });
    Ok(())
}

/// One session of the stream, from the checks at its start to its end.
async fn session(
    source: &Source,
    log: &Log,
    order: &Order,
    orders: &mut watch::Receiver<Option<Order>>,
    status: &watch::Sender<Status>,
) -> Result<(), SessionEnd> {
    log.prepare(&order.tables, source.row_bytes_max).await?;
    let client = source.connect("strangler capture").await?;
    let slot = sql::slot(&source.plan, &log.id().0);
    let mut probe = source.replication(&slot, EndLsn(0)).await?;
    let system = probe.identify_system().await.map_err(SourceError::from)?;
    let timeline = Timeline { system_id: system.system_id, timeline: system.timeline };
    drop(probe);

    let from = begin(source, log, &client, &slot, &timeline).await?;
    let mut stream = source.replication(&slot, from).await?;
    stream.start().await.map_err(SourceError::from)?;
    stream.wait_started().await.map_err(|error| taken(&slot, error))?;
    status.send_modify(|status| {
        *status = Status {
            slot: slot.clone(),
            timeline: Some(timeline.clone()),
            tables: order.tables.clone(),
            captured: from.max(status.captured),
            changes: status.changes,
            server_end: status.server_end.max(EndLsn(system.xlogpos.0)),
            ..Status::default()
        };
    });
    tracing::info!(%slot, %from, tables = order.tables.len(), "capture began");

    let (flushes, waiting) = mpsc::channel(FLUSHES_WAITING_MAX);
    let (durable, confirmed) = watch::channel(from);
    let writing = write(log, waiting, durable, status);
    let reading = Session {
        order,
        client: &client,
        status,
        slot: &slot,
        kept_max: source.wal_kept_bytes_max,
        assembler: Assembler::new(),
        pending: Pending::new(log.id(), timeline, from),
    };
    // The writer ends with an error, or when the reader is done and everything it handed over is durable.
    let (read, written) = tokio::join!(reading.run(&mut stream, flushes, confirmed, orders), writing);
    let _ = stream.shutdown().await;
    written?;
    match read {
        Err(SessionEnd::Lost(why)) => {
            drop_slot(&client, &slot).await?;
            Err(SessionEnd::Lost(why))
        }
        other => other,
    }
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
        Begin::Anew => create_slot(client, slot).await?,
        Begin::Adopt(from) => from,
        Begin::Stop(finding) => return Err(SessionEnd::Stop(Box::new(finding))),
        Begin::Lost(why) => {
            // The next copies begin with a fresh slot and a log without the gap.
            drop_slot(client, slot).await?;
            log.destroy().await?;
            return Err(SessionEnd::Lost(why));
        }
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

fn taken(slot: &str, error: PgWireError) -> SessionEnd {
    let words = error.to_string();
    if words.contains("is active for PID") {
        return SessionEnd::Source(SourceError::Refused(format!(
            "slot {slot} is read by another bridge ({words}); stop one of the two"
        )));
    }
    SessionEnd::Source(error.into())
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
        status.send_modify(|status| {
            status.changes += changes;
            if let Some(end) = end {
                status.captured = status.captured.max(*end.get());
            }
        });
        if let Some(end) = end {
            let _ = durable.send(*end.get());
        }
    }
    Ok(())
}
