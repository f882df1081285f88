//! Looks at the rows of both sides: pages of one side by key, single rows by their keys, and what of them the sink's
//! database finds different.
//!
//! Knows no order of events: what a look proves is decided in `proof`. Bounded: a look holds rows of [`LOOK_BYTES`], and
//! one row more.

use super::table::{Key, Table};
use crate::lane::halt::Halt;
use futures_util::TryStreamExt;
use migrations::verify::How;
use postgres::{Refusal, in_words};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

/// Rows that are held at once, in bytes.
const LOOK_BYTES: usize = 1 << 20;

/// Statements kept prepared: more than those of one table.
const STATEMENTS_MAX: usize = 32;

/// A connection with its prepared statements.
#[derive(Debug)]
pub(crate) struct Eye {
    pub(crate) client: Client,
    prepared: HashMap<String, Statement>,
}

/// Rows in the order of a key.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Row>,
    pub(crate) bytes: usize,
    /// Nothing comes after them.
    pub(crate) is_end: bool,
}

/// A row that one of the looks by key asked for.
#[derive(Debug)]
pub(crate) struct Found {
    /// Another text for each version; none if there is no such row.
    pub(crate) version: Option<String>,
    /// The columns begin at [`Found::COLUMNS`].
    pub(crate) row: Row,
}

impl Found {
    pub(crate) const COLUMNS: usize = 3;
}

/// What the sink has where it does not have the mapped row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) how: How,
    /// Of the sink's row; none if there is none.
    pub(crate) version: Option<String>,
}

/// Parameters: for each column an array of texts.
type Arrays<'a> = Vec<Vec<Option<&'a str>>>;

impl Eye {
    pub(crate) fn new(client: Client) -> Eye {
        Eye { client, prepared: HashMap::new() }
    }

