//! What a sink's database keeps about a lane, in the same transactions as the rows: read, begun, forgotten.

use super::border::{Border, Foreign};
use super::halt::Halt;
use super::plan::LanePlan;
use crate::log::Cursor;
use migrations::code::Code;
use migrations::control::LaneOrder;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lane::{LaneId, Mark};
use migrations::lsn::{CommitLsn, EndLsn, Position, Timeline};
use migrations::names::{TableName, quote_literal};
use migrations::stage::Epoch;
use postgres::Refusal;
use rows::change::Relation;
use rows::progress::{Captured, LogId, Progress};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) log: LogId,
    pub(crate) timeline: Timeline,
    /// Which copy its rows began as.
    pub(crate) attempt: Generation,
    /// The copy's consistent point; none while the copy is not whole.
    pub(crate) copied_at: Option<CommitLsn>,
    /// The last change that was applied or passed over.
    pub(crate) position: Position,
    /// Every transaction that ends at or before here is applied.
    pub(crate) passed: EndLsn,
    pub(crate) cursor: Cursor,
    /// Each source table's shape when it was copied. What changed since is judged against it, after a restart too.
    pub(crate) shapes: Shapes,
    /// The slice's mapping hash when it was copied.
    pub(crate) mapping: String,
    /// Its source tables as they were captured when the copy began, and must have been ever since.
    pub(crate) captured: Captured,
    /// The sink tables whose rows are a copy's.
    pub(crate) filled: BTreeSet<TableName>,
    /// The turns of the source's gate that were passed.
    pub(crate) border: Border,
    /// What others wrote where the lane only watches, and what nobody has settled yet.
    pub(crate) foreign: Option<Foreign>,
    /// When this was noted: microseconds since 1970 by the sink's clock.
    pub(crate) noted_us: i64,
}

impl Kept {
    /// Whether the copy was made of the tables, and by the mapping, that the plan has now.
    pub(crate) fn is_made_by(&self, plan: &LanePlan) -> bool {
        self.mapping == plan.slice.mapping_hash()
    }

    /// The tables that the plan has and the copy has not, if the plan is otherwise as it was. None if it is not, or if there
    /// are none.
    pub(crate) fn added(&self, plan: &LanePlan) -> Option<BTreeSet<TableName>> {
        let is_copied = |from: &TableName| self.shapes.contains_key(from);
        let before = plan.slice.only(|table| is_copied(&table.from));
        let added: BTreeSet<TableName> = plan.sources().into_iter().filter(|from| !is_copied(from)).collect();
        Some(added).filter(|added| !added.is_empty() && before.mapping_hash() == self.mapping)
    }

    /// A wanted table whose changes a part of the log did not keep, if there is one. What lies before the copy does not
    /// matter.
    pub(crate) fn missed<'a>(
        &'a self,
        part: &Progress,
        wanted: &BTreeSet<TableName>,
    ) -> Option<&'a TableName> {
        let matters = self.copied_at.is_some_and(|copied_at| part.end.is_past(copied_at));
        let mut captured = self.captured.iter().filter(|(table, _)| wanted.contains(table));
        let missed = captured.find(|(_, membership)| !part.captured.contains(membership));
        missed.filter(|_| matters).map(|(table, _)| table)
    }

    /// The writes of others, unless the operator chose to leave them out.
    pub(crate) fn unsettled(&self, order: &LaneOrder) -> Option<&Foreign> {
        self.foreign.as_ref().filter(|foreign| !order.skips.contains(&foreign.last))
    }

    /// The database is another server, or another history of it, than the one that was copied.
    pub(crate) fn other_server(&self, server: &Timeline) -> Finding {
        Finding::error(
            Code::SinkOtherServer,
            format!("the slice was copied from {}, but the database is now {server}", self.timeline),
            "the database was restored or a replica was promoted: copy the slice again, `strangler sync drop`, then `strangler sync start`",
        )
    }

    /// The plan is another one than at the copy.
    pub(crate) fn other_mapping(&self, plan: &LanePlan) -> Finding {
        let now: BTreeSet<&TableName> = plan.tables.iter().map(|table| &table.from).collect();
        let copied: BTreeSet<&TableName> = self.shapes.keys().collect();
        let changes = [(&now - &copied, "added"), (&copied - &now, "removed")];
        let told = changes.iter().filter(|(tables, _)| !tables.is_empty()).map(|(tables, word)| {
            let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
            format!("{word} {}", names.join(", "))
        });
        let told: Vec<String> = told.collect();
        let told =
            if told.is_empty() { "its columns are mapped differently".to_owned() } else { told.join(", ") };
        Finding::error(
            Code::PlanCopiedOtherwise,
            format!("the plan of slice {} changed since it was copied: {told}", plan.slice.name),
            format!(
                "copy it again: `strangler sync drop {0}`, then `strangler sync start {0}`; or restore its tables in the plan \
                 and run `strangler reload` (if writes were missed meanwhile, it is copied again by itself)",
                plan.slice.name,
            ),
        )
    }
}

