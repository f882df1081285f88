//! One table of a slice, ready to be compared: its statements for both sides, by plan and catalogs as they are now.

use crate::feed::source::SourceError;
use crate::lane::changed::ChangedKey;
use crate::lane::halt::Halt;
use crate::lane::kept::Shapes;
use crate::lane::plan::LanePlan;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lane::Direction;
use migrations::names::TableName;
use migrations::plan;
use migrations::preflight::{ColumnSeen, TableSeen};
use migrations::verify::RowKey;
use postgres::catalog;
use rows::change::Relation;
use rows::mapping::Mapping;
use rows::mapping::compare::Comparison;
use rows::page::Page;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio_postgres::Client;

/// The texts of a row's key, as the source writes them, in the order of the key's index.
pub(crate) type Key = Vec<String>;

/// A table as the source and the sink have it.
#[derive(Debug)]
pub(crate) struct Table {
    /// As the plan has it under `from`.
    pub(crate) name: TableName,
    /// As the source has it.
    pub(crate) from: TableName,
    /// The columns that the mapping reads, of the source's rows.
    pub(crate) rows: Page,
    /// Only the versions of the source's rows.
    pub(crate) versions: Page,
    pub(crate) comparison: Comparison,
    /// Where each key column stands among the columns of [`Table::rows`].
    pub(crate) key_at: Vec<usize>,
    /// Which of a key's texts is which parameter of [`Comparison::found`].
    pub(crate) found_by: Vec<usize>,
    /// The sink's keys alone; none if they cannot be told from the source's.
    pub(crate) sink: Option<SinkKeys>,
    pub(crate) rows_estimated: u64,
    relation: Arc<Relation>,
    key: Vec<String>,
    /// For each column of the key, its place among the key columns as the table has them.
    noted_at: Vec<usize>,
}

/// How the sink's keys are read, and found at the source.
#[derive(Debug)]
pub(crate) struct SinkKeys {
    pub(crate) keys: Page,
    /// For each text of a source's key, which text of a sink's key it is.
    pub(crate) from: Vec<usize>,
    /// The sink's key columns.
    pub(crate) names: Vec<String>,
}

/// The name by which the plan knows a lane's table.
pub(crate) fn name(lane: &LanePlan, table: &plan::Table) -> TableName {
    match lane.id.direction {
        Direction::Forward => table.from.clone(),
        Direction::Reverse => table.to.clone(),
    }
}

impl Table {
    /// Joins plan and catalogs. `copied` are the shapes in which the tables were copied.
    pub(crate) async fn join(
        lane: &LanePlan,
        table: &plan::Table,
        copied: &Shapes,
        source: &Client,
        sink: &Client,
    ) -> Result<Table, Halt> {
        let from = seen(source, &table.from).await.map_err(SourceError::from)?;
        let to = seen(sink, &table.to).await.map_err(Halt::of)?;
        let (Some(from), Some(to)) = (from, to) else { return Err(Halt::stop(no_table(table))) };
        let relation = Relation::of(&table.from, from.identity, &from.columns);
        // As the lane sees it: a column that came after the copy is left out, and on the way back every one of the
        // service's own.
        let is_forward = lane.id.direction == Direction::Forward;
        let known = |column: &str| {
            is_forward && copied.get(&table.from).is_none_or(|copied| copied.index_of(column).is_some())
        };
        let mapping = Mapping::new(table, &relation, &to.columns, known).map_err(Halt::stop)?;
        let comparison = mapping.comparison();
        let key = key(&from);
        let at = |index: &usize| relation.columns.get(*index).map(|column| column.name.as_str());
        let read: Vec<&str> = comparison.differing.columns.iter().filter_map(at).collect();
        let found: Vec<&str> = comparison.found.columns.iter().filter_map(at).collect();
        let noted: Vec<&str> = relation.key().filter_map(|index| at(&index)).collect();
        let key_columns = columns(&from, &key);
        let (_, rows_estimated) = catalog::extent(source, &table.from).await.map_err(SourceError::from)?;
        Ok(Table {
            name: name(lane, table),
            from: table.from.clone(),
            noted_at: key.iter().filter_map(|name| noted.iter().position(|noted| noted == name)).collect(),
            key_at: key.iter().filter_map(|name| read.iter().position(|read| read == name)).collect(),
            found_by: found.iter().filter_map(|name| key.iter().position(|key| key == name)).collect(),
            rows: Page::new(&table.from, key_columns.clone(), columns(&from, &read)),
            versions: Page::new(&table.from, key_columns, Vec::new()),
            sink: sink_keys(&table.to, &to, &key, &comparison),
            relation: Arc::new(relation.clone()),
            comparison,
            rows_estimated,
            key,
        })
    }

    /// The key of a row that a lane noted.
    pub(crate) fn key_of(&self, noted: &ChangedKey) -> Key {
        self.noted_at.iter().filter_map(|place| noted.get(*place).cloned()).collect()
    }

    /// The key of a row that was named for people; none if the source cannot have it.
    pub(crate) fn key_named(&self, row: &RowKey) -> Option<Key> {
        self.key.iter().map(|name| row.key.get(name).cloned()).collect()
    }

    pub(crate) fn key_names(&self) -> &[String] {
        &self.key
    }

    pub(crate) fn relation(&self) -> Arc<Relation> {
        self.relation.clone()
    }

    /// The same for a row that was named for people; none if the source cannot have it.
    pub(crate) fn noted_row(&self, row: &RowKey) -> Option<ChangedKey> {
        let mut noted = vec![String::new(); self.key.len()];
        for (name, place) in self.key.iter().zip(&self.noted_at) {
            noted.get_mut(*place)?.clone_from(row.key.get(name)?);
        }
        Some(noted)
    }

    /// Names a row for people.
    pub(crate) fn row(&self, key: &[String]) -> RowKey {
        RowKey { table: self.name.clone(), key: self.key.iter().cloned().zip(key.iter().cloned()).collect() }
    }
}

async fn seen(client: &Client, table: &TableName) -> Result<Option<TableSeen>, tokio_postgres::Error> {
    let (mut seen, _) = catalog::tables(client, &BTreeSet::from([table.clone()]), false).await?;
    Ok(seen.remove(table))
}

/// The columns of the primary key, in its own order, which its index can be read in.
fn key(table: &TableSeen) -> Vec<String> {
    match &table.late_key {
        Some(late) if table.key.is_empty() => late.columns.clone(),
        _ => table.key.clone(),
    }
}

fn columns<S: AsRef<str>>(table: &TableSeen, names: &[S]) -> Vec<ColumnSeen> {
    names.iter().filter_map(|name| table.column(name.as_ref()).cloned()).collect()
}

fn sink_keys(to: &TableName, sink: &TableSeen, key: &[String], comparison: &Comparison) -> Option<SinkKeys> {
    let pairs = comparison.key.as_ref()?;
    let names = self::key(sink);
    let place = |column: &String| {
        let (_, there) = pairs.iter().find(|(here, _)| here == column)?;
        names.iter().position(|name| name == there)
    };
    let from: Option<Vec<usize>> = key.iter().map(place).collect();
    let columns = columns(sink, &names);
    Some(SinkKeys { keys: Page::new(to, columns.clone(), columns), from: from?, names })
}

fn no_table(table: &plan::Table) -> Finding {
    Finding::error(
        Code::CopyNoTable,
        format!("table {} or {} is missing, or strangler may not see it", table.from, table.to),
        "run `strangler doctor`: it names the table and the statement that fixes it",
    )
}
