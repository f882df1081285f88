//! `strangler status`: each slice's stage, owner, reads and lag, the live parts, and every finding.

mod traffic;

use crate::edit::edited;
use crate::invocation::Invocation;
use crate::outlook::{condition, foreign, lag, percent};
use crate::part::Part;
use crate::signals::Signals;
use crate::ui::Ui;
use crate::ui::figure;
use crate::ui::grid::{Grid, bad, doubtful, good, plain, strong};
use crate::ui::harmless::harmless;
use comfy_table::Cell;
use migrations::api::{AgentStatus, SliceStatus, Status};
use migrations::code::Code;
use migrations::control::{AgentKind, Condition, Report};
use migrations::crossing::Moment;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::pattern::Access;
use migrations::problem::Problem;
use migrations::share::Share;
use migrations::sql::Database;
use std::time::Duration;

const REDRAW_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Refresh every second until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let remote = call.remote()?;
    if !args.watch {
        let status = remote.status().await.map_err(|problem| crashing(call, problem))?;
        let status = seen(call, status);
        show(call.ui, &status, remote.base());
        say_unwatched(call);
        if let Some(problem) = stopped(&status).or_else(|| unwell(&status)) {
            return Err(problem);
        }
        let steps: Vec<String> = status.slices.values().flat_map(|slice| slice.next_steps.clone()).collect();
        call.ui.next_steps(steps.first_chunk::<1>().map_or(&[], |first| first));
        return Ok(());
    }
    let mut signals = Signals::listen()?;
    while !call.ui.is_gone() {
        let answer = tokio::select! {
            answer = remote.status() => answer,
            () = signals.received() => break,
        };
        match answer {
            Ok(status) => {
                let status = seen(call, status);
                call.ui.clear();
                show(call.ui, &status, remote.base());
            }
            // The controller may be restarting.
            Err(problem) => {
                call.ui.clear();
                call.ui.failed(&crashing(call, problem).into());
            }
        }
        tokio::select! {
            () = signals.received() => break,
            () = tokio::time::sleep(REDRAW_EVERY) => {}
        }
    }
    Ok(())
}

/// The status, with what only this machine knows.
fn seen(call: &Invocation<'_>, mut status: Status) -> Status {
    status.findings.extend(edited(call, &status));
    status
}

/// With why the controller of this folder does not stay up, if it does not.
fn crashing(call: &Invocation<'_>, problem: Problem) -> Problem {
    match call.house().crash(Part::Controller) {
        Some(crash) if problem.code == Code::ApiUnreachable => {
            Problem { message: format!("{}; {crash}", problem.message), ..problem }
        }
        _ => problem,
    }
}

/// If this folder's `up` was killed alone, its parts run on, but nobody restarts them.
fn say_unwatched(call: &Invocation<'_>) {
    let house = call.house();
    let parts = Part::ALL.into_iter().filter(|part| house.running(*part).is_some());
    let parts: Vec<&str> = parts.map(Part::name).collect();
    if !parts.is_empty() && house.up().is_none() {
        call.ui.note(format!(
            "nobody restarts {} if it dies: their `strangler up` was killed",
            parts.join(", ")
        ));
        call.ui.hint("run `strangler up --detach`: it replaces them");
    }
}

/// That slices are stopped, whatever they read.
fn stopped(status: &Status) -> Option<Problem> {
    let is_stopped = |slice: &SliceStatus| {
        slice.lanes.values().any(|lane| matches!(lane.condition, Condition::Stopped { .. }))
    };
    let stopped: Vec<&str> =
        status.slices.iter().filter(|(_, slice)| is_stopped(slice)).map(|(name, _)| name.as_str()).collect();
    let first = stopped.first()?;
    Some(Problem::new(
        Code::SliceStopped,
        format!("stopped: {}", stopped.join(", ")),
        format!("do what the finding says; `strangler sync status {first}` shows it alone"),
    ))
}

/// That an upstream has no address left at which it answers.
fn unwell(status: &Status) -> Option<Problem> {
    let mut findings = status.findings.iter();
    findings
        .find(|finding| finding.code == Code::UpstreamUnwell && finding.is_error())
        .cloned()
        .map(Problem::from)
}