pub(crate) type Shapes = BTreeMap<TableName, Relation>;

/// The sink tables whose rows a lane brought, if anything is kept about it.
pub(crate) async fn filled(client: &Client, plan: &LanePlan) -> Result<Option<BTreeSet<TableName>>, Halt> {
    let sql = "SELECT filled FROM strangler.stream WHERE slice = $1 AND direction = $2";
    match client.query_opt(sql, &[&plan.id.slice.as_str(), &plan.id.direction.to_string()]).await {
        Ok(None) => Ok(None),
        // Nobody could drop the copy if this were an error.
        Ok(Some(row)) => Ok(Some(json(&row, 0).unwrap_or_else(|_| migrations::filled::all(&plan.slice)))),
        // Nothing is installed there, or not for us: nothing can have been kept.
        Err(error) if matches!(Refusal::of(&error), Refusal::NotInstalled | Refusal::NoRight) => Ok(None),
        Err(error) => Err(Halt::of(error)),
    }
}

pub(crate) async fn load(client: &Client, lane: &LaneId) -> Result<Option<Kept>, Halt> {
    let sql = "SELECT log_id, system_id, timeline, attempt, copied_at::text, commit_lsn::text, ordinal, \
               passed::text, cursor, shapes, mapping, captured, filled, fenced, opened, foreign_writes, \
               (extract(epoch FROM updated_at) * 1000000)::bigint \
               FROM strangler.stream WHERE slice = $1 AND direction = $2";
    let row = client.query_opt(sql, &[&lane.slice.as_str(), &lane.direction.to_string()]).await;
    let Some(row) = row.map_err(Halt::of)? else { return Ok(None) };
    let damaged = || damaged(lane);
    let lsn = |column: usize| row.get::<_, Option<String>>(column).unwrap_or_else(|| "0/0".to_owned());
    let epoch = |column: usize| row.get::<_, Option<i64>>(column).map(|epoch| Epoch(epoch as u64));
    let copied_at = row.get::<_, Option<String>>(4).map(|text| text.parse()).transpose();
    Ok(Some(Kept {
        log: LogId(row.get(0)),
        timeline: Timeline { system_id: row.get(1), timeline: row.get::<_, i32>(2) as u32 },
        attempt: Generation(row.get::<_, i64>(3) as u64),
        copied_at: copied_at.map_err(|_| damaged())?,
        position: Position {
            commit: lsn(5).parse().map_err(|_| damaged())?,
            ordinal: row.get::<_, Option<i64>>(6).unwrap_or(0) as u64,
        },
        passed: lsn(7).parse().map_err(|_| damaged())?,
        cursor: json(&row, 8).map_err(|_| damaged())?,
        shapes: json(&row, 9).map_err(|_| damaged())?,
        mapping: row.get(10),
        captured: json(&row, 11).map_err(|_| damaged())?,
        filled: json(&row, 12).map_err(|_| damaged())?,
        border: Border { fenced: epoch(13), opened: epoch(14) },
        foreign: json(&row, 15).map_err(|_| damaged())?,
        noted_us: row.get::<_, Option<i64>>(16).unwrap_or_default(),
    }))
}

fn json<T: DeserializeOwned>(row: &Row, column: usize) -> Result<T, serde_json::Error> {
    serde_json::from_value(row.get::<_, Option<serde_json::Value>>(column).unwrap_or_default())
}

fn damaged(lane: &LaneId) -> Halt {
    Halt::stop(Finding::error(
        Code::SinkDamaged,
        format!("the row of lane {lane} in strangler.stream cannot be read"),
        format!("copy the slice again: `strangler sync drop {0}`, `strangler sync start {0}`", lane.slice),
    ))
}

