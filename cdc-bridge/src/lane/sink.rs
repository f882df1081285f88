//! A lane's sink: rows and position in one transaction, while the gate is shut.
//!
//! Rows go by COPY, by arrays, or one by one if the database refuses them together. Which statement does what is decided
//! in `rows`.

mod grow;
mod mend;
mod replay;
mod together;

use super::border::{Border, Foreign, Watch};
use super::halt::Halt;
use super::kept::{self, Kept, Shapes};
use super::narrowed;
use super::plan::LanePlan;
use super::refusal::{RowError, deferred, expect, no_table, not_ours, superseded, unknown_value};
use crate::log::Cursor;
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use migrations::journal::Generation;
use migrations::lane::{Direction, Mark, Right};
use migrations::lsn::{EndLsn, Position};
use migrations::names::TableName;
use migrations::preflight::{ColumnSeen, ForeignKeySeen};
use migrations::stage::Epoch;
use postgres::gate::{self, Gate};
use postgres::stamp::{self, Stamp};
use postgres::{Refusal, catalog, connect, in_words};
use rows::assemble;
use rows::change::{Change, Operation, Relation, ReplicaIdentity, Tuple, Value};
use rows::copy_text;
use rows::mapping::{self, Mapping};
use rows::order::{self, Cascades};
use rows::reduce::{self, Group, TableRows};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

/// A position that only moved on without rows is written at most this often.
const IDLE_POSITION_INTERVAL: Duration = Duration::from_secs(1);

/// Inserts from this many rows on go by COPY, which is cheaper per row but dearer to begin.
const COPY_ROWS_MIN: usize = 64;

/// Rows of one statement by arrays; more would only hold more memory.
const ARRAY_ROWS_MAX: usize = 1000;

/// COPY data is sent in pieces of this size, in bytes.
const COPY_BYTES: usize = 64 << 10;

