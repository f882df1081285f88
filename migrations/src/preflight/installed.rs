//! Findings about what `strangler install` left: is it there, and is it about the plan as it is now?

use super::sight::{DatabaseSeen, InstalledSeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::names::TableName;
use crate::plan::{Plan, Slice};
use crate::sql::{self, Database};
use serde_json::Value;

pub(super) fn judge(plan: &Plan, slice: &Slice, seen: &DatabaseSeen, found: &mut Vec<Finding>) {
    let Some(installed) = &seen.installed else {
        found.push(Finding::error(
            Code::InstallMissing,
            format!("{} has no schema strangler that role {} may use", seen.database, seen.role.name),
            install_command(plan),
        ));
        return;
    };
    if installed.plan != plan.name.as_str() {
        found.push(Finding::error(
            Code::InstallOtherPlan,
            format!("{} is installed for plan {}", seen.database, installed.plan),
            format!("run `strangler uninstall` with plan {} first, or use another database", installed.plan),
        ));
        return;
    }
    let slices = installed.facts.as_ref().and_then(|facts| facts.get("slices")).and_then(Value::as_array);
    let wanted = sql::slice_facts(slice, &seen.database);
    let is_current = slices.is_some_and(|slices| slices.contains(&wanted));
    let missing = sql::functions(slice, &seen.database)
        .into_iter()
        .find(|function| !installed.functions.contains(function));
    if !is_current {
        found.push(Finding::error(
            Code::InstallOutdated,
            format!("the installation in {} does not match slice {} of the plan", seen.database, slice.name),
            install_command(plan),
        ));
    } else if let Some(function) = missing {
        found.push(Finding::error(
            Code::InstallNoFunction,
            format!("role {} may not call strangler.\"{function}\" in {}", seen.role.name, seen.database),
            install_command(plan),
        ));
    }
    if seen.database == Database::Monolith {
        published(plan, slice, seen, installed, found);
    }
}

fn published(
    plan: &Plan,
    slice: &Slice,
    seen: &DatabaseSeen,
    installed: &InstalledSeen,
    found: &mut Vec<Finding>,
) {
    let name = sql::publication(&plan.name);
    let Some(tables) = &installed.published else {
        found.push(Finding::error(
            Code::InstallNoPublication,
            format!("{} has no publication {name}", seen.database),
            install_command(plan),
        ));
        return;
    };
    let left_out: Vec<&TableName> = slice
        .all_tables()
        .map(|table| &table.from)
        .filter(|table| seen.tables.contains_key(table) && !tables.contains(table))
        .collect();
    for table in left_out {
        found.push(Finding::error(
            Code::InstallNotPublished,
            format!("publication {name} does not hold table {table}"),
            format!("give the table a primary key if it has none, then {}", install_command(plan)),
        ));
    }
}

fn install_command(plan: &Plan) -> String {
    format!("run `{}` with an administrator's URL for each", sql::install_command(plan))
}
