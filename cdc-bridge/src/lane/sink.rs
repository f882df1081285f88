//! A lane's sink: rows and position in one transaction, while the gate is shut. Which statement does what is decided in
//! `rows`.

mod grow;
mod mappings;
mod mend;
mod replay;
mod together;
mod write;

use super::border::{Border, Foreign, Watch};
use super::halt::Halt;
use super::kept::{self, Kept};
use super::narrowed;
use super::plan::LanePlan;
use super::refusal::{deferred, no_table, not_ours, superseded};
use crate::log::Cursor;
use mappings::Mappings;
use migrations::journal::Generation;
use migrations::lane::{Mark, Right};
use migrations::lsn::{EndLsn, Position};
use migrations::names::TableName;
use migrations::preflight::ForeignKeySeen;
use migrations::stage::Epoch;
use postgres::gate::{self, Gate};
use postgres::stamp::{self, Stamp};
use postgres::{Refusal, catalog, connect, in_words};
use rows::change::{Change, Relation};
use rows::order::{self, Cascades};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

/// A position that only moved on without rows is written at most this often.
const IDLE_POSITION_INTERVAL: Duration = Duration::from_secs(1);

/// Statements kept prepared; more would only come from many tables times many column sets.
const STATEMENTS_MAX: usize = 256;