/// A TRUNCATE waits no longer for the readers of its tables: new readers wait with it. Less than the `deadlock_timeout` of
/// servers, at which a reader may be the one that fails.
const TRUNCATE_WAIT_MS: u64 = 500;

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
    tables: BTreeMap<TableName, Vec<ColumnSeen>>,
    /// How the columns of these tables stood when they were read.
    stamp: Stamp,
    ranks: BTreeMap<TableName, usize>,
    /// The foreign keys of the sink's database.
    keys: Vec<ForeignKeySeen>,
    /// Sink tables whose rows may be gone, or have another key, with their parent before their own change comes.
    cascades: Cascades,
    mappings: HashMap<TableName, (Arc<Relation>, Arc<Mapping>)>,
    statements: HashMap<String, Statement>,
    shapes: Shapes,
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
            tables,
            stamp,
            ranks,
            keys,
            cascades,
            mappings: HashMap::new(),
            statements: HashMap::new(),
            shapes: kept.shapes.clone(),
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
            narrowed::check(&self.client, &self.plan, right, &self.shapes, &self.tables).await?;
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
        let table = self.plan.tables.iter().find(|table| table.from == relation.table);
        let copied = self.shapes.get(&relation.table).filter(|copied| *copied != relation);
        let (Some(table), Some(copied)) = (table, copied) else { return Ok(()) };
        // A column that came later is left out, unless the sink has one for it: its older values would be missing.
        let has = |name: &str| {
            let sink = self.tables.get(&table.to).map(Vec::as_slice).unwrap_or_default();
            table.sink_column(name).is_some_and(|target| sink.iter().any(|c| c.name == target))
        };
        let used = |name: &str| self.knows(Some(copied), name) || has(name);
        let mut left_out = table.left_out();
        // One that has another name now is a column that the plan does not know.
        left_out.retain(|name| {
            let number = copied.index_of(name).map_or(0, |index| copied.columns[index].number);
            relation.columns.iter().all(|now| now.number != number || number == 0 || now.name == *name)
        });
        assemble::shape::compatible(&copied.without(&left_out), &relation.without(&left_out), used)
            .map_err(Halt::stop)
    }

    /// On the way back a column of the service's own has nowhere to go.
    fn knows(&self, copied: Option<&Relation>, name: &str) -> bool {
        self.plan.id.direction == Direction::Forward
            && copied.is_none_or(|copied| copied.index_of(name).is_some())
    }

    /// The mapping of a change's table as the table is now.
    fn mapping(&mut self, relation: &Arc<Relation>) -> Result<Arc<Mapping>, Halt> {
        if let Some((known, mapping)) = self.mappings.get(&relation.table)
            && Arc::ptr_eq(known, relation)
        {
            return Ok(mapping.clone());
        }
        let from = &relation.table;
        let table = self.plan.tables.iter().find(|table| table.from == *from).cloned();
        let Some(table) = table else { return Err(Halt::stop(no_table(from))) };
        let Some(sink) = self.tables.get(&table.to) else {
            return Err(Halt::stop(no_table(&table.to)));
        };
        let copied = self.shapes.get(from);
        let known = |name: &str| self.knows(copied, name);
        self.check_shape(relation)?;
        let mapping = Mapping::new(&table, relation, sink, known).map_err(Halt::stop)?;
        let is_new = |name: &&str| copied.is_some_and(|copied| copied.index_of(name).is_none());
        let left_out: Vec<&str> = relation
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .filter(is_new)
            .filter(|name| table.sink_column(name).is_some())
            .collect();
        if !left_out.is_empty() {
            let (lane, columns) = (&self.plan.id, left_out.join(", "));
            tracing::warn!(%lane, table = %from, columns, "new columns that the sink does not have are left out");
        }
        let mapping = Arc::new(mapping);
        self.mappings.insert(from.clone(), (relation.clone(), mapping.clone()));
        Ok(mapping)
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

    async fn apply_groups(&mut self, changes: &[Change]) -> Result<(), RowError> {
        for group in reduce::reduce(changes) {
            match group {
                Group::Truncate(tables) => self.truncate(&tables).await?,
                Group::Rekey(change) => self.rekey(change).await?,
                Group::Rows(mut tables) => {
                    tables.sort_by_key(|rows| self.ranks.get(&rows.relation.table).copied());
                    for rows in &tables {
                        self.insert(rows).await?;
                    }
                    for rows in &tables {
                        self.update(rows).await?;
                    }
                    for rows in tables.iter().rev() {
                        self.delete(rows).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn insert(&mut self, rows: &TableRows) -> Result<(), RowError> {
        let mapping = self.mapping(&rows.relation)?;
        if rows.inserts.len() < COPY_ROWS_MIN || !mapping.is_direct() {
            return self.by_arrays(&mapping.insert(), &rows.inserts).await;
        }
        let sql = format!("COPY {} ({}) FROM STDIN", mapping.to.quoted(), mapping.sink_columns());
        let statement = self.prepared(&sql).await?;
        let copy = self.client.copy_in::<_, Bytes>(&statement).await?;
        let mut copy = std::pin::pin!(copy);
        let indexes = mapping.source_indexes();
        let mut piece = BytesMut::with_capacity(COPY_BYTES + 4096);
        for row in &rows.inserts {
            copy_text::row(row, &indexes, &mut piece);
            if piece.len() >= COPY_BYTES {
                copy.send(piece.split().freeze()).await?;
            }
        }
        copy.send(piece.freeze()).await?;
        copy.finish().await?;
        Ok(())
    }

    async fn update(&mut self, rows: &TableRows) -> Result<(), RowError> {
        let mapping = self.mapping(&rows.relation)?;
        for (unsent, updates) in &rows.updates {
            if self.is_sparing() {
                for chunk in updates.chunks(ARRAY_ROWS_MAX) {
                    self.update_changed(&mapping, unsent, chunk).await?;
                }
                continue;
            }
            if mapping.misses(unsent) {
                return Err(Halt::stop(unknown_value(&mapping)).into());
            }
            let columns = mapping.settable(unsent);
            if !columns.is_empty() {
                self.by_arrays(&mapping.update(&columns), updates).await?;
            }
        }
        Ok(())
    }

    /// On the way back only what changed is written: the monolith has columns, and triggers on columns, that the service
    /// knows nothing of, and expressions may bring a value back less exactly than it is there.
    fn is_sparing(&self) -> bool {
        self.plan.id.direction == Direction::Reverse
    }

    /// Sets the columns that changed, of each row its own.
    async fn update_changed(
        &mut self,
        mapping: &Mapping,
        unsent: &BTreeSet<usize>,
        updates: &[Tuple],
    ) -> Result<(), RowError> {
        let changed = self.changed(mapping, unsent, updates).await?;
        expect(changed.len() as u64, updates.len() as u64)?;
        let mut groups: BTreeMap<BTreeSet<usize>, Vec<Tuple>> = BTreeMap::new();
        for (row, columns) in changed {
            if let Some(row) = updates.get(row).filter(|_| !columns.is_empty()) {
                groups.entry(columns).or_default().push(row.clone());
            }
        }
        for (columns, rows) in &groups {
            if mapping.reads_any(columns, unsent) {
                return Err(Halt::stop(unknown_value(mapping)).into());
            }
            self.by_arrays(&mapping.update(columns), rows).await?;
        }
        Ok(())
    }

    /// Which columns each row's update changes; rows that are not there are left out.
    async fn changed(
        &mut self,
        mapping: &Mapping,
        unsent: &BTreeSet<usize>,
        updates: &[Tuple],
    ) -> Result<Vec<(usize, BTreeSet<usize>)>, RowError> {
        let asked = mapping.changed(unsent);
        let prepared = self.prepared(&asked.statement.sql).await?;
        let arrays = columns_of(updates, &asked.statement.columns)?;
        let answers = self.client.query(&prepared, &parameters(&arrays)).await?;
        let one = |answer: &Row| {
            let (number, changes): (i64, Vec<bool>) = (answer.get(0), answer.get(1));
            let columns = asked.outputs.iter().zip(changes).filter(|(_, is_changed)| *is_changed);
            (usize::try_from(number - 1).unwrap_or(usize::MAX), columns.map(|(column, _)| *column).collect())
        };
        Ok(answers.iter().map(one).collect())
    }

    async fn delete(&mut self, rows: &TableRows) -> Result<(), RowError> {
        let mapping = self.mapping(&rows.relation)?;
        match self.by_arrays(&mapping.delete(), &rows.deletes).await {
            Err(RowError::Missing { .. }) if self.cascades.deletes.contains(&mapping.to) => Ok(()),
            other => other,
        }
    }

    async fn rekey(&mut self, change: &Change) -> Result<(), RowError> {
        let Operation::Update { old: Some(old), new } = &change.operation else { return Ok(()) };
        let mapping = self.mapping(&change.relation)?;
        let new = match change.relation.identity {
            ReplicaIdentity::Full => new.filled(old),
            _ => reduce::fill_key(new, old, &mapping.key),
        };
        let unsent = reduce::unchanged(&new);
        if !self.is_sparing() && mapping.misses(&unsent) {
            return Err(Halt::stop(unknown_value(&mapping)).into());
        }
        // Where the parent's new key came along by itself, the row stands under its own new key already. Its old one may be
        // another row's by now.
        let before = if self.cascades.updates.contains(&mapping.to) { vec![&new, old] } else { vec![old] };
        for place in before {
            let columns = if self.is_sparing() {
                let there = reduce::with_key(&new, place, &mapping.key);
                let Some((_, mut columns)) = self.changed(&mapping, &unsent, &[there]).await?.pop() else {
                    continue;
                };
                columns.extend(mapping.keyed());
                if mapping.reads_any(&columns, &unsent) {
                    return Err(Halt::stop(unknown_value(&mapping)).into());
                }
                columns
            } else {
                mapping.settable(&unsent)
            };
            let (statement, key) = mapping.rekey(&columns);
            let prepared = self.prepared(&statement.sql).await?;
            let mut arrays = columns_of(std::slice::from_ref(&new), &statement.columns)?;
            arrays.extend(columns_of(std::slice::from_ref(place), &key)?);
            if self.execute(&prepared, &arrays).await? == 1 {
                return Ok(());
            }
        }
        expect(0, 1)
    }

    /// Empties tables. A reader of two of them may wait for us while we wait for it. A table whose deferred checks are pending,
    /// or to which another table refers, cannot be truncated. Then the rows are deleted, which waits for no reader.
    async fn truncate(&mut self, changes: &[&Change]) -> Result<(), RowError> {
        let mut tables = BTreeMap::new();
        for change in changes {
            let rank = self.ranks.get(&change.relation.table).copied();
            tables.insert((rank, self.mapping(&change.relation)?.to.clone()), ());
        }
        let tables: Vec<TableName> = tables.into_keys().map(|(_, table)| table).collect();
        let names: Vec<String> = tables.iter().map(TableName::quoted).collect();
        let truncate = format!(
            "SAVEPOINT truncate; SET LOCAL lock_timeout = '{TRUNCATE_WAIT_MS}ms'; TRUNCATE {}; \
             SET LOCAL lock_timeout = 0; RELEASE truncate",
            names.join(", ")
        );
        let Err(error) = self.client.batch_execute(&truncate).await else { return Ok(()) };
        let may_pass = Refusal::of(&error) == Refusal::Contended;
        let is_referred_to = error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED);
        // The source emptied no other table.
        let writes_others = |key: &ForeignKeySeen| {
            tables.contains(&key.to) && !tables.contains(&key.from) && key.on_delete.writes()
        };
        if !(may_pass || is_referred_to) || self.keys.iter().any(writes_others) {
            return Err(error.into());
        }
        self.client.batch_execute("ROLLBACK TO truncate").await?;
        for name in names.iter().rev() {
            self.client.batch_execute(&format!("DELETE FROM {name}")).await?;
        }
        Ok(())
    }

    async fn by_arrays(&mut self, statement: &mapping::Statement, rows: &[Tuple]) -> Result<(), RowError> {
        let mut found = 0;
        for chunk in rows.chunks(ARRAY_ROWS_MAX) {
            let prepared = self.prepared(&statement.sql).await?;
            let arrays = columns_of(chunk, &statement.columns)?;
            found += self.execute(&prepared, &arrays).await?;
        }
        expect(found, rows.len() as u64)
    }

    async fn execute(&self, statement: &Statement, arrays: &[Vec<Option<&str>>]) -> Result<u64, RowError> {
        Ok(self.client.execute(statement, &parameters(arrays)).await?)
    }

    /// Whether an insert was refused because its key is in the sink already. It ends the transaction, which has failed.
    async fn is_there(&mut self, change: &Change, error: &RowError) -> Result<bool, Halt> {
        let (RowError::Db(error), Operation::Insert { new }) = (error, &change.operation) else {
            return Ok(false);
        };
        if error.code() != Some(&SqlState::UNIQUE_VIOLATION) {
            return Ok(false);
        }
        self.abandon().await?;
        let find = self.mapping(&change.relation)?.find();
        let statement = self.statement(&find.sql).await?;
        let key = columns_of(std::slice::from_ref(new), &find.columns).map_err(RowError::into_halt)?;
        let found = self.client.query_opt(&statement, &parameters(&key)).await.map_err(Halt::of)?;
        Ok(found.is_some())
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

fn parameters<'a>(arrays: &'a [Vec<Option<&'a str>>]) -> Vec<&'a (dyn ToSql + Sync)> {
    arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect()
}

/// The texts of some columns of rows, column by column.
fn columns_of<'a>(rows: &'a [Tuple], columns: &[usize]) -> Result<Vec<Vec<Option<&'a str>>>, RowError> {
    let mut arrays: Vec<Vec<Option<&str>>> = columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        let values: Vec<Value<'_>> = row.values().collect();
        for (array, column) in arrays.iter_mut().zip(columns) {
            array.push(match values.get(*column) {
                Some(Value::Text(text)) => Some(std::str::from_utf8(text).map_err(RowError::NotText)?),
                _ => None,
            });
        }
    }
    Ok(arrays)
}
