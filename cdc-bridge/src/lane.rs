//! One lane from end to end: copied, then followed, or removed, as its order says.
//!
//! It owns what it reports and decides nothing about the slice's life. Every wait can be cut short: an order that
//! changed drops what is being done, and the databases roll back what was not committed.

pub(crate) mod changed;
mod chunk;
mod copy;
mod filled;
pub(crate) mod halt;
pub(crate) mod kept;
pub(crate) mod mending;
mod next;
pub(crate) mod plan;
mod removal;
mod sink;
pub(crate) mod state;

use crate::feed::Feed;
use crate::feed::end::waits;
use crate::feed::source::SourceError;
use crate::feed::status::Status;
use crate::log::{Log, Reader};
use changed::Changed;
use copy::Job;
pub use halt::Halt;
use kept::{Kept, Shapes};
pub use kept::{begin_chunk, hold};
use mending::Mending;
use migrations::control::{Condition, LaneOrder};
use migrations::journal::Generation;
use migrations::lane::Right;
use migrations::lsn::{CommitLsn, Of, Position, Timeline};
use migrations::names::TableName;
use migrations::stage::Epoch;
use next::{Next, Seen, asks_for_more, next};
use plan::LanePlan;
use postgres::{catalog, clock};
use rows::change::{Change, Relation};
use rows::progress::Captured;
use sink::Sink;
use state::LaneState;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Before a copy begins again, proxies have this long to read elsewhere.
const READERS_LEAVE: Duration = Duration::from_secs(2);
const COPY_REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// An order with the journal's length when it was given: a longer journal wakes a stopped lane.
pub(crate) type Ordered = Option<(Generation, LaneOrder)>;

#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) plan: LanePlan,
    pub(crate) feed: Feed,
    pub(crate) state: watch::Sender<LaneState>,
    /// Told when the lane does something else than before.
    pub(crate) news: Arc<Notify>,
    pub(crate) changed: Changed,
    pub(crate) mending: Mending,
}

/// Runs a lane until `orders` closes.
pub(crate) async fn run(context: Context, mut orders: watch::Receiver<Ordered>) {
    let log = context.feed.opened().await;
    let mut wait = RETRY_MIN;
    loop {
        let Some((generation, order)) = orders.borrow_and_update().clone() else {
            if orders.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let lane = Lane { context: &context, log: &log, order: &order };
        let halt = tokio::select! {
            Err(halt) = lane.pursue() => halt,
            open = another(&mut orders, &order) => if open { continue } else { return },
        };
        if began.elapsed() > RETRY_MAX {
            wait = RETRY_MIN;
        }
        lane.tell(&halt);
        let retry = !matches!(halt, Halt::Stopped(..));
        tokio::select! {
            () = sleep(wait), if retry => wait = (wait * 2).min(RETRY_MAX),
            open = newer(&mut orders, generation) => if open { wait = RETRY_MIN } else { return },
        }
    }
}

/// Waits for an order that asks for something else; false when there will be none.
async fn another(orders: &mut watch::Receiver<Ordered>, now: &LaneOrder) -> bool {
    orders.wait_for(|next| next.as_ref().is_some_and(|(_, next)| asks_for_more(now, next))).await.is_ok()
}

/// Waits for a longer journal, or for another order of the same; false when there will be none.
async fn newer(orders: &mut watch::Receiver<Ordered>, than: Generation) -> bool {
    orders.wait_for(|next| next.as_ref().is_some_and(|(generation, _)| *generation != than)).await.is_ok()
}

struct Lane<'a> {
    context: &'a Context,
    log: &'a Log,
    order: &'a LaneOrder,
}

