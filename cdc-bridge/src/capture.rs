//! Capture: reads a source's stream into the log, session after session, for as long as any table is wanted.
//!
//! The slot is confirmed only behind what the log attests as durable, and only at transaction ends. Knows which tables
//! are wanted, not what is done with their changes.

use crate::catalog;
use crate::change::{Column, ColumnType, Relation};
use crate::log::{Flush, Log, LogError, Message, Progress};
use crate::source::assemble::{AssembleError, Assembler, Step};
use crate::source::begin::{Begin, decide};
use crate::source::pgoutput::{DecodeError, WireMessage, WireRelation, decode};
use crate::source::{Source, SourceError, create_slot, drop_slot, kept_bytes, slots};
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::{SliceName, TableName};
use migrations::sql;
use pgwire_replication::{Lsn, PgWireError, ReplicationClient, ReplicationEvent};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

/// A flush is closed behind this many bytes of changes.
const FLUSH_BYTES_MAX: usize = 1 << 20;

/// Flushes waiting for the log; more would only be memory.
const FLUSHES_WAITING_MAX: usize = 1;

/// How often an idle stream's place is written and confirmed, and the kept WAL is looked at.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
const KEPT_WAL_INTERVAL: Duration = Duration::from_secs(10);

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

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{}", .0.message)]
    Stop(Box<Finding>),
    #[error("{0}")]
    Lost(String),
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
        pending: Pending::new(log, timeline, from),
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

/// What was read and not yet handed to the writer.
struct Pending {
    flush: Flush,
    bytes: usize,
    messages: Vec<Message>,
    template: Progress,
    /// The end of the last complete transaction, if it is not yet part of a progress record.
    boundary: Option<EndLsn>,
    /// The end that the last progress record told.
    told: EndLsn,
    /// What the last keepalive said: the server has sent everything before. (Other messages tell more of the WAL than
    /// what was sent.)
    quiet_until: EndLsn,
}

impl Pending {
    fn new(log: &Log, timeline: Timeline, from: EndLsn) -> Self {
        let template = Progress {
            version: 1,
            log: log.id(),
            timeline,
            end: from,
            committed_us: 0,
            messages: Vec::new(),
        };
        Self {
            flush: Flush::default(),
            bytes: 0,
            messages: Vec::new(),
            template,
            boundary: None,
            told: from,
            quiet_until: from,
        }
    }

    fn is_due(&self, in_transaction: bool) -> bool {
        self.bytes >= FLUSH_BYTES_MAX || (self.boundary.is_some() && !in_transaction)
    }

    fn take(&mut self, in_transaction: bool) -> Flush {
        let mut flush = std::mem::take(&mut self.flush);
        self.bytes = 0;
        if let (Some(end), false) = (self.boundary, in_transaction) {
            self.boundary = None;
            self.told = end;
            let messages = std::mem::take(&mut self.messages);
            flush.progress = Some(Progress { end, messages, ..self.template.clone() });
        }
        flush
    }
}

struct Session<'a> {
    order: &'a Order,
    client: &'a Client,
    status: &'a watch::Sender<Status>,
    slot: &'a str,
    kept_max: u64,
    assembler: Assembler,
    pending: Pending,
}

