//! One slice's sink: rows and position in one transaction, behind a shut gate.
//!
//! What is to be done to rows is worked out in `sink/`; here it is sent. Knows nothing of the log or the source.

use super::kept::{self, Kept, Shapes};
use super::plan::LanePlan;
use crate::log::Cursor;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lane::{Direction, Mark, Right};
use migrations::lsn::{EndLsn, Position};
use migrations::names::TableName;
use migrations::preflight::{ColumnSeen, ForeignKeySeen};
use migrations::stage::Epoch;
use postgres::gate::{self, Gate};
use postgres::{Refusal, catalog, connect, in_words};
use rows::assemble;
use rows::change::{Change, Relation};
use rows::mapping::Mapping;
use rows::order::{self, Cascades};
use rows::progress::Progress;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

/// A position that only moved on without rows is written at most this often.
const IDLE_POSITION_INTERVAL: Duration = Duration::from_secs(1);

/// Statements kept prepared; more would only come from many tables times many column sets.
const STATEMENTS_MAX: usize = 256;

mod error;

pub use error::SinkError;

/// One slice's connection to its service's database, with the right to apply.
pub struct Sink {
    pub(crate) client: Client,
    pub(crate) plan: LanePlan,
    right: Right,
    attempt: Generation,
    tables: BTreeMap<TableName, Vec<ColumnSeen>>,
    pub(crate) ranks: BTreeMap<TableName, usize>,
    /// Sink tables whose rows may be gone, or have another key, with their parent before their own change comes.
    pub(crate) cascades: Cascades,
    mappings: HashMap<TableName, (Arc<Relation>, Arc<Mapping>)>,
    statements: HashMap<String, Statement>,
    shapes: Shapes,
    in_transaction: bool,
    written: Instant,
    last: Position,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("lane", &self.plan.id).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Sink {
    /// Connects and takes the lane's lock, which a second bridge does not get; then reads what is kept.
    pub async fn open(plan: &LanePlan) -> Result<(Client, Option<Kept>), SinkError> {
        let client = Self::enter(plan).await?;
        let kept = kept::load(&client, &plan.id).await?;
        Ok((client, kept))
    }

    /// Connects as the only one that works on this lane.
    pub async fn enter(plan: &LanePlan) -> Result<Client, SinkError> {
        let client = connect(&plan.sink, "strangler apply").await?;
        let lock = "SELECT pg_try_advisory_lock(hashtext('strangler'), hashtext($1))";
        let is_ours: bool =
            client.query_one(lock, &[&plan.id.to_string()]).await.map_err(SinkError::of)?.get(0);
        if !is_ours {
            return Err(SinkError::Away {
                why: format!("another bridge applies slice {}; stop one of the two", plan.id.slice),
            });
        }
        Ok(client)
    }

    /// Makes a sink of an open client: from here on it applies what comes after `kept`.
    pub async fn follow(
        client: Client,
        plan: &LanePlan,
        right: Right,
        kept: &Kept,
    ) -> Result<Sink, SinkError> {
        let mut tables = BTreeMap::new();
        for table in &plan.tables {
            let shape = catalog::shape(&client, &table.to).await.map_err(SinkError::of)?;
            let shape = shape.ok_or_else(|| SinkError::stop(no_table(&table.to)))?;
            tables.insert(table.to.clone(), shape.columns);
        }
        if let Right::Apply(epoch) = right {
            cover(&client, plan, epoch).await?;
        }
        let keys = catalog::foreign_keys(&client, None).await.map_err(SinkError::of)?;
        let ranks = ranks(&keys, plan)?;
        let cascades = Cascades::of(&keys, &tables);
        Ok(Sink {
            client,
            plan: plan.clone(),
            right,
            attempt: kept.attempt,
            tables,
            ranks,
            cascades,
            mappings: HashMap::new(),
            statements: HashMap::new(),
            shapes: kept.shapes.clone(),
            in_transaction: false,
            written: Instant::now(),
            last: kept.position,
        })
    }

    /// Applies changes, which continue the last ones, and commits where `progress` says that a transaction ends
    /// there. Returns what is durable in the sink from then on; none if nothing new is.
    pub async fn apply(
        &mut self,
        changes: &[Change],
        progress: Option<&(Progress, Cursor)>,
    ) -> Result<Option<EndLsn>, SinkError> {
        let applied = self.apply_inner(changes, progress).await;
        if applied.is_err() && self.in_transaction {
            self.in_transaction = false;
            let _ = self.client.batch_execute("ROLLBACK").await;
        }
        applied
    }

    async fn apply_inner(
        &mut self,
        changes: &[Change],
        progress: Option<&(Progress, Cursor)>,
    ) -> Result<Option<EndLsn>, SinkError> {
        if let Some(last) = changes.last() {
            self.begin().await?;
            self.apply_rows(changes).await?;
            self.last = last.position;
        }
        let Some((progress, cursor)) = progress else { return Ok(None) };
        if !self.in_transaction && self.written.elapsed() < IDLE_POSITION_INTERVAL {
            return Ok(None);
        }
        if self.in_transaction {
            self.check_constraints().await?;
            self.write_position(progress.end, cursor).await?;
            self.client.batch_execute("COMMIT").await.map_err(SinkError::of)?;
            self.in_transaction = false;
        } else {
            self.write_position(progress.end, cursor).await?;
        }
        self.written = Instant::now();
        Ok(Some(progress.end))
    }

    /// Begins the sink's transaction: marks it as ours, and holds the gate as it is until the end.
    async fn begin(&mut self) -> Result<(), SinkError> {
        if self.in_transaction {
            return Ok(());
        }
        let mark = "SELECT pg_logical_emit_message(true, 'strangler.apply', $1)";
        let mark = self.statement(mark).await?;
        let gate = self.statement(gate::HOLD).await?;
        let Right::Apply(epoch) = self.right else {
            return Err(SinkError::stop(no_right(&self.plan)));
        };
        let content = Mark { lane: self.plan.id.clone(), epoch }.to_string();
        let slice = self.plan.id.slice.as_str();
        self.in_transaction = true;
        let (content, slice): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) = ([&content], [&slice]);
        let (begun, marked, gates) = tokio::join!(
            self.client.batch_execute("BEGIN; SET CONSTRAINTS ALL DEFERRED"),
            self.client.query(&mark, &content),
            self.client.query_opt(&gate, &slice),
        );
        begun.map_err(SinkError::of)?;
        marked.map_err(SinkError::of)?;
        let gate = gates.map_err(SinkError::of)?.as_ref().map(Gate::of);
        if gate == Some(Gate { is_shut: true, epoch }) {
            return Ok(());
        }
        Err(SinkError::stop(not_ours(&self.plan, epoch, gate)))
    }