/// Begins (no `copied_at`) or completes what is kept about a lane. Without `filled`, the tables that are kept as filled
/// stay as they were.
pub(crate) async fn keep(
    client: &Client,
    lane: &LaneId,
    kept: &Kept,
    filled: Option<&BTreeSet<TableName>>,
) -> Result<(), Halt> {
    let sql = "INSERT INTO strangler.stream (slice, direction, log_id, system_id, timeline, attempt, copied_at, \
               commit_lsn, ordinal, passed, cursor, shapes, mapping, captured, filled) \
               VALUES ($1, $2, $3, $4, $5, $6, $7::text::pg_lsn, $8::text::pg_lsn, $9, $10::text::pg_lsn, $11, $12, $13, \
               $14, $15) \
               ON CONFLICT (slice, direction) DO UPDATE SET log_id = excluded.log_id, system_id = excluded.system_id, \
               timeline = excluded.timeline, attempt = excluded.attempt, copied_at = excluded.copied_at, \
               commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal, passed = excluded.passed, \
               cursor = excluded.cursor, shapes = excluded.shapes, mapping = excluded.mapping, \
               captured = excluded.captured, fenced = NULL, opened = NULL, foreign_writes = NULL, sink_columns = NULL, \
               filled = coalesce(excluded.filled, strangler.stream.filled), updated_at = clock_timestamp()";
    let cursor = to_json(&kept.cursor)?;
    let shapes = to_json(&kept.shapes)?;
    let captured = to_json(&kept.captured)?;
    let filled = filled.map(to_json).transpose()?;
    client
        .execute(
            sql,
            &[
                &lane.slice.as_str(),
                &lane.direction.to_string(),
                &kept.log.0,
                &kept.timeline.system_id,
                &(kept.timeline.timeline as i32),
                &(kept.attempt.0 as i64),
                &kept.copied_at.map(|lsn| lsn.to_string()),
                &kept.position.commit.to_string(),
                &(kept.position.ordinal as i64),
                &kept.passed.to_string(),
                &cursor,
                &shapes,
                &kept.mapping,
                &captured,
                &filled,
            ],
        )
        .await
        .map_err(Halt::of)?;
    Ok(())
}

/// Notes that tables were added to a lane, at its place. False if another copy has begun since.
pub(crate) async fn grow(
    client: &Client,
    lane: &LaneId,
    kept: &Kept,
    filled: &BTreeSet<TableName>,
    rooms: &impl Serialize,
) -> Result<bool, Halt> {
    let sql = "UPDATE strangler.stream SET commit_lsn = $4::text::pg_lsn, ordinal = $5, passed = $6::text::pg_lsn, \
               cursor = $7, shapes = $8, mapping = $9, captured = $10, filled = filled || $11, \
               sink_columns = sink_columns || $12, updated_at = clock_timestamp() \
               WHERE slice = $1 AND direction = $2 AND attempt = $3";
    let written = client
        .execute(
            sql,
            &[
                &lane.slice.as_str(),
                &lane.direction.to_string(),
                &(kept.attempt.0 as i64),
                &kept.position.commit.to_string(),
                &(kept.position.ordinal as i64),
                &kept.passed.to_string(),
                &to_json(&kept.cursor)?,
                &to_json(&kept.shapes)?,
                &kept.mapping,
                &to_json(&kept.captured)?,
                &to_json(filled)?,
                &to_json(rooms)?,
            ],
        )
        .await;
    Ok(written.map_err(Halt::of)? == 1)
}

/// Notes who copies the slice from now on. It waits until no chunk of an earlier copy is under way, and no later chunk
/// of that copy begins, see [`begin_chunk`].
pub async fn hold(client: &Client, lane: &LaneId, holder: &str) -> Result<(), Halt> {
    let sql = "UPDATE strangler.stream SET holder = $3 WHERE slice = $1 AND direction = $2";
    let parameters: [&(dyn ToSql + Sync); 3] = [&lane.slice.as_str(), &lane.direction.to_string(), &holder];
    client.execute(sql, &parameters).await.map_err(Halt::of)?;
    Ok(())
}

/// The statement that marks a transaction as a lane's.
pub(crate) fn leave(mark: &Mark) -> String {
    let content = quote_literal(&mark.to_string());
    format!("SELECT pg_logical_emit_message(true, '{}', {content})", Mark::PREFIX)
}

/// Begins the transaction of a copy's chunk: no other copy can begin before it ends.
pub async fn begin_chunk(client: &Client, mark: &Mark, holder: &str) -> Result<(), Halt> {
    let lane = &mark.lane;
    let sql = format!(
        "BEGIN; {}; SET CONSTRAINTS ALL DEFERRED; \
         SELECT holder FROM strangler.stream WHERE slice = {} AND direction = '{}' FOR SHARE",
        leave(mark),
        quote_literal(lane.slice.as_str()),
        lane.direction
    );
    let answer = client.simple_query(&sql).await.map_err(Halt::of)?;
    let held = answer.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    if held == Some(holder) {
        return Ok(());
    }
    Err(Halt::contested(format!("another bridge copies slice {} by now", lane.slice)))
}

pub(crate) async fn forget(client: &Client, lane: &LaneId) -> Result<(), Halt> {
    let sql = "DELETE FROM strangler.stream WHERE slice = $1 AND direction = $2";
    let parameters: [&(dyn ToSql + Sync); 2] = [&lane.slice.as_str(), &lane.direction.to_string()];
    client.execute(sql, &parameters).await.map_err(Halt::of)?;
    Ok(())
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<serde_json::Value, Halt> {
    let unwritable = |why: serde_json::Error| {
        Halt::stop(Finding::error(
            Code::SinkDamaged,
            format!("what strangler keeps about a lane has no JSON: {why}"),
            "report this with the message; copying the slice again may help: `strangler sync drop`, then `sync start`",
        ))
    };
    serde_json::to_value(value).map_err(unwritable)
}
