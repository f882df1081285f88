//! What a live database holds, as far as a first plan needs it: tables, their keys, and who points to whom.
//!
//! Reads the catalog of Postgres and nothing else; no row is looked at.

use crate::problem::Problem;
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

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
pub struct Survey {
    /// Every table, by name.
    pub tables: Vec<SurveyedTable>,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedTable {
    /// `schema.table`.
    pub name: String,
    /// The columns of its primary key; none where it has no key.
    pub key: Vec<String>,
    /// Rows, as the planner estimates.
    pub rows_estimated: u64,
    /// Tables that its foreign keys point to.
    pub points_to: Vec<String>,
}

impl Survey {
    /// The table of that name; one without a schema is looked for in `public`.
    pub fn table(&self, name: &str) -> Option<&SurveyedTable> {
        let full = if name.contains('.') { name.to_owned() } else { format!("public.{name}") };
        self.tables.iter().find(|table| table.name == full)
    }
}

/// Looks at the database behind `url`.
pub async fn survey(url: &str) -> Result<Survey, Problem> {
    let late = |_| {
        Problem::error(format!("the database does not answer within {} s", PATIENCE.as_secs()))
            .hint("is the host right, and does a firewall let us through?")
    };
    tokio::time::timeout(PATIENCE, ask(url)).await.map_err(late)?
}

async fn ask(url: &str) -> Result<Survey, Problem> {
    let client = connect(url).await?;
    let refused = |error: tokio_postgres::Error| {
        Problem::error(format!("the catalog cannot be read: {}", words(&error)))
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

async fn connect(url: &str) -> Result<Client, Problem> {
    // tokio-postgres does not know this mode; what it calls `require` is checked against public roots here as well.
    let parsed = url
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require")
        .parse();
    // The driver's own words are left out: they repeat what it did not understand, which may hold a password.
    let mut config: Config = parsed.map_err(|_: tokio_postgres::Error| {
        Problem::usage("this is not a database URL").hint("write postgres://user:password@host:5432/database")
    })?;
    config.application_name("strangler init").connect_timeout(PATIENCE);
    let refused = |error: tokio_postgres::Error| {
        Problem::error(format!("no connection to the database: {}", words(&error)))
            .because(&error)
            .hint("try the same URL with psql; is the server up, and does pg_hba.conf let this role in?")
    };
    if config.get_ssl_mode() == SslMode::Require {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls);
        let (client, connection) = config.connect(tls).await.map_err(refused)?;
        tokio::spawn(connection);
        return Ok(client);
    }
    let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
    tokio::spawn(connection);
    Ok(client)
}

/// The server's own words where there are some; the driver's otherwise. Neither holds the URL.
fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => server.message().to_owned(),
        None => std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string),
    }
}
