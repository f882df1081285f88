//! Sends rows to a sink: by COPY, by arrays, or one by one where the database refuses them together.
//!
//! The other half of [`Sink`]; which statement does what is worked out in `sink/`.

use super::sink::{Sink, SinkError};
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use migrations::code::Code;
use migrations::finding::Finding;
use postgres::{Refusal, in_words};
use rows::change::{Change, Operation, ReplicaIdentity, Tuple, Value};
use rows::copy_text;
use rows::mapping::{self, Mapping};
use rows::reduce::{self, Group, TableRows};
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

/// Inserts from this many rows on go by COPY, which is cheaper per row but dearer to begin.
const COPY_ROWS_MIN: usize = 64;

/// Rows of one statement by arrays; more would only hold more memory.
const ARRAY_ROWS_MAX: usize = 1000;

/// COPY data is sent in pieces of this size, in bytes.
const COPY_BYTES: usize = 64 << 10;

/// How much of a row a finding shows, in characters.
const SHOWN_ROW_CHARS: usize = 400;

/// Why some rows did not go in.
enum RowError {
    /// The database refused; in its words, with its code's class.
    Db(tokio_postgres::Error),
    /// Fewer rows were there than the source changed.
    Missing { expected: u64, found: u64 },
    /// A value that is not text in UTF-8, as every value must be.
    NotText(std::str::Utf8Error),
    /// Something that is no row's fault.
    Sink(SinkError),
}

impl From<tokio_postgres::Error> for RowError {
    fn from(error: tokio_postgres::Error) -> Self {
        RowError::Db(error)
    }
}

impl From<SinkError> for RowError {
    fn from(error: SinkError) -> Self {
        RowError::Sink(error)
    }
}

impl RowError {
    /// Whether a single row may be at fault, so that going one by one finds it or gets through: data (22),
    /// integrity (23), triggers and the like; not connections, resources, deadlocks or rights.
    fn is_about_rows(&self) -> bool {
        match self {
            RowError::Db(error) => Refusal::of(error) == Refusal::Rows,
            RowError::Missing { .. } | RowError::NotText(_) => true,
            RowError::Sink(_) => false,
        }
    }

    fn into_sink(self) -> SinkError {
        match self {
            RowError::Db(error) => SinkError::of(error),
            RowError::Sink(error) => error,
            RowError::Missing { expected, found } => {
                SinkError::Away { why: format!("{found} of {expected} rows were there") }
            }
            RowError::NotText(why) => SinkError::Away { why: format!("a value is not UTF-8: {why}") },
        }
    }
}

impl Sink {
    /// Applies changes reduced to what is left per row; if the database refuses that, one by one in order, because
    /// a constraint may hold only in between.
    pub(crate) async fn apply_rows(&mut self, changes: &[Change]) -> Result<(), SinkError> {
        if changes.len() == 1 {
            return self.apply_one(changes).await;
        }
        self.client.batch_execute("SAVEPOINT batch").await.map_err(SinkError::of)?;
        match self.apply_groups(changes).await {
            Ok(()) => {
                self.client.batch_execute("RELEASE batch").await.map_err(SinkError::of)?;
                return Ok(());
            }
            Err(error) if !error.is_about_rows() => return Err(error.into_sink()),
            Err(_) => {}
        }
        self.client.batch_execute("ROLLBACK TO batch").await.map_err(SinkError::of)?;
        let together = |a: &Change, b: &Change| {
            let both = matches!((&a.operation, &b.operation), (Operation::Truncate, Operation::Truncate));
            both && a.position.commit == b.position.commit
        };
        for one in changes.chunk_by(together) {
            self.apply_one(one).await?;
        }
        Ok(())
    }

