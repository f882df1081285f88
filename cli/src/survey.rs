//! What a live database holds, as far as a first plan needs it: tables, their keys, and who points to whom.
//!
//! Reads the catalog of Postgres and nothing else; no row is looked at.

use crate::problem::Problem;
use postgres::{ConnectError, connect_unplanned, in_words};
use std::time::Duration;

/// Connecting and asking, together.
const PATIENCE: Duration = Duration::from_secs(15);
/// More tables than this are not listed.
const TABLES_MAX: i64 = 5_000;

/// Ordinary and partitioned tables (leaves belong to their parent) with the columns of their primary key.
const TABLES: &str = "
    SELECT n.nspname::text, c.relname::text, greatest(c.reltuples, 0)::bigint,
           coalesce((SELECT array_agg(a.attname::text ORDER BY k.ordinal)
                       FROM pg_catalog.pg_index i
                      CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, ordinal)
                       JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                      WHERE i.indrelid = c.oid AND i.indisprimary), '{}')
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
       AND n.nspname NOT IN ('information_schema', 'strangler') AND n.nspname !~ '^pg_'
     ORDER BY 1, 2
     LIMIT $1";

/// Foreign keys between them, without the copies that partitions inherit.
const POINTERS: &str = "
    SELECT DISTINCT n.nspname::text, c.relname::text, tn.nspname::text, t.relname::text
      FROM pg_catalog.pg_constraint k
      JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_class t ON t.oid = k.confrelid
      JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid <> k.confrelid
     ORDER BY 1, 2, 3, 4";

/// A database as a first plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Every table, by name.
    pub(crate) tables: Vec<SurveyedTable>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SurveyedTable {
    /// `schema.table`.
    pub(crate) name: String,
    /// The columns of its primary key; none where it has no key.
    pub(crate) key: Vec<String>,
    /// Rows, as the planner estimates.
    pub(crate) rows_estimated: u64,
    /// Tables that its foreign keys point to.
    pub(crate) points_to: Vec<String>,
}

impl Survey {
    /// The table of that name; one without a schema is looked for in `public`.
    pub(crate) fn table(&self, name: &str) -> Option<&SurveyedTable> {
        let full = if name.contains('.') { name.to_owned() } else { format!("public.{name}") };
        self.tables.iter().find(|table| table.name == full)
    }
}

/// Looks at the database behind `url`.
pub(crate) async fn survey(url: &str) -> Result<Survey, Problem> {
    let late = |_| {
        Problem::error(format!("the database does not answer within {} s", PATIENCE.as_secs()))
            .hint("is the host right, and does a firewall let us through?")
    };
    tokio::time::timeout(PATIENCE, ask(url)).await.map_err(late)?
}

async fn ask(url: &str) -> Result<Survey, Problem> {
    let client = connect_unplanned(url, "the database", "strangler init").await.map_err(unreachable)?.client;
    let refused = |error: tokio_postgres::Error| {
        Problem::error(format!("the catalog cannot be read: {}", in_words(&error)))
            .because(&error)
            .hint("use a role that may connect to this database")
    };
    let pointers = client.query(POINTERS, &[]).await.map_err(refused)?;
    let pointers: Vec<(String, String)> =
        pointers.iter().map(|row| (full(row.get(0), row.get(1)), full(row.get(2), row.get(3)))).collect();
    let rows = client.query(TABLES, &[&TABLES_MAX]).await.map_err(refused)?;
    let tables = rows.iter().map(|row| {
        let name = full(row.get(0), row.get(1));
        let points_to = pointers.iter().filter(|(from, _)| *from == name).map(|(_, to)| to.clone()).collect();
        let rows_estimated = u64::try_from(row.get::<_, i64>(2)).unwrap_or(0);
        SurveyedTable { name, key: row.get(3), rows_estimated, points_to }
    });
    Ok(Survey { tables: tables.collect() })
}

fn full(schema: &str, name: &str) -> String {
    format!("{schema}.{name}")
}

fn unreachable(error: ConnectError) -> Problem {
    let hint = error.hint();
    match error {
        ConnectError::Url { why, .. } => {
            Problem::usage(format!("this is not a database URL: {why}")).hint(hint)
        }
        other => Problem::error(other.to_string()).hint(hint),
    }
}
