//! Findings about what `strangler install` left: is it there, and is it about the plan as it is now?

use super::sight::DatabaseSeen;
use crate::code::Code;
use crate::finding::Finding;
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
    // Which columns are published matters to a copy, which checks it.
    let known = |mut facts: Value| {
        let _ = facts.as_object_mut().and_then(|facts| facts.remove("published"));
        facts
    };
    let wanted = known(sql::slice_facts(slice, &seen.database));
    let is_current = slices.is_some_and(|slices| slices.iter().any(|slice| known(slice.clone()) == wanted));
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
    // Its tables are put there when the slice is started.
    if seen.database == Database::Monolith && installed.published.is_none() {
        found.push(no_publication(plan, seen));
    }
}

pub(super) fn no_publication(plan: &Plan, seen: &DatabaseSeen) -> Finding {
    Finding::error(
        Code::InstallNoPublication,
        format!("{} has no publication {}", seen.database, sql::publication(&plan.name)),
        install_command(plan),
    )
}

fn install_command(plan: &Plan) -> String {
    format!("run `{}` with an administrator's URL for each", sql::install_command(plan))
}
