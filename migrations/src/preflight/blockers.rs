//! Findings about who keeps a gate from turning, and a slot from being made.

use super::run;
use super::sight::{BlockerSeen, DatabaseSeen, HolderSeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::names::quote_literal;

/// A transaction that writes for longer is likely to outlast a hold. Shorter ones come and go.
const SECONDS_MAX: u64 = 10;

/// Who holds locks on the slice's tables.
pub(super) fn judge(seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    for blocker in &seen.blockers {
        match &blocker.who {
            HolderSeen::Prepared { .. } => found.push(prepared(seen, blocker)),
            HolderSeen::Session { is_maintenance: true, .. } => found.push(maintenance(seen, blocker)),
            HolderSeen::Session { .. } if blocker.seconds >= SECONDS_MAX => {
                found.push(transaction(seen, blocker));
            }
            HolderSeen::Session { .. } => {}
        }
    }
}

fn prepared(seen: &DatabaseSeen, blocker: &BlockerSeen) -> Finding {
    Finding::error(
        Code::TableBusy,
        format!(
            "{} holds table {} in {}: its gate cannot turn",
            blocker.told(),
            blocker.table,
            seen.database
        ),
        run(&seen.database, &blocker.ending()),
    )
}

fn maintenance(seen: &DatabaseSeen, blocker: &BlockerSeen) -> Finding {
    let message =
        format!("{} on table {} in {}: its gate cannot turn", blocker.told(), blocker.table, seen.database);
    let hint = format!("let it end, or {}", run(&seen.database, &blocker.ending()));
    // A short one is over before the fence is tried, and the fence is tried several times.
    if blocker.seconds >= SECONDS_MAX {
        Finding::error(Code::TableBusy, message, hint)
    } else {
        Finding::warning(Code::TableBusy, message, hint)
    }
}

fn transaction(seen: &DatabaseSeen, blocker: &BlockerSeen) -> Finding {
    Finding::error(
        Code::TableBusy,
        format!(
            "{} has written table {} in {} and not committed: its gate cannot turn",
            blocker.told(),
            blocker.table,
            seen.database
        ),
        format!("let it end, or {}", run(&seen.database, &blocker.ending())),
    )
}

impl BlockerSeen {
    pub fn told(&self) -> String {
        let (pid, user, application, query) = match &self.who {
            HolderSeen::Prepared { gid } => return format!("prepared transaction {gid}"),
            HolderSeen::Session { pid, user, application, query, .. } => (pid, user, application, query),
        };
        let application = if application.is_empty() { "an unnamed application" } else { application };
        format!("{application} ({user}, process {pid}, for {} s: {query})", self.seconds)
    }

    /// The statement that ends it.
    pub fn ending(&self) -> String {
        match &self.who {
            HolderSeen::Prepared { gid } => {
                let gid = quote_literal(gid);
                format!("COMMIT PREPARED {gid}; or ROLLBACK PREPARED {gid};")
            }
            HolderSeen::Session { pid, is_maintenance: true, .. } => {
                format!("SELECT pg_cancel_backend({pid});")
            }
            HolderSeen::Session { pid, .. } => format!("SELECT pg_terminate_backend({pid});"),
        }
    }
}

/// The slot of the way back is made during the preparation, and waits for every transaction of the service's server.
pub(super) fn slot(service: &DatabaseSeen, found: &mut Vec<Finding>) {
    for one in &service.prepared {
        let gid = quote_literal(&one.gid);
        found.push(Finding::error(
            Code::SourcePreparedTransaction,
            format!(
                "prepared transaction {} of database {} is open: the slot of the way back waits for it",
                one.gid, one.database
            ),
            format!(
                "run in database {} of the server of {}: COMMIT PREPARED {gid}; or ROLLBACK PREPARED {gid};",
                one.database, service.database
            ),
        ));
    }
    for open in &service.long_transactions {
        found.push(Finding::warning(
            Code::SourceLongTransaction,
            format!(
                "{} ({}, process {}) has a transaction open for {} s on the server of {}: the slot of the way back waits for \
                 it if it has written",
                open.application, open.user, open.pid, open.seconds, service.database
            ),
            format!(
                "let it end, or {}",
                run(&service.database, &format!("SELECT pg_terminate_backend({});", open.pid))
            ),
        ));
    }
}
