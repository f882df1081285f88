//! One session of a source's stream: reads messages, hands flushes to the writer, confirms what is durable.
//!
//! It ends when the order changes or something fails; [`super::capture`] begins the next one.

use super::converted;
use super::described;
use super::end::{SessionEnd, row_too_large};
use super::pending::Pending;
use super::seal;
use super::source::{self, Published, Source};
use super::status::{Order, Status};
use crate::log::Flush;
use bytes::Bytes;
use migrations::lsn::EndLsn;
use migrations::names::TableName;
use postgres::catalog;
use postgres::clock;
use postgres::replication::frame::Frame;
use postgres::replication::{Replication, ReplicationError};
use rows::assemble::{Assembler, Step};
use rows::change::{Change, Relation};
use rows::characters::Characters;
use rows::pgoutput::{DecodeError, WireMessage, WireRelation, decode_in};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_postgres::Client;

/// How often an idle stream's place is written and confirmed.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// What is durable is confirmed at most this often: soon enough that little is sent again after a restart.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);

/// How long a flush waits for more changes. The wait is a part of the promised latency. A stream that is further behind
/// than `BEHIND_US` waits longer.
const PATIENCE: Duration = Duration::from_millis(2);
const PATIENCE_BEHIND: Duration = Duration::from_millis(25);
const BEHIND_US: i64 = 250_000;

/// A server that is silent for `SILENCE_MAX` is asked to reply, so that the lag is known. After `DEAD_AFTER` the session ends.
const SILENCE_MAX: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// How often the wanted tables are looked up among the published ones.
const TABLES_INTERVAL: Duration = Duration::from_secs(1);

/// How often the seal is renewed at most.
pub(crate) const SEAL_INTERVAL: Duration = Duration::from_secs(10);

/// When the stream is behind, it reads large batches: after a read of fewer than `GULP_BYTES`, the next read waits.
const GULP_BYTES: usize = 16 << 10;
const REST: Duration = PATIENCE_BEHIND;

pub(crate) struct Session<'a> {
    /// For the lanes that are not lost. Those whose tables cannot be captured are left out.
    pub(crate) order: &'a Order,
    /// For the catalog and the slot.
    pub(crate) client: &'a Client,
    pub(crate) status: &'a watch::Sender<Status>,
    /// What the texts of the stream are made of.
    pub(crate) characters: Characters,
    pub(crate) assembler: Assembler,
    pub(crate) pending: Pending,
    pub(crate) sealed: Sealed,
    /// The wanted tables, by the oids under which they are published.
    pub(crate) published: BTreeMap<u32, Published>,
    /// By oid, when the shapes of the wanted tables were read last.
    pub(crate) stamps: BTreeMap<u32, i64>,
    pub(crate) source: &'a Source,
    /// When the newest transaction was committed: microseconds since 2000-01-01 UTC by the server's clock.
    pub(crate) committed_pg_us: i64,
    /// How old it was when what came of it last was sent, in microseconds.
    pub(crate) age_us: i64,
}

/// When the seal was renewed last.
pub(crate) struct Sealed {
    /// A record that ends after this place has the seals that followed.
    pub(crate) at: EndLsn,
    /// What had been captured by then.
    pub(crate) changes: u64,
    pub(crate) due: Instant,
}

