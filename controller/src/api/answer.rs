//! What the API answers, put together from plan, state and reports; and its refusals with their HTTP status.

use migrations::api::{
    Acknowledged, AgentStatus, Outcome, Refusal, RouteStatus, SliceStatus, Status, forgotten_slices,
    next_steps,
};
use migrations::control::{Desired, Report, StreamReport};
use migrations::finding::Finding;
use migrations::journal::State;
use migrations::names::SliceName;
use migrations::plan::{Plan, Slice};
use migrations::share::Share;
use std::collections::BTreeMap;

/// A refusal and the HTTP status it travels with.
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) refusal: Refusal,
}

impl Failure {
    /// 409 for what others or the stage forbid, 422 for what makes no sense or is not ready, 503 for what may work
    /// again by itself.
    pub(super) fn refused(refusal: Refusal) -> Self {
        let status = match refusal.exit {
            2 | 3 => 422,
            4 => 409,
            _ => 503,
        };
        Self { status, refusal }
    }
}

fn failure(status: u16, exit: u8, message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure {
        status,
        refusal: Refusal { exit, message: message.into(), hint: hint.into(), findings: Vec::new() },
    }
}

pub(super) fn no_token() -> Failure {
    failure(
        401,
        1,
        "the controller does not know this token",
        "set STRANGLER_TOKEN to the controller's token",
    )
}

pub(super) fn not_found() -> Failure {
    failure(404, 2, "the controller knows no such path", "use the same version of strangler on both sides")
}

pub(super) fn misunderstood(why: &str) -> Failure {
    failure(
        422,
        2,
        format!("the request cannot be read: {why}"),
        "use the same version of strangler on both sides",
    )
}

pub(super) fn broken() -> Failure {
    failure(
        500,
        1,
        "the controller failed at this request",
        "look at the controller's log, then at `strangler status`",
    )
}

pub(super) fn other_version(version: u32) -> Failure {
    failure(
        422,
        2,
        format!("the agent speaks version {version}, the controller another"),
        "run the same version of strangler everywhere",
    )
}

pub(super) fn no_slice(plan: &Plan, name: &str) -> Failure {
    let names: Vec<&str> = plan.slices.keys().map(SliceName::as_str).collect();
    failure(404, 2, format!("the plan has no slice {name}"), format!("it has: {}", names.join(", ")))
}

pub(super) fn no_journal(trouble: Option<Finding>) -> Failure {
    let (message, hint) = match trouble {
        Some(finding) => (finding.message, finding.hint),
        None => ("the journal was not read yet".to_owned(), "ask again in a second".to_owned()),
    };
    failure(503, 1, message, hint)
}

/// The refusal of a `sync start` for which the live systems are not ready.
pub(super) fn not_ready(slice: &SliceName, findings: Vec<Finding>) -> Refusal {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let things = if errors == 1 { "1 thing is".to_owned() } else { format!("{errors} things are") };
    Refusal {
        exit: 3,
        message: format!("slice {slice} cannot be followed yet: {things} in the way"),
        hint: format!("mend each, then run `strangler doctor {slice}`"),
        findings,
    }
}

pub(super) fn outcome(
    plan: &Plan,
    state: &State,
    slice: &SliceName,
    proxies: Acknowledged,
    findings: Vec<Finding>,
) -> Outcome {
    let now = state.slice(slice);
    Outcome {
        slice: slice.clone(),
        stage: now.stage,
        epoch: now.epoch,
        owner: now.stage.owner(),
        generation: state.generation,
        proxies,
        findings,
        next_steps: next_steps(plan, slice, state),
    }
}

/// Everything there is to know.
pub(super) fn status(
    plan: &Plan,
    state: &State,
    agents: Vec<AgentStatus>,
    trouble: Option<Finding>,
    stream: impl Fn(&SliceName) -> Option<StreamReport>,
) -> Status {
    // The shares are read from what the proxies are told, so that both can never differ.
    let desired = Desired::from(plan, state, None);
    let share = |slice: &Slice, route: &migrations::plan::Route| -> Share {
        let mut rows = desired.table.routes.iter();
        rows.find(|row| row.slice == slice.name && row.route == route.name)
            .map(|row| row.share)
            .unwrap_or_default()
    };
    let slices: BTreeMap<SliceName, SliceStatus> = plan
        .slices
        .values()
        .map(|slice| {
            let now = state.slice(&slice.name);
            let routes = slice.routes.iter().map(|route| RouteStatus {
                name: route.name.clone(),
                pattern: route.pattern.clone(),
                access: route.access,
                share: share(slice, route),
            });
            let status = SliceStatus {
                stage: now.stage,
                epoch: now.epoch,
                owner: now.stage.owner(),
                has_tables: !slice.is_stateless(),
                routes: routes.collect(),
                stream: stream(&slice.name).filter(|_| !slice.is_stateless()),
                next_steps: next_steps(plan, &slice.name, state),
            };
            (slice.name.clone(), status)
        })
        .collect();
    let mut findings: Vec<Finding> = trouble.into_iter().chain(forgotten_slices(plan, state)).collect();
    findings.extend(agents.iter().filter(|agent| agent.live).flat_map(|agent| match &agent.report {
        Report::Bridge(bridge) => bridge.findings.clone(),
        Report::Proxy(_) => Vec::new(),
    }));
    Status {
        plan: plan.name.to_string(),
        journal: state.journal,
        generation: state.generation,
        slices,
        agents,
        findings,
    }
}