    /// Checks what was deferred while the transaction can still say which change it stands at.
    async fn check_constraints(&mut self) -> Result<(), SinkError> {
        let Err(error) = self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await else {
            return Ok(());
        };
        match Refusal::of(&error) {
            Refusal::Rows => Err(SinkError::Stopped {
                finding: Box::new(deferred(&self.plan, self.last, &in_words(&error))),
                position: Some(self.last),
            }),
            _ => Err(SinkError::of(error)),
        }
    }

    async fn write_position(&mut self, passed: EndLsn, cursor: &Cursor) -> Result<(), SinkError> {
        let sql = "UPDATE strangler.stream SET commit_lsn = $4::text::pg_lsn, ordinal = $5, \
                   passed = $6::text::pg_lsn, cursor = $7, updated_at = clock_timestamp() \
                   WHERE slice = $1 AND direction = $2 AND attempt = $3";
        let statement = self.statement(sql).await?;
        let cursor = kept::to_json(cursor)?;
        let updated = self
            .client
            .execute(
                &statement,
                &[
                    &self.plan.id.slice.as_str(),
                    &self.plan.id.direction.to_string(),
                    &(self.attempt.0 as i64),
                    &self.last.commit.to_string(),
                    &(self.last.ordinal as i64),
                    &passed.to_string(),
                    &cursor,
                ],
            )
            .await
            .map_err(SinkError::of)?;
        if updated != 1 {
            return Err(SinkError::stop(superseded(&self.plan)));
        }
        Ok(())
    }

