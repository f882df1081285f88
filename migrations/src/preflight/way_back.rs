//! Findings about the way back: what a cutover needs of the service as a source and of the monolith as a sink. Following
//! needs none of it.

use super::run;
use super::sight::DatabaseSeen;
use super::tables::SINK_RIGHTS;
use crate::code::Code;
use crate::finding::Finding;
use crate::names::{TableName, quote_identifier};
use crate::plan::{Plan, Slice};

pub(super) fn judge(
    plan: &Plan,
    slice: &Slice,
    monolith: &DatabaseSeen,
    service: &DatabaseSeen,
    found: &mut Vec<Finding>,
) {
    let mut hinders = |code, what: String, hint: String| found.push(Finding::error(code, what, hint));
    if service.server.wal_level != "logical" {
        let what = format!("the server of {} has wal_level {}", service.database, service.server.wal_level);
        hinders(Code::SourceWalLevel, what, super::server::LOGICAL.to_owned());
    }
    if !service.role.may_replicate {
        let what =
            format!("role {} may not open a replication session in {}", service.role.name, service.database);
        let statement = format!("ALTER ROLE {} REPLICATION;", quote_identifier(&service.role.name));
        hinders(Code::SourceNoReplicationRight, what, run(&service.database, &statement));
    }
    if service.installed.as_ref().is_some_and(|installed| installed.published.is_none()) {
        found.push(super::installed::no_publication(plan, service));
    }
    let mut hinders = |code, what: String, hint: String| found.push(Finding::error(code, what, hint));
    for table in &slice.tables {
        let missing = |name: &TableName| {
            let rights = &monolith.tables.get(name)?.rights;
            let missing: Vec<&str> =
                SINK_RIGHTS.into_iter().filter(|right| !rights.contains(*right)).collect();
            (!missing.is_empty()).then(|| missing.join(", "))
        };
        if let Some(missing) = missing(&table.from) {
            let role = &monolith.role.name;
            let grant =
                format!("GRANT {missing} ON TABLE {} TO {};", table.from.quoted(), quote_identifier(role));
            hinders(
                Code::TableNoRight,
                format!("role {role} lacks {missing} on table {} in {}", table.from, monolith.database),
                run(&monolith.database, &grant),
            );
        }
    }
}
