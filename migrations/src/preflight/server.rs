//! Findings about a server and the role by which we enter it.

use super::run;
use super::sight::{DatabaseSeen, PreparedSeen, ServerSeen, SlotSeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::names::{quote_identifier, quote_literal};
use crate::plan::Plan;
use crate::sql::{self, Database};

/// The first minor release of each major without a bug that loses changes: `ALTER PUBLICATION … ADD TABLE` beside
/// open transactions (release notes of 17.6, 16.10, 15.14, 14.19).
const MINORS: [(u32, u32); 4] = [(14, 19), (15, 14), (16, 10), (17, 6)];

const MAJOR_MIN: u32 = 14;

/// Capture's own slot, and one for a first copy while it runs. A WAL sender goes with each.
const SLOTS_NEEDED: u32 = 2;

/// How a server is made to write what logical replication needs.
pub(super) const LOGICAL: &str = "run as a superuser: ALTER SYSTEM SET wal_level = 'logical'; and restart the server (managed: set its parameter, e.g. rds.logical_replication = 1)";

pub(super) fn judge(plan: &Plan, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    version(seen, found);
    role(plan, seen, found);
    encoding(seen, found);
    if seen.server.is_standby {
        found.push(Finding::error(
            Code::ServerStandby,
            format!("{} is a replica: nothing can be written there", seen.database),
            "name the primary server in the plan's database URL",
        ));
    }
    if seen.database == Database::Monolith {
        replication(plan, seen, found);
        wal_kept(plan, &seen.server, found);
        synchronous(&seen.server, found);
        slots(plan, seen, found);
        blockers(seen, found);
    }
}

/// The finding about a server that is too old: what else there is to see of it, its catalogs do not know. `version` is
/// its `server_version_num`.
pub fn too_old(database: &Database, version: u32) -> Option<Finding> {
    let (major, minor) = (version / 10_000, version % 10_000);
    (major < MAJOR_MIN).then(|| {
        Finding::error(
            Code::ServerVersion,
            format!("{database} is Postgres {major}.{minor}; {MAJOR_MIN} is the oldest that works"),
            "upgrade the server",
        )
    })
}

/// Everything travels as UTF-8. A database without an encoding may hold bytes that are none.
fn encoding(seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let encoding = seen.server.encoding.as_str();
    let what = match (encoding, &seen.database) {
        ("SQL_ASCII", Database::Monolith) => {
            "it may hold text that is not UTF-8, and the first such text that is copied or followed stops its slice"
        }
        ("UTF8", _) | (_, Database::Monolith) => return,
        ("SQL_ASCII", Database::Service(_)) => {
            "it takes any byte, and its own rows may be no UTF-8 when they go back"
        }
        _ => "a character of the monolith's that it lacks stops the slice",
    };
    found.push(Finding::warning(
        Code::DatabaseEncoding,
        format!("{} has the encoding {encoding}: {what}", seen.database),
        "restore a dump of it into a database that is made with `ENCODING 'UTF8'`; a dump shows each text that is not UTF-8",
    ));
}

/// A commit is in the stream once it is on the primary's disk, and is seen at the primary once the replica has it, too
/// (PostgreSQL manual, 27.2.8).
fn synchronous(server: &ServerSeen, found: &mut Vec<Finding>) {
    let Some(standby) = server.standbys.iter().find(|standby| !standby.is_asynchronous) else { return };
    found.push(Finding::warning(
        Code::ServerSynchronousStandby,
        format!(
            "commits of the monolith wait for replica {}: meanwhile the service may show rows that the monolith does not show yet",
            standby.application
        ),
        "if no client may see that, leave the slice's reads at the monolith until its writes move",
    ));
}

fn version(seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let (major, minor) = (seen.server.version / 10_000, seen.server.version % 10_000);
    if let Some(finding) = too_old(&seen.database, seen.server.version) {
        found.push(finding);
    } else if let Some((_, wanted)) = MINORS.iter().find(|(m, wanted)| *m == major && minor < *wanted) {
        found.push(Finding::warning(
            Code::ServerMinorVersion,
            format!(
                "{} is Postgres {major}.{minor}, which can lose changes when tables are published",
                seen.database
            ),
            format!("update the server to {major}.{wanted} or later"),
        ));
    }
}

fn role(plan: &Plan, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let own = format!(
        "name a role of strangler's own in the plan's database URL, then run `{}`",
        sql::install_command(plan)
    );
    let name = quote_identifier(&seen.role.name);
    let owned: Vec<String> = seen
        .tables
        .iter()
        .filter(|(_, table)| table.owner == seen.role.name)
        .map(|(table, _)| table.to_string())
        .collect();
    if !owned.is_empty() {
        found.push(Finding::error(
            Code::RoleOwnsTables,
            format!(
                "role {} owns {} in {}: it is the application's, and the gate lets it pass",
                seen.role.name,
                owned.join(", "),
                seen.database
            ),
            own.clone(),
        ));
    }
    if seen.role.is_superuser {
        found.push(Finding::warning(
            Code::RoleSuperuser,
            format!("role {} is a superuser in {}; strangler needs far less", seen.role.name, seen.database),
            own,
        ));
    }
    if let Some(session) = seen.role.other_sessions.first() {
        let who =
            if session.application.is_empty() { "an unnamed application" } else { &session.application };
        found.push(Finding::warning(
            Code::RoleShared,
            format!(
                "{who} (process {}) is connected to {} as {}, and the gate lets it pass",
                session.pid, seen.database, seen.role.name
            ),
            "let every application connect by a role of its own",
        ));
    }
    if !seen.role.may_make_temporary && seen.database != Database::Monolith {
        let grant = format!("GRANT TEMPORARY ON DATABASE {} TO {name};", quote_identifier(&seen.name));
        found.push(Finding::error(
            Code::SinkNoTemporary,
            format!("role {} may not make temporary tables in {}", seen.role.name, seen.database),
            run(&seen.database, &grant),
        ));
    }
}

fn replication(plan: &Plan, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let server = &seen.server;
    if server.wal_level != "logical" {
        found.push(Finding::error(
            Code::SourceWalLevel,
            format!(
                "the monolith's server has wal_level {}; changes can be read only with logical",
                server.wal_level
            ),
            LOGICAL,
        ));
    }
    let has_slot = seen.slots.iter().any(|slot| is_ours(plan, slot));
    let needed = if has_slot { SLOTS_NEEDED - 1 } else { SLOTS_NEEDED };
    let used = u32::try_from(seen.slots.len()).unwrap_or(u32::MAX);
    if server.slots_max.saturating_sub(used) < needed {
        found.push(Finding::error(
            Code::SourceNoFreeSlot,
            format!(
                "{used} of the monolith's {} replication slots are taken, and {needed} more are needed",
                server.slots_max
            ),
            format!(
                "run as a superuser: ALTER SYSTEM SET max_replication_slots = {}; and restart the server",
                used + needed
            ),
        ));
    }
    if server.wal_senders_max.saturating_sub(server.wal_senders) < needed {
        found.push(Finding::error(
            Code::SourceNoFreeWalSender,
            format!(
                "{} of the monolith's {} WAL senders are taken, and {needed} more are needed",
                server.wal_senders, server.wal_senders_max
            ),
            format!(
                "run as a superuser: ALTER SYSTEM SET max_wal_senders = {}; and restart the server",
                server.wal_senders + needed
            ),
        ));
    }
    if !seen.role.may_replicate {
        let name = quote_identifier(&seen.role.name);
        found.push(Finding::error(
            Code::SourceNoReplicationRight,
            format!("role {} may not open a replication session", seen.role.name),
            run(&seen.database, &format!("ALTER ROLE {name} REPLICATION;")),
        ));
    }
}

fn wal_kept(plan: &Plan, server: &ServerSeen, found: &mut Vec<Finding>) {
    let wanted = plan.limits.wal_kept_bytes_max;
    let megabytes = wanted.saturating_mul(2) / (1024 * 1024);
    let hint = format!(
        "run as a superuser: ALTER SYSTEM SET max_slot_wal_keep_size = '{}MB';\nthen: SELECT pg_reload_conf();",
        megabytes.max(1)
    );
    match server.slot_wal_bytes_max {
        None => found.push(Finding::warning(
            Code::SourceWalUnlimited,
            "the monolith's server keeps WAL for a slot without a limit: a forgotten slot fills its disk",
            hint,
        )),
        Some(limit) if limit < wanted => found.push(Finding::warning(
            Code::SourceWalLimitLow,
            format!("the monolith's server gives a slot up at {limit} bytes of WAL, before the plan's limit of {wanted} bytes"),
            format!("lower `limits: max_wal_kept` in the plan, or {hint}"),
        )),
        Some(_) => {}
    }
}

/// Another plan of the same server, or the same plan for another database of it, has slots of its own.
fn is_ours(plan: &Plan, slot: &SlotSeen) -> bool {
    slot.is_of_this_database && sql::is_slot_of(&plan.name, &slot.name)
}

pub(super) fn slots(plan: &Plan, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    for slot in seen.slots.iter().filter(|slot| is_ours(plan, slot)) {
        let drop = format!("SELECT pg_drop_replication_slot({});", quote_literal(&slot.name));
        if slot.is_lost {
            found.push(Finding::warning(
                Code::SourceSlotLost,
                format!(
                    "the server has removed WAL that slot {} needs; the slices must be copied again",
                    slot.name
                ),
                run(&seen.database, &drop),
            ));
        } else if !slot.is_active {
            found.push(Finding::warning(
                Code::SourceSlotIdle,
                format!("slot {} has no reader and keeps {} bytes of WAL", slot.name, slot.kept_bytes),
                format!(
                    "start the bridge (`strangler up`); if it is gone for good, {}",
                    run(&seen.database, &drop)
                ),
            ));
        }
    }
}

fn blockers(seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    for PreparedSeen { gid, database } in &seen.prepared {
        let gid_literal = quote_literal(gid);
        found.push(Finding::warning(
            Code::SourcePreparedTransaction,
            format!("prepared transaction {gid} of database {database} is open; the first copy waits for it"),
            format!(
                "run in database {database} of the monolith's server: COMMIT PREPARED {gid_literal}; or ROLLBACK PREPARED {gid_literal};"
            ),
        ));
    }
    for open in &seen.long_transactions {
        found.push(Finding::warning(
            Code::SourceLongTransaction,
            format!(
                "{} ({}, process {}) has a transaction open for {} s; the first copy waits for it",
                open.application, open.user, open.pid, open.seconds
            ),
            format!(
                "let it end, or {}",
                run(&seen.database, &format!("SELECT pg_terminate_backend({});", open.pid))
            ),
        ));
    }
}