    /// One change, or the truncates of one transaction.
    async fn apply_one(&mut self, one: &[Change]) -> Result<(), SinkError> {
        let Some(change) = one.first() else { return Ok(()) };
        match self.apply_groups(one).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_about_rows() => Err(SinkError::Stopped {
                finding: Box::new(self.refused(change, &error)),
                position: Some(change.position),
            }),
            Err(error) => Err(error.into_sink()),
        }
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
        for (unchanged, updates) in &rows.updates {
            if mapping.misses(unchanged) {
                return Err(SinkError::stop(unknown_value(&mapping)).into());
            }
            if let Some(statement) = mapping.update(unchanged) {
                self.by_arrays(&statement, updates).await?;
            }
        }
        Ok(())
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
        if mapping.misses(&reduce::unchanged(&new)) {
            return Err(SinkError::stop(unknown_value(&mapping)).into());
        }
        let (statement, key) = mapping.rekey(&reduce::unchanged(&new));
        let prepared = self.prepared(&statement.sql).await?;
        // Where the parent's new key came along by itself, the row stands under its own new key already. Its old one may be
        // another row's by now.
        let before = if self.cascades.updates.contains(&mapping.to) { vec![&new, old] } else { vec![old] };
        for place in before {
            let mut arrays = columns_of(std::slice::from_ref(&new), &statement.columns)?;
            arrays.extend(columns_of(std::slice::from_ref(place), &key)?);
            if self.execute(&prepared, &arrays).await? == 1 {
                return Ok(());
            }
        }
        expect(0, 1)
    }

    async fn truncate(&mut self, changes: &[&Change]) -> Result<(), RowError> {
        let mut tables = Vec::with_capacity(changes.len());
        for change in changes {
            tables.push(self.mapping(&change.relation)?.to.quoted());
        }
        Ok(self.client.batch_execute(&format!("TRUNCATE {}", tables.join(", "))).await?)
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
        let parameters: Vec<&(dyn ToSql + Sync)> =
            arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect();
        Ok(self.client.execute(statement, &parameters).await?)
    }

    fn refused(&self, change: &Change, error: &RowError) -> Finding {
        let words = match error {
            RowError::Db(error) => in_words(error),
            RowError::NotText(why) => format!("a value is not UTF-8: {why}"),
            _ => "the row to change is not there".to_owned(),
        };
        let slice = &self.plan.id.slice;
        Finding::error(
            Code::SinkRefusedRow,
            format!(
                "{} of {} cannot be applied: {words}; {}",
                deed(change),
                change.relation.table,
                shown(change)
            ),
            format!(
                "mend the service's database, then `strangler sync resume {slice}`; or leave this one change out for \
                 ever: `strangler sync resume {slice} --skip {}`",
                change.position
            ),
        )
    }
}

fn expect(found: u64, expected: u64) -> Result<(), RowError> {
    if found == expected { Ok(()) } else { Err(RowError::Missing { expected, found }) }
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

fn deed(change: &Change) -> &'static str {
    match change.operation {
        Operation::Insert { .. } => "an insert",
        Operation::Update { .. } => "an update",
        Operation::Delete { .. } => "a delete",
        Operation::Truncate => "a truncate",
    }
}

fn shown(change: &Change) -> String {
    let row = match &change.operation {
        Operation::Insert { new } | Operation::Update { new, .. } => new,
        Operation::Delete { old } => old,
        Operation::Truncate => return "no row".to_owned(),
    };
    let columns =
        change.relation.columns.iter().zip(row.values()).filter_map(|(column, value)| match value {
            Value::Text(text) => Some(format!("{}={}", column.name, String::from_utf8_lossy(text))),
            _ => None,
        });
    let text: String = columns.collect::<Vec<_>>().join(" ");
    let short: String = text.chars().take(SHOWN_ROW_CHARS).collect();
    if short.len() < text.len() { format!("row {short}…") } else { format!("row {short}") }
}

fn unknown_value(mapping: &Mapping) -> Finding {
    Finding::error(
        Code::SourceIdentity,
        format!("a `set` of {} reads a large value that the source did not send", mapping.from),
        format!(
            "run `ALTER TABLE {} REPLICA IDENTITY FULL` in the monolith's database, then copy the slice again",
            mapping.from.quoted()
        ),
    )
}
