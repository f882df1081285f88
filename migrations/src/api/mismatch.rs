//! Where plan and journal no longer speak of the same: slices, routes and tables that came into the plan, or left it,
//! after something was decided about them.

use crate::code::Code;
use crate::control::derive;
use crate::finding::Finding;
use crate::journal::{SliceState, State};
use crate::names::{RouteName, SliceName};
use crate::plan::{Plan, Slice};
use crate::stage::Stage;

/// Every slice of the journal that the plan does not fit any more. One without a stream's orders and one whose requests
/// are where no copy is are errors.
pub fn mismatches(plan: &Plan, state: &State) -> Vec<Finding> {
    let finding = |(name, slice): (&SliceName, &SliceState)| match plan.slices.get(name) {
        None if slice.stage != Stage::Monolith => Some(forgotten(name, slice, "does not name it", "it")),
        None if slice.shares.is_empty() => None,
        None => Some(forgotten_routes(&named(name, slice, |_| true), &[name.to_string()])),
        Some(planned) if lost_its_tables(planned, slice) => {
            Some(forgotten(name, slice, "names no tables of it", "its tables"))
        }
        Some(planned) if derive::gained_tables(planned, slice) => Some(gained(planned)),
        Some(planned) => {
            let lost = named(name, slice, |route| planned.route(route).is_none());
            (!lost.is_empty()).then(|| forgotten_routes(&lost, &lost))
        }
    };
    state.slices.iter().filter_map(finding).collect()
}

/// Whether the slice's tables were taken out of the plan while a stream still fills them or a gate guards them.
pub(super) fn lost_its_tables(slice: &Slice, state: &SliceState) -> bool {
    slice.is_stateless() && !matches!(state.stage, Stage::Monolith | Stage::Retired)
}

fn named(name: &SliceName, slice: &SliceState, of: impl Fn(&RouteName) -> bool) -> Vec<String> {
    slice.shares.keys().filter(|route| of(route)).map(|route| format!("{name}.{route}")).collect()
}

/// Its stream has no orders.
fn forgotten(name: &SliceName, slice: &SliceState, lacks: &str, put: &str) -> Finding {
    let message = format!("slice {name} is {} by the journal, and the plan {lacks}", slice.stage.name());
    let hint = format!(
        "put {put} back into the plan and run `strangler reload`; to end it, run `strangler sync drop {name}` then"
    );
    Finding::error(Code::JournalForgottenSlice, message, hint)
}

/// Taken out or renamed, a route goes to the monolith, whatever was decided about it.
fn forgotten_routes(routes: &[String], forget: &[String]) -> Finding {
    let message = format!(
        "the journal sends {} to the service, and the plan does not name this any more: the monolith answers",
        routes.join(", ")
    );
    let forget: Vec<String> =
        forget.iter().map(|name| format!("`strangler route set {name} monolith`")).collect();
    let hint = format!(
        "put it back under its old name and run `strangler reload`; or let the journal forget it: {}",
        forget.join(", ")
    );
    Finding::warning(Code::JournalForgottenRoute, message, hint)
}

/// What was decided stands, so that reads and writes of one client stay together.
fn gained(slice: &Slice) -> Finding {
    let name = &slice.name;
    let message = format!(
        "slice {name} had no tables when its requests were sent to service {}, which has no copy of them; they still go there, writes too",
        slice.service
    );
    let hint = format!(
        "take its tables out of the plan and run `strangler reload`; or run `strangler route set {name} monolith`, bring what the service wrote into the monolith, then `strangler sync start {name}`"
    );
    Finding::error(Code::JournalGainedTables, message, hint)
}
