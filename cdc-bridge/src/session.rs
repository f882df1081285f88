//! One session of a source's stream: reads messages, hands flushes to the writer, confirms what is durable.
//!
//! It ends when the order changes or something fails; [`crate::capture`] begins the next one.

use crate::capture::pending::{Pending, joined};
use crate::capture::{Order, SessionEnd, Status};
use crate::catalog;
use crate::log::Flush;
use crate::source::assemble::{Assembler, Step};
use crate::source::pgoutput::{WireMessage, WireRelation, decode};
use crate::stream::now_us;
use futures_util::FutureExt;
use migrations::finding::Finding;
use migrations::lsn::EndLsn;
use migrations::names::TableName;
use pgwire_replication::{Lsn, PgWireError, ReplicationClient, ReplicationEvent};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Client;

/// How often an idle stream's place is written and confirmed.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// How long flushes wait for company: a part of the latency that is promised, and, for a stream that is behind by more
/// than so much, a part of that.
const PATIENCE: Duration = Duration::from_millis(2);
const PATIENCE_BEHIND: Duration = Duration::from_millis(25);
const BEHIND_US: i64 = 250_000;

/// After so many events without a pause, what is durable is confirmed and what is due is flushed.
const EVENTS_IN_A_ROW: usize = 1024;

/// One open session.
pub struct Session<'a> {
    /// What is wanted.
    pub order: &'a Order,
    /// For the catalog and the slot.
    pub client: &'a Client,
    /// Where it is told how capture stands.
    pub status: &'a watch::Sender<Status>,
    /// Makes changes of messages.
    pub assembler: Assembler,
    /// What the writer has not got yet.
    pub pending: Pending,
}

impl Session<'_> {
    /// Reads until the order changes or something fails; dropping `flushes` lets the writer finish.
    pub async fn run(
        mut self,
        stream: &mut ReplicationClient,
        flushes: mpsc::Sender<Flush>,
        mut confirmed: watch::Receiver<EndLsn>,
        orders: &mut watch::Receiver<Option<Order>>,
    ) -> Result<(), SessionEnd> {
        let mut idle = tokio::time::interval(IDLE_INTERVAL);
        let mut flushed = Instant::now();
        let mut status = self.status.subscribe();
        let given_up = async {
            let _ = status.wait_for(|status| status.lost.is_some()).await;
        };
        let mut given_up = std::pin::pin!(given_up);
        let mut is_outdated = orders.borrow().as_ref() != Some(self.order);
        loop {
            let in_transaction = self.assembler.in_transaction();
            if is_outdated && !in_transaction {
                return self.finish(flushes).await;
            }
            let is_whole = self.pending.is_whole(in_transaction);
            let due = flushed + self.patience();
            let is_due = self.pending.is_full() || (is_whole && Instant::now() >= due);
            tokio::select! {
                biased;
                event = stream.recv(), if !self.pending.is_full() => {
                    self.take(event.map_err(too_large)?.ok_or(SessionEnd::Ended)?).await?;
                    self.drain(stream).await?;
                    // While there is always another event, nothing below would ever have its turn.
                    stream.update_applied_lsn(Lsn(confirmed.borrow_and_update().0));
                    is_outdated = orders.borrow().as_ref() != Some(self.order);
                    if self.pending.is_whole(self.assembler.in_transaction())
                        && Instant::now() >= flushed + self.patience()
                        && let Ok(place) = flushes.try_reserve()
                    {
                        place.send(self.pending.take(false));
                        flushed = Instant::now();
                    }
                }
                place = flushes.reserve(), if is_due => {
                    let Ok(place) = place else { return Ok(()) };
                    place.send(self.pending.take(in_transaction));
                    flushed = Instant::now();
                }
                () = sleep_until(due), if is_whole && !is_due => {}
                changed = confirmed.changed() => {
                    // The writer is gone: its own error says why.
                    if changed.is_err() { return Ok(()) }
                    stream.update_applied_lsn(Lsn(confirmed.borrow_and_update().0));
                }
                open = orders.changed() => is_outdated = open.is_err() || orders.borrow().as_ref() != Some(self.order),
                _ = idle.tick() => self.pending.idle(self.assembler.in_transaction()),
                () = &mut given_up => return Ok(()),
            }
        }
    }

    /// Takes what has come already, without waiting.
    async fn drain(&mut self, stream: &mut ReplicationClient) -> Result<(), SessionEnd> {
        for _ in 0..EVENTS_IN_A_ROW {
            if self.pending.is_full() {
                break;
            }
            let Some(event) = stream.recv().now_or_never() else { break };
            self.take(event.map_err(too_large)?.ok_or(SessionEnd::Ended)?).await?;
        }
        Ok(())
    }

    /// How long after a flush the next one waits for company. Who is behind gains more from large flushes than from early
    /// ones; the first one after a pause goes at once.
    fn patience(&self) -> Duration {
        let age_us = now_us() - self.pending.committed_us();
        if age_us > BEHIND_US { PATIENCE_BEHIND } else { PATIENCE }
    }

    async fn finish(mut self, flushes: mpsc::Sender<Flush>) -> Result<(), SessionEnd> {
        if self.pending.is_whole(false) {
            let _ = flushes.send(self.pending.take(false)).await;
        }
        Ok(())
    }

    async fn take(&mut self, event: ReplicationEvent) -> Result<(), SessionEnd> {
        let (at, message) = match event {
            ReplicationEvent::XLogData { wal_start, data, .. } => (wal_start.0, decode(data)?),
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
                self.pending.sent_until(EndLsn(wal_end.0));
                return Ok(());
            }
            ReplicationEvent::StoppedAt { .. } => return Err(SessionEnd::Ended),
        };
        match self.assembler.push(at, message)? {
            Step::Nothing => {}
            Step::NeedRelation(relation) => self.learn(relation).await?,
            Step::Change(change) => self.pending.push(change),
            Step::Truncated(changes) => changes.into_iter().for_each(|change| self.pending.push(change)),
            Step::Message(message) => self.pending.note(message),
            Step::Committed { end, committed_us, .. } => {
                self.pending.committed(end, committed_us);
                self.saw(end);
            }
        }
        Ok(())
    }

    /// Notes how far the server is. Nobody is woken for it: only who asks for the lag reads it.
    fn saw(&mut self, end: EndLsn) {
        self.status.send_if_modified(|status| {
            status.server_end = status.server_end.max(end);
            false
        });
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
