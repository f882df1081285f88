//! What must be so before a slice's writes may move: each precondition, with what was found against it.

use super::sight::{DatabaseSeen, NumberedSeen, SharedSequenceSeen, Sight, TableSeen};
use super::{blockers, leftovers, references, room, run, tables, way_back, writers};
use crate::code::Code;
use crate::finding::Finding;
use crate::names::{TableName, quote_identifier, quote_literal};
use crate::plan::{Acceptance, Plan, Slice};
use serde::{Deserialize, Serialize};

/// Deadlines are written by the monolith's database and read by proxies. Beyond this a clock shortens a hold noticeably.
const CLOCK_AHEAD_MS_MAX: u64 = 1_000;

/// One thing that must be so before a cutover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Precondition {
    /// What is so if it is met, in words.
    pub says: String,
    /// What was found against it. A warning does not stop a cutover.
    pub findings: Vec<Finding>,
}

impl Precondition {
    pub fn is_met(&self) -> bool {
        !self.findings.iter().any(Finding::is_error)
    }
}

type Judge = fn(&Plan, &Slice, &DatabaseSeen, &DatabaseSeen, &mut Vec<Finding>);

/// The preconditions, in the order in which they are shown.
const PRECONDITIONS: [(&str, Judge); 10] = [
    ("the service's changes can come back", way_back::judge),
    ("no foreign key over the slice's border breaks", |_, slice, monolith, _, found| {
        references::across(slice, monolith, found);
    }),
    ("triggers are marked, and no rule rewrites what comes back", |_, slice, monolith, _, found| {
        triggers(slice, monolith, found);
        rules(slice, monolith, found);
    }),
    ("every other writer that was seen is marked", |_, slice, monolith, _, found| {
        if let Some(writers) = monolith.writers.get(slice.name.as_str()) {
            writers::judge(slice, writers, found);
        }
    }),
    ("no sequence numbers tables of both owners", |_, slice, monolith, _, found| {
        sequences(slice, monolith, found);
    }),
    (
        "no transaction, VACUUM or index build keeps the gates from turning",
        |_, _, monolith, service, found| {
            blockers::judge(monolith, found);
            blockers::judge(service, found);
            blockers::slot(service, found);
        },
    ),
    ("the proxies can hold the slice's writes", room::judge),
    ("nothing is left of an earlier attempt", leftovers::judge),
    ("no failover can lose the decision", |plan, _, monolith, _, found| failover(plan, monolith, found)),
    ("clocks agree", |_, _, monolith, _, found| clock(monolith, found)),
];

/// Every precondition of a slice's cutover. None where a database was not observed: the observer reports why.
pub fn preconditions(plan: &Plan, slice: &Slice, seen: &Sight) -> Vec<Precondition> {
    let (Some(monolith), Some(service)) = (&seen.source, &seen.sink) else { return Vec::new() };
    let judged = PRECONDITIONS.iter().map(|(says, judge)| {
        let mut findings = Vec::new();
        judge(plan, slice, monolith, service, &mut findings);
        findings.sort_by_key(|finding| finding.severity);
        Precondition { says: (*says).to_owned(), findings }
    });
    judged.collect()
}

/// The tables of the slice that move, as they were seen in the monolith's database.
fn moved<'a>(
    slice: &'a Slice,
    monolith: &'a DatabaseSeen,
) -> impl Iterator<Item = (&'a TableName, &'a TableSeen)> {
    let names = slice.tables.iter().map(|table| &table.from);
    names.filter_map(|name| Some((name, monolith.tables.get(name)?)))
}

/// After the cutover the monolith's tables are written by what comes back, and no longer by its application.
fn triggers(slice: &Slice, monolith: &DatabaseSeen, found: &mut Vec<Finding>) {
    for (name, table) in moved(slice, monolith) {
        for trigger in table.triggers.iter().filter(|trigger| !slice.triggers.contains_key(&trigger.name)) {
            found.push(Finding::error(
                Code::SourceUnmarkedTrigger,
                format!(
                    "trigger {} of the monolith's table {name} would fire for each row that comes back from the service",
                    trigger.name
                ),
                format!(
                    "write under slice {} of the plan `triggers: {{ {}: skip }}`, or `fire` if it shall, then run \
                     `strangler install`; what it does for the application must be done by the service from then on",
                    slice.name, trigger.name
                ),
            ));
        }
    }
}