impl Session<'_> {
    /// Reads until the order changes or something fails; dropping `flushes` lets the writer finish.
    pub(crate) async fn run(
        mut self,
        stream: &mut Replication,
        flushes: mpsc::Sender<Flush>,
        mut confirmed: watch::Receiver<EndLsn>,
        orders: &mut watch::Receiver<Option<Order>>,
    ) -> Result<(), SessionEnd> {
        let mut idle = tokio::time::interval(IDLE_INTERVAL);
        let mut confirm = tokio::time::interval(CONFIRM_INTERVAL);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tables = tokio::time::interval_at(Instant::now() + TABLES_INTERVAL, TABLES_INTERVAL);
        let [mut flushed, mut rested, mut heard] = [Instant::now(); 3];
        let mut status = self.status.subscribe();
        let given_up = async {
            let _ = status.wait_for(|status| status.is_lost(self.order)).await;
        };
        let mut given_up = std::pin::pin!(given_up);
        self.check_tables().await?;
        let mut is_outdated = self.is_outdated(orders);
        loop {
            let durable = *confirmed.borrow();
            self.take_read(stream, durable, is_outdated).await?;
            if is_outdated && !self.assembler.in_transaction() {
                return self.finish(flushes).await;
            }
            let now = Instant::now();
            let (is_full, can_end) = (self.pending.is_full(), self.pending.has_boundary());
            let due = flushed + self.patience();
            let (is_due, is_resting) = (is_full || (can_end && now >= due), now < rested);
            tokio::select! {
                // While there is always more to read, nothing after it would ever have its turn.
                biased;
                () = &mut given_up => return Ok(()),
                open = orders.changed() => is_outdated = open.is_err() || self.is_outdated(orders),
                _ = idle.tick() => {
                    self.pending.idle(self.assembler.in_transaction());
                    // We did not read, so silence proves nothing.
                    if is_full {
                        heard = now;
                    }
                    if now > heard + DEAD_AFTER {
                        return Err(ReplicationError::Silent(DEAD_AFTER.as_secs()).into());
                    }
                    // Also if nothing is new: a server ends a session that stays silent.
                    stream.confirm(durable, now > heard + SILENCE_MAX).await?;
                    self.renew_seal(durable).await?;
                }
                _ = tables.tick() => self.check_tables().await?,
                _ = confirm.tick() => match confirmed.has_changed() {
                    // The writer has ended. Its own error says why.
                    Err(_) => return Ok(()),
                    Ok(false) => {}
                    Ok(true) => {
                        let end = *confirmed.borrow_and_update();
                        stream.confirm(end, false).await?;
                    }
                },
                place = flushes.reserve(), if is_due => {
                    let Ok(place) = place else { return Ok(()) };
                    place.send(self.pending.take());
                    flushed = Instant::now();
                }
                read = stream.read(), if !is_full && !is_resting => {
                    let read = read?;
                    heard = Instant::now();
                    self.heard();
                    if read < GULP_BYTES && self.is_behind() {
                        rested = heard + REST;
                    }
                }
                () = sleep_until(rested), if is_resting => {}
                () = sleep_until(due), if can_end && !is_due => {}
            }
        }
    }

    /// Takes what was read, as far as there is room for it; for an order that is outdated, up to the next commit.
    async fn take_read(
        &mut self,
        stream: &mut Replication,
        confirmed: EndLsn,
        is_outdated: bool,
    ) -> Result<(), SessionEnd> {
        while !self.pending.is_full() && (!is_outdated || self.assembler.in_transaction()) {
            match stream.frame()? {
                None => break,
                Some(Frame::Data { wal_start, sent_pg_us, data }) => {
                    self.pending.passed(data.len());
                    let message = self.read_message(data).await?;
                    if let WireMessage::Begin { committed_pg_us, .. } = &message {
                        self.committed_pg_us = *committed_pg_us;
                    }
                    // Between two transactions the age is not known.
                    if self.assembler.in_transaction() {
                        self.age_us = sent_pg_us.saturating_sub(self.committed_pg_us);
                    }
                    self.take(wal_start, message).await?;
                }
                Some(Frame::Keepalive { wal_end, reply_requested }) => {
                    self.saw(wal_end);
                    self.pending.sent_until(wal_end);
                    if reply_requested {
                        stream.confirm(confirmed, false).await?;
                    }
                }
                Some(Frame::TooLarge { relation, bytes }) => {
                    if let Some(known) = self.published.get(&relation) {
                        return Err(SessionEnd::TooLarge(
                            known.table.clone(),
                            Box::new(row_too_large(&known.table, bytes as u64)),
                        ));
                    }
                    self.assembler.pass_over();
                }
                Some(Frame::Ended) => return Err(SessionEnd::Ended),
                Some(Frame::Aside) => {}
            }
        }
        Ok(())
    }

    /// Reads a message. What its characters are is asked for when they are met first.
    async fn read_message(&mut self, data: Bytes) -> Result<WireMessage, SessionEnd> {
        loop {
            match decode_in(data.clone(), &self.characters) {
                Err(DecodeError::Unknown(unknown)) => {
                    converted::learn(self.client, &mut self.characters, unknown).await?;
                }
                read => return Ok(read?),
            }
        }
    }

    /// Whether something else is asked for by now than what the session reads for.
    fn is_outdated(&self, orders: &watch::Receiver<Option<Order>>) -> bool {
        // One lock after the other.
        let asked = orders.borrow().clone();
        let lost = &self.status.borrow().lost;
        asked.is_none_or(|order| order.without(lost) != *self.order)
    }

    fn is_behind(&self) -> bool {
        self.age_us > BEHIND_US
    }

    /// How long after a flush the next one waits for more changes. When the stream is behind, large flushes gain more than
    /// early ones. The first flush after a pause goes at once.
    fn patience(&self) -> Duration {
        if self.is_behind() { PATIENCE_BEHIND } else { PATIENCE }
    }

    async fn finish(mut self, flushes: mpsc::Sender<Flush>) -> Result<(), SessionEnd> {
        // What the server sent without anything for us is not read again either.
        self.pending.idle(false);
        if self.pending.has_boundary() {
            let _ = flushes.send(self.pending.take()).await;
        }
        Ok(())
    }

    async fn take(&mut self, at: u64, message: WireMessage) -> Result<(), SessionEnd> {
        match self.assembler.push(at, message)? {
            Step::Nothing => {}
            Step::NeedRelation(relation) => self.learn(relation).await?,
            Step::Change(change) => {
                self.check_size(&change)?;
                self.pending.push(change);
            }
            Step::Truncated(changes) => changes.into_iter().for_each(|change| self.pending.push(change)),
            Step::Message(message) => {
                // Barriers and fences promise that nothing is missing before them.
                self.check_tables().await?;
                self.pending.note(message);
            }
            Step::Committed { end, committed_us, .. } => {
                self.pending.committed(end, committed_us);
                self.saw(end);
            }
        }
        Ok(())
    }

    /// Notes that the server spoke. This wakes nobody.
    fn heard(&self) {
        self.status.send_if_modified(|status| {
            status.heard_us = clock::now_us();
            false
        });
    }

    /// Notes how far the server is. This wakes nobody: it is read when the lag is asked for.
    fn saw(&mut self, end: EndLsn) {
        self.status.send_if_modified(|status| {
            status.server_end = status.server_end.max(end);
            false
        });
    }

    async fn learn(&mut self, wire: WireRelation) -> Result<(), SessionEnd> {
        let table = TableName { schema: wire.schema.clone(), name: wire.name.clone() };
        // One that had another name then is not followed. Who needs its rows learns that they are missing.
        let known = self.published.get(&wire.oid);
        let is_kept = known.is_some_and(|known| known.table == table);
        if let Some(known) = known {
            self.pending.keeps(known.membership, is_kept);
        }
        if !is_kept {
            self.assembler.ignore(wire.oid);
            return Ok(());
        }
        // The server describes a table again after each change of the publication.
        self.check_tables().await?;
        let relation = described::look(self.client, &table, &wire, self.assembler.types()).await?;
        let none = BTreeSet::new();
        let left_out = self.source.left_out.get(&table).unwrap_or(&none);
        self.assembler.learn_without(wire.oid, relation, left_out);
        Ok(())
    }

    /// Checks that the wanted tables are published as they were when the session began, and have been meanwhile. Every change
    /// that is committed by now is seen, so what was read until now has no gap.
    async fn check_tables(&mut self) -> Result<(), SessionEnd> {
        let now = source::published(self.client, &self.source.plan).await?;
        let (mut torn, mut renamed) = (BTreeSet::new(), BTreeSet::new());
        for (oid, known) in &self.published {
            match now.get(oid) {
                Some(found) if found == known => {}
                Some(found) if found.membership == known.membership => drop(renamed.insert(&known.table)),
                _ => drop(torn.insert(&known.table)),
            }
        }
        if !torn.is_empty() {
            // The next session reports other memberships, so its slices see the gap.
            return Err(SessionEnd::Republished(torn.into_iter().cloned().collect()));
        }
        if !renamed.is_empty() {
            return Err(SessionEnd::Unpublished(renamed.into_iter().cloned().collect()));
        }
        let (fit, _) = self.status.borrow().split(self.order, now.into_values().map(|one| one.table));
        let has = |table: &TableName| self.published.values().any(|one| one.table == *table);
        if !fit.tables.iter().all(has) {
            return Err(SessionEnd::Regrouped);
        }
        self.look_at_shapes().await
    }

    /// Renews the seal if anything was captured since, so that a moment within a long session is found, too, to which one
    /// side is set back.
    async fn renew_seal(&mut self, durable: EndLsn) -> Result<(), SessionEnd> {
        let changes = self.status.borrow().changes;
        let is_due = Instant::now() >= self.sealed.due && durable > self.sealed.at;
        if !is_due || changes == self.sealed.changes {
            return Ok(());
        }
        let Some(seals) = self.pending.seals() else { return Ok(()) };
        let seals = seal::renew(self.client, &self.source.plan, seals).await?;
        let (at, due) = (self.pending.seal(seals), Instant::now() + SEAL_INTERVAL);
        self.sealed = Sealed { at, changes, due };
        Ok(())
    }

    /// Says what shapes the wanted tables have, if they changed. A change may come without a row that shows it.
    async fn look_at_shapes(&mut self) -> Result<(), SessionEnd> {
        let oids: Vec<u32> = self.published.keys().copied().collect();
        let stamps = catalog::stamps(self.client, &oids).await?;
        let mut shapes = BTreeMap::clone(&self.status.borrow().shapes);
        for (oid, known) in &self.published {
            if stamps.get(oid) != self.stamps.get(oid)
                && let Some(shape) = catalog::shape(self.client, &known.table).await?
            {
                let relation = Relation::of(&known.table, shape.identity, &shape.columns);
                shapes.insert(known.table.clone(), relation);
            }
        }
        if stamps != self.stamps {
            self.stamps = stamps;
            self.status.send_modify(|status| status.shapes = Arc::new(shapes));
        }
        Ok(())
    }

    fn check_size(&self, change: &Change) -> Result<(), SessionEnd> {
        let bytes_max = self.source.row_bytes_max;
        // The exact size matters only if the change as a whole is too large.
        let bytes = if change.size() as u64 > bytes_max { change.row_bytes() } else { 0 };
        if bytes as u64 <= bytes_max {
            return Ok(());
        }
        let table = &change.relation.table;
        Err(SessionEnd::TooLarge(table.clone(), Box::new(row_too_large(table, bytes as u64))))
    }
}
