//! One slice's stream from end to end: copied, then followed, or taken away, as the desired order says.
//!
//! It owns what it reports and decides nothing about the slice's life. Every wait can be cut short: an order that
//! changed drops what is being done, and the databases roll back what was not committed.

mod apply;
mod chunk;
mod copy;
mod filled;
mod halt;
pub mod kept;
mod order;
mod refusal;
mod removal;
mod sink;
pub(crate) mod state;

use crate::feed::source::Source;
use crate::feed::status::{self, Status};
use crate::log::{Log, Reader};
use copy::Job;
use halt::Halt;
use kept::Kept;
use migrations::control::{Condition, LaneOrder};
use migrations::journal::Generation;
use migrations::lane::Right;
use migrations::lsn::{CommitLsn, Of, Timeline};
use migrations::names::TableName;
use migrations::plan::{DatabaseUrl, Slice};
use migrations::stage::{Epoch, Stage};
use order::asks_for_more;
use postgres::clock;
use rows::change::Change;
use rows::progress::{Captured, Progress};
use sink::Sink;
use state::State;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Before a copy begins again, proxies have this long to read elsewhere.
const READERS_LEAVE: Duration = Duration::from_secs(2);
const COPY_REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// An order with the journal's length when it was given: a longer journal wakes a stopped stream.
pub type Ordered = Option<(Generation, LaneOrder)>;

/// What a stream works with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The slice.
    pub slice: Slice,
    /// Where it is captured.
    pub source: Source,
    /// Where its changes are kept.
    pub log: Log,
    /// Where it goes.
    pub sink: DatabaseUrl,
    /// What capture is asked for.
    pub wanted: watch::Receiver<Option<status::Order>>,
    /// How capture stands.
    pub capture: watch::Receiver<Status>,
}

