//! Replication slots: listed, made, dropped.

use migrations::lsn::EndLsn;
use migrations::names::quote_literal;
use migrations::preflight::SlotSeen;
use tokio_postgres::{Client, Error};

const SLOTS: &str = "
    SELECT slot_name::text, coalesce(s.database = current_database(), false), temporary, active,
           coalesce(wal_status = 'lost', false), coalesce(confirmed_flush_lsn::text, '0/0'),
           CASE WHEN pg_is_in_recovery() THEN 0
                ELSE greatest(0, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0))::bigint END,
           -- Of another role's session only the process is shown.
           'process ' || active_pid || coalesce(' (' || nullif(a.application_name, '') || ')', '')
             || CASE WHEN a.client_addr IS NOT NULL THEN ' from ' || host(a.client_addr)
                     WHEN a.client_port = -1 THEN ' from the server''s own machine' ELSE '' END
      FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
     WHERE slot_name::text ~ $1 ORDER BY slot_name";

/// The server's slots whose names match this regular expression; all of them if it is empty.
pub async fn list(client: &Client, pattern: &str) -> Result<Vec<SlotSeen>, Error> {
    let rows = client.query(SLOTS, &[&pattern]).await?;
    let slots = rows.iter().map(|row| SlotSeen {
        name: row.get(0),
        is_of_this_database: row.get(1),
        is_temporary: row.get(2),
        is_active: row.get(3),
        is_lost: row.get(4),
        confirmed: row.get::<_, &str>(5).parse().unwrap_or_default(),
        kept_bytes: u64::try_from(row.get::<_, i64>(6)).unwrap_or_default(),
        reader: row.get(7),
    });
    Ok(slots.collect())
}

/// Makes a slot and returns its consistent point. Waits for every open transaction of the cluster.
pub async fn create(client: &Client, slot: &str) -> Result<EndLsn, Error> {
    let sql = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')";
    Ok(client.query_one(sql, &[&slot]).await?.get::<_, &str>(0).parse().unwrap_or_default())
}

/// Drops a slot if no session reads it.
pub async fn drop_idle(client: &Client, slot: &str) -> Result<(), Error> {
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active";
    client.execute(sql, &[&slot]).await.map(drop)
}

/// Ends the session that uses a slot: one that still makes it does not notice that we have gone.
pub async fn end_user(client: &Client, slot: &str) -> Result<(), Error> {
    let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
               WHERE slot_name = $1 AND active_pid IS NOT NULL";
    client.execute(sql, &[&slot]).await.map(drop)
}

/// The oldest open transaction that has written, for which a new slot waits, in words with how to end it. A prepared one has
/// no session.
pub async fn blocker(client: &Client) -> Result<Option<String>, Error> {
    // Of another user's session only these locks are shown to everyone.
    let sql = "SELECT coalesce(l.pid, 0), coalesce(p.owner::text, a.usename::text, ''), \
               coalesce(p.database::text, a.application_name, ''), coalesce(a.state, 'open'), \
               coalesce(extract(epoch FROM clock_timestamp() - coalesce(p.prepared, a.xact_start))::bigint, 0), p.gid \
               FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
               LEFT JOIN pg_prepared_xacts p ON p.transaction = l.transactionid \
               WHERE l.locktype = 'transactionid' AND l.granted AND l.mode = 'ExclusiveLock' \
               AND l.pid IS DISTINCT FROM pg_backend_pid() ORDER BY age(l.transactionid) DESC LIMIT 1";
    let row = client.query_opt(sql, &[]).await?;
    Ok(row.map(|row| {
        let (pid, user, place): (i32, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let (state, seconds): (&str, i64) = (row.get(3), row.get(4));
        match row.get::<_, Option<&str>>(5).map(quote_literal) {
            Some(gid) => format!(
                "prepared transaction {gid} of {user}, for {seconds} s (in database {place}: COMMIT PREPARED {gid}; or ROLLBACK \
                 PREPARED {gid};)"
            ),
            None => format!(
                "backend {pid} of {user} ({place}), {state} for {seconds} s (SELECT pg_terminate_backend({pid});)"
            ),
        }
    }))
}
