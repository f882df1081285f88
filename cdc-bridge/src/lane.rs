//! One lane from end to end: copied, then followed, or removed, as its order says.
//!
//! It owns what it reports and decides nothing about the slice's life. Every wait can be cut short: an order that
//! changed drops what is being done, and the databases roll back what was not committed.

mod addition;
mod back;
mod border;
pub(crate) mod changed;
mod chunk;
mod copy;
mod filled;
mod following;
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
use crate::log::Log;
use changed::Changed;
use copy::Job;
pub use halt::Halt;
use halt::pasted;
use kept::Kept;
pub use kept::{begin_chunk, hold};
use mending::Mending;
use migrations::control::{Condition, LaneOrder, READERS_LEAVE};
use migrations::journal::Generation;
use migrations::lane::Direction;
use migrations::lsn::{EndLsn, Of, Timeline};
use migrations::names::TableName;
use migrations::stage::{Epoch, Stage};
use next::{Next, Seen, asks_for_more, next};
use patience::{Patience, Place};
use plan::LanePlan;
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
                (Next::Look, ..) => open = Some(self.look().await?),
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
                (Next::Add, Some((client, Some(kept))), Some((_, captured))) => {
                    self.add(client, kept, captured.clone()).await?;
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
                    removal::remove(plan, order, feed, epoch, tell).await?;
                    return self.stay(Condition::Idle).await;
                }
                (Next::Forget, ..) => {
                    self.context.state.send_modify(LaneState::reset);
                    removal::forget(plan, order, feed).await?;
                    return self.stay(Condition::Idle).await;
                }
                (Next::Halt(halt), ..) => return Err(halt),
                // What is missing is looked for again.
                (
                    Next::Copy { .. } | Next::Begin | Next::Add | Next::Follow | Next::Pause | Next::Copied,
                    ..,
                ) => {}
            }
        }
    }

    /// Reads what the sink keeps.
    async fn look(&self) -> Result<(Client, Option<Kept>), Halt> {
        let (client, kept) = Sink::open(&self.context.plan).await?;
        // If the lane is lost, this is what it had.
        let (passed, noted_us) = kept.as_ref().map_or((EndLsn(0), 0), |kept| (kept.passed, kept.noted_us));
        self.context.state.send_modify(|state| (state.passed, state.noted_us) = (passed, noted_us));
        Ok((client, kept))
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
                let finding = pasted((**finding).clone(), &self.context.plan.id.slice);
                Condition::Stopped { finding, position: *position }
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
            let is_captured = captured.len() == tables.len();
            // A session that is about to end may know the tables as what they were published before.
            if let (true, Some(timeline)) = (is_captured, now.timeline)
                && publication::now(&self.context.feed, &tables).await? == captured
            {
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
                let published = publication::now(&self.context.feed, &tables).await?;
                let mut missing = tables.clone();
                missing.retain(|table| !published.contains_key(table));
                if !missing.is_empty() {
                    let is_added = self.order.stage != Stage::Copying
                        && self.context.plan.id.direction == Direction::Forward;
                    let finding = if is_added {
                        addition::unpublished(&self.context.plan, &missing)
                    } else {
                        other_table(&missing)
                    };
                    self.set(Condition::Stopped { finding, position: None });
                }
            }
            tokio::select! {
                open = status.changed() => open.map_err(|_| Halt::away("capture has ended"))?,
                () = sleep(APART_INTERVAL), if is_apart || is_captured => {}
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
            let mut wanted = self.context.plan.wanted(self.order);
            // One that is only being added has no copy yet.
            wanted.retain(|table| kept.is_none_or(|kept| kept.shapes.contains_key(table)));
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
}