    /// The mapping of a change's table as the table is now.
    pub(crate) fn mapping(&mut self, relation: &Arc<Relation>) -> Result<Arc<Mapping>, SinkError> {
        if let Some((known, mapping)) = self.mappings.get(&relation.table)
            && Arc::ptr_eq(known, relation)
        {
            return Ok(mapping.clone());
        }
        let from = &relation.table;
        let table = self.plan.tables.iter().find(|table| table.from == *from).cloned();
        let Some(table) = table else { return Err(SinkError::stop(no_table(from))) };
        let Some(sink) = self.tables.get(&table.to) else {
            return Err(SinkError::stop(no_table(&table.to)));
        };
        let copied = self.shapes.get(from);
        // On the way back a column of the service's own has nowhere to go.
        let is_forward = self.plan.id.direction == Direction::Forward;
        let known = |name: &str| is_forward && copied.is_none_or(|copied| copied.index_of(name).is_some());
        if let Some(copied) = copied.filter(|copied| **copied != **relation) {
            // A column that came later is left out, unless the sink has one for it: its older values would be missing.
            let has = |name: &str| {
                table.sink_column(name).is_some_and(|target| sink.iter().any(|c| c.name == target))
            };
            assemble::shape::compatible(copied, relation, |name| known(name) || has(name))
                .map_err(SinkError::stop)?;
        }
        let mapping = Mapping::new(&table, relation, sink, known).map_err(SinkError::stop)?;
        let mapping = Arc::new(mapping);
        self.mappings.insert(from.clone(), (relation.clone(), mapping.clone()));
        Ok(mapping)
    }

    async fn statement(&mut self, sql: &str) -> Result<Statement, SinkError> {
        self.prepared(sql).await.map_err(SinkError::of)
    }

    pub(crate) async fn prepared(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Lets the shut gate guard partitions that were made since, against TRUNCATE, too. A gate that does not stand as it should
/// is left alone: the first change finds it so.
async fn cover(client: &Client, plan: &LanePlan, epoch: Epoch) -> Result<(), SinkError> {
    let shut = Gate { is_shut: true, epoch };
    if gate::read(client, &plan.id.slice).await.map_err(SinkError::of)? == Some(shut) {
        gate::set(client, &plan.id.slice, shut).await.map_err(SinkError::of)?;
    }
    Ok(())
}

/// Each source table's level in the order of the sink's foreign keys.
fn ranks(keys: &[ForeignKeySeen], plan: &LanePlan) -> Result<BTreeMap<TableName, usize>, SinkError> {
    let tables = plan.tables.iter().map(|table| table.to.clone()).collect();
    let levels = order::levels(&tables, keys).map_err(SinkError::stop)?;
    let rank = |to: &TableName| levels.iter().position(|level| level.tables.contains(to)).unwrap_or(0);
    Ok(plan.tables.iter().map(|table| (table.from.clone(), rank(&table.to))).collect())
}

fn no_table(table: &TableName) -> Finding {
    Finding::error(
        Code::SinkNoTable,
        format!("there is no table {table} in the service's database, or it is not in the plan"),
        "create it there, or correct the plan, then `strangler sync resume`",
    )
}

fn not_ours(plan: &LanePlan, epoch: Epoch, found: Option<Gate>) -> Finding {
    let found = match found {
        None => "missing".to_owned(),
        Some(Gate { is_shut: true, epoch }) => format!("shut at epoch {epoch}"),
        Some(Gate { is_shut: false, epoch }) => format!("open at epoch {epoch}"),
    };
    Finding::error(
        Code::SinkGate,
        format!("the gate of slice {} in the sink is {found}, not shut at epoch {epoch}", plan.id.slice),
        "another bridge or coordinator moved it; see `strangler status` and `strangler journal`",
    )
}

/// A lane that only watches is given no change to apply.
fn no_right(plan: &LanePlan) -> Finding {
    Finding::error(
        Code::SinkGate,
        format!("lane {} was to apply changes without the right to", plan.id),
        "report this with the message; nothing was applied",
    )
}

fn deferred(plan: &LanePlan, last: Position, words: &str) -> Finding {
    Finding::error(
        Code::SinkDeferredConstraint,
        format!(
            "the changes up to {last} break a constraint that was left to the transaction's end: {words}"
        ),
        format!("mend the service's database, then `strangler sync resume {}`", plan.id.slice),
    )
}

fn superseded(plan: &LanePlan) -> Finding {
    Finding::error(
        Code::SinkSuperseded,
        format!("another copy of slice {} has begun in the sink's database", plan.id.slice),
        "another bridge works on it: stop one of the two, then `strangler sync resume`",
    )
}