/// One slice's connection to its service's database, with the right to apply.
pub(crate) struct Sink {
    client: Client,
    plan: LanePlan,
    right: Right,
    /// What its mark says.
    epoch: Epoch,
    attempt: Generation,
    /// How the columns of these tables stood when they were read.
    stamp: Stamp,
    ranks: BTreeMap<TableName, usize>,
    /// The foreign keys of the sink's database.
    keys: Vec<ForeignKeySeen>,
    /// Sink tables whose rows may be gone, or have another key, with their parent before their own change comes.
    cascades: Cascades,
    mappings: Mappings,
    statements: HashMap<String, Statement>,
    in_transaction: bool,
    /// Changes of the open transaction that wait for its rest.
    carried: Vec<Change>,
    written: Instant,
    last: Position,
    border: Border,
    foreign: Option<Foreign>,
    /// Something that must not wait was passed since the position was written.
    is_urgent: bool,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("lane", &self.plan.id).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Sink {
    /// Connects and takes the lane's lock, which a second bridge does not get; then reads what is kept.
    pub(crate) async fn open(plan: &LanePlan) -> Result<(Client, Option<Kept>), Halt> {
        let client = Self::enter(plan).await?;
        let kept = kept::load(&client, &plan.id).await?;
        Ok((client, kept))
    }

    /// Connects as the only one that works on this lane.
    pub(crate) async fn enter(plan: &LanePlan) -> Result<Client, Halt> {
        let client = connect(&plan.sink, "strangler apply").await?;
        let lock = "SELECT pg_try_advisory_lock(hashtext('strangler'), hashtext($1))";
        let is_ours: bool = client.query_one(lock, &[&plan.id.to_string()]).await.map_err(Halt::of)?.get(0);
        if !is_ours {
            return Err(Halt::contested(format!("another bridge applies slice {}", plan.id.slice)));
        }
        Ok(client)
    }

    /// Makes a sink of an open client: from here on it applies what comes after `kept`.
    pub(crate) async fn follow(
        client: Client,
        plan: &LanePlan,
        right: Right,
        kept: &Kept,
    ) -> Result<Sink, Halt> {
        // Before the columns are read, so that whatever changes them from now on is found.
        let stamp = narrowed::stamped(&client, plan).await?;
        let mut tables = BTreeMap::new();
        for table in &plan.tables {
            let shape = catalog::shape(&client, &table.to).await.map_err(Halt::of)?;
            let shape = shape.ok_or_else(|| Halt::stop(no_table(&table.to)))?;
            tables.insert(table.to.clone(), shape.columns);
        }
        narrowed::check(&client, plan, right, &kept.shapes, &tables).await?;
        let epoch = admit(&client, plan, right).await?;
        let keys = catalog::foreign_keys(&client, None).await.map_err(Halt::of)?;
        let ranks = ranks(&keys, plan)?;
        let cascades = Cascades::of(&keys, &tables);
        Ok(Sink {
            client,
            plan: plan.clone(),
            right,
            epoch,
            attempt: kept.attempt,
            stamp,
            ranks,
            keys,
            cascades,
            mappings: Mappings::new(plan.clone(), kept.shapes.clone(), tables),
            statements: HashMap::new(),
            in_transaction: false,
            carried: Vec::new(),
            written: Instant::now(),
            last: kept.position,
            border: kept.border,
            foreign: kept.foreign.clone(),
            is_urgent: false,
        })
    }

    /// Applies changes, which continue the last ones, and commits where a transaction ends at `end`. Returns what is durable in the sink from then on; none if nothing new is.
    pub(crate) async fn apply(
        &mut self,
        changes: &[Change],
        end: Option<(EndLsn, &Cursor)>,
    ) -> Result<Option<EndLsn>, Halt> {
        let applied = self.apply_inner(changes, end).await;
        let Err(halt) = applied else { return applied };
        self.carried.clear();
        if std::mem::take(&mut self.in_transaction) {
            let _ = self.client.batch_execute("ROLLBACK").await;
        }
        // What was refused may have fitted the columns as they were.
        let is_refused = matches!(halt, Halt::Stopped(..) | Halt::Contended(..));
        if is_refused && narrowed::stamped(&self.client, &self.plan).await.is_ok_and(|now| now != self.stamp)
        {
            return Err(narrowed::altered());
        }
        Err(halt)
    }

    async fn apply_inner(
        &mut self,
        changes: &[Change],
        end: Option<(EndLsn, &Cursor)>,
    ) -> Result<Option<EndLsn>, Halt> {
        self.apply_or_carry(changes, end.is_none()).await?;
        let Some((end, cursor)) = end else { return Ok(None) };
        if !self.in_transaction && !self.is_urgent && self.written.elapsed() < IDLE_POSITION_INTERVAL {
            return Ok(None);
        }
        if self.in_transaction {
            self.check_constraints().await?;
            self.write_position(end, cursor).await?;
            self.client.batch_execute("COMMIT").await.map_err(Halt::of)?;
            self.in_transaction = false;
        } else {
            self.write_position(end, cursor).await?;
        }
        (self.written, self.is_urgent) = (Instant::now(), false);
        Ok(Some(end))
    }

    /// Applies changes with those that waited for them. While their transaction is still open, some may have to wait on.
    async fn apply_or_carry(&mut self, changes: &[Change], is_open: bool) -> Result<(), Halt> {
        if changes.is_empty() && (is_open || self.carried.is_empty()) {
            return Ok(());
        }
        self.begin().await?;
        self.last = changes.last().map_or(self.last, |last| last.position);
        if self.carried.is_empty() {
            let applied = self.apply_rows(changes, is_open).await?;
            self.carried.extend_from_slice(&changes[applied..]);
            return Ok(());
        }
        // A try before the transaction's end would mostly be in vain.
        let waits = is_open && self.may_carry(changes);
        self.carried.extend_from_slice(changes);
        if !waits {
            let mut carried = std::mem::take(&mut self.carried);
            let applied = self.apply_rows(&carried, is_open).await?;
            self.carried = carried.split_off(applied);
        }
        Ok(())
    }

    pub(crate) fn right(&self) -> Right {
        self.right
    }

    /// Takes another right over. What is under way ends under the old one.
    pub(crate) async fn grant(&mut self, right: Right) -> Result<(), Halt> {
        let only_watched = !matches!(self.right, Right::Apply(_));
        self.right = right;
        if only_watched {
            let (copied, columns) = (self.mappings.copied(), self.mappings.columns());
            narrowed::check(&self.client, &self.plan, right, copied, columns).await?;
        }
        if !self.in_transaction {
            self.epoch = admit(&self.client, &self.plan, right).await?;
        }
        Ok(())
    }

    /// Takes over what was seen up to the next record. A fence, and writes of others, are written with it at once.
    pub(crate) fn note(&mut self, watch: &Watch) {
        self.is_urgent |= watch.border.fenced > self.border.fenced || watch.foreign != self.foreign;
        self.border = watch.border;
        self.foreign.clone_from(&watch.foreign);
    }

    /// Gives up what is under way and not committed.
    pub(crate) async fn abandon(&mut self) -> Result<(), Halt> {
        self.carried.clear();
        if std::mem::take(&mut self.in_transaction) {
            self.client.batch_execute("ROLLBACK").await.map_err(Halt::of)?;
        }
        Ok(())
    }

    /// Begins the sink's transaction: marks it as ours, and holds the gate as it is until the end.
    async fn begin(&mut self) -> Result<(), Halt> {
        if self.in_transaction || self.try_begin().await?.is_ok() {
            return Ok(());
        }
        // The right may be newer than the gate.
        self.abandon().await?;
        self.epoch = admit(&self.client, &self.plan, self.right).await?;
        self.try_begin().await?.map_err(|found| Halt::stop(not_ours(&self.plan, self.right, found)))
    }

    /// The gate as it was found, where it does not let the lane in.
    async fn try_begin(&mut self) -> Result<Result<(), Option<Gate>>, Halt> {
        let mark = "SELECT pg_logical_emit_message(true, 'strangler.apply', $1)";
        let mark = self.statement(mark).await?;
        let gate = self.statement(gate::HOLD).await?;
        let content = Mark { lane: self.plan.id.clone(), epoch: self.epoch }.to_string();
        let slice = self.plan.id.slice.as_str();
        self.in_transaction = true;
        let (content, slice): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) = ([&content], [&slice]);
        let (begun, marked, gates) = tokio::join!(
            self.client.batch_execute("BEGIN; SET CONSTRAINTS ALL DEFERRED"),
            self.client.query(&mark, &content),
            self.client.query_opt(&gate, &slice),
        );
        begun.map_err(Halt::of)?;
        marked.map_err(Halt::of)?;
        let gate = gates.map_err(Halt::of)?.as_ref().map(gate::of);
        let is_admitted = match self.right {
            Right::Apply(epoch) => gate == Some(Gate { is_shut: true, epoch }),
            // Only reference tables are applied, which are the monolith's in every stage.
            Right::Watch => gate.is_some(),
            Right::Rest => false,
        };
        Ok(if is_admitted { Ok(()) } else { Err(gate) })
    }

