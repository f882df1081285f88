//! What the API answers, put together from plan, state and reports; and its refusals with their HTTP status.

use super::fared::{self, Seen};
use crate::copies::Withheld;
use crate::store::StoreError;
use migrations::api::{
    Acknowledged, AgentStatus, Outcome, RouteStatus, SliceStatus, Status, leading, mismatches, next_steps,
};
use migrations::code::Code;
use migrations::control::{self, Condition, LaneReport, Report};
use migrations::crossing::Moment;
use migrations::cutover::Awaited;
use migrations::finding::Finding;
use migrations::journal::State;
use migrations::lane::Direction;
use migrations::names::SliceName;
use migrations::pattern::Access;
use migrations::plan::{Plan, Slice};
use migrations::preflight::Aim;
use migrations::problem::Problem;
use migrations::share::Share;
use migrations::stage::{Owner, Stage};
use migrations::text::BadText;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

const SAME_VERSION: &str = "use the same version of strangler on both sides";

type Lanes = BTreeMap<Direction, LaneReport>;

/// A problem as an answer of HTTP.
pub(super) struct Failure(pub(super) Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

fn failure(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure(Problem::new(code, message, remedy))
}

pub(super) fn no_token() -> Failure {
    failure(
        Code::ApiToken,
        "the controller does not know this token",
        "set STRANGLER_TOKEN to the controller's token",
    )
}

pub(super) fn not_found() -> Failure {
    failure(Code::ApiNoPath, "the controller knows no such path", SAME_VERSION)
}

pub(super) fn misunderstood(why: &str) -> Failure {
    failure(Code::ApiOtherVersion, format!("the request cannot be read: {why}"), SAME_VERSION)
}

pub(super) fn broken() -> Failure {
    failure(
        Code::ApiFailed,
        "the controller failed at this request",
        "look at the controller's log, then at `strangler status`",
    )
}

pub(super) fn other_version(version: u32) -> Failure {
    let message = format!("the agent speaks version {version}, the controller another");
    failure(Code::ApiOtherVersion, message, SAME_VERSION)
}

pub(super) fn no_name(why: &BadText) -> Failure {
    failure(Code::SliceUnknown, why.to_string(), "name a slice of the plan; `strangler status` lists them")
}

pub(super) fn no_journal(trouble: Option<Finding>) -> Failure {
    Failure(match trouble {
        Some(finding) => finding.into(),
        None => {
            Problem::new(Code::JournalUnreachable, "the journal was not read yet", "ask again in a second")
        }
    })
}

/// The refusal of a wish for which the live systems are not ready.
pub(super) fn not_ready(slice: &SliceName, aim: Aim, findings: Vec<Finding>) -> Failure {
    let (moved, option) = match aim {
        Aim::Following => ("followed", ""),
        Aim::Cutover => ("cut over", " --cutover"),
    };
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let errors = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
    let message = format!("slice {slice} cannot be {moved} yet: the live systems are not ready, {errors}");
    let remedy = format!("fix each finding, then run `strangler doctor {slice}{option}`");
    Failure(Problem::new(Code::SliceNotReady, message, remedy).with(findings))
}

/// Several proxies, of which each remembers only its own clients, and a plan that does not say how clients come.
pub(super) fn several(plan: &Plan, proxies: &[String]) -> Option<Finding> {
    if plan.proxy.consistency.is_some() || proxies.len() < 2 {
        return None;
    }
    let message = format!(
        "{} proxies serve ({}), and the plan is for one: a client that changes between them could read older data than it \
         has seen",
        proxies.len(),
        proxies.join(", ")
    );
    let remedy = "write `consistency: strong` under `proxy:`, or `session` if your balancer keeps each client at one proxy, and \
                  run `strangler reload`, and start proxies of other machines again; a proxy that was stopped is forgotten after 60 s";
    Some(Finding::error(Code::ProxySeveral, message, remedy))
}

/// The refusal to empty tables that a proxy may still read from: it was not reached, or has not followed yet.
pub(super) fn still_read(slice: &SliceName, proxy: &str, silent: Duration) -> Failure {
    failure(
        Code::SliceStillRead,
        format!(
            "proxy {proxy} may still send reads of slice {slice} to the service, whose tables would be emptied; it last \
             reported {} s ago",
            silent.as_secs()
        ),
        "wait until `strangler status` shows that the proxy follows; or stop it: a proxy that is silent for 60 s counts as stopped",
    )
}

/// The refusal of a way back that would hold writes for long, or lose some.
pub(super) fn no_way_back_yet(slice: &SliceName, awaited: Awaited, lane: Option<&LaneReport>) -> Failure {
    let stands = match lane.map(|lane| (&lane.condition, lane.lag_ms)) {
        None => "no live bridge reports the way back".to_owned(),
        Some((Condition::Following, Some(lag_ms))) => format!("the way back is {lag_ms} ms behind"),
        Some((Condition::Following, None)) => "nobody knows how far the way back is behind".to_owned(),
        Some((condition, _)) => format!("the way back does not follow: {condition:?}"),
    };
    failure(
        Code::SliceWayBack,
        format!("slice {slice} cannot return before {awaited}; {stands}"),
        format!("look at `strangler sync status {slice}`, then ask again"),
    )
}

/// The refusal to give the way back up while a proxy may still send writes to the monolith.
pub(super) fn not_followed(slice: &SliceName, who: &str) -> Failure {
    failure(
        Code::SliceStillRead,
        format!(
            "{who} does not follow the journal yet, and may still send requests of slice {slice} to the monolith"
        ),
        "wait until `strangler status` shows that every proxy follows; or stop it: a proxy that is silent for 60 s counts as stopped",
    )
}

pub(super) fn no_gates(slice: &SliceName) -> Failure {
    failure(
        Code::SliceImpossible,
        format!(
            "the writes of slice {slice} cannot move: the journal is kept in a file, and not beside the monolith's gates"
        ),
        "write `monolith.database` in the plan, run `strangler install`, and start the controller again",
    )
}

pub(super) fn outcome(
    plan: &Plan,
    state: &State,
    slice: &SliceName,
    lanes: &Lanes,
    proxies: Acknowledged,
    findings: Vec<Finding>,
) -> Outcome {
    let now = state.slice(slice);
    Outcome {
        slice: slice.clone(),
        stage: now.stage,
        epoch: now.epoch,
        owner: now.stage.owner(),
        hold: now.hold,
        generation: state.generation,
        proxies,
        findings,
        next_steps: steps(plan, slice, state, lanes),
    }
}

/// The commands that lead on. From a lane that is stopped only its finding does.
fn steps(plan: &Plan, slice: &SliceName, state: &State, lanes: &Lanes) -> Vec<String> {
    if lanes.values().any(|lane| matches!(lane.condition, Condition::Stopped { .. })) {
        return vec![format!("strangler sync status {slice}")];
    }
    next_steps(plan, slice, state)
}

/// Reads that are shared and do not come to the service yet: after a share was raised, and after a client wrote, they
/// wait at the monolith for a barrier, and a stream that stands lets none pass.
pub(super) fn reads_wait(slice: &Slice, state: &State, forward: Option<&LaneReport>) -> Option<Finding> {
    let now = state.slice(&slice.name);
    let is_shared = slice.routes.iter().any(|route| control::share(slice, route, &now) > Share::MONOLITH);
    let follows = now.stage != Stage::Monolith && now.stage.owner() == Owner::Monolith;
    if slice.is_stateless() || !is_shared || !follows {
        return None;
    }
    let stands = match forward.map(|lane| &lane.condition) {
        None => "has no live bridge",
        Some(Condition::Stopped { .. }) => "is stopped",
        Some(Condition::Paused) => "is paused",
        Some(Condition::Waiting { .. }) => "waits for something outside",
        Some(_) => return None,
    };
    Some(Finding::warning(
        Code::ReadsWait,
        format!("the stream of slice {} {stands}: reads of a raised share wait at the monolith", slice.name),
        format!("look at `strangler sync status {}`", slice.name),
    ))
}

fn reads_at_service(slice: &SliceStatus) -> bool {
    slice.routes.iter().any(|route| route.access == Access::Read && route.share > Share::MONOLITH)
}

fn reads_withheld(plan: &Plan, slice: &SliceName, why: &Withheld) -> Finding {
    let max = Duration::from_millis(plan.limits.staleness_ms_max).as_secs_f32();
    Finding::warning(
        Code::ReadsWithheld,
        format!(
            "the monolith answers the reads of slice {slice} for now: {why} (limits.max_staleness is {max} s)"
        ),
        format!(
            "look at `strangler sync status {slice}`; the reads return by themselves when the slice follows again"
        ),
    )
}

/// By this machine's clock: it only shows how much time is left, and decides nothing.
fn clock() -> Moment {
    Moment::default().after(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default())
}

/// Why nobody knows how far a followed slice is behind. Before it is followed, it has no lag.
fn lag_unknown(stage: Stage, lanes: &Lanes) -> Option<String> {
    if !stage.is_captured() || stage == Stage::Copying {
        return None;
    }
    match lanes.get(&leading(stage)?) {
        Some(lane) => lane.lag_unknown.clone(),
        None => Some("no live bridge reports it".to_owned()),
    }
}

pub(super) fn status(
    plan: &Plan,
    state: &State,
    mut agents: Vec<AgentStatus>,
    trouble: Vec<Finding>,
    withheld: &BTreeMap<SliceName, Withheld>,
    lanes: impl Fn(&SliceName) -> Lanes,
) -> Status {
    let seen = Seen::of(&agents);
    let slices: BTreeMap<SliceName, SliceStatus> = plan
        .slices
        .values()
        .map(|slice| {
            let now = state.slice(&slice.name);
            let routes = slice.routes.iter().map(|route| RouteStatus {
                name: route.name.clone(),
                pattern: route.pattern.clone(),
                access: route.access,
                // The same question that the proxies' table answers, so that both can never differ.
                share: control::share(slice, route, &now),
                pinned: route.is_pinned,
                recalled: false,
                traffic: seen.traffic(&Some((slice.name.clone(), route.name.clone()))),
            });
            let lanes = if slice.is_stateless() { Lanes::new() } else { lanes(&slice.name) };
            let next_steps = steps(plan, &slice.name, state, &lanes);
            let lag_unknown = if slice.is_stateless() { None } else { lag_unknown(now.stage, &lanes) };
            let status = SliceStatus {
                stage: now.stage,
                epoch: now.epoch,
                owner: now.stage.owner(),
                preparing: now.preparing,
                hold: now.hold,
                has_tables: !slice.is_stateless(),
                routes: routes.collect(),
                withheld: withheld.contains_key(&slice.name),
                lanes,
                lag_unknown,
                next_steps,
            };
            (slice.name.clone(), status)
        })
        .collect();
    let mut findings: Vec<Finding> = trouble.into_iter().chain(mismatches(plan, state)).collect();
    let is_shared = |slice: &SliceName| slices.get(slice).is_some_and(reads_at_service);
    let at_monolith = withheld.iter().filter(|(slice, _)| is_shared(slice));
    findings.extend(at_monolith.map(|(slice, why)| reads_withheld(plan, slice, why)));
    findings.extend(agents.iter().filter(|agent| agent.live).flat_map(|agent| match &agent.report {
        Report::Bridge(bridge) => bridge.findings.clone(),
        Report::Proxy(proxy) => {
            let named = |message: &str| format!("proxy {}: {message}", agent.agent.name);
            let named = |one: &Finding| Finding { message: named(&one.message), ..one.clone() };
            proxy.findings.iter().map(named).collect()
        }
    }));
    findings.extend(fared::unwell(plan, &agents));
    findings.extend(fared::ignoring(&agents));
    findings.extend(seen.failing(plan, |slice| state.slice(slice).stage.owner() == Owner::Service));
    // It is shown with the routes, added up.
    agents.iter_mut().for_each(|agent| {
        if let Report::Proxy(proxy) = &mut agent.report {
            proxy.fared.clear();
        }
    });
    Status {
        plan: plan.name.to_string(),
        plan_hash: plan.hash.clone(),
        journal: state.journal,
        generation: state.generation,
        now: clock(),
        slices,
        unmatched: seen.traffic(&None),
        agents,
        findings,
    }
}
