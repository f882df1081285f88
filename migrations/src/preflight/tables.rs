//! Findings about each table by itself: is it there, can its changes be read or written?

use super::run;
use super::sight::{DatabaseSeen, IdentitySeen, KindSeen, TableSeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::names::{TableName, quote_identifier};
use crate::plan::Slice;
use crate::sql::Database;

/// What strangler must be allowed to do with a sink's table.
pub(super) const SINK_RIGHTS: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];

pub(super) fn judge(slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let is_source = seen.database == Database::Monolith;
    for table in slice.all_tables() {
        let name = if is_source { &table.from } else { &table.to };
        let Some(table) = seen.tables.get(name) else {
            found.push(Finding::error(
                if is_source { Code::SourceNoTable } else { Code::SinkNoTable },
                format!("{} has no table {name}", seen.database),
                format!("create it, or correct the table's name under slice {} of the plan", slice.name),
            ));
            continue;
        };
        shape(name, table, seen, found);
        if is_source && table.kind == KindSeen::Partitioned {
            found.push(partitioned(slice, name));
        }
        rights(name, table, seen, found);
        if is_source {
            source_key(name, table, seen, found);
        } else {
            sink_rows(slice, name, table, seen, found);
            sink_triggers(slice, name, table, found);
            rules(name, table, seen, found);
        }
    }
}

fn shape(name: &TableName, table: &TableSeen, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    if table.kind == KindSeen::Other {
        found.push(Finding::error(
            Code::TableKind,
            format!("{name} in {} is a view or a foreign table", seen.database),
            "name the table behind it in the plan",
        ));
    }
    if table.is_unlogged {
        found.push(Finding::error(
            Code::TableUnlogged,
            format!(
                "table {name} in {} is unlogged: its changes are not in the stream and do not survive a crash",
                seen.database
            ),
            run(&seen.database, &format!("ALTER TABLE {} SET LOGGED;", name.quoted())),
        ));
    }
    if table.has_children {
        found.push(Finding::error(
            Code::TableInherited,
            format!(
                "other tables inherit from {name} in {}: their rows show in it and cannot be told apart",
                seen.database
            ),
            format!(
                "make {name} a partitioned table, or name each child table in the plan and remove the inheritance"
            ),
        ));
    }
    if let Some(parent) = &table.partition_of {
        found.push(Finding::error(
            Code::TablePartition,
            format!(
                "table {name} in {} is a partition of {parent}: writes through {parent} pass its gate",
                seen.database
            ),
            format!("name {parent} in the plan instead"),
        ));
    }
    if table.has_row_security {
        let role = quote_identifier(&seen.role.name);
        found.push(Finding::error(
            Code::TableRowSecurity,
            format!(
                "row-level security of table {name} in {} hides rows from role {}",
                seen.database, seen.role.name
            ),
            run(&seen.database, &format!("ALTER ROLE {role} BYPASSRLS;")),
        ));
    }
}

/// Not one of these is in a stream that shows the partitioned table instead of its partitions.
fn partitioned(slice: &Slice, name: &TableName) -> Finding {
    Finding::warning(
        Code::SourcePartitioned,
        format!(
            "table {name} is partitioned: ATTACH, DETACH, DROP and TRUNCATE of a partition bring or take rows without a change in the stream"
        ),
        format!(
            "empty a partition with DELETE before it goes, and attach only empty ones, or copy again: `strangler sync drop {0}`, `strangler sync start {0}`",
            slice.name
        ),
    )
}

fn rights(name: &TableName, table: &TableSeen, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let role = quote_identifier(&seen.role.name);
    if !table.may_use_schema {
        let schema = quote_identifier(&name.schema);
        found.push(Finding::error(
            Code::TableNoSchemaRight,
            format!("role {} may not use schema {} in {}", seen.role.name, name.schema, seen.database),
            run(&seen.database, &format!("GRANT USAGE ON SCHEMA {schema} TO {role};")),
        ));
    }
    let wanted: &[&str] = if seen.database == Database::Monolith { &["SELECT"] } else { &SINK_RIGHTS };
    let missing: Vec<&str> = wanted.iter().copied().filter(|right| !table.rights.contains(*right)).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        found.push(Finding::error(
            Code::TableNoRight,
            format!("role {} lacks {missing} on table {name} in {}", seen.role.name, seen.database),
            run(&seen.database, &format!("GRANT {missing} ON TABLE {} TO {role};", name.quoted())),
        ));
    }
}

