//! A change that the server cannot put into its stream: a row whose text is larger than a server sends. Nothing can be read
//! past it. The server says where it lies, but not of which table it is, so that is looked for.

use super::end::SessionEnd;
use super::source::{Source, SourceError};
use super::status::Status;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::{TableName, quote_identifier};
use postgres::in_words;
use postgres::replication::frame::ServerError;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Client;

/// A server allocates no more for one text, in bytes. (PostgreSQL source, `MaxAllocSize`.)
const TEXT_MAX: i64 = 0x3fff_ffff;

/// The tables are searched for so long, all together.
const SEARCH_MAX: Duration = Duration::from_secs(60);
/// So a statement at the server ends, too, when nobody waits for it any more.
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

/// What is known of a place of the stream. Its table is looked for once.
#[derive(Debug, Default)]
pub(crate) struct Search {
    last: Option<Unsendable>,
}

#[derive(Debug)]
struct Unsendable {
    error: ServerError,
    slot: String,
    tables: BTreeSet<TableName>,
    finding: Finding,
    is_open: bool,
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
    /// How a session for these tables ended, with what is known by now where the server cannot send a change.
    pub(crate) fn explained(
        &mut self,
        slot: &str,
        tables: &BTreeSet<TableName>,
        ended: Result<(), SessionEnd>,
    ) -> Result<(), SessionEnd> {
        let Err(SessionEnd::Unsendable(error)) = ended else { return ended };
        if self.last.as_ref().is_none_or(|last| last.error != *error) {
            let finding = finding(slot, &error, "which table it is of is being looked for");
            let (slot, tables) = (slot.to_owned(), tables.clone());
            self.last = Some(Unsendable { error: *error, slot, tables, finding, is_open: true });
        }
        let known = self.last.as_ref().map(|last| last.finding.clone());
        Err(known.map_or(SessionEnd::Ended, |finding| SessionEnd::Stop(Box::new(finding))))
    }

    /// Looks for the table, if that was not done yet, and says so. May be given up at any time, and begun again.
    pub(crate) async fn go_on(&mut self, source: &Source, status: &watch::Sender<Status>) {
        let Some(last) = self.last.as_mut().filter(|last| last.is_open) else { return };
        let found = largest(source, &last.tables).await;
        let whose = match found {
            Err(why) => format!("which table it is of could not be looked for: {why}"),
            Ok((largest, unsearched)) => {
                let told = largest.map_or_else(|| of_one(&last.tables), |largest| largest.told());
                match unsearched.is_empty() {
                    true => told,
                    false => format!("{told}; not searched: {}", unsearched.join(", ")),
                }
            }
        };
        (last.finding, last.is_open) = (finding(&last.slot, &last.error, &whose), false);
        tracing::warn!("capture: {}", last.finding.message);
        status.send_modify(|status| status.finding = Some(last.finding.clone()));
    }
}

/// The table with the largest row, and those that could not be searched.
async fn largest(
    source: &Source,
    tables: &BTreeSet<TableName>,
) -> Result<(Option<Largest>, Vec<String>), SourceError> {
    let until = Instant::now() + SEARCH_MAX;
    let client = source.connect("strangler capture").await?;
    client.batch_execute(PATIENCE).await?;
    let (mut largest, mut unsearched): (Option<Largest>, _) = (None, Vec::new());
    for table in tables {
        match timeout_at(until, measure(&client, table)).await {
            Ok(Ok(found)) => {
                let found = found.filter(|found| largest.as_ref().is_none_or(|known| known.row < found.row));
                largest = found.or(largest);
            }
            Ok(Err(error)) => unsearched.push(format!("{table} ({})", in_words(&error))),
            Err(_) => unsearched.push(format!("{table} (it took too long)")),
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

fn finding(slot: &str, error: &ServerError, whose: &str) -> Finding {
    let place = error.context().map(|context| format!(" ({context})")).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_cannot_be_sent_is_told_before_its_table_is_found() {
        let (mut search, tables) = (Search::default(), ["public.blobs".parse().unwrap()].into());
        let mut told = |code: &str| {
            let mut error = ServerError::default();
            code.clone_into(&mut error.code);
            let ended = Err(SessionEnd::Unsendable(Box::new(error)));
            let told = search.explained("strangler_shop", &tables, ended).unwrap_err().finding();
            search.last.as_mut().unwrap().finding.message.push('!');
            told
        };
        let first = told("54000");
        assert_eq!(first.code, Code::CaptureUnsendable);
        assert!(first.message.ends_with("is being looked for") && first.remedy.contains("strangler_shop"));
        assert!(told("54000").message.ends_with("looked for!"), "what is known stays");
        assert!(told("53200").message.ends_with("looked for"), "another change is another search");
        assert!(matches!(search.explained("", &tables, Err(SessionEnd::Ended)), Err(SessionEnd::Ended)));
    }
}
