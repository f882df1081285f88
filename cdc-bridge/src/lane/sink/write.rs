//! Changes become statements: rows go by COPY, by arrays, or one by one.

use super::Sink;
use crate::lane::halt::Halt;
use crate::lane::refusal::{RowError, expect, unknown_value};
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use migrations::lane::Direction;
use migrations::names::TableName;
use migrations::preflight::ForeignKeySeen;
use postgres::Refusal;
use rows::change::{Change, Operation, ReplicaIdentity, Tuple, Value};
use rows::copy_text;
use rows::mapping::{self, Mapping};
use rows::reduce::{self, Group, TableRows};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

/// Inserts from this many rows on go by COPY, which is cheaper per row but dearer to begin.
const COPY_ROWS_MIN: usize = 64;

/// Rows of one statement by arrays; more would only hold more memory.
const ARRAY_ROWS_MAX: usize = 1000;

/// COPY data is sent in pieces of this size, in bytes.
const COPY_BYTES: usize = 64 << 10;

/// A TRUNCATE waits no longer for the readers of its tables: new readers wait with it. Less than the `deadlock_timeout` of
/// servers, at which a reader may be the one that fails.
const TRUNCATE_WAIT_MS: u64 = 500;

impl Sink {
    pub(super) async fn apply_groups(&mut self, changes: &[Change]) -> Result<(), RowError> {
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

    pub(super) async fn insert(&mut self, rows: &TableRows) -> Result<(), RowError> {
        let mapping = self.mappings.of(&rows.relation)?;
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

    pub(super) async fn update(&mut self, rows: &TableRows) -> Result<(), RowError> {
        let mapping = self.mappings.of(&rows.relation)?;
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
    pub(super) fn is_sparing(&self) -> bool {
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
    pub(super) async fn changed(
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

    pub(super) async fn delete(&mut self, rows: &TableRows) -> Result<(), RowError> {
        let mapping = self.mappings.of(&rows.relation)?;
        match self.by_arrays(&mapping.delete(), &rows.deletes).await {
            Err(RowError::Missing { .. }) if self.cascades.deletes.contains(&mapping.to) => Ok(()),
            other => other,
        }
    }

    async fn rekey(&mut self, change: &Change) -> Result<(), RowError> {
        let Operation::Update { old: Some(old), new } = &change.operation else { return Ok(()) };
        let mapping = self.mappings.of(&change.relation)?;
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
            tables.insert((rank, self.mappings.of(&change.relation)?.to.clone()), ());
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
    pub(super) async fn is_there(&mut self, change: &Change, error: &RowError) -> Result<bool, Halt> {
        let (RowError::Db(error), Operation::Insert { new }) = (error, &change.operation) else {
            return Ok(false);
        };
        if error.code() != Some(&SqlState::UNIQUE_VIOLATION) {
            return Ok(false);
        }
        self.abandon().await?;
        let find = self.mappings.of(&change.relation)?.find();
        let statement = self.statement(&find.sql).await?;
        let key = columns_of(std::slice::from_ref(new), &find.columns).map_err(RowError::into_halt)?;
        let found = self.client.query_opt(&statement, &parameters(&key)).await.map_err(Halt::of)?;
        Ok(found.is_some())
    }
}

pub(super) fn parameters<'a>(arrays: &'a [Vec<Option<&'a str>>]) -> Vec<&'a (dyn ToSql + Sync)> {
    arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect()
}

/// The texts of some columns of rows, column by column.
pub(super) fn columns_of<'a>(
    rows: &'a [Tuple],
    columns: &[usize],
) -> Result<Vec<Vec<Option<&'a str>>>, RowError> {
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
