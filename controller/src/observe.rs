//! Looks at the live systems as strangler's role sees them, for `doctor`, before `sync start` and before a cutover.
//! `migrations::preflight` decides what the sight means.

mod gates;
mod pace;

use crate::access;
use crate::trial;
use futures_util::future::join_all;
use migrations::code::Code;
use migrations::finding::{Finding, Severity};
use migrations::names::{SliceName, TableName};
use migrations::plan::{Plan, Slice, Upstream};
use migrations::preflight::{
    self, DatabaseSeen, Diagnosis, InstalledSeen, Precondition, PreparedSeen, Readiness, RoleSeen,
    ServerSeen, SessionSeen, Sight, StandbySeen, TransactionSeen,
};
use migrations::problem::Diagnostic;
use migrations::sql::{self, Database};
use postgres::{catalog, clock, connect, in_words, locks, slot};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_postgres::{Client, Error};

/// One database is looked at for at most so long; a lock somewhere must not hold `doctor` up.
const LOOK_MAX: Duration = Duration::from_secs(20);
/// An upstream that is near takes a connection in far less.
const UPSTREAM_MAX: Duration = Duration::from_secs(2);

const SETTINGS: &str =
    "SET statement_timeout = '10s'; SET lock_timeout = '2s'; SET default_transaction_read_only = on";
const SERVER: &str = "
    SELECT current_database(), current_setting('server_version_num')::int, pg_is_in_recovery(),
           current_setting('wal_level'), current_setting('max_replication_slots')::int,
           current_setting('max_wal_senders')::int, (SELECT count(*)::int FROM pg_stat_replication),
           (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
           (SELECT array_to_string(ARRAY[d.datcollate::text, d.datctype::text]
                       || ARRAY[to_jsonb(d)->>'daticulocale', to_jsonb(d)->>'datlocale'], ' ')
              FROM pg_database d WHERE d.datname = current_database()),
           current_setting('server_encoding')";
const SYSTEM: &str = "SELECT system_identifier::text FROM pg_control_system()";
const ROLE: &str = "
    SELECT r.rolname::text, r.rolsuper, r.rolsuper OR r.rolreplication OR EXISTS (
               SELECT FROM pg_roles g WHERE g.rolname = 'rds_replication' AND pg_has_role(r.oid, g.oid, 'MEMBER')),
           has_database_privilege(current_database(), 'TEMPORARY')
      FROM pg_roles r WHERE r.rolname = session_user";
const OTHERS: &str = "
    SELECT pid, coalesce(application_name, '') FROM pg_stat_activity
     WHERE usename = session_user AND pid <> pg_backend_pid() AND datname = current_database()
       AND coalesce(application_name, '') NOT LIKE 'strangler%' ORDER BY pid LIMIT 5";
/// Whole servers that follow this one; a program that only keeps WAL is none.
const STANDBYS: &str = "
    SELECT coalesce(r.application_name, ''), coalesce(r.sync_state, 'async') = 'async' FROM pg_stat_replication r
     WHERE coalesce(r.state, '') <> 'backup' AND coalesce(r.application_name, '') <> 'pg_receivewal'
       AND NOT coalesce(r.application_name, '') LIKE 'strangler%'
       AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
     ORDER BY 2, 1 LIMIT 5";
const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
/// Of every database: the first copy's slot waits for all of them.
const PREPARED: &str = "SELECT gid, database::text FROM pg_prepared_xacts ORDER BY prepared LIMIT 5";
const LONG: &str = "
    SELECT pid, coalesce(usename::text, ''), coalesce(application_name, ''),
           extract(epoch FROM clock_timestamp() - xact_start)::bigint
      FROM pg_stat_activity
     WHERE xact_start < clock_timestamp() - interval '60 s' AND backend_type = 'client backend'
       AND pid <> pg_backend_pid() AND coalesce(application_name, '') NOT LIKE 'strangler%'
     ORDER BY xact_start LIMIT 5";
const MAY_READ: &str = "
    SELECT coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')), false)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'strangler' AND c.relname = 'installed'";
const FUNCTIONS: &str = "
    SELECT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname = 'strangler' AND has_function_privilege(p.oid, 'EXECUTE')";
const FILLED: &str = "SELECT slice, filled FROM strangler.stream WHERE direction = 'forward'";

/// How closely the live systems are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Before a wish is granted.
    Short,
    /// Also what takes seconds or stalls writers for a moment: how much is written, and whether the gates can be turned.
    Long,
}