fn rules(slice: &Slice, monolith: &DatabaseSeen, found: &mut Vec<Finding>) {
    moved(slice, monolith).for_each(|(name, table)| tables::rules(name, table, monolith, found));
}

fn sequences(slice: &Slice, monolith: &DatabaseSeen, found: &mut Vec<Finding>) {
    let moves = |numbered: &NumberedSeen| slice.tables.iter().any(|table| table.from == numbered.table);
    for shared in
        monolith.shared_sequences.iter().filter(|shared| moves(&shared.one) && !moves(&shared.other))
    {
        let SharedSequenceSeen { sequence, one, other } = shared;
        // The sequence of an identity belongs to its column for good.
        let renumbered = if one.is_identity { other } else { one };
        let hint = format!(
            "if the two tables may have the same numbers, {}\nthen run `strangler install`",
            run(&monolith.database, &own_sequence(sequence, renumbered))
        );
        found.push(Finding::error(
            Code::SourceSharedSequence,
            format!(
                "sequence {sequence} numbers {} and also {}, which stays: both sides would give out the same numbers",
                one.table, other.table
            ),
            hint,
        ));
    }
}

/// Gives a column a sequence of its own, which goes on after the shared one.
fn own_sequence(shared: &str, numbered: &NumberedSeen) -> String {
    let own = TableName {
        schema: numbered.table.schema.clone(),
        name: format!("{}_{}_own_seq", numbered.table.name, numbered.column),
    };
    let (table, column, own) = (numbered.table.quoted(), quote_identifier(&numbered.column), own.quoted());
    let (owner, literal) = (quote_identifier(&numbered.owner), quote_literal(&own));
    format!(
        "CREATE SEQUENCE {own}; ALTER SEQUENCE {own} OWNER TO {owner}; ALTER SEQUENCE {own} OWNED BY {table}.{column}; SELECT \
         setval({literal}, (SELECT last_value + 1000 FROM {shared})); ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT \
         nextval({literal});"
    )
}

fn failover(plan: &Plan, monolith: &DatabaseSeen, found: &mut Vec<Finding>) {
    let standbys = &monolith.server.standbys;
    if standbys.iter().any(|standby| !standby.is_asynchronous) {
        return;
    }
    let Some(standby) = standbys.first() else { return };
    let message = format!(
        "replica {} of the monolith's server is asynchronous: a failover to it can lose the decision of a cutover",
        standby.application
    );
    let hint = format!(
        "run as a superuser: ALTER SYSTEM SET synchronous_standby_names = {};\nthen: SELECT pg_reload_conf();\nor accept that in the \
         plan: `accept: [async-failover]`",
        quote_literal(&quote_identifier(&standby.application))
    );
    if plan.accept.contains(&Acceptance::AsyncFailover) {
        found.push(Finding::warning(
            Code::ServerAsyncStandby,
            message,
            "the plan accepts it; after a failover run `strangler reconcile`",
        ));
    } else {
        found.push(Finding::error(Code::ServerAsyncStandby, message, hint));
    }
}

fn clock(monolith: &DatabaseSeen, found: &mut Vec<Finding>) {
    if monolith.clock_ahead_ms.unsigned_abs() <= CLOCK_AHEAD_MS_MAX {
        return;
    }
    let ms = monolith.clock_ahead_ms.unsigned_abs();
    let way = if monolith.clock_ahead_ms > 0 { "ahead of" } else { "behind" };
    found.push(Finding::warning(
        Code::ClockSkew,
        format!(
            "the clock of this machine is {ms} ms {way} that of the monolith's server: proxies here would end a hold too {}",
            if monolith.clock_ahead_ms > 0 { "early" } else { "late" }
        ),
        "let NTP set the clocks of the database servers and of every machine with a proxy",
    ));
}