    /// Checks what was deferred while the transaction can still say which change it stands at.
    async fn check_constraints(&mut self) -> Result<(), Halt> {
        let Err(error) = self.client.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await else {
            return Ok(());
        };
        match Refusal::of(&error) {
            Refusal::Rows => Err(Halt::Stopped(
                Box::new(deferred(&self.plan, self.last, &in_words(&error))),
                Some(self.last),
            )),
            _ => Err(Halt::of(error)),
        }
    }

    async fn write_position(&mut self, passed: EndLsn, cursor: &Cursor) -> Result<(), Halt> {
        // Tables that were written are locked by now, so no ALTER comes between their rows and this look.
        let sql = "UPDATE strangler.stream SET commit_lsn = $4::text::pg_lsn, ordinal = $5, \
                   passed = $6::text::pg_lsn, cursor = $7, fenced = $8, opened = $9, foreign_writes = $10, \
                   updated_at = clock_timestamp() \
                   WHERE slice = $1 AND direction = $2 AND attempt = $3 RETURNING ";
        let statement = self.statement(&format!("{sql}{}", stamp::sql("$11"))).await?;
        let cursor = kept::to_json(cursor)?;
        let foreign = self.foreign.as_ref().map(kept::to_json).transpose()?;
        let written = self
            .client
            .query_opt(
                &statement,
                &[
                    &self.plan.id.slice.as_str(),
                    &self.plan.id.direction.to_string(),
                    &(self.attempt.0 as i64),
                    &self.last.commit.to_string(),
                    &(self.last.ordinal as i64),
                    &passed.to_string(),
                    &cursor,
                    &self.border.fenced.map(|epoch| epoch.0 as i64),
                    &self.border.opened.map(|epoch| epoch.0 as i64),
                    &foreign,
                    &self.stamp.oids,
                ],
            )
            .await
            .map_err(Halt::of)?;
        let written = written.ok_or_else(|| Halt::stop(superseded(&self.plan)))?;
        if written.get::<_, &str>(0) != self.stamp.text {
            return Err(narrowed::altered());
        }
        Ok(())
    }

    /// Whether a source's table has still the shape that it was copied in, or one that goes on.
    pub(crate) fn check_shape(&self, relation: &Relation) -> Result<(), Halt> {
        self.mappings.check(relation)
    }

    async fn statement(&mut self, sql: &str) -> Result<Statement, Halt> {
        self.prepared(sql).await.map_err(Halt::of)
    }

    async fn prepared(&mut self, sql: &str) -> Result<Statement, tokio_postgres::Error> {
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

/// Makes the gate ready for a right, and says at which epoch the lane works: a shut gate is raised to the right's, and
/// guards partitions that were made since, against TRUNCATE, too. A gate that does not stand as it should is left alone:
/// the first change finds it so.
async fn admit(client: &Client, plan: &LanePlan, right: Right) -> Result<Epoch, Halt> {
    let slice = &plan.id.slice;
    let found = gate::read(client, slice).await.map_err(Halt::of)?;
    let Right::Apply(epoch) = right else { return Ok(found.map_or(Epoch(0), |gate| gate.epoch)) };
    if let Some(gate) = found.filter(|gate| gate.is_shut && gate.epoch <= epoch) {
        if gate.epoch < epoch {
            gate::raise(client, slice, epoch).await.map_err(Halt::of)?;
        }
        gate::make(client, slice, epoch).await.map_err(Halt::of)?;
    }
    Ok(epoch)
}

/// Each source table's level in the order of the sink's foreign keys.
fn ranks(keys: &[ForeignKeySeen], plan: &LanePlan) -> Result<BTreeMap<TableName, usize>, Halt> {
    let tables = plan.tables.iter().map(|table| table.to.clone()).collect();
    let levels = order::levels(&tables, keys).map_err(Halt::stop)?;
    let rank = |to: &TableName| levels.iter().position(|level| level.tables.contains(to)).unwrap_or(0);
    Ok(plan.tables.iter().map(|table| (table.from.clone(), rank(&table.to))).collect())
}