fn source_key(name: &TableName, table: &TableSeen, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let quoted = name.quoted();
    if let Some(late) = &table.late_key {
        let columns: Vec<String> = late.columns.iter().map(|column| quote_identifier(column)).collect();
        found.push(Finding::error(
            Code::SourceLatePrimaryKey,
            format!(
                "the primary key of table {name} in {} is DEFERRABLE: by such a key the stream cannot tell rows apart, and \
                 once the table is published the application's own updates fail",
                seen.database
            ),
            run(
                &seen.database,
                &format!(
                    "ALTER TABLE {quoted} DROP CONSTRAINT {}, ADD PRIMARY KEY ({});",
                    quote_identifier(&late.name),
                    columns.join(", ")
                ),
            ),
        ));
        return;
    }
    if table.key.is_empty() {
        let statement = match (table.unique_indexes.first(), table.column("id")) {
            (Some(index), _) if table.kind != KindSeen::Partitioned => {
                format!("ALTER TABLE {quoted} ADD PRIMARY KEY USING INDEX {};", quote_identifier(&index.name))
            }
            // A partitioned table takes no index over (PostgreSQL manual, ALTER TABLE).
            (Some(index), _) => {
                let columns: Vec<String> =
                    index.columns.iter().map(|column| quote_identifier(column)).collect();
                format!("ALTER TABLE {quoted} ADD PRIMARY KEY ({});", columns.join(", "))
            }
            (None, Some(_)) => format!("ALTER TABLE {quoted} ADD PRIMARY KEY (\"id\");"),
            (None, None) => {
                format!("ALTER TABLE {quoted} ADD PRIMARY KEY (…the columns that tell its rows apart…);")
            }
        };
        found.push(Finding::error(
            Code::SourceNoPrimaryKey,
            format!("table {name} in {} has no primary key; its rows cannot be told apart", seen.database),
            run(&seen.database, &statement),
        ));
        return;
    }
    let wrong = match table.identity {
        IdentitySeen::Default | IdentitySeen::Full => return,
        IdentitySeen::Index => "tells changes by another index than the primary key",
        IdentitySeen::Nothing => "has replica identity NOTHING: once published, updates of it fail",
    };
    found.push(Finding::error(
        Code::SourceReplicaIdentity,
        format!("table {name} in {} {wrong}", seen.database),
        run(&seen.database, &format!("ALTER TABLE {quoted} REPLICA IDENTITY DEFAULT;")),
    ));
}

fn sink_rows(
    slice: &Slice,
    name: &TableName,
    table: &TableSeen,
    seen: &DatabaseSeen,
    found: &mut Vec<Finding>,
) {
    let filled = seen.installed.as_ref().and_then(|i| i.filled.get(slice.name.as_str()));
    let is_ours = filled.is_some_and(|filled| filled.contains(name));
    if table.is_empty == Some(false) && !is_ours {
        found.push(Finding::error(
            Code::SinkNotEmpty,
            format!("table {name} in {} contains rows that strangler did not copy", seen.database),
            format!("empty it, or let `strangler sync start {} --replace` empty it", slice.name),
        ));
    }
}

fn sink_triggers(slice: &Slice, name: &TableName, table: &TableSeen, found: &mut Vec<Finding>) {
    for trigger in table.triggers.iter().filter(|trigger| !slice.triggers.contains_key(&trigger.name)) {
        found.push(Finding::error(
            Code::SinkUnmarkedTrigger,
            format!("trigger {} of the service's table {name} would fire for each row that strangler copies", trigger.name),
            format!(
                "write under slice {} of the plan `triggers: {{ {}: skip }}`, or `fire` if it shall, then run `strangler install`",
                slice.name, trigger.name
            ),
        ));
    }
}

/// A rule makes another statement of a write. What arrives is not what was written then.
pub(super) fn rules(name: &TableName, table: &TableSeen, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    for rule in &table.rules {
        let statement = format!("DROP RULE {} ON {};", quote_identifier(rule), name.quoted());
        found.push(Finding::error(
            Code::TableRule,
            format!(
                "rule {rule} of table {name} in {} rewrites writes: what strangler applies would not arrive as it is",
                seen.database
            ),
            format!("put a trigger in its place, then {}", run(&seen.database, &statement)),
        ));
    }
}

pub(super) fn unknown_triggers(
    slice: &Slice,
    source: &DatabaseSeen,
    sink: &DatabaseSeen,
    found: &mut Vec<Finding>,
) {
    let has = |table: Option<&TableSeen>, name: &str| {
        table.is_some_and(|table| table.triggers.iter().any(|trigger| trigger.name == name))
    };
    let stands = |name: &str| {
        slice
            .all_tables()
            .any(|table| has(source.tables.get(&table.from), name) || has(sink.tables.get(&table.to), name))
    };
    // A trigger that was skipped is disabled while the gate is shut, and disabled ones are not observed.
    let is_followed = sink.installed.as_ref().is_some_and(|i| i.filled.contains_key(slice.name.as_str()));
    for name in slice.triggers.keys().filter(|name| !is_followed && !stands(name)) {
        found.push(Finding::warning(
            Code::SinkNoTrigger,
            format!("the plan marks trigger {name}, but no table of slice {} has one enabled", slice.name),
            "correct its name or take it out of the plan",
        ));
    }
}
