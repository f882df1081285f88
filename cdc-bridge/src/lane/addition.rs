//! Tables that came into the plan of a slice that is followed: they are copied beside the others, which go on.
//!
//! The lane stops for a moment at the place of a snapshot. There the rows of the new tables, the new mapping and the place
//! go into the sink in one transaction. So each state of the sink is a prefix of the source's transactions, and a new table
//! is there whole or not at all. Whatever interrupts it leaves the sink as it was, and the small copy begins again.

use super::copy::{self, Job, RowCount, Tables};
use super::filled;
use super::halt::Halt;
use super::hold::Hold;
use super::kept::{self, Kept};
use super::narrowed;
use super::plan::LanePlan;
use super::sink::Sink;
use super::{COPY_REPORT_INTERVAL, Lane, RETRY_MAX};
use crate::feed::source::{self, Snapshot, Source, SourceError};
use migrations::code::Code;
use migrations::control::{Condition, LaneOrder};
use migrations::finding::Finding;
use migrations::lane::{Direction, Right};
use migrations::lsn::{EndLsn, Position};
use migrations::names::TableName;
use migrations::problem::Diagnostic;
use migrations::stage::Stage;
use postgres::{catalog, gate};
use rows::order;
use rows::progress::Captured;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

/// A lane that needs no longer for what the source has now is near it.
const NEAR: Duration = Duration::from_secs(10);

/// Whether the plan has tables that the copy lacks, and otherwise is as it was, where they may be added: while the monolith
/// owns the slice, or what the service only reads when the move is complete.
pub(super) fn is_due(plan: &LanePlan, order: &LaneOrder, kept: &Kept) -> bool {
    let Some(added) = kept.added(plan).filter(|_| plan.id.direction == Direction::Forward) else {
        return false;
    };
    match (order.stage, order.right) {
        (Stage::Following { .. }, Right::Apply(_)) => true,
        (Stage::Retired, Right::Watch) => added.iter().all(|table| plan.is_reference(table)),
        _ => false,
    }
}

/// Tables of the plan that nobody has published yet.
pub(super) fn unpublished(plan: &LanePlan, tables: &BTreeSet<TableName>) -> Finding {
    let names: Vec<String> = tables.iter().map(TableName::to_string).collect();
    Finding::error(
        Code::InstallNotPublished,
        format!(
            "{} came into the plan of slice {}, and cannot be followed yet",
            names.join(", "),
            plan.id.slice
        ),
        "run `strangler install` with an admin URL for each database: it names what is missing; then the slice goes on by \
         itself; or take them out of the plan again",
    )
}