    async fn prepared(&mut self, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        if self.prepared.len() >= STATEMENTS_MAX {
            self.prepared.clear();
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Up to so many rows after a key, or the first ones.
    pub(crate) async fn page(
        &mut self,
        page: &rows::page::Page,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Rows, Error> {
        let sql = if after.is_some() { page.after() } else { page.first() };
        let statement = self.prepared(&sql).await?;
        let count = limit as i64;
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::new();
        parameters.extend(after.into_iter().flatten().map(|text| text as &(dyn ToSql + Sync)));
        parameters.push(&count);
        let (rows, bytes) = self.bounded(&statement, parameters).await?;
        let is_end = rows.len() < limit && bytes < LOOK_BYTES;
        Ok(Rows { rows, bytes, is_end })
    }

    /// The rows with these keys, as many of the first as may be held; and the oldest transaction that was open.
    pub(crate) async fn rows(
        &mut self,
        page: &rows::page::Page,
        keys: &[&Key],
    ) -> Result<(Vec<Found>, u64), Error> {
        let statement = self.prepared(&page.rows()).await?;
        let arrays = by_column(keys);
        let (rows, _) = self.bounded(&statement, parameters(&arrays)).await?;
        let oldest = rows.first().and_then(|row| row.get::<_, &str>(1).parse().ok()).unwrap_or_default();
        let found = rows.into_iter().map(|row| Found { version: row.get(2), row });
        Ok((found.collect(), oldest))
    }

    async fn bounded(
        &self,
        statement: &Statement,
        parameters: Vec<&(dyn ToSql + Sync)>,
    ) -> Result<(Vec<Row>, usize), Error> {
        let stream = self.client.query_raw(statement, parameters).await?;
        let mut stream = std::pin::pin!(stream);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        // What is left of the stream is thrown away by the driver as it comes.
        while bytes < LOOK_BYTES
            && let Some(row) = stream.try_next().await?
        {
            bytes += row.raw_size_bytes();
            rows.push(row);
        }
        Ok((rows, bytes))
    }

    /// Which of the sink's keys the source does not have: their places, with the key as the source writes it, or why the
    /// source cannot have such a key.
    pub(crate) async fn missing(
        &mut self,
        page: &rows::page::Page,
        keys: &[Key],
    ) -> Result<Vec<(usize, Result<Key, String>)>, Error> {
        let statement = self.prepared(&page.missing()).await?;
        let keys: Vec<&Key> = keys.iter().collect();
        let arrays = by_column(&keys);
        let mut missing = Vec::new();
        let refused = self.bisect(&statement, &arrays, |n, row| {
            let texts = 1..row.len();
            missing.push((n, Ok(texts.map(|column| row.get(column)).collect())));
        });
        let refused = refused.await?;
        missing.extend(refused.into_iter().map(|(n, why)| (n, Err(why))));
        Ok(missing)
    }

    /// Of these source rows, whose columns begin at `first`, those that the sink does not have alike, by their places.
    pub(crate) async fn differing(
        &mut self,
        table: &Table,
        rows: &[&Row],
        first: usize,
    ) -> Result<BTreeMap<usize, Other>, Halt> {
        let comparison = &table.comparison;
        let statement = self.prepared(&comparison.differing.sql).await.map_err(Halt::of)?;
        let column = |column: usize| rows.iter().map(|row| row.get(first + column)).collect();
        let arrays: Arrays<'_> = (0..comparison.differing.columns.len()).map(column).collect();
        let mut others = BTreeMap::new();
        let refused = self.bisect(&statement, &arrays, |n, row| {
            let version: Option<String> = row.get(1);
            let columns = row.get::<_, Vec<i32>>(2).into_iter();
            let columns = columns.filter_map(|n| comparison.columns.get(usize::try_from(n).ok()?).cloned());
            let how = match version {
                None => How::Missing,
                Some(_) => How::Values { columns: columns.collect() },
            };
            others.insert(n, Other { how, version });
        });
        let refused = refused.await.map_err(Halt::of)?.into_iter();
        others.extend(refused.map(|(n, why)| (n, Other { how: How::Unfit { why }, version: None })));
        Ok(others)
    }

    /// Which of these keys the sink has, by their places, with the versions of the rows.
    pub(crate) async fn found(
        &mut self,
        table: &Table,
        keys: &[&Key],
    ) -> Result<BTreeMap<usize, String>, Halt> {
        let statement = self.prepared(&table.comparison.found.sql).await.map_err(Halt::of)?;
        let texts = by_column(keys);
        let arrays: Arrays<'_> = table.found_by.iter().filter_map(|n| texts.get(*n).cloned()).collect();
        let mut found = BTreeMap::new();
        // A key that the sink refuses is not there.
        let refused = self.bisect(&statement, &arrays, |n, row| {
            found.insert(n, row.get(1));
        });
        refused.await.map_err(Halt::of)?;
        Ok(found)
    }

    /// Asks for all parameters together; if the database refuses a value, for ever fewer, so that each such row is found.
    /// Gives `take` each row of the answers with the place that it is about, and returns what was refused and why.
    async fn bisect(
        &self,
        statement: &Statement,
        arrays: &[Vec<Option<&str>>],
        mut take: impl FnMut(usize, &Row),
    ) -> Result<Vec<(usize, String)>, Error> {
        let whole = 0..arrays.first().map_or(0, Vec::len);
        let (mut parts, mut refused) = (vec![whole], Vec::new());
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let slices: Vec<&[Option<&str>]> = arrays.iter().map(|array| &array[part.clone()]).collect();
            let parameters: Vec<&(dyn ToSql + Sync)> =
                slices.iter().map(|slice| slice as &(dyn ToSql + Sync)).collect();
            match self.client.query(statement, &parameters).await {
                Ok(rows) => rows.iter().for_each(|row| take(part.start + number(row), row)),
                Err(error) if Refusal::of(&error) != Refusal::Rows => return Err(error),
                Err(error) if part.len() == 1 => refused.push((part.start, in_words(&error))),
                Err(_) => parts.extend(halves(&part)),
            }
        }
        Ok(refused)
    }
}

fn halves(part: &Range<usize>) -> [Range<usize>; 2] {
    let middle = part.start + part.len() / 2;
    [part.start..middle, middle..part.end]
}

/// The place that a row of an answer is about. Postgres counts from 1.
fn number(row: &Row) -> usize {
    usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or_default()
}

fn by_column<'a>(keys: &[&'a Key]) -> Arrays<'a> {
    let columns = keys.first().map_or(0, |key| key.len());
    let column = |n: usize| keys.iter().map(|key| key.get(n).map(String::as_str)).collect();
    (0..columns).map(column).collect()
}

fn parameters<'a>(arrays: &'a Arrays<'_>) -> Vec<&'a (dyn ToSql + Sync)> {
    arrays.iter().map(|array| array as &(dyn ToSql + Sync)).collect()
}
