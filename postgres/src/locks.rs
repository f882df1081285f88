//! Who holds locks on tables that keep their triggers from being switched.

use crate::catalog::apart;
use migrations::names::TableName;
use migrations::preflight::{BlockerSeen, HolderSeen};
use std::collections::BTreeSet;
use tokio_postgres::{Client, Error, Row};

/// Readers are in nobody's way (PostgreSQL manual, table-level lock modes: `ALTER TABLE … ENABLE TRIGGER` takes SHARE ROW
/// EXCLUSIVE). A prepared transaction has no process; it is found by the lock on its own number. An index that is built
/// concurrently begins transactions anew, so its statement's age counts.
const BLOCKERS: &str = r"
    WITH roots AS (
        SELECT n.nspname, c.relname, c.oid FROM unnest($1::text[], $2::text[]) AS t (schema, name)
          JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name),
    tree AS (SELECT * FROM roots UNION SELECT r.nspname, r.relname, p.relid FROM roots r, pg_partition_tree(r.oid) p)
    SELECT DISTINCT ON (l.pid, p.gid) t.nspname::text, t.relname::text, l.pid, coalesce(a.usename::text, ''),
           CASE a.backend_type WHEN 'autovacuum worker' THEN a.backend_type ELSE coalesce(a.application_name, '') END,
           left(regexp_replace(coalesce(a.query, ''), '\s+', ' ', 'g'), 100),
           coalesce(a.backend_type = 'autovacuum worker'
                    OR a.query ~* '^\s*(vacuum|analyze|reindex|cluster|create\s+(unique\s+)?index)', false),
           coalesce(extract(epoch FROM clock_timestamp() - least(
               a.xact_start, CASE a.state WHEN 'active' THEN a.query_start END)), 0)::bigint,
           p.gid
      FROM tree t JOIN pg_locks l ON l.locktype = 'relation' AND l.relation = t.oid AND l.granted
      JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
      LEFT JOIN pg_stat_activity a ON a.pid = l.pid
      LEFT JOIN pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
           AND x.virtualtransaction = l.virtualtransaction
      LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
     WHERE l.mode <> ALL ($3) AND l.pid IS DISTINCT FROM pg_backend_pid()
       AND NOT (coalesce(a.application_name, '') LIKE 'strangler%' AND a.usename = session_user)
     ORDER BY l.pid, p.gid, t.nspname, t.relname LIMIT 20";

const OF_READERS: [&str; 2] = ["AccessShareLock", "RowShareLock"];
/// Those and others that no writer of rows waits for.
const OF_WRITERS: [&str; 4] =
    ["AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock"];

/// At most 20 of them, each once.
pub async fn blockers(client: &Client, tables: &BTreeSet<TableName>) -> Result<Vec<BlockerSeen>, Error> {
    holders(client, tables, &OF_READERS).await
}

/// Who keeps others from writing rows of these tables, or also from reading them; at most 20.
pub async fn closers(client: &Client, tables: &BTreeSet<TableName>) -> Result<Vec<BlockerSeen>, Error> {
    holders(client, tables, &OF_WRITERS).await
}

async fn holders(
    client: &Client,
    tables: &BTreeSet<TableName>,
    but: &[&str],
) -> Result<Vec<BlockerSeen>, Error> {
    let (schemas, names) = apart(tables);
    Ok(client.query(BLOCKERS, &[&schemas, &names, &but]).await?.iter().filter_map(blocker).collect())
}

fn blocker(row: &Row) -> Option<BlockerSeen> {
    let who = match (row.get(2), row.get(8)) {
        (Some(pid), _) => HolderSeen::Session {
            pid,
            user: row.get(3),
            application: row.get(4),
            query: row.get(5),
            is_maintenance: row.get(6),
        },
        (None, Some(gid)) => HolderSeen::Prepared { gid },
        // It has ended meanwhile.
        (None, None) => return None,
    };
    let table = TableName { schema: row.get(0), name: row.get(1) };
    Some(BlockerSeen { table, who, seconds: u64::try_from(row.get::<_, i64>(7)).unwrap_or_default() })
}
