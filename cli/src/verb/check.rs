//! `strangler check`: shows each finding in the plan with its line and what to write instead.

use crate::invocation::Invocation;
use migrations::problem::Problem;
use serde_json::json;

pub(crate) fn run(call: &Invocation<'_>) -> Result<(), Problem> {
    let (plan, warnings) = call.checked()?;
    call.ui.rendered(&warnings);
    let slices: Vec<_> = plan.slices.values().collect();
    let routes: usize = slices.iter().map(|slice| slice.routes.len()).sum();
    let tables: usize = slices.iter().map(|slice| slice.all_tables().count()).sum();
    call.ui.tick(&format!(
        "{}: plan `{}` is sound: {}, {}, {}",
        call.plan_file().display(),
        plan.name,
        counted(slices.len(), "slice"),
        counted(routes, "route"),
        counted(tables, "table"),
    ));
    let next = if plan.monolith.database.is_some() { "strangler doctor" } else { "strangler up --detach" };
    let names: Vec<_> = plan.slices.keys().map(|name| name.as_str()).collect();
    call.ui.json(&json!({
        "plan": plan.name.as_str(), "hash": plan.hash, "slices": names, "routes": routes, "tables": tables,
        "findings": warnings, "next_steps": [next],
    }));
    call.ui.next_steps(&[next.to_owned()]);
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
