//! Who reads and writes tables: what the triggers noted, `pg_stat_statements`, and the sessions of this moment.

use crate::catalog::apart;
use migrations::access::{AccessSeen, Evidence};
use migrations::names::{SliceName, TableName, quote_identifier};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_postgres::{Client, Error, Row};

/// Whether rows are read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Reads,
    Writes,
}

const WATCHED: &str = "SELECT EXISTS (SELECT FROM strangler.writer_watch WHERE slice = $1)";
const NOTED: &str = "
    SELECT role, application, on_table, (array_agg(query ORDER BY seconds DESC))[1], max(seconds),
           greatest(0, extract(epoch FROM clock_timestamp() - max(last)))::bigint
      FROM strangler.writer WHERE slice = $1 GROUP BY 1, 2, 3 ORDER BY 5 DESC, 1, 2, 3 LIMIT 100";

const EXTENSION: &str = "
    SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'pg_stat_statements'";

/// A lock says what a session did in its transaction. The statement is the session's last, and may be another one.
const SESSIONS: &str = r"
    WITH roots AS (
        SELECT n.nspname, c.relname, c.oid FROM unnest($1::text[], $2::text[]) AS t (schema, name)
          JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name),
    tree AS (SELECT * FROM roots UNION SELECT r.nspname, r.relname, p.relid FROM roots r, pg_partition_tree(r.oid) p)
    SELECT DISTINCT coalesce(a.usename::text, ''), coalesce(a.application_name, ''), t.nspname || '.' || t.relname,
           left(regexp_replace(coalesce(a.query, ''), '\s+', ' ', 'g'), 160)
      FROM tree t JOIN pg_locks l ON l.locktype = 'relation' AND l.relation = t.oid AND l.granted AND l.mode = $3
      JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
      JOIN pg_stat_activity a ON a.pid = l.pid AND a.backend_type = 'client backend'
     WHERE l.pid <> pg_backend_pid() AND a.usename IS DISTINCT FROM session_user LIMIT 100";

/// What the triggers noted of a slice's writers; and whether they were ever switched on.
pub async fn noted(client: &Client, slice: &SliceName) -> Result<(Vec<AccessSeen>, bool), Error> {
    let was_watched = client.query_one(WATCHED, &[&slice.as_str()]).await?.get(0);
    let rows = client.query(NOTED, &[&slice.as_str()]).await?;
    let seen = rows.iter().map(|row| AccessSeen {
        role: row.get(0),
        application: Some(row.get(1)),
        table: row.get(2),
        query: row.get(3),
        times: count(row, 4),
        seconds_ago: Some(count(row, 5)),
        by: Evidence::Trigger,
    });
    Ok((seen.collect(), was_watched))
}

/// Forgets what was noted.
pub async fn forget(client: &Client, slice: &SliceName) -> Result<(), Error> {
    client.execute("DELETE FROM strangler.writer WHERE slice = $1", &[&slice.as_str()]).await.map(drop)
}

/// What `pg_stat_statements` has of these tables; none where it cannot be read.
pub async fn statements(
    client: &Client,
    tables: &BTreeSet<TableName>,
    how: How,
) -> Result<Option<Vec<AccessSeen>>, Error> {
    let Some(row) = client.query_opt(EXTENSION, &[]).await? else { return Ok(None) };
    let schema = quote_identifier(row.get(0));
    let sql = format!(
        "SELECT r.rolname::text, left(regexp_replace(s.query, '\\s+', ' ', 'g'), 160), sum(s.calls)::bigint
           FROM {schema}.pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
          WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND r.rolname <> session_user
            AND s.query ~* $1 GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 100"
    );
    let mut seen = Vec::new();
    for table in tables {
        let rows = match client.query(&sql, &[&pattern(table, how)]).await {
            Ok(rows) => rows,
            // The extension was made, and the server does not load it.
            Err(error) if error.as_db_error().is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        seen.extend(rows.iter().map(|row| AccessSeen {
            role: row.get(0),
            application: None,
            table: table.to_string(),
            query: row.get(1),
            times: count(row, 2),
            seconds_ago: None,
            by: Evidence::Statements,
        }));
    }
    Ok(Some(seen))
}

/// The sessions that have one of these tables locked now as readers or writers do.
pub async fn sessions(
    client: &Client,
    tables: &BTreeSet<TableName>,
    how: How,
) -> Result<Vec<AccessSeen>, Error> {
    let (schemas, names) = apart(tables);
    let mode = match how {
        How::Reads => "AccessShareLock",
        How::Writes => "RowExclusiveLock",
    };
    let rows = client.query(SESSIONS, &[&schemas, &names, &mode]).await?;
    let seen = rows.iter().map(|row| AccessSeen {
        role: row.get(0),
        application: Some(row.get(1)),
        table: row.get(2),
        query: row.get(3),
        times: 1,
        seconds_ago: Some(0),
        by: Evidence::Session,
    });
    Ok(seen.collect())
}

/// Switches the triggers on that note a slice's writers, for this time. Returns until when, for [`unwatch`].
pub async fn watch(client: &Client, slice: &SliceName, time: Duration) -> Result<String, Error> {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let until = "SELECT (clock_timestamp() + $1::bigint * interval '1 ms')::text";
    let until: String = client.query_one(until, &[&ms]).await?.get(0);
    let sql = "SELECT strangler.watch_writers($1, $2::text::timestamptz)";
    client.execute(sql, &[&slice.as_str(), &until]).await?;
    Ok(until)
}

/// Switches them off, unless somebody else watches for longer.
pub async fn unwatch(client: &Client, slice: &SliceName, until: &str) -> Result<(), Error> {
    let sql = "SELECT strangler.unwatch_writers($1, $2::text::timestamptz)";
    client.execute(sql, &[&slice.as_str(), &until]).await.map(drop)
}

/// Switches off what was to last until a time that is over, because whoever asked for it is gone.
pub async fn end_what_is_over(client: &Client, slice: &SliceName) -> Result<(), Error> {
    let sql =
        "SELECT until::text FROM strangler.writer_watch WHERE slice = $1 AND until <= clock_timestamp()";
    match client.query_opt(sql, &[&slice.as_str()]).await? {
        Some(row) => unwatch(client, slice, row.get(0)).await,
        None => Ok(()),
    }
}

/// A regular expression of Postgres for statements that read or write a table by its name. A name that a search path or a view
/// hides is not recognised.
fn pattern(table: &TableName, how: How) -> String {
    let name = |name: &str| {
        let escaped: String = name
            .chars()
            .flat_map(|c| if c.is_alphanumeric() || c == '_' { vec![c] } else { vec!['\\', c] })
            .collect();
        format!("\"?{escaped}\"?")
    };
    let table = format!(r"(only\s+)?({}\.)?{}", name(&table.schema), name(&table.name));
    let (verb, way) = match how {
        How::Writes => {
            (r"(insert\s+into|update|delete\s+from|truncate|truncate\s+table|merge\s+into)", "from")
        }
        How::Reads => (r"((?<!delete\s)from|join)", "to"),
    };
    // COPY reads or writes by the word behind its columns.
    format!(r"\m({verb}\s+{table}(\W|$)|copy\s+{table}\s*(\([^)]*\)\s*)?{way}\M)")
}

fn count(row: &Row, index: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(index)).unwrap_or_default()
}
