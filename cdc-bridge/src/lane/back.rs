//! How a lane back begins: without a copy, at a place where the service's gate is shut, so that everything that the
//! service will ever write comes after it.

use super::border::Border;
use super::copy;
use super::halt::Halt;
use super::kept::{self, Kept, Shapes};
use super::plan::LanePlan;
use crate::feed::Feed;
use crate::feed::source::SourceError;
use crate::log::Log;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lsn::{CommitLsn, Position, Timeline};
use postgres::catalog;
use postgres::gate;
use rows::change::Relation;
use rows::progress::Captured;
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// Notes in the sink where the lane begins.
pub(crate) async fn begin(
    plan: &LanePlan,
    feed: &Feed,
    log: &Log,
    attempt: Generation,
    (timeline, captured): (Timeline, Captured),
    client: &Client,
) -> Result<Kept, Halt> {
    let source = feed.source.connect("strangler").await.map_err(SourceError::from)?;
    let mut shapes = Shapes::new();
    for table in &plan.tables {
        let shape = catalog::shape(&source, &table.from).await.map_err(SourceError::from)?;
        let shape = shape.ok_or_else(|| Halt::stop(copy::no_table(&table.from, &table.to)))?;
        let relation = Relation::of(&table.from, shape.identity, &shape.columns);
        shapes.insert(table.from.clone(), relation);
    }
    // In this order, so that nothing after the place lies before the cursor, and nothing before the cursor is missing.
    let passed = feed.status.borrow().captured;
    let cursor = log.end_cursor().await?;
    let place = place(&source, plan).await?;
    let kept = Kept {
        log: log.id(),
        timeline,
        attempt,
        copied_at: Some(place),
        position: Position::default(),
        passed,
        cursor,
        shapes,
        mapping: plan.slice.mapping_hash(),
        captured,
        filled: BTreeSet::new(),
        border: Border::default(),
        foreign: None,
        noted_us: 0,
    };
    kept::keep(client, &plan.id, &kept, Some(&kept.filled)).await?;
    Ok(kept)
}

/// The service's present place, taken while its gate is shut and cannot be opened: every transaction that it commits
/// later lies after it.
async fn place(source: &Client, plan: &LanePlan) -> Result<CommitLsn, Halt> {
    let asked = async {
        source.batch_execute("BEGIN").await?;
        let gate = source.query_opt(gate::HOLD, &[&plan.id.slice.as_str()]).await?;
        let place = source.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await?;
        source.batch_execute("COMMIT").await?;
        Ok::<_, tokio_postgres::Error>((gate.as_ref().map(gate::of), place.get::<_, String>(0)))
    };
    let (gate, place) = asked.await.map_err(SourceError::from)?;
    if gate.is_some_and(|gate| gate.is_shut) {
        return place.parse().map_err(|_| Halt::away(format!("the service's place {place} cannot be read")));
    }
    Err(Halt::Away(Box::new(Finding::warning(
        Code::SinkGate,
        format!(
            "the way back of slice {} cannot begin: its gate in {} is {}, so the service may write already",
            plan.id.slice,
            plan.feed,
            if gate.is_some() { "open" } else { "missing" }
        ),
        format!("run `strangler reconcile {}`", plan.id.slice),
    ))))
}