impl Session<'_> {
    /// Reads until the order changes or something fails; dropping `flushes` lets the writer finish.
    async fn run(
        mut self,
        stream: &mut ReplicationClient,
        flushes: mpsc::Sender<Flush>,
        mut confirmed: watch::Receiver<EndLsn>,
        orders: &mut watch::Receiver<Option<Order>>,
    ) -> Result<(), SessionEnd> {
        let mut idle = tokio::time::interval(IDLE_INTERVAL);
        let mut kept = tokio::time::interval(KEPT_WAL_INTERVAL);
        loop {
            let in_transaction = self.assembler.in_transaction();
            let wants_another = orders.has_changed().unwrap_or(true);
            if wants_another && !in_transaction && orders.borrow().as_ref() != Some(self.order) {
                return self.finish(flushes).await;
            }
            tokio::select! {
                biased;
                event = stream.recv(), if self.pending.bytes < FLUSH_BYTES_MAX => {
                    let event = event.map_err(too_large)?.ok_or(SessionEnd::Ended)?;
                    self.take(event).await?;
                }
                place = flushes.reserve(), if self.pending.is_due(in_transaction) => {
                    let Ok(place) = place else { return Ok(()) };
                    place.send(self.pending.take(in_transaction));
                }
                changed = confirmed.changed() => {
                    // The writer is gone: its own error says why.
                    if changed.is_err() { return Ok(()) }
                    stream.update_applied_lsn(Lsn(confirmed.borrow_and_update().0));
                }
                _ = orders.changed() => {}
                _ = idle.tick() => self.idle(),
                _ = kept.tick() => self.check_kept_wal().await?,
            }
        }
    }

    async fn finish(mut self, flushes: mpsc::Sender<Flush>) -> Result<(), SessionEnd> {
        if self.pending.is_due(false) {
            let _ = flushes.send(self.pending.take(false)).await;
        }
        Ok(())
    }

    async fn take(&mut self, event: ReplicationEvent) -> Result<(), SessionEnd> {
        let (at, message) = match event {
            ReplicationEvent::XLogData { wal_start, wal_end, data, .. } => {
                self.saw(EndLsn(wal_end.0));
                (wal_start.0, decode(data)?)
            }
            ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => (
                final_lsn.0,
                WireMessage::Begin { final_lsn: final_lsn.0, committed_pg_us: commit_time_micros, xid },
            ),
            ReplicationEvent::Commit { lsn, end_lsn, commit_time_micros } => {
                let (commit_lsn, end_lsn) = (lsn.0, end_lsn.0);
                (lsn.0, WireMessage::Commit { commit_lsn, end_lsn, committed_pg_us: commit_time_micros })
            }
            ReplicationEvent::Message { transactional, lsn, prefix, content } => {
                (lsn.0, WireMessage::Message { transactional, lsn: lsn.0, prefix, content })
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                self.saw(EndLsn(wal_end.0));
                self.pending.quiet_until = EndLsn(wal_end.0);
                return Ok(());
            }
            ReplicationEvent::StoppedAt { .. } => return Err(SessionEnd::Ended),
        };
        match self.assembler.push(at, message)? {
            Step::Nothing => {}
            Step::NeedRelation(relation) => self.learn(relation).await?,
            Step::Change(change) => {
                self.pending.bytes += change.size();
                self.pending.flush.changes.push(change);
            }
            Step::Truncated(changes) => self.pending.flush.changes.extend(changes),
            Step::Message(message) => self.pending.messages.push(message),
            Step::Committed { end, committed_us, .. } => {
                self.pending.boundary = Some(end);
                self.pending.template.committed_us = committed_us;
                self.saw(end);
            }
        }
        Ok(())
    }

    fn saw(&mut self, end: EndLsn) {
        if end > self.status.borrow().server_end {
            self.status.send_modify(|status| status.server_end = end);
        }
    }

    /// With nothing in flight, everything the server has told of is passed: it is written and then confirmed, so that
    /// WAL of other tables is not kept.
    fn idle(&mut self) {
        let end = self.pending.quiet_until;
        let is_quiet = !self.assembler.in_transaction() && self.pending.boundary.is_none();
        if is_quiet && end > self.pending.told {
            self.pending.boundary = Some(end);
        }
    }

    async fn check_kept_wal(&self) -> Result<(), SessionEnd> {
        let kept = kept_bytes(self.client, self.slot).await?;
        if kept <= self.kept_max {
            return Ok(());
        }
        Err(SessionEnd::Lost(format!(
            "slot {} kept {kept} bytes of WAL, more than limits.max_wal_kept allows ({})",
            self.slot, self.kept_max
        )))
    }

    async fn learn(&mut self, wire: WireRelation) -> Result<(), SessionEnd> {
        let table = TableName { schema: wire.schema.clone(), name: wire.name.clone() };
        if !self.order.tables.contains(&table) {
            self.assembler.ignore(wire.oid);
            return Ok(());
        }
        let facts = catalog::relation(self.client, &table).await?;
        self.assembler.learn(wire.oid, joined(table, wire, facts));
        Ok(())
    }
}

/// The stream's columns with the catalog's facts. The catalog may be younger than the stream: a column that it no
/// longer has is carried as unsupported, and stops only the slices that use it.
fn joined(table: TableName, wire: WireRelation, facts: Option<Relation>) -> Relation {
    let facts = facts.map(|relation| relation.columns).unwrap_or_default();
    let column = |name: &String| {
        facts.iter().find(|column| column.name == *name).cloned().unwrap_or_else(|| Column {
            name: name.clone(),
            kind: ColumnType::Unsupported("column that is gone by now".to_owned()),
            is_key: false,
            nullable: true,
        })
    };
    let columns = wire.columns.iter().map(|wire| column(&wire.name)).collect();
    Relation { table, identity: wire.identity, columns }
}

fn too_large(error: PgWireError) -> SessionEnd {
    match error {
        PgWireError::MessageTooLarge { payload_bytes, .. } => SessionEnd::Stop(Box::new(Finding::error(
            "capture.row-too-large",
            format!("the stream stands at a row of {payload_bytes} bytes, more than limits.max_row allows"),
            "raise limits.max_row in the plan and start the bridge again",
        ))),
        other => SessionEnd::Source(other.into()),
    }
}