/// Everything that is wrong or doubtful for one slice, or for the whole plan. A database that is down or refuses is a
/// finding, too.
pub async fn doctor(plan: &Plan, slice: Option<&SliceName>) -> Diagnosis {
    diagnose(plan, slice, Look::Long).await
}

/// As [`doctor`], but quick and without touching a gate.
pub(crate) async fn glance(plan: &Plan, slice: &SliceName) -> Diagnosis {
    diagnose(plan, Some(slice), Look::Short).await
}

async fn diagnose(plan: &Plan, slice: Option<&SliceName>, look: Look) -> Diagnosis {
    let slices: Vec<&Slice> =
        plan.slices.values().filter(|one| slice.is_none_or(|name| one.name == *name)).collect();
    let databases: Vec<Database> = Database::all(plan)
        .into_iter()
        .filter(|database| match database {
            Database::Monolith => true,
            Database::Service(service) => {
                slices.iter().any(|slice| slice.service == *service && !slice.is_stateless())
            }
        })
        .collect();
    let looking = join_all(databases.iter().map(|database| observe(plan, database, &slices, look)));
    let (mut following, looked) = tokio::join!(unreachable(plan, &slices), looking);
    let mut seen = BTreeMap::new();
    for (database, outcome) in databases.iter().zip(looked) {
        match outcome {
            Ok(sight) => drop(seen.insert(database.clone(), sight)),
            Err(finding) => following.push(*finding),
        }
    }
    if look == Look::Long
        && let Some(source) = seen.get(&Database::Monolith)
    {
        following.extend(preflight::old_rows(plan, slices.iter().copied(), source));
    }
    let mut cutover = BTreeMap::new();
    for slice in slices {
        let sight = Sight {
            source: seen.get(&Database::Monolith).cloned(),
            sink: seen.get(&Database::Service(slice.service.clone())).cloned(),
        };
        let mut judged = preflight::judge(plan, slice, &sight);
        if !judged.iter().any(Finding::is_error) {
            let (differ, tried): (Vec<_>, Vec<_>) = trial::run(plan, slice, &sight)
                .await
                .into_iter()
                .partition(|finding| finding.code == Code::PlanReverseDiffers);
            judged.extend(tried);
            cutover.extend(readiness(plan, slice, &sight, differ).map(|ready| (slice.name.clone(), ready)));
        }
        for finding in judged {
            // Slices that share a database share what is wrong with it.
            if !following.contains(&finding) {
                following.push(finding);
            }
        }
    }
    following.sort_by_key(|finding| finding.severity);
    if following.iter().any(Finding::is_error) {
        cutover.clear();
    }
    Diagnosis { following, cutover }
}

/// None of a slice that has no way back, or whose databases were not both seen. `differ` are rows that `reverse` does not
/// bring back.
fn readiness(plan: &Plan, slice: &Slice, seen: &Sight, differ: Vec<Finding>) -> Option<Readiness> {
    let source = seen.source.as_ref().filter(|_| slice.may_return() && seen.sink.is_some())?;
    let head = source.heads.get(slice.name.as_str());
    let mut preconditions = preflight::preconditions(plan, slice, seen);
    let says = "`reverse` brings back what `set` was made of".to_owned();
    preconditions.insert(1, Precondition { says, findings: differ });
    Some(Readiness { is_next: head.is_some_and(|head| head.stage == "following"), preconditions })
}

