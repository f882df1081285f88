//! A change that the server cannot put into its stream: a row whose text is larger than a server sends. Nothing can be read
//! past it. The server says where it lies, but not of which table it is, so that is looked for.

use super::end::SessionEnd;
use super::source::{Source, SourceError};
use super::status::Order;
use crate::log::Log;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::{TableName, quote_identifier};
use migrations::sql;
use postgres::in_words;
use postgres::replication::frame::ServerError;
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// A server allocates no more for one text, in bytes. (PostgreSQL source, `MaxAllocSize`.)
const TEXT_MAX: i64 = 0x3fff_ffff;

/// A table is searched for so long.
const PATIENCE: &str = "SET statement_timeout = '60s'";

/// The columns whose values can be that large, with what their text takes: its length stands in a value's header. Of other
/// types only what is stored is known, which is less.
const WIDE: &str = "SELECT a.attname::text, CASE t.typname \
    WHEN 'bytea' THEN 'octet_length(%s)::bigint * 2 + 2' \
    WHEN 'text' THEN 'octet_length(%s)::bigint' WHEN 'varchar' THEN 'octet_length(%s)::bigint' \
    WHEN 'bpchar' THEN 'octet_length(%s)::bigint' ELSE 'pg_column_size(%s)::bigint' END \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attlen = -1 \
    AND a.attstorage <> 'p' AND a.attgenerated = '' ORDER BY a.attnum";

/// What was found for a place of the stream. It is looked for once.
#[derive(Debug, Default)]
pub(crate) struct Search {
    last: Option<(ServerError, Finding)>,
}

/// The largest row of a table, in bytes of text, and its largest value.
#[derive(Debug)]
struct Largest {
    table: TableName,
    column: String,
    row: i64,
    value: i64,
}

impl Search {
    /// How a session for this order ended, with what is wrong where the server cannot send a change.
    pub(crate) async fn explained(
        &mut self,
        source: &Source,
        log: &Log,
        order: &Order,
        ended: Result<(), SessionEnd>,
    ) -> Result<(), SessionEnd> {
        let Err(SessionEnd::Unsendable(why)) = ended else { return ended };
        let slot = sql::slot(&source.plan, &log.id().0);
        let finding = self.explain(source, &slot, &order.tables, *why).await;
        Err(SessionEnd::Stop(Box::new(finding)))
    }

    /// What is wrong, with the table that it most likely is.
    async fn explain(
        &mut self,
        source: &Source,
        slot: &str,
        tables: &BTreeSet<TableName>,
        error: ServerError,
    ) -> Finding {
        if let Some((_, finding)) = self.last.as_ref().filter(|(last, _)| *last == error) {
            return finding.clone();
        }
        let found = largest(source, tables).await;
        let finding = finding(slot, tables, &error, found);
        self.last = Some((error, finding.clone()));
        finding
    }
}

/// The table with the largest row, and those that could not be searched.
async fn largest(
    source: &Source,
    tables: &BTreeSet<TableName>,
) -> Result<(Option<Largest>, Vec<String>), SourceError> {
    let client = source.connect("strangler capture").await?;
    client.batch_execute(PATIENCE).await?;
    let (mut largest, mut unsearched): (Option<Largest>, _) = (None, Vec::new());
    for table in tables {
        match measure(&client, table).await {
            Ok(found) => {
                let found = found.filter(|found| largest.as_ref().is_none_or(|known| known.row < found.row));
                largest = found.or(largest);
            }
            Err(error) => unsearched.push(format!("{table} ({})", in_words(&error))),
        }
    }
    Ok((largest, unsearched))
}

async fn measure(client: &Client, table: &TableName) -> Result<Option<Largest>, tokio_postgres::Error> {
    let wide = client.query(WIDE, &[&table.quoted()]).await?;
    let columns: Vec<(String, String)> = wide
        .iter()
        .map(|row| {
            let (name, size): (String, &str) = (row.get(0), row.get(1));
            let size = size.replace("%s", &quote_identifier(&name));
            (name, format!("coalesce({size}, 0)"))
        })
        .collect();
    if columns.is_empty() {
        return Ok(None);
    }
    let sizes: Vec<&str> = columns.iter().map(|(_, size)| size.as_str()).collect();
    let sql = format!(
        "SELECT s.row, s.sizes FROM (SELECT {} AS row, ARRAY[{}] AS sizes FROM {}) s ORDER BY s.row DESC LIMIT 1",
        sizes.join(" + "),
        sizes.join(", "),
        table.quoted()
    );
    let Some(found) = client.query_opt(&sql, &[]).await? else { return Ok(None) };
    let sizes: Vec<i64> = found.get(1);
    let largest = columns.into_iter().zip(sizes).max_by_key(|(_, size)| *size);
    Ok(largest.map(|((column, _), value)| Largest { table: table.clone(), column, row: found.get(0), value }))
}

fn finding(
    slot: &str,
    tables: &BTreeSet<TableName>,
    error: &ServerError,
    found: Result<(Option<Largest>, Vec<String>), SourceError>,
) -> Finding {
    let place = error.context().map(|context| format!(" ({context})")).unwrap_or_default();
    let whose = match found {
        Err(why) => format!("which table it is of could not be looked for: {why}"),
        Ok((largest, unsearched)) => {
            let told = largest.map_or_else(|| of_one(tables), |largest| largest.told());
            match unsearched.is_empty() {
                true => told,
                false => format!("{told}; not searched: {}", unsearched.join(", ")),
            }
        }
    };
    Finding::error(
        Code::CaptureUnsendable,
        format!("the server cannot send a change: {error}{place}; {whose}"),
        format!(
            "make the value smaller, or give its slice up, `strangler sync drop`, and keep the column out of the plan with `drop`; \
             nothing can be read past the change itself: then `strangler down`, `SELECT pg_drop_replication_slot('{slot}')` in \
             the source's database, `strangler up --detach`, and every slice is copied again by itself"
        ),
    )
}

impl Largest {
    fn told(&self) -> String {
        let Largest { table, column, row, value } = self;
        if *row > TEXT_MAX {
            return format!(
                "table {table} has a row of {row} bytes of text, {value} of them in column {column}; a server sends up to \
                 {TEXT_MAX}"
            );
        }
        format!(
            "no row of the followed tables is so large any more; the largest one, of {row} bytes of text, is in table {table}, \
             {value} of them in column {column}"
        )
    }
}

fn of_one(tables: &BTreeSet<TableName>) -> String {
    let names: Vec<String> = tables.iter().map(TableName::to_string).collect();
    format!("it is of one of these tables: {}", names.join(", "))
}
