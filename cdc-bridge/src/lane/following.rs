//! How a lane follows: it reads the log from its own place, and applies what comes, or watches it.

use super::border::{Foreign, Watch};
use super::halt::Halt;
use super::kept::{Kept, Shapes};
use super::next::asks_for_more;
use super::sink::Sink;
use super::{Lane, Ordered};
use crate::log::{Batch, Cursor, Reader};
use migrations::control::Condition;
use migrations::lane::{Direction, Right, Turn};
use migrations::lsn::{CommitLsn, EndLsn, Position};
use migrations::names::TableName;
use postgres::clock;
use rows::change::Change;
use rows::progress::Progress;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_postgres::Client;

/// What a lane remembers from one batch to the next.
struct Course {
    watch: Watch,
    checked: Arc<Shapes>,
    /// A lane that only watches must not move past what it may get the right to apply.
    is_held: bool,
    /// Everything before this in the log is applied.
    place: Cursor,
}

/// Whether everything that committed before `limit` has come with this batch.
fn is_beyond(batch: &Batch, limit: CommitLsn) -> bool {
    let ends = batch.progress.as_ref().is_some_and(|(progress, _)| progress.end.0 >= limit.0);
    ends || batch.changes.last().is_some_and(|change| change.position.commit >= limit)
}

impl Lane<'_> {
    /// Goes on after what is kept.
    pub(super) async fn follow(&self, client: Client, mut kept: Kept) -> Result<Infallible, Halt> {
        kept.foreign = kept.unsettled(self.order).cloned();
        self.take_up(&kept);
        self.context.changed.resume(kept.position);
        let plan = &self.context.plan;
        let reader = self.log.reader(plan.wanted(self.order), &kept.cursor).await?;
        let mut sink = Sink::follow(client, plan, self.right(&mut self.orders.clone()), &kept).await?;
        self.set(Condition::Following);
        tokio::select! {
            ended = self.apply(reader, &mut sink, &kept, None, pending()) => {
                ended.and(Err(Halt::away("nobody asked the lane to stop")))
            }
            halt = self.lost(Some(&kept)) => Err(halt),
        }
    }

    /// The newest order's right, if that order asks for no more than another epoch.
    pub(super) fn right(&self, orders: &mut watch::Receiver<Ordered>) -> Right {
        let newest = orders.borrow_and_update();
        let newest = newest.as_ref().map(|(_, order)| order).filter(|next| !asks_for_more(self.order, next));
        newest.unwrap_or(self.order).right
    }

    /// Applies what comes after `kept`, until `stop` is done, or until everything that committed before `limit` is applied
    /// and nothing else. Returns from where the log is to be read on.
    pub(super) async fn apply(
        &self,
        mut reader: Reader,
        sink: &mut Sink,
        kept: &Kept,
        limit: Option<CommitLsn>,
        stop: impl Future<Output = ()>,
    ) -> Result<Cursor, Halt> {
        let mut stop = std::pin::pin!(stop);
        let mut orders = self.orders.clone();
        let mut course = Course {
            watch: Watch::new(self.context.plan.id.direction, kept.border, kept.foreign.clone()),
            checked: Arc::default(),
            is_held: false,
            place: kept.cursor.clone(),
        };
        let mut mends = self.context.mending.receive().await;
        loop {
            tokio::select! {
                batch = reader.next() => {
                    let mut batch = batch?;
                    batch.changes.retain(|change| self.is_wanted(change, kept));
                    match limit {
                        Some(limit) if is_beyond(&batch, limit) => {
                            batch.changes.retain(|change| change.position.commit < limit);
                            self.context.changed.note(&batch.changes);
                            sink.apply(&batch.changes, Some((EndLsn(limit.0), &course.place))).await?;
                            return Ok(course.place);
                        }
                        _ => self.take(batch, sink, kept, &mut course).await?,
                    }
                }
                () = &mut stop, if sink.is_between() => return Ok(course.place),
                Some(mend) = mends.recv(), if sink.is_between() => {
                    sink.mend(mend, &self.context.changed).await?;
                }
                Ok(()) = orders.changed() => {
                    let newest = self.right(&mut orders);
                    if newest != sink.right() {
                        course.checked = Arc::default();
                        sink.grant(newest).await?;
                    }
                }
            }
        }
    }

    /// Applies a batch, or watches it.
    async fn take(
        &self,
        batch: Batch,
        sink: &mut Sink,
        kept: &Kept,
        course: &mut Course,
    ) -> Result<(), Halt> {
        let (plan, Batch { mut changes, progress }) = (&self.context.plan, batch);
        let right = sink.right();
        if let Some((progress, _)) = &progress
            && let Some(table) = kept.missed(progress, &plan.wanted(self.order))
        {
            return Err(Halt::Lost(format!("changes of table {table} were not captured for a while")));
        }
        self.check_shapes(sink, right, &mut course.checked)?;
        let watch = &mut course.watch;
        if !matches!(right, Right::Apply(_)) {
            watch.take(changes.extract_if(.., |change| !plan.is_reference(&change.relation.table)));
        }
        if let Some((progress, _)) = &progress {
            let judged = watch.judge(self.turns(progress));
            if let Some(foreign) = &judged.foreign {
                self.report_foreign(watch, foreign);
            }
            course.is_held |=
                judged.has_own || (judged.foreign.is_some() && plan.id.direction == Direction::Reverse);
        }
        if course.is_held {
            return sink.abandon().await;
        }
        sink.note(watch);
        self.context.changed.note(&changes);
        let end = progress.as_ref().map(|(progress, cursor)| (progress.end, cursor));
        let durable = sink.apply(&changes, end).await?;
        if let Some((progress, cursor)) = progress {
            course.place = cursor.clone();
            self.report_progress(watch, durable, &changes, &progress, cursor);
        }
        Ok(())
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
            // Who waits for a barrier may read a table that is not there yet.
            if !matches!(state.condition, Condition::Adding { .. }) {
                state.barriers(&progress.messages);
            }
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
