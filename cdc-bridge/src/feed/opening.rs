//! How a session of capture begins: in a log that is ours, on tables that are published, from where the log ends.
//!
//! [`super::session`] reads the stream then; what it read is written here.

use super::begin::{Begin, decide, other_plan, other_server, reader, set_back};
use super::end::SessionEnd;
use super::pending::Pending;
use super::seal;
use super::session::{SEAL_INTERVAL, Sealed, Session};
use super::source::{Source, SourceError, blocked, create_slot, published, slots};
use super::status::{Order, Status};
use crate::log::{Flush, Log, Owner};
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::PlanName;
use migrations::sql;
use postgres::clock;
use postgres::replication::Replication;
use rows::assemble::Assembler;
use rows::characters::Characters;
use rows::progress::{Captured, Progress, Seals};
use std::collections::BTreeMap;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Flushes waiting for the log; more would only be memory.
const FLUSHES_WAITING_MAX: usize = 1;

/// One session of the stream, from the checks at its start to its end.
pub(crate) async fn session(
    source: &Source,
    log: &Log,
    order: &Order,
    orders: &mut watch::Receiver<Option<Order>>,
    status: &watch::Sender<Status>,
) -> Result<(), SessionEnd> {
    let client = source.connect("strangler capture").await?;
    let timeline = source.replication().await?.identify_system().await?.timeline;
    must_be_ours(source, log, &client, &timeline).await?;
    let mut published = published(&client, &source.plan).await?;
    let (fit, apart) = status.borrow().split(order, published.values().map(|one| one.table.clone()));
    if fit.tables.is_empty() {
        return Err(SessionEnd::Unpublished(apart));
    }
    published.retain(|_, one| fit.tables.contains(&one.table));
    log.prepare(source.row_bytes_max, &timeline).await?;
    let slot = sql::slot(&source.plan, &log.id().0);
    let captured: Captured =
        published.values().map(|published| (published.table.clone(), published.membership)).collect();
    let begins = begin(source, log, &client, &slot, record(log, &timeline, &captured)).await?;
    let from = begins.end;
    let (mut stream, server_end, characters) = stream(source, log, &client, &slot, &begins).await?;
    // The slot is ours now: no other bridge changes the seal.
    let (seals, due) = sealed(log, &client, &source.plan, &begins).await?;
    let begins = Progress { seals: Some(seals), ..begins };
    status.send_modify(|status| {
        *status = Status {
            slot: slot.clone(),
            timeline: Some(timeline.clone()),
            tables: captured,
            apart,
            refused: std::mem::take(&mut status.refused),
            captured: from.max(status.captured),
            changes: status.changes,
            server_end: status.server_end.max(server_end),
            heard_us: clock::now_us(),
            lost: std::mem::take(&mut status.lost),
            gives_up: status.gives_up,
            shapes: status.shapes.clone(),
            ..Status::default()
        };
    });
    tracing::info!(%slot, %from, tables = fit.tables.len(), "capture began");

    let (flushes, waiting) = mpsc::channel(FLUSHES_WAITING_MAX);
    let (durable, confirmed) = watch::channel(from);
    let last = confirmed.clone();
    let writing = write(log, waiting, durable, status);
    let reading = Session {
        order,
        client: &client,
        status,
        characters,
        assembler: Assembler::new(),
        pending: Pending::new(begins),
        sealed: Sealed { at: from, changes: status.borrow().changes, due },
        published,
        stamps: BTreeMap::new(),
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

/// A record that has no end yet.
fn record(log: &Log, timeline: &Timeline, captured: &Captured) -> Progress {
    Progress {
        version: 1,
        log: log.id(),
        timeline: timeline.clone(),
        end: EndLsn(0),
        committed_us: 0,
        messages: Vec::new(),
        captured: captured.values().copied().collect(),
        seals: None,
    }
}

/// Begins to read the slot; how far the server is.
async fn stream(
    source: &Source,
    log: &Log,
    client: &Client,
    slot: &str,
    begins: &Progress,
) -> Result<(Replication, EndLsn, Characters), SessionEnd> {
    let mut stream = source.replication().await?;
    // The name may lead to another server by now, where the positions mean nothing.
    let system = stream.identify_system().await?;
    if system.timeline != begins.timeline {
        return Err(SessionEnd::Ended);
    }
    if begins.end > system.end && begins.end > flushed(client).await? {
        // It passes this place sooner or later. The finding must not go then.
        note(log, Progress { seals: Some(seal::broken()), ..begins.clone() }).await?;
        return Err(SessionEnd::Stop(Box::new(set_back(begins.end, &begins.timeline))));
    }
    let publication = sql::publication(&source.plan);
    let encoding = match stream.start(slot, begins.end, &publication).await {
        Err(error) if error.code() == Some(SqlState::OBJECT_IN_USE) => {
            let slots = slots(client, &source.plan).await?;
            let reader =
                slots.iter().find(|seen| seen.name == slot).map_or_else(|| error.to_string(), reader);
            return Err(SourceError::Taken { slot: slot.to_owned(), reader }.into());
        }
        started => started?,
    };
    Ok((stream, system.end, Characters::of(&encoding)))
}

/// Refuses a log that another database or another plan fills. A slot of ours with the log's name proves that the log is
/// ours, even if the database was renamed since.
async fn must_be_ours(
    source: &Source,
    log: &Log,
    client: &Client,
    timeline: &Timeline,
) -> Result<(), SessionEnd> {
    let finding = match log.owner().await? {
        Some(Owner::Server(system_id)) if system_id != timeline.system_id => {
            other_server(&format!("system {system_id}"), timeline)
        }
        Some(Owner::Other(whose)) => {
            let own = sql::slot(&source.plan, &log.id().0);
            if slots(client, &source.plan).await?.iter().any(|slot| slot.name == own) {
                return Ok(());
            }
            other_plan(&log.describe(), &whose)
        }
        _ => return Ok(()),
    };
    Err(SessionEnd::Stop(Box::new(finding)))
}

/// Decides how the session begins, and does it: the slot exists and the log knows where it starts. Gives the session's
/// record its end.
async fn begin(
    source: &Source,
    log: &Log,
    client: &Client,
    slot: &str,
    mut begins: Progress,
) -> Result<Progress, SessionEnd> {
    let end = log.end().await?;
    let slots = slots(client, &source.plan).await?;
    begins.seals = end.as_ref().and_then(|end| end.seals.clone());
    begins.end = match decide(slot, &slots, end.as_ref(), &begins.timeline) {
        Begin::Resume(at) if end.is_some_and(|end| end.captured == begins.captured) => {
            return Ok(Progress { end: at, ..begins });
        }
        // Lanes learn by a record that a table was out of the publication. A quiet source would give none for a while.
        Begin::Resume(at) => at,
        Begin::Anew => create_slot(source, client, slot).await?,
        // It was never finished: the session that makes it still waits for a transaction.
        Begin::Adopt(EndLsn(0)) => return Err(blocked(source, slot).await.into()),
        Begin::Adopt(from) => from,
        Begin::Stop(finding) => return Err(SessionEnd::Stop(Box::new(finding))),
        Begin::Lost(why) => return Err(SessionEnd::Lost(why)),
        Begin::Taken(reader) => return Err(SourceError::Taken { slot: slot.to_owned(), reader }.into()),
    };
    note(log, begins.clone()).await?;
    Ok(begins)
}

async fn note(log: &Log, progress: Progress) -> Result<(), SessionEnd> {
    let flush = Flush { changes: Vec::new(), progress: Some(progress) };
    log.writer().await?.append(flush).await?;
    Ok(())
}

async fn flushed(client: &Client) -> Result<EndLsn, SessionEnd> {
    let row = client.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
    let end = row.get::<_, String>(0).parse();
    end.map_err(|_| SourceError::Refused("its place in the WAL cannot be read".to_owned()).into())
}

/// Proves that source and log are of one history, and renews their seal unless nothing was written since. (Another record
/// at each try would keep a full log from being found full.)
async fn sealed(
    log: &Log,
    client: &Client,
    plan: &PlanName,
    begins: &Progress,
) -> Result<(Seals, Instant), SessionEnd> {
    let found = seal::read(client, plan).await?;
    let known = begins.seals.as_ref();
    if !seal::is_one_history(known, found.as_ref()) {
        return Err(SessionEnd::Stop(Box::new(set_back(begins.end, &begins.timeline))));
    }
    let held = match found {
        Some(next) if known.is_some_and(|known| known.next == next) => {
            return Ok((seal::after(next), Instant::now()));
        }
        Some(held) => held,
        None => {
            let first = seal::fresh();
            seal::place(client, plan, &first).await?;
            first
        }
    };
    let seals = seal::after(held);
    note(log, Progress { seals: Some(seals.clone()), ..begins.clone() }).await?;
    Ok((seal::renew(client, plan, &seals).await?, Instant::now() + SEAL_INTERVAL))
}

/// Appends flushes in order and reports what is durable.
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
        // Nobody waits for these counts. They are read when the lag is reported.
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