impl Lane<'_> {
    /// Does what the order says; returns only when it cannot go on.
    async fn pursue(&self) -> Result<Infallible, Halt> {
        let (plan, order) = (&self.context.plan, self.order);
        let (mut captured, mut open): (_, Option<(Client, Option<Kept>)>) = (None, None);
        loop {
            let kept = open.as_ref().map(|(_, kept)| kept.as_ref());
            // A session of capture may have found the log under another id meanwhile.
            let id = self.log.id();
            let next = next(plan, order, Seen { log: &id, is_captured: captured.is_some(), kept });
            match (next, open.take(), &captured) {
                (Next::Look, ..) => open = Some(Sink::open(plan).await?),
                (Next::AwaitCapture, held, _) => {
                    // Lets the lane's lock go: it may be another bridge's turn.
                    drop(held);
                    captured = Some(self.captured().await?);
                }
                (Next::Copy { epoch, filled, is_read }, Some((client, _)), Some(captured)) => {
                    let kept = self.copy(&client, epoch, captured.clone(), filled, is_read).await?;
                    open = Some((client, Some(kept)));
                }
                (Next::Begin, Some((client, _)), Some(captured)) => {
                    let kept = self.begin(&client, captured.clone()).await?;
                    open = Some((client, Some(kept)));
                }
                (Next::Follow, Some((client, Some(kept))), _) => return self.follow(client, kept).await,
                (Next::Pause, Some((client, Some(kept))), _) => {
                    drop(client);
                    self.take_up(&kept);
                    return self.stay(Condition::Paused).await;
                }
                (Next::Copied, Some((client, Some(kept))), _) => {
                    drop(client);
                    self.context.state.send_modify(|state| state.cursor = Some(kept.cursor.clone()));
                    let copied_at = Of::monolith(kept.copied_at.unwrap_or_default());
                    return self.stay(Condition::Copied { attempt: order.attempt, copied_at }).await;
                }
                (Next::Rest, ..) => {
                    self.context.state.send_modify(LaneState::reset);
                    return self.stay(Condition::Idle).await;
                }
                (Next::Remove(epoch), ..) => {
                    self.context.state.send_modify(LaneState::reset);
                    let tell =
                        || self.set(Condition::Waiting { finding: waits("the copy is being removed") });
                    removal::remove(plan, &self.context.feed, self.log, epoch, tell).await?;
                    return self.stay(Condition::Idle).await;
                }
                (Next::Forget, ..) => {
                    self.context.state.send_modify(LaneState::reset);
                    removal::forget(plan).await?;
                    return self.stay(Condition::Idle).await;
                }
                (Next::Halt(halt), ..) => return Err(halt),
                // What is missing is looked for again.
                (Next::Copy { .. } | Next::Begin | Next::Follow | Next::Pause | Next::Copied, ..) => {}
            }
        }
    }

    /// What was asked is done, and stays so until the order changes.
    async fn stay(&self, condition: Condition) -> Result<Infallible, Halt> {
        self.set(condition);
        pending().await
    }

    fn tell(&self, halt: &Halt) {
        let lane = &self.context.plan.id;
        let condition = match halt {
            Halt::Away(finding) => {
                tracing::warn!(%lane, "the lane waits: {finding}");
                Condition::Waiting { finding: (**finding).clone() }
            }
            Halt::Stopped(finding, position) => {
                tracing::error!(%lane, "the lane stopped: {finding}");
                Condition::Stopped { finding: (**finding).clone(), position: *position }
            }
            Halt::Lost(why) => Condition::Lost { attempt: self.order.attempt, why: why.clone() },
        };
        self.set(condition);
    }

    fn set(&self, condition: Condition) {
        let mut is_news = false;
        self.context.state.send_modify(|state| {
            is_news = std::mem::discriminant(&state.condition) != std::mem::discriminant(&condition);
            state.condition = condition;
        });
        if is_news {
            self.context.news.notify_one();
        }
    }

    async fn copy(
        &self,
        client: &Client,
        epoch: Epoch,
        (timeline, captured): (Timeline, Captured),
        filled: BTreeSet<TableName>,
        is_read: bool,
    ) -> Result<Kept, Halt> {
        if is_read {
            // The tables are emptied next; proxies that still read from them have been told otherwise.
            sleep(READERS_LEAVE).await;
        }
        let context = self.context;
        let passed = context.feed.status.borrow().captured;
        let cursor = self.log.end_cursor().await?;
        context.state.send_modify(|state| state.restart(cursor, passed));
        let job = Job {
            plan: &context.plan,
            epoch,
            attempt: self.order.attempt,
            source: &context.feed.source,
            timeline,
            captured,
            filled,
            replace: self.order.replace,
            passed,
            log: self.log,
        };
        let progress = Arc::new(copy::RowCount::default());
        tokio::select! {
            kept = copy::copy(&job, client, &progress) => Ok(kept?),
            never = self.report_copy(&progress) => match never {},
            halt = self.lost(None) => Err(halt),
        }
    }

    async fn report_copy(&self, progress: &copy::RowCount) -> Infallible {
        loop {
            self.set(Condition::Copying {
                rows: progress.rows.load(Ordering::Relaxed),
                rows_estimated: progress.estimated.load(Ordering::Relaxed),
            });
            sleep(COPY_REPORT_INTERVAL).await;
        }
    }

    /// Notes in the sink that the lane begins where its feed's log ends now. Everything before came from the sink.
    async fn begin(&self, client: &Client, (timeline, captured): (Timeline, Captured)) -> Result<Kept, Halt> {
        let (plan, feed) = (&self.context.plan, &self.context.feed);
        let source = feed.source.connect("strangler").await.map_err(SourceError::from)?;
        let mut shapes = Shapes::new();
        for table in &plan.tables {
            let shape = catalog::shape(&source, &table.from).await.map_err(SourceError::from)?;
            let shape = shape.ok_or_else(|| Halt::stop(copy::no_table(&table.from, &table.to)))?;
            let relation = Relation::of(&table.from, shape.identity, &shape.columns);
            shapes.insert(table.from.clone(), relation);
        }
        // Read before the cursor, so that it says no more than the cursor holds.
        let passed = feed.status.borrow().captured;
        let kept = Kept {
            log: self.log.id(),
            timeline,
            attempt: self.order.attempt,
            copied_at: Some(CommitLsn(passed.0)),
            position: Position::default(),
            passed,
            cursor: self.log.end_cursor().await?,
            shapes,
            mapping: plan.slice.mapping_hash(),
            captured,
            filled: BTreeSet::new(),
        };
        kept::keep(client, &plan.id, &kept, Some(&kept.filled)).await?;
        Ok(kept)
    }

    /// Waits until the feed captures the lane's tables; of which server, and as what.
    async fn captured(&self) -> Result<(Timeline, Captured), Halt> {
        let tables = self.context.plan.sources();
        let mut status = self.context.feed.status.subscribe();
        loop {
            let now = status.borrow_and_update().clone();
            self.check_lost(&now)?;
            let captured: Captured =
                now.tables.into_iter().filter(|(table, _)| tables.contains(table)).collect();
            if let (true, Some(timeline)) = (captured.len() == tables.len(), now.timeline) {
                return Ok((timeline, captured));
            }
            match now.finding {
                Some(finding) if finding.is_error() => {
                    self.set(Condition::Stopped { finding, position: None });
                }
                Some(finding) => self.set(Condition::Waiting { finding }),
                None => {}
            }
            status.changed().await.map_err(|_| Halt::away("capture has ended"))?;
        }
    }

    fn check_lost(&self, status: &Status) -> Result<(), Halt> {
        let ours = (self.context.plan.id.clone(), self.order.attempt);
        match &status.lost {
            Some(lost) if lost.attempts.contains(&ours) => Err(Halt::Lost(lost.why.clone())),
            _ => Ok(()),
        }
    }

    /// Waits until capture says that this copy's changes are lost, or that what is kept comes from another server.
    async fn lost(&self, kept: Option<&Kept>) -> Halt {
        let mut status = self.context.feed.status.subscribe();
        loop {
            let now = status.borrow_and_update().clone();
            if let Err(halt) = self.check_lost(&now) {
                return halt;
            }
            if let (Some(kept), Some(server)) = (kept, &now.timeline)
                && kept.timeline != *server
            {
                return Halt::Stopped(Box::new(kept.other_server(server)), None);
            }
            if status.changed().await.is_err() {
                return Halt::away("capture has ended");
            }
        }
    }

    fn take_up(&self, kept: &Kept) {
        self.context.state.send_modify(|state| {
            state.cursor = Some(kept.cursor.clone());
            state.passed = kept.passed;
            state.durable = kept.passed;
        });
    }

    async fn follow(&self, client: Client, kept: Kept) -> Result<Infallible, Halt> {
        self.take_up(&kept);
        self.context.changed.resume(kept.position);
        let plan = &self.context.plan;
        let reader = self.log.reader(plan.sources(), &kept.cursor).await?;
        let sink = Sink::follow(client, plan, self.order.right, &kept).await?;
        self.set(Condition::Following);
        tokio::select! {
            ended = self.apply(reader, sink, &kept) => ended,
            halt = self.lost(Some(&kept)) => Err(halt),
        }
    }

    async fn apply(&self, mut reader: Reader, mut sink: Sink, kept: &Kept) -> Result<Infallible, Halt> {
        // A lane that only watches must not move past a foreign write: it may get the right to apply that write.
        let mut is_held = false;
        let mut mends = self.context.mending.receive().await;
        loop {
            let batch = tokio::select! {
                batch = reader.next() => batch?,
                Some(mend) = mends.recv(), if sink.is_between() => {
                    sink.mend(mend, &self.context.changed).await?;
                    continue;
                }
            };
            if let Some((progress, _)) = &batch.progress
                && let Some(table) = kept.missed(progress)
            {
                return Err(Halt::Lost(format!("changes of table {table} were not captured for a while")));
            }
            let mut changes = batch.changes;
            changes.retain(|change| self.is_wanted(change, kept));
            if self.order.right == Right::Watch {
                self.report_foreign(&changes);
                is_held |= !changes.is_empty();
                changes.clear();
            }
            let progress = batch.progress.as_ref().filter(|_| !is_held);
            self.context.changed.note(&changes);
            let durable = sink.apply(&changes, progress).await?;
            let Some((progress, cursor)) = batch.progress else { continue };
            self.context.state.send_modify(|state| {
                state.passed = state.passed.max(progress.end);
                state.committed_us = progress.committed_us;
                state.barriers(&progress.messages);
                if let Some(durable) = durable {
                    state.durable = durable;
                    state.cursor = Some(cursor.clone());
                }
                state.seen = Some(cursor);
                if !changes.is_empty() {
                    state.changes += changes.len() as u64;
                    state.took_ms =
                        u64::try_from((clock::now_us() - progress.committed_us) / 1000).unwrap_or(0);
                }
            });
        }
    }

    fn is_wanted(&self, change: &Change, kept: &Kept) -> bool {
        let is_new = change.position > kept.position
            && kept.copied_at.is_some_and(|copied_at| change.position.commit >= copied_at);
        let is_echo = change.mark.as_deref().is_some_and(|mark| self.context.plan.is_echo(mark));
        is_new && !is_echo && !self.order.skips.contains(&change.position)
    }

    /// Someone else than our own lanes wrote the slice's rows where they must not change.
    fn report_foreign(&self, changes: &[Change]) {
        let Some(first) = changes.first() else { return };
        let (lane, table, position) = (&self.context.plan.id, &first.relation.table, first.position);
        tracing::error!(%lane, count = changes.len(), %table, %position, "a write that is not strangler's own");
        self.context.state.send_modify(|state| state.foreign += changes.len() as u64);
        self.context.news.notify_one();
    }
}
