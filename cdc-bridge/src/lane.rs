//! One lane from end to end: copied, then followed, or removed, as its order says.
//!
//! It owns what it reports and decides nothing about the slice's life. Every wait can be cut short: an order that
//! changed drops what is being done, and the databases roll back what was not committed.

mod back;
mod border;
pub(crate) mod changed;
mod chunk;
mod copy;
mod filled;
pub(crate) mod halt;
mod hold;
pub(crate) mod kept;
pub(crate) mod loss;
pub(crate) mod mending;
mod narrowed;
mod next;
mod patience;
pub(crate) mod plan;
mod publication;
mod refusal;
mod removal;
mod sink;
pub(crate) mod state;

use crate::feed::Feed;
use crate::feed::end::{other_table, waits};
use crate::feed::status::Status;
use crate::log::{Cursor, Log, Reader};
use border::{Foreign, Watch};
use changed::Changed;
use copy::Job;
pub use halt::Halt;
use kept::{Kept, Shapes};
pub use kept::{begin_chunk, hold};
use mending::Mending;
use migrations::control::{Condition, LaneOrder, READERS_LEAVE};
use migrations::journal::Generation;
use migrations::lane::{Direction, Right, Turn};
use migrations::lsn::{EndLsn, Of, Position, Timeline};
use migrations::names::TableName;
use migrations::stage::{Epoch, Stage};
use next::{Next, Seen, asks_for_more, next};
use patience::{Patience, Place};
use plan::LanePlan;
use postgres::clock;
use rows::change::Change;
use rows::progress::{Captured, Progress};
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
/// How often a lane looks for tables that cannot be captured.
const APART_INTERVAL: Duration = Duration::from_secs(1);
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
    let (mut wait, mut patience) = (RETRY_MIN, Patience::default());
    loop {
        let Some((generation, order)) = orders.borrow_and_update().clone() else {
            if orders.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let lane = Lane { context: &context, log: &log, order: &order, orders: orders.clone() };
        let halt = tokio::select! {
            Err(halt) = lane.pursue() => halt,
            open = another(&mut orders, &order) => if open { continue } else { return },
        };
        if began.elapsed() > RETRY_MAX {
            wait = RETRY_MIN;
        }
        let halt = patience.judge(lane.place(), halt);
        lane.tell(&halt);
        let retry = !matches!(halt, Halt::Stopped(..));
        tokio::select! {
            () = sleep(wait), if retry => wait = (wait * 2).min(RETRY_MAX),
            open = newer(&mut orders, generation) => if open { wait = RETRY_MIN } else { return },
        }
    }
}

/// Waits for an order that asks for more than another epoch; false when there will be none.
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
    orders: watch::Receiver<Ordered>,
}