/// Runs a slice's stream until `orders` closes.
pub async fn run(context: Context, mut orders: watch::Receiver<Ordered>, state: watch::Sender<State>) {
    let mut wait = RETRY_MIN;
    loop {
        let Some((generation, order)) = orders.borrow_and_update().clone() else {
            if orders.changed().await.is_err() {
                return;
            }
            continue;
        };
        let began = Instant::now();
        let stream = Stream { context: &context, order: &order, state: &state };
        let halt = tokio::select! {
            halt = stream.pursue() => halt,
            open = another(&mut orders, &order) => if open { continue } else { return },
        };
        if began.elapsed() > RETRY_MAX {
            wait = RETRY_MIN;
        }
        stream.tell(&halt);
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

pub(crate) struct Stream<'a> {
    pub(crate) context: &'a Context,
    pub(crate) order: &'a LaneOrder,
    pub(crate) state: &'a watch::Sender<State>,
}

impl Stream<'_> {
    /// Does what the order says; returns only when it cannot go on.
    async fn pursue(&self) -> Halt {
        let done = match (self.order.right, self.order.stage) {
            // Nothing watches yet.
            (Right::Watch, _) => {
                self.set(Condition::Idle);
                Ok(())
            }
            (Right::Apply(epoch), Stage::Monolith | Stage::Retired) => self.take_away(epoch).await,
            (Right::Apply(epoch), Stage::Copying) => self.copy(epoch).await,
            (
                Right::Apply(epoch),
                Stage::Following { copied_at }
                | Stage::Cutting { copied_at }
                | Stage::Split { copied_at }
                | Stage::Returning { copied_at },
            ) => self.follow(epoch, copied_at.bare()).await,
        };
        match done {
            // What was asked is done, and stays so until the order changes.
            Ok(()) => std::future::pending().await,
            Err(halt) => halt,
        }
    }

    fn tell(&self, halt: &Halt) {
        let condition = match halt {
            Halt::Away(why) => {
                tracing::warn!(slice = %self.context.slice.name, "stream waits: {why}");
                Condition::Waiting { why: why.clone() }
            }
            Halt::Stopped(finding, position) => {
                tracing::error!(slice = %self.context.slice.name, "stream stopped: {finding}");
                Condition::Stopped { finding: (**finding).clone(), position: *position }
            }
            Halt::Lost(why) => Condition::Lost { attempt: self.order.attempt, why: why.clone() },
        };
        self.set(condition);
    }

    pub(crate) fn set(&self, condition: Condition) {
        self.state.send_modify(|state| state.condition = condition);
    }

    pub(crate) fn tables(&self) -> BTreeSet<TableName> {
        self.context.slice.all_tables().map(|table| table.from.clone()).collect()
    }

    async fn copy(&self, epoch: Epoch) -> Result<(), Halt> {
        let (timeline, captured) = self.captured().await?;
        let context = self.context;
        let (client, kept) = Sink::open(&context.sink, &context.slice).await?;
        let kept = match kept {
            Some(kept)
                if kept.attempt == self.order.attempt
                    && kept.copied_at.is_some()
                    && kept.is_made_by(&context.slice) =>
            {
                kept
            }
            before => {
                let filled =
                    before.as_ref().map(|kept| migrations::filled::ours(&context.slice, &kept.filled));
                if before.is_some_and(|kept| kept.copied_at.is_some()) {
                    // The tables are emptied next; proxies that still read from them have been told otherwise.
                    sleep(READERS_LEAVE).await;
                }
                let passed = context.capture.borrow().captured;
                let cursor = context.log.end_cursor().await?;
                self.state.send_modify(|state| state.restart(cursor, passed));
                let job = Job {
                    slice: &context.slice,
                    epoch,
                    attempt: self.order.attempt,
                    source: &context.source,
                    timeline,
                    captured,
                    filled: filled.unwrap_or_default(),
                    replace: self.order.replace,
                    passed,
                    sink: &context.sink,
                    log: &context.log,
                };
                let progress = Arc::new(copy::Progress::default());
                tokio::select! {
                    kept = copy::copy(&job, &client, &progress) => kept?,
                    never = self.report_copy(&progress) => match never {},
                    halt = self.lost(None) => return Err(halt),
                }
            }
        };
        let Some(copied_at) = kept.copied_at else { return Ok(()) };
        self.state.send_modify(|state| state.cursor = Some(kept.cursor.clone()));
        self.set(Condition::Copied { attempt: self.order.attempt, copied_at: Of::monolith(copied_at) });
        Ok(())
    }

    async fn report_copy(&self, progress: &copy::Progress) -> std::convert::Infallible {
        loop {
            self.set(Condition::Copying {
                rows: progress.rows.load(Ordering::Relaxed),
                rows_estimated: progress.estimated.load(Ordering::Relaxed),
            });
            sleep(COPY_REPORT_INTERVAL).await;
        }
    }

    /// Waits until capture keeps the slice's tables; of which server, and as what.
    async fn captured(&self) -> Result<(Timeline, Captured), Halt> {
        let tables = self.tables();
        let mut capture = self.context.capture.clone();
        loop {
            let status = capture.borrow_and_update().clone();
            self.check_lost(&status)?;
            let captured: Captured =
                status.tables.into_iter().filter(|(table, _)| tables.contains(table)).collect();
            if let (true, Some(timeline)) = (captured.len() == tables.len(), status.timeline) {
                return Ok((timeline, captured));
            }
            if let Some(finding) = status.finding {
                self.set(Condition::Stopped { finding, position: None });
            } else if let Some(why) = status.trouble {
                self.set(Condition::Waiting { why });
            }
            capture.changed().await.map_err(|_| Halt::Away("capture has ended".to_owned()))?;
        }
    }

    fn check_lost(&self, status: &Status) -> Result<(), Halt> {
        let ours = (self.context.slice.name.clone(), self.order.attempt);
        match &status.lost {
            Some(lost) if lost.attempts.contains(&ours) => Err(Halt::Lost(lost.why.clone())),
            _ => Ok(()),
        }
    }

    /// Waits until capture says that this copy's changes are lost, or that what is kept comes from another server.
    async fn lost(&self, kept: Option<&Kept>) -> Halt {
        let mut capture = self.context.capture.clone();
        loop {
            let status = capture.borrow_and_update().clone();
            if let Err(halt) = self.check_lost(&status) {
                return halt;
            }
            if let (Some(kept), Some(server)) = (kept, &status.timeline)
                && kept.timeline != *server
            {
                return Halt::Stopped(Box::new(kept.other_server(server)), None);
            }
            if capture.changed().await.is_err() {
                return Halt::Away("capture has ended".to_owned());
            }
        }
    }

    async fn follow(&self, epoch: Epoch, copied_at: CommitLsn) -> Result<(), Halt> {
        let context = self.context;
        let (mut client, mut kept) = Sink::open(&context.sink, &context.slice).await?;
        if kept.as_ref().is_some_and(|kept| kept.log != context.log.id()) {
            // Either capture has just found that the old log's changes are lost, or someone took that log away. The slice's
            // lock is let go, because the log may also be another bridge's.
            drop(client);
            self.captured().await?;
            (client, kept) = Sink::open(&context.sink, &context.slice).await?;
        }
        let kept = self.check_kept(kept)?;
        self.state.send_modify(|state| {
            state.cursor = Some(kept.cursor.clone());
            state.passed = kept.passed;
            state.durable = kept.passed;
        });
        if self.order.paused {
            self.set(Condition::Paused);
            return Ok(());
        }
        let reader = context.log.reader(self.tables(), &kept.cursor).await?;
        let sink = Sink::follow(client, &context.slice, epoch, &kept).await?;
        self.set(Condition::Following);
        tokio::select! {
            halt = self.apply(reader, sink, &kept, copied_at) => Err(halt),
            halt = self.lost(Some(&kept)) => Err(halt),
        }
    }

    /// What is kept must be this copy, read from this log.
    fn check_kept(&self, kept: Option<Kept>) -> Result<Kept, Halt> {
        let lost = |why: &str| Err(Halt::Lost(why.to_owned()));
        match kept {
            None => lost("the service's database knows nothing of the copy"),
            Some(kept) if kept.attempt != self.order.attempt || kept.copied_at.is_none() => {
                lost("the service's database holds another copy than the journal says")
            }
            // A deleted log whose slot still lives was refused before; without a slot only a new copy helps.
            Some(kept) if kept.log != self.context.log.id() => {
                lost("the log that the slice was following is gone")
            }
            // Rows of a table that came later were never copied, and older rows do not know of a changed mapping.
            Some(kept) if !kept.is_made_by(&self.context.slice) => {
                Err(Halt::Stopped(Box::new(kept.other_mapping(&self.context.slice)), None))
            }
            Some(kept) => Ok(kept),
        }
    }

    /// As what a part of the log captured the slice's tables, if it did: an older strangler's copy does not know, and is
    /// held to it from there on.
    fn captured_as(&self, part: &Progress) -> Option<Captured> {
        let (tables, status) = (self.tables(), self.context.capture.borrow());
        let captured: Captured =
            status.tables.clone().into_iter().filter(|one| tables.contains(&one.0)).collect();
        let is_whole = captured.len() == tables.len();
        (is_whole && captured.values().all(|one| part.captured.contains(one))).then_some(captured)
    }

    async fn apply(&self, mut reader: Reader, mut sink: Sink, kept: &Kept, copied_at: CommitLsn) -> Halt {
        let mut kept = kept.clone();
        loop {
            let batch = match reader.next().await {
                Ok(batch) => batch,
                Err(error) => return error.into(),
            };
            if let Some((progress, _)) = &batch.progress {
                if let Some(table) = kept.missed(progress) {
                    return Halt::Lost(format!("changes of table {table} were not captured for a while"));
                }
                if kept.captured.is_empty()
                    && let Some(captured) = self.captured_as(progress)
                {
                    kept.captured.clone_from(&captured);
                    sink.adopt(captured);
                }
            }
            let mut changes = batch.changes;
            changes.retain(|change| self.is_wanted(change, &kept, copied_at));
            let durable = match sink.apply(&changes, batch.progress.as_ref()).await {
                Ok(durable) => durable,
                Err(error) => return error.into(),
            };
            let Some((progress, cursor)) = batch.progress else { continue };
            self.state.send_modify(|state| {
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

    fn is_wanted(&self, change: &Change, kept: &Kept, copied_at: CommitLsn) -> bool {
        let is_new = change.position > kept.position && change.position.commit >= copied_at;
        let is_our_echo = change.mark.as_deref() == Some(self.context.slice.name.as_str());
        is_new && !is_our_echo && !self.order.skips.contains(&change.position)
    }
}