fn show(ui: &Ui, status: &Status, base: &str) {
    ui.json(status);
    ui.line(format!("{}  generation {}  controller {base}", status.plan, status.generation));
    ui.line("");
    ui.line(slices(status));
    for (name, why) in
        status.slices.iter().filter_map(|(name, slice)| Some((name, slice.lag_unknown.as_ref()?)))
    {
        ui.line(harmless(&format!("the lag of {name} is unknown: {why}")));
    }
    ui.line("");
    if let Some(traffic) = traffic::table(status) {
        ui.line(traffic);
        ui.line("");
    }
    ui.line(agents(status));
    let lanes = status.slices.values().flat_map(|slice| slice.lanes.values());
    let streams = lanes.filter_map(|lane| match &lane.condition {
        Condition::Stopped { finding, .. } => Some(finding),
        _ => None,
    });
    let bridges = status.agents.iter().filter_map(|agent| match &agent.report {
        Report::Bridge(bridge) if agent.live => Some(&bridge.findings),
        _ => None,
    });
    // A finding about the bridge also appears in each of its slices; show it once.
    let mut shown: Vec<&Finding> = Vec::new();
    let foreign = foreign(status);
    for finding in status.findings.iter().chain(&foreign).chain(streams).chain(bridges.flatten()) {
        if !shown.contains(&finding) {
            ui.line("");
            ui.finding(finding);
            shown.push(finding);
        }
    }
}

fn slices(status: &Status) -> String {
    let mut grid = Grid::new(&["slice", "stage", "owner", "reads", "writes", "lag"]);
    for (name, slice) in &status.slices {
        grid.row([
            strong(name),
            stage(slice, status.now),
            plain(slice.owner),
            plain(shared(slice, Access::Read)),
            plain(shared(slice, Access::Write)),
            plain(lag(slice)),
        ]);
    }
    grid.text()
}

/// The stage and its lane's condition, with a colour for its health.
fn stage(slice: &SliceStatus, now: Moment) -> Cell {
    let text = condition(slice, Some(now));
    match slice.lane().map(|lane| &lane.condition) {
        Some(Condition::Stopped { .. } | Condition::Lost { .. }) => bad(text),
        _ if slice.preparing.is_some() || slice.hold.is_some() => doubtful(text),
        Some(
            Condition::Copying { .. }
            | Condition::Adding { .. }
            | Condition::Waiting { .. }
            | Condition::Paused,
        ) => doubtful(text),
        Some(Condition::Following | Condition::Copied { .. }) => good(text),
        Some(Condition::Idle) | None => plain(text),
    }
}

/// Where a slice's reads or writes go; a range if its routes differ.
fn shared(slice: &SliceStatus, access: Access) -> String {
    let routes = || slice.routes.iter().filter(|route| route.access == access);
    let free = || routes().filter(|route| !route.pinned);
    let is_withheld = slice.withheld && (access == Access::Read || !slice.has_tables);
    let shares =
        free().map(|route| if is_withheld || route.recalled { Share::MONOLITH } else { route.share });
    let Some(least) = shares.clone().min() else {
        return if routes().next().is_some() { "monolith" } else { "–" }.to_owned();
    };
    let most = shares.max().unwrap_or(least);
    if most == Share::MONOLITH && free().any(|route| route.share > Share::MONOLITH) {
        return "monolith for now".to_owned();
    }
    let short = |share: Share| match share {
        Share::MONOLITH => "monolith".to_owned(),
        Share::SERVICE => "service".to_owned(),
        part => percent(part),
    };
    if least == most { short(least) } else { format!("{} … {}", short(least), short(most)) }
}

fn agents(status: &Status) -> String {
    let mut grid = Grid::new(&["part", "name", "state", "seen", "reports"]);
    for agent in &status.agents {
        let kind = match agent.agent.kind {
            AgentKind::Proxy => "proxy",
            AgentKind::Bridge => "bridge",
        };
        grid.row([
            strong(kind),
            plain(&agent.agent.name),
            liveness(agent, status.generation),
            plain(format!("{} ago", figure::span(agent.seen_ms_ago))),
            plain(report(&agent.report)),
        ]);
    }
    if status.agents.is_empty() { "no proxy or bridge has reported yet".to_owned() } else { grid.text() }
}

fn liveness(agent: &AgentStatus, generation: Generation) -> Cell {
    match (agent.live, agent.generation) {
        (false, _) => bad("silent"),
        (true, Some(held)) if held >= generation => good("live"),
        (true, Some(held)) => doubtful(format!("live, at {held}")),
        (true, None) => doubtful("live, no orders yet"),
    }
}

fn report(report: &Report) -> String {
    match report {
        Report::Proxy(proxy) => {
            let answered =
                proxy.answered.iter().map(|(name, count)| format!("{name} {}", figure::count(*count)));
            let mut words: Vec<String> = answered.collect();
            words.push(format!("failed {}", figure::count(proxy.failed)));
            words.extend(proxy.https.clone());
            if !proxy.unhealthy.is_empty() {
                words.push(format!("unhealthy {}", proxy.unhealthy.join(" ")));
            }
            words.join("  ")
        }
        Report::Bridge(bridge) => match bridge.feeds.get(&Database::Monolith) {
            Some(feed) => format!(
                "slot {}  captured {}  {}",
                feed.slot,
                figure::count(feed.changes),
                match feed.lag_bytes {
                    Some(bytes) => format!("{} behind", figure::size(bytes)),
                    None => "captures nothing now".to_owned(),
                }
            ),
            None => "no capture".to_owned(),
        },
    }
}