impl Lane<'_> {
    /// Does what the order says; returns only when it cannot go on.
    async fn pursue(&self) -> Result<Infallible, Halt> {
        let (plan, order, feed) = (&self.context.plan, self.order, &self.context.feed);
        let (mut captured, mut open): (_, Option<(Client, Option<Kept>)>) = (None, None);
        loop {
            let kept = open.as_ref().map(|(_, kept)| kept.as_ref());
            // A session of capture may have found the log under another id meanwhile.
            let id = self.log.id();
            let next = next(plan, order, Seen { log: &id, is_captured: captured.is_some(), kept });
            match (next, open.take(), &captured) {
                (Next::Look, ..) => {
                    let (client, kept) = Sink::open(plan).await?;
                    // If the lane is lost, this is what it had.
                    let (passed, noted_us) =
                        kept.as_ref().map_or((EndLsn(0), 0), |kept| (kept.passed, kept.noted_us));
                    self.context
                        .state
                        .send_modify(|state| (state.passed, state.noted_us) = (passed, noted_us));
                    open = Some((client, kept));
                }
                (Next::AwaitCapture, held, _) => {
                    // Lets the lane's lock go: it may be another bridge's turn.
                    drop(held);
                    publication::publish(plan, order, feed).await?;
                    captured = Some(self.captured().await?);
                }
                (Next::Copy { epoch, filled, is_read }, Some((client, _)), Some(captured)) => {
                    let kept = self.copy(&client, epoch, captured.clone(), filled, is_read).await?;
                    open = Some((client, Some(kept)));
                }
                (Next::Begin, Some((client, _)), Some(captured)) => {
                    let captured = captured.clone();
                    let kept = back::begin(plan, feed, self.log, order.attempt, captured, &client).await?;
                    open = Some((client, Some(kept)));
                }
                (Next::Follow, Some((client, Some(kept))), _) => {
                    publication::retire(plan, order, feed).await?;
                    return self.follow(client, kept).await;
                }
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
                    publication::retire(plan, order, feed).await?;
                    return self.stay(Condition::Idle).await;
                }
                (Next::Remove(epoch), ..) => {
                    self.context.state.send_modify(LaneState::reset);
                    let tell =
                        || self.set(Condition::Waiting { finding: waits("the copy is being removed") });
                    removal::remove(plan, order, feed, self.log, epoch, tell).await?;
                    return self.stay(Condition::Idle).await;
                }
                (Next::Forget, ..) => {
                    self.context.state.send_modify(LaneState::reset);
                    removal::forget(plan, order, feed).await?;
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

    fn place(&self) -> Place {
        // A copy begins anew each time, however far it came.
        let is_copy = self.order.stage == Stage::Copying;
        let passed = if is_copy { EndLsn(0) } else { self.context.state.borrow().durable };
        Place { attempt: self.order.attempt, is_copy, passed }
    }

    fn tell(&self, halt: &Halt) {
        let lane = &self.context.plan.id;
        let condition = match halt {
            Halt::Away(finding) => {
                tracing::warn!(%lane, "the lane waits: {finding}");
                Condition::Waiting { finding: (**finding).clone() }
            }
            Halt::Contended(finding, _) => {
                tracing::warn!(%lane, "the lane waits: {finding}");
                Condition::Waiting { finding: waits(finding.message.clone()) }
            }
            Halt::Stopped(finding, position) => {
                tracing::error!(%lane, "the lane stopped: {finding}");
                Condition::Stopped { finding: (**finding).clone(), position: *position }
            }
            Halt::Lost(why) => {
                tracing::error!(%lane, "the lane is lost: {why}");
                Condition::Lost { attempt: self.order.attempt, why: why.clone() }
            }
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
            // The tables are emptied next.
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

    /// Waits until the feed captures the lane's tables; of which server, and as what. Says which cannot be captured.
    async fn captured(&self) -> Result<(Timeline, Captured), Halt> {
        let tables = self.context.plan.wanted(self.order);
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
            let refused = tables.iter().find_map(|table| now.refused.get(table)).cloned();
            let is_apart = refused.is_none() && !now.apart.is_disjoint(&tables);
            if let Some(finding) = refused {
                self.set(Condition::Stopped { finding, position: None });
            }
            if is_apart {
                // Capture may have looked before they were published.
                let missing = publication::missing(&self.context.feed, &tables).await?;
                if !missing.is_empty() {
                    self.set(Condition::Stopped { finding: other_table(&missing), position: None });
                }
            }
            tokio::select! {
                open = status.changed() => open.map_err(|_| Halt::away("capture has ended"))?,
                () = sleep(APART_INTERVAL), if is_apart => {}
            }
        }
    }

    fn check_lost(&self, status: &Status) -> Result<(), Halt> {
        let ours = (self.context.plan.id.clone(), self.order.attempt);
        match status.lost.get(&ours) {
            Some(why) => Err(Halt::Lost(why.clone())),
            None => Ok(()),
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
            // Nobody may read a copy any more that may have gone on over a gap.
            let wanted = self.context.plan.wanted(self.order);
            if let Some(table) = now.torn.union(&now.apart).find(|table| wanted.contains(*table)) {
                return Halt::Lost(format!(
                    "changes of table {table} may not have been captured for a while"
                ));
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
        let direction = self.context.plan.id.direction;
        self.context.state.send_modify(|state| state.take_up(kept, direction));
    }

    async fn follow(&self, client: Client, mut kept: Kept) -> Result<Infallible, Halt> {
        kept.foreign = kept.unsettled(self.order).cloned();
        self.take_up(&kept);
        self.context.changed.resume(kept.position);
        let plan = &self.context.plan;
        let reader = self.log.reader(plan.wanted(self.order), &kept.cursor).await?;
        let right = self.right(&mut self.orders.clone());
        let sink = Sink::follow(client, plan, right, &kept).await?;
        self.set(Condition::Following);
        tokio::select! {
            ended = self.apply(reader, sink, right, &kept) => ended,
            halt = self.lost(Some(&kept)) => Err(halt),
        }
    }

    /// The newest order's right, if that order asks for no more than another epoch.
    fn right(&self, orders: &mut watch::Receiver<Ordered>) -> Right {
        let newest = orders.borrow_and_update();
        let newest = newest.as_ref().map(|(_, order)| order).filter(|next| !asks_for_more(self.order, next));
        newest.unwrap_or(self.order).right
    }

    async fn apply(
        &self,
        mut reader: Reader,
        mut sink: Sink,
        mut right: Right,
        kept: &Kept,
    ) -> Result<Infallible, Halt> {
        let (plan, mut orders) = (&self.context.plan, self.orders.clone());
        let (wanted, direction) = (plan.wanted(self.order), plan.id.direction);
        let mut watch = Watch::new(direction, kept.border, kept.foreign.clone());
        let mut checked = Arc::default();
        // A lane that only watches must not move past what it may get the right to apply.
        let mut is_held = false;
        let mut mends = self.context.mending.receive().await;
        loop {
            let batch = tokio::select! {
                batch = reader.next() => batch?,
                Some(mend) = mends.recv(), if sink.is_between() => {
                    sink.mend(mend, &self.context.changed).await?;
                    continue;
                }
                Ok(()) = orders.changed() => {
                    let newest = self.right(&mut orders);
                    if newest != right {
                        right = newest;
                        checked = Arc::default();
                        sink.grant(right).await?;
                    }
                    continue;
                }
            };
            if let Some((progress, _)) = &batch.progress
                && let Some(table) = kept.missed(progress, &wanted)
            {
                return Err(Halt::Lost(format!("changes of table {table} were not captured for a while")));
            }
            self.check_shapes(&sink, right, &mut checked)?;
            let mut changes = batch.changes;
            changes.retain(|change| self.is_wanted(change, kept));
            if !matches!(right, Right::Apply(_)) {
                watch.take(changes.extract_if(.., |change| !plan.is_reference(&change.relation.table)));
            }
            if let Some((progress, _)) = &batch.progress {
                let judged = watch.judge(self.turns(progress));
                if let Some(foreign) = &judged.foreign {
                    self.report_foreign(&watch, foreign);
                }
                is_held |= judged.has_own || (judged.foreign.is_some() && direction == Direction::Reverse);
            }
            if is_held {
                sink.abandon().await?;
                continue;
            }
            sink.note(&watch);
            self.context.changed.note(&changes);
            let durable = sink.apply(&changes, batch.progress.as_ref()).await?;
            if let Some((progress, cursor)) = batch.progress {
                self.report_progress(&watch, durable, &changes, &progress, cursor);
            }
        }
    }

    /// Compares the tables with their copies, if capture saw that they changed. It has looked before it passed on what
    /// the next batch promises, so a barrier or a fence covers this. In tables that are only watched nothing is applied.
    fn check_shapes(&self, sink: &Sink, right: Right, checked: &mut Arc<Shapes>) -> Result<(), Halt> {
        let (plan, now) = (&self.context.plan, self.context.feed.status.borrow().shapes.clone());
        if Arc::ptr_eq(&now, checked) {
            return Ok(());
        }
        let wanted = plan.wanted(self.order);
        let is_ours = |table: &TableName| {
            wanted.contains(table) && (matches!(right, Right::Apply(_)) || plan.is_reference(table))
        };
        for shape in now.values().filter(|shape| is_ours(&shape.table)) {
            sink.check_shape(shape)?;
        }
        *checked = now;
        Ok(())
    }

    /// The turns of the slice's gate that came with a record.
    fn turns(&self, progress: &Progress) -> Vec<(Position, Turn)> {
        let turns = progress
            .messages
            .iter()
            .filter_map(|message| Some((message.position, Turn::read(&message.prefix, &message.content)?)));
        turns.filter(|(_, turn)| turn.slice == self.context.plan.id.slice).collect()
    }

    /// Someone else than our own lanes wrote the slice's rows where they must not change.
    fn report_foreign(&self, watch: &Watch, found: &Foreign) {
        let (lane, Foreign { count, table, first, .. }) = (&self.context.plan.id, found);
        tracing::error!(%lane, count, %table, position = %first, "a write that is not strangler's own");
        self.context.state.send_modify(|state| state.foreign.clone_from(&watch.foreign));
        self.context.news.notify_one();
    }

    fn report_progress(
        &self,
        watch: &Watch,
        durable: Option<EndLsn>,
        applied: &[Change],
        progress: &Progress,
        cursor: Cursor,
    ) {
        let mut is_news = false;
        self.context.state.send_modify(|state| {
            state.passed = state.passed.max(progress.end);
            state.barriers(&progress.messages);
            if let Some(durable) = durable {
                is_news = watch.border.fenced > state.fenced;
                (state.durable, state.fenced) = (durable, watch.border.fenced);
                state.noted_us = clock::now_us();
                state.cursor = Some(cursor.clone());
            }
            state.seen = Some(cursor);
            let last = applied.last().map(|change| change.transaction.committed_us);
            state.changes += applied.len() as u64;
            state.committed(progress.committed_us, last, clock::now_us());
        });
        if is_news {
            self.context.news.notify_one();
        }
    }

    fn is_wanted(&self, change: &Change, kept: &Kept) -> bool {
        let is_new = change.position > kept.position
            && kept.copied_at.is_some_and(|copied_at| change.position.commit >= copied_at);
        let is_echo = change.mark.as_deref().is_some_and(|mark| self.context.plan.is_echo(mark));
        is_new && !is_echo && !self.order.skips.contains(&change.position)
    }
}
