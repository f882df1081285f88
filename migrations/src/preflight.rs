//! Whether the live systems are ready for a slice: a sight of both databases goes in, every finding comes
//! out, each with the statement or command that mends it.
//!
//! Looks at nothing itself: who asks the databases fills a [`Sight`], so that every finding can be tested
//! without one.

mod blockers;
mod columns;
mod consumers;
mod cutover;
mod diagnosis;
mod installed;
mod leftovers;
mod references;
mod room;
mod secrets;
mod server;
mod sight;
mod tables;
mod way_back;
mod writers;

use crate::code::Code;
pub use consumers::old_rows;
pub use cutover::{Precondition, preconditions};
pub use diagnosis::{Aim, Diagnosis, Readiness};
pub use secrets::looks_secret;
pub use server::too_old;
pub use sight::{
    ActionSeen, BlockerSeen, ColumnSeen, DatabaseSeen, ForeignKeySeen, GateSeen, HeadSeen, HolderSeen,
    IdentitySeen, IndexSeen, InstalledSeen, KindSeen, NumberedSeen, PreparedSeen, RoleSeen, ServerSeen,
    SessionSeen, SharedSequenceSeen, Sight, SlotSeen, StandbySeen, TableSeen, TransactionSeen, TriggerSeen,
};

pub use writers::unmarked;

use crate::finding::Finding;
use crate::plan::{Plan, Slice};
use crate::sql::Database;

/// Everything that is wrong or doubtful for following a slice, errors first. A database that was not observed is
/// skipped: the observer reports why.
pub fn judge(plan: &Plan, slice: &Slice, seen: &Sight) -> Vec<Finding> {
    if slice.is_stateless() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for database in [&seen.source, &seen.sink].into_iter().flatten() {
        server::judge(plan, database, &mut found);
        installed::judge(plan, slice, database, &mut found);
        tables::judge(slice, database, &mut found);
        references::judge(slice, database, &mut found);
    }
    if let (Some(source), Some(sink)) = (&seen.source, &seen.sink) {
        if source.is_same_database(sink) {
            found.push(Finding::error(
                Code::SinkSameDatabase,
                format!("the monolith and service {} share database {}", slice.service, source.name),
                "give the service a database of its own; it may stand on the same server",
            ));
        }
        references::actions(slice, source, sink, &mut found);
        references::strict(slice, source, sink, &mut found);
        for table in slice.all_tables() {
            columns::judge(table, source, sink, &mut found);
            secrets::judge(table, source, &mut found);
        }
        tables::unknown_triggers(slice, source, sink, &mut found);
    }
    found.sort_by_key(|finding| finding.severity);
    found
}

/// How a hint names a statement and where it is to be run.
fn run(database: &Database, statement: &str) -> String {
    format!("run in {database}: {statement}")
}

#[cfg(test)]
mod tests;