/// One database with the tables of these slices, or the finding that says why it cannot be seen.
pub(crate) async fn observe(
    plan: &Plan,
    database: &Database,
    slices: &[&Slice],
    how: Look,
) -> Result<DatabaseSeen, Box<Finding>> {
    let [no_url, unreachable, refuses] = match database {
        Database::Monolith => [Code::SourceNoUrl, Code::SourceUnreachable, Code::SourceRefuses],
        Database::Service(_) => [Code::SinkNoUrl, Code::SinkUnreachable, Code::SinkRefuses],
    };
    let Some(url) = database.url(plan) else {
        let hint = "write its URL under `database:` in the plan";
        return Err(Box::new(Finding::error(no_url, format!("the plan gives {database} no URL"), hint)));
    };
    let client = connect(url, "strangler doctor").await.map_err(|error| {
        let message = format!("{database} cannot be looked at: {error}");
        Box::new(Finding::error(unreachable, message, error.remedy()))
    })?;
    let refused = |why: String| {
        let message = format!("{database} at {} does not let us look: {why}", url.redacted());
        let hint = format!("run `{}`; if it was run, look at the server's log", sql::install_command(plan));
        Box::new(Finding::error(refuses, message, hint))
    };
    let tables: BTreeSet<TableName> = slices
        .iter()
        .filter(|slice| {
            *database == Database::Monolith || Database::Service(slice.service.clone()) == *database
        })
        .flat_map(|slice| slice.all_tables())
        .map(|table| if *database == Database::Monolith { table.from.clone() } else { table.to.clone() })
        .collect();
    let names: Vec<&SliceName> = slices.iter().map(|slice| &slice.name).collect();
    let looking = async {
        let mut seen = match look(plan, database, &client, &tables).await? {
            Ok(seen) => seen,
            Err(finding) => return Ok(Err(finding)),
        };
        let installed = seen.installed.as_ref();
        if let Some(has_notes) = installed.map(|installed| installed.functions.contains("watch_writers")) {
            gates::read(&client, &names, &mut seen, how).await?;
            for slice in slices.iter().filter(|slice| has_notes && !slice.tables.is_empty()) {
                let writers = access::known(&client, slice).await?;
                seen.writers.insert(slice.name.as_str().to_owned(), writers);
            }
        }
        if how == Look::Long && *database == Database::Monolith {
            seen.rows_written = pace::measure(&client, &tables).await?;
        }
        Ok(Ok(seen))
    };
    match tokio::time::timeout(LOOK_MAX, looking).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(error)) => Err(refused(in_words(&error))),
        Err(_) => Err(refused(format!("no answer within {} s", LOOK_MAX.as_secs()))),
    }
}

async fn look(
    plan: &Plan,
    database: &Database,
    client: &Client,
    tables: &BTreeSet<TableName>,
) -> Result<Result<DatabaseSeen, Box<Finding>>, Error> {
    client.batch_execute(SETTINGS).await?;
    let clock_ahead_ms = clock_ahead_ms(client).await?;
    let row = client.query_one(SERVER, &[]).await?;
    let standbys = client.query(STANDBYS, &[]).await?;
    let megabytes: Option<i64> = row.get(7);
    let server = ServerSeen {
        version: count(row.get(1)),
        encoding: row.get(9),
        is_standby: row.get(2),
        wal_level: row.get(3),
        slots_max: count(row.get(4)),
        wal_senders_max: count(row.get(5)),
        wal_senders: count(row.get(6)),
        slot_wal_bytes_max: megabytes.and_then(|size| u64::try_from(size).ok()).map(|size| size << 20),
        standbys: standbys
            .iter()
            .map(|row| StandbySeen { application: row.get(0), is_asynchronous: row.get(1) })
            .collect(),
    };
    // The catalogs of an older server have not what is asked of them from here on.
    if let Some(finding) = preflight::too_old(database, server.version) {
        return Ok(Err(Box::new(finding)));
    }
    let (name, collation): (String, String) = (row.get(0), row.get(8));
    // Some managed servers keep this from us; then two URLs of one database are told apart by nobody.
    let system_id = client.query_one(SYSTEM, &[]).await.ok().map(|row| row.get(0));
    let blockers = locks::blockers(client, tables).await?;
    let shared_sequences = catalog::shared_sequences(client, tables).await?;
    let (mut tables, foreign_keys) = catalog::tables(client, tables, *database != Database::Monolith).await?;
    for (name, table) in tables.iter_mut().filter(|_| *database == Database::Monolith) {
        table.large_objects = catalog::large_objects(client, name, table).await;
    }
    let long = client.query(LONG, &[]).await?;
    Ok(Ok(DatabaseSeen {
        database: database.clone(),
        name,
        collation,
        system_id,
        server,
        role: role(client).await?,
        installed: installed(plan, database, client).await?,
        tables,
        foreign_keys,
        slots: slot::list(client, "").await?,
        prepared: client
            .query(PREPARED, &[])
            .await?
            .iter()
            .map(|row| PreparedSeen { gid: row.get(0), database: row.get(1) })
            .collect(),
        long_transactions: long
            .iter()
            .map(|row| TransactionSeen {
                pid: row.get(0),
                user: row.get(1),
                application: row.get(2),
                seconds: u64::try_from(row.get::<_, i64>(3)).unwrap_or_default(),
            })
            .collect(),
        blockers,
        shared_sequences,
        gates: BTreeMap::new(),
        heads: BTreeMap::new(),
        writers: BTreeMap::new(),
        clock_ahead_ms,
        rows_written: BTreeMap::new(),
    }))
}

/// By the middle of the question's way there and back.
async fn clock_ahead_ms(client: &Client) -> Result<i64, Error> {
    let before = clock::now_us();
    let theirs: i64 = client.query_one(CLOCK, &[]).await?.get(0);
    let ours = before.midpoint(clock::now_us());
    Ok((ours - theirs) / 1000)
}

