//! What is desired follows from the plan and the journal alone: the same two give the same document everywhere.

use super::{Desired, LaneOrder, Table, TableRoute, VERSION};
use crate::journal::{SliceState, State};
use crate::lane::{LaneId, Right};
use crate::lsn::Of;
use crate::plan::{Plan, Route, Slice, Upstream};
use crate::share::Share;
use crate::stage::Stage;
use std::collections::BTreeSet;

impl Desired {
    /// Folds plan and journal into what agents act on. `bridge` is where the live bridge serves barriers, if
    /// one reported. Slices of the journal that the plan does not name have no part in it.
    pub fn from(plan: &Plan, state: &State, bridge: Option<String>) -> Desired {
        let shown = |upstreams: &[Upstream]| upstreams.iter().map(Upstream::to_string).collect();
        let slices = || plan.slices.values().map(|slice| (slice, state.slice(&slice.name)));
        let routes = slices().flat_map(|(slice, state)| {
            let row = |route| table_route(slice, route, &state);
            slice.routes.iter().map(row).collect::<Vec<_>>()
        });
        Desired {
            version: VERSION,
            journal: state.journal,
            generation: state.generation,
            plan: plan.hash.clone(),
            table: Table {
                monolith: shown(&plan.monolith.upstreams),
                services: plan
                    .services
                    .iter()
                    .map(|(name, one)| (name.clone(), shown(&one.upstreams)))
                    .collect(),
                routes: routes.collect(),
                holds: slices()
                    .filter_map(|(slice, state)| Some((slice.name.clone(), state.hold?)))
                    .collect(),
            },
            lanes: slices()
                .filter(|(slice, _)| !slice.is_stateless())
                .flat_map(|(slice, state)| lanes(slice, &state))
                .collect(),
            bridge,
        }
    }
}

fn table_route(slice: &Slice, route: &Route, state: &SliceState) -> TableRoute {
    TableRoute {
        slice: slice.name.clone(),
        route: route.name.clone(),
        pattern: route.pattern.clone(),
        access: route.access,
        service: slice.service.clone(),
        share: share(slice, route, state),
        sticky: slice.sticky.clone(),
        follows: !slice.is_stateless() && !state.stage.is_at_service() && !gained_tables(slice, state),
        leads: state.stage.is_at_service(),
        pinned: route.is_pinned,
        falls_back: slice.falls_back_on_5xx,
    }
}

/// How much of a route goes to the service now. Writes of a slice with tables are where the tables' owner is; while
/// nobody owns them they still point at the monolith, whose gate refuses them. Of a slice that gained its tables
/// meanwhile everything stays where it was decided to go: reads without their writes would miss what was promised.
pub fn share(slice: &Slice, route: &Route, state: &SliceState) -> Share {
    if route.is_pinned {
        return Share::MONOLITH;
    }
    if slice.may_share(route) || gained_tables(slice, state) {
        return state.share(&route.name);
    }
    if state.stage.is_at_service() { Share::SERVICE } else { Share::MONOLITH }
}

/// Whether the slice had no tables when some of its requests were sent to the service, which has no copy of them. In no
/// other way does a slice with tables have shares in this stage: they are refused there, and `sync drop` clears them.
pub(crate) fn gained_tables(slice: &Slice, state: &SliceState) -> bool {
    !slice.is_stateless() && state.stage == Stage::Monolith && !state.shares.is_empty()
}

/// Once the service may own the rows, the lane that brought them changes them no more.
/// A lane back is always ordered where there may be one, so that a bridge gives up what it made for it.
fn lanes(slice: &Slice, state: &SliceState) -> Vec<(LaneId, LaneOrder)> {
    let order = |right, attempt, skips| LaneOrder {
        stage: state.stage,
        right,
        attempt,
        paused: state.paused,
        skips,
        replace: state.replace,
    };
    let skips = state.skips.iter().copied().map(Of::bare).collect();
    let forward = (LaneId::forward(slice.name.clone()), order(forward(state), state.attempt, skips));
    let reverse =
        (LaneId::reverse(slice.name.clone()), order(reverse(state), state.way_back, BTreeSet::new()));
    if slice.may_return() { vec![forward, reverse] } else { vec![forward] }
}

fn forward(state: &SliceState) -> Right {
    match state.stage {
        Stage::Split { .. } | Stage::Returning { .. } | Stage::Retired => Right::Watch,
        Stage::Monolith | Stage::Copying | Stage::Following { .. } | Stage::Cutting { .. } => {
            Right::Apply(state.epoch)
        }
    }
}

fn reverse(state: &SliceState) -> Right {
    match state.stage {
        Stage::Split { .. } | Stage::Returning { .. } => Right::Apply(state.epoch),
        _ if state.has_way_back() => Right::Watch,
        _ => Right::Rest,
    }
}