impl Lane<'_> {
    /// Adds what is missing; the sink then keeps the plan's mapping. It is given back to be looked at anew.
    pub(super) async fn add(&self, client: Client, mut kept: Kept, captured: Captured) -> Result<(), Halt> {
        let plan = &self.context.plan;
        kept.foreign = kept.unsettled(self.order).cloned();
        let added = kept.added(plan).unwrap_or_default();
        let part = plan.part(&added);
        self.take_up(&kept);
        self.context.changed.resume(kept.position);
        self.tell_addition(&added, &RowCount::default(), None);
        filled::must_be_ours(&client, &part.slice, &BTreeSet::new()).await?;
        let mut sink = Sink::follow(client, plan, self.right(&mut self.orders.clone()), &kept).await?;
        tokio::select! {
            halt = self.lost(Some(&kept)) => Err(halt),
            ended = self.add_to(&mut sink, &kept, &part, captured) => ended,
        }
    }

    async fn add_to(
        &self,
        sink: &mut Sink,
        kept: &Kept,
        part: &LanePlan,
        captured: Captured,
    ) -> Result<(), Halt> {
        let (feed, added) = (&self.context.feed, part.sources());
        let source = feed.source.connect("strangler copy").await?;
        self.make_gates(sink, &source, part).await?;
        let followed: BTreeSet<TableName> = &self.context.plan.wanted(self.order) - &added;
        // The lane goes on until it is near, and a snapshot could be had: that may have to wait for long transactions.
        let reader = self.log.reader(followed.clone(), &kept.cursor).await?;
        self.apply(reader, sink, kept, None, self.calm(&added)).await?;
        let kept = kept::load(sink.client(), &part.id).await?.ok_or_else(|| superseded(part))?;

        let hold = Hold::take(&source, &part.slice).await?;
        let job = Job {
            plan: part,
            epoch: sink.epoch(),
            attempt: self.order.attempt,
            source: &feed.source,
            timeline: kept.timeline.clone(),
            captured,
            filled: BTreeSet::new(),
            replace: false,
            passed: kept.passed,
            log: self.log,
        };
        let progress = Arc::new(RowCount::default());
        let (stamp, rooms) = narrowed::look(sink.client(), part).await?;
        let (tables, shapes) = copy::tables(&job, &source, sink.client(), &progress).await?;
        let snapshot = Snapshot::take(&feed.source, part.id.slice.as_str()).await?;
        let point = snapshot.consistent_point;
        // A quiet source has something to stream.
        source::barrier(&feed.source.connect("strangler barrier").await?, &uuid::Uuid::new_v4().to_string())
            .await?;
        let reader = self.log.reader(followed, &kept.cursor).await?;
        let cursor = self.apply(reader, sink, &kept, Some(point), pending()).await?;

        sink.stand().await?;
        filled::must_be_ours(sink.client(), &part.slice, &job.filled).await?;
        tokio::select! {
            copied = fill(&job, sink.client(), &snapshot, &tables, &progress) => copied?,
            lost = hold.end() => return Err(lost),
            never = self.report_addition(&added, &progress) => match never {},
        }
        hold.prove().await?;
        if narrowed::stamped(sink.client(), part).await? != stamp {
            return Err(narrowed::altered());
        }
        let mut grown = Kept {
            position: Position { commit: point, ordinal: 0 },
            passed: EndLsn(point.0),
            cursor,
            mapping: self.context.plan.slice.mapping_hash(),
            ..kept
        };
        grown.shapes.extend(shapes);
        grown.captured.extend(job.captured.into_iter().filter(|(table, _)| added.contains(table)));
        sink.grow(&grown, &migrations::filled::all(&part.slice), &rooms).await?;
        self.context.changed.reach(grown.position);
        Ok(())
    }

    /// The new tables get the slice's gate. The monolith's guards only tables that move.
    async fn make_gates(&self, sink: &Sink, source: &Client, part: &LanePlan) -> Result<(), Halt> {
        let (slice, epoch) = (&part.slice, sink.epoch());
        let refused = |error| copy::no_gate(slice, error);
        gate::make(sink.client(), &slice.name, epoch).await.map_err(refused)?;
        if !slice.tables.is_empty() {
            gate::make(source, &slice.name, epoch).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Waits until the lane is near the source, and the source gives a snapshot, so that the next one comes soon, too.
    async fn calm(&self, added: &BTreeSet<TableName>) {
        let (source, slice) = (&self.context.feed.source, &self.context.plan.id.slice);
        let calm = async || {
            self.come_near(source, added).await?;
            Snapshot::take(source, slice.as_str()).await
        };
        while let Err(why) = calm().await {
            tracing::warn!(lane = %self.context.plan.id, "tables are not added yet: {why}; {}", why.remedy());
            self.tell_addition(added, &RowCount::default(), Some(why.to_string()));
            sleep(RETRY_MAX).await;
        }
        self.tell_addition(added, &RowCount::default(), None);
    }

    /// Waits until what the source has at a moment comes within [`NEAR`]. A snapshot is held at the source until the lane has
    /// come to it.
    async fn come_near(&self, source: &Source, added: &BTreeSet<TableName>) -> Result<(), SourceError> {
        let client = source.connect("strangler barrier").await?;
        let mut state = self.context.state.subscribe();
        loop {
            let place = source::barrier(&client, &uuid::Uuid::new_v4().to_string()).await?;
            if timeout(NEAR, state.wait_for(|state| state.passed >= place)).await.is_ok() {
                return Ok(());
            }
            let waits = "what was written before them is applied first".to_owned();
            self.tell_addition(added, &RowCount::default(), Some(waits));
            // It is there as long as the lane.
            let _ = state.wait_for(|state| state.passed >= place).await;
        }
    }

    async fn report_addition(&self, added: &BTreeSet<TableName>, progress: &RowCount) -> Infallible {
        loop {
            self.tell_addition(added, progress, None);
            sleep(COPY_REPORT_INTERVAL).await;
        }
    }

    fn tell_addition(&self, added: &BTreeSet<TableName>, progress: &RowCount, waits: Option<String>) {
        self.set(Condition::Adding {
            tables: added.clone(),
            rows: progress.rows.load(Ordering::Relaxed),
            rows_estimated: progress.estimated.load(Ordering::Relaxed),
            waits,
        });
    }
}

/// Copies every row of the tables within the sink's open transaction.
async fn fill(
    job: &Job<'_>,
    sink: &Client,
    snapshot: &Snapshot,
    tables: &Tables,
    progress: &RowCount,
) -> Result<(), Halt> {
    let source = copy::under(job.source, &snapshot.name).await?;
    let keys = catalog::foreign_keys(sink, None).await.map_err(Halt::of)?;
    let names: BTreeSet<TableName> = tables.keys().cloned().collect();
    let levels = order::levels(&names, &keys).map_err(Halt::stop)?;
    let in_order = levels.iter().flat_map(|level| &level.tables).filter_map(|name| tables.get(name));
    for (n, table) in in_order.enumerate() {
        copy::fill(&source, sink, table, n, progress).await?;
    }
    Ok(())
}

fn superseded(plan: &LanePlan) -> Halt {
    Halt::stop(super::refusal::superseded(plan))
}