async fn role(client: &Client) -> Result<RoleSeen, Error> {
    let row = client.query_one(ROLE, &[]).await?;
    let others = client.query(OTHERS, &[]).await?;
    Ok(RoleSeen {
        name: row.get(0),
        is_superuser: row.get(1),
        may_replicate: row.get(2),
        may_make_temporary: row.get(3),
        other_sessions: others
            .iter()
            .map(|row| SessionSeen { pid: row.get(0), application: row.get(1) })
            .collect(),
    })
}

async fn installed(
    plan: &Plan,
    database: &Database,
    client: &Client,
) -> Result<Option<InstalledSeen>, Error> {
    if !client.query_one(MAY_READ, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let rows = client.query("SELECT part, plan, facts FROM strangler.installed ORDER BY part", &[]).await?;
    let ours = rows.iter().find(|row| row.get::<_, &str>(0) == database.as_str());
    let Some(any) = ours.or(rows.first()) else { return Ok(None) };
    let functions = client.query(FUNCTIONS, &[]).await?;
    let published = catalog::published(client, &sql::publication(&plan.name)).await?;
    let filled = match database {
        Database::Monolith => Vec::new(),
        // It stands there since the same script that made `installed`; a right taken back by hand shows elsewhere.
        Database::Service(_) => client.query(FILLED, &[]).await.unwrap_or_default(),
    };
    Ok(Some(InstalledSeen {
        plan: any.get(1),
        facts: ours.map(|row| row.get(2)),
        functions: functions.iter().map(|row| row.get(0)).collect(),
        published: published.map(|tables| tables.into_iter().map(|one| (one.table, one.columns)).collect()),
        filled: filled.iter().map(filled_by).collect(),
    }))
}

/// A slice and its sink tables that strangler filled. What cannot be read is not known to be ours.
fn filled_by(row: &tokio_postgres::Row) -> (String, BTreeSet<TableName>) {
    let filled = row.get::<_, Option<Value>>(1).unwrap_or_default();
    (row.get(0), serde_json::from_value(filled).unwrap_or_default())
}

/// Upstreams of the plan that take no connection from this machine. One without any address that does is an error.
pub async fn upstreams(plan: &Plan, slice: Option<&SliceName>) -> Vec<Finding> {
    let is_meant = |one: &&Slice| slice.is_none_or(|name| one.name == *name);
    let slices: Vec<&Slice> = plan.slices.values().filter(is_meant).collect();
    let mut found = unreachable(plan, &slices).await;
    let names = slices.iter().map(|slice| &slice.service).collect::<BTreeSet<_>>();
    let services = names.into_iter().filter_map(|name| plan.services.get(name)).map(|one| &one.upstreams);
    for addresses in std::iter::once(&plan.monolith.upstreams).chain(services) {
        let of_these =
            |finding: &Finding| addresses.iter().any(|one| finding.message.contains(&format!(" at {one}: ")));
        if found.iter().filter(|finding| of_these(finding)).count() >= addresses.len() {
            found
                .iter_mut()
                .filter(|finding| of_these(finding))
                .for_each(|one| one.severity = Severity::Error);
        }
    }
    found
}

/// Upstreams that take no connection now. It hinders no copy, so it is a warning.
async fn unreachable(plan: &Plan, slices: &[&Slice]) -> Vec<Finding> {
    let monolith = plan.monolith.upstreams.iter().map(|upstream| ("the monolith".to_owned(), upstream));
    let services: BTreeSet<_> = slices.iter().map(|slice| &slice.service).collect();
    let services = services.into_iter().filter_map(|name| Some((name, plan.services.get(name)?)));
    let services =
        services.flat_map(|(name, one)| one.upstreams.iter().map(move |u| (format!("service {name}"), u)));
    let asked: Vec<(String, &Upstream)> = monolith.chain(services).collect();
    let answers = join_all(asked.iter().map(|(_, upstream)| async {
        let connecting = TcpStream::connect((upstream.host.as_str(), upstream.port));
        match tokio::time::timeout(UPSTREAM_MAX, connecting).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", UPSTREAM_MAX.as_secs())),
        }
    }))
    .await;
    let failed = asked.iter().zip(answers).filter_map(|((who, upstream), why)| {
        let message = format!("{who} takes no connection at {upstream}: {}", why?);
        Some(Finding::warning(
            Code::UpstreamUnreachable,
            message,
            "start it, or correct its `upstream` in the plan",
        ))
    });
    failed.collect()
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or_default()
}
