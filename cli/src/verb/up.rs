//! `strangler up`: runs controller, proxy and bridge on this machine until `down`, Ctrl-C or SIGTERM. If they run already, new
//! processes take their places.

use crate::edit::{self, Taken};
use crate::house::{House, Lock};
use crate::invocation::{Invocation, Source, local};
use crate::outlook::bridge;
use crate::part::Part;
use crate::process::Process;
use crate::remote::Remote;
use crate::renewal::Renewal;
use crate::span::{patience, written};
use crate::supervisor::{Starter, Supervisor, end_leftovers};
use crate::verb::down::say_kept;
use crate::view;
use migrations::api::{AgentStatus, Status};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::Plan;
use migrations::problem::Problem;
use nix::sys::signal::Signal;
use serde_json::json;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the proxies may take to look at the upstreams: two rounds of checks find one that is down.
const VIEW_PATIENCE: Duration = Duration::from_secs(6);
/// After this many restarts without becoming ready, a part is not expected to recover by itself.
const RESTARTS_MAX: u32 = 2;
/// How long a supervisor that failed to start may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Return when everything is ready; stop it with `strangler down`
    #[arg(short, long)]
    detach: bool,
    /// With --detach: how long to wait until everything is ready
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = patience)]
    timeout: Duration,
    /// What --detach starts: the same, without a terminal
    #[arg(long, hide = true, conflicts_with = "detach")]
    supervise: bool,
}

struct Gauge {
    remote: Remote,
    readyz: String,
    has_bridge: bool,
}

impl Gauge {
    /// The status, if the controller answers, the proxy is ready and the bridge (if the plan needs one) has reported.
    async fn ready(&self) -> Result<Status, String> {
        let status = self.remote.status().await.map_err(|problem| problem.message)?;
        if !self.remote.is_well(&self.readyz).await {
            return Err(format!("the proxy is not ready at {}", self.readyz));
        }
        if self.has_bridge && bridge(&status).is_none() {
            return Err("no bridge has reported yet".to_owned());
        }
        Ok(status)
    }
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    if args.supervise {
        // Its own session, so that a closing terminal does not end it. This fails only for a process that already
        // leads a group, which needs no session.
        let _ = nix::unistd::setsid();
    }
    let (plan, _, source) = call.read()?;
    crate::part::check_certificates(&plan)?;
    let house = call.house();
    let token = call.token_or_new()?;
    let gauge = Gauge {
        remote: Remote::new(&local(&plan.controller.listen), Some(token))?,
        readyz: format!("{}/readyz", local(&plan.proxy.admin)),
        has_bridge: Part::of(&plan).contains(&Part::Bridge),
    };
    match house.lock()? {
        None => already(call, &plan, source, &house, &gauge).await,
        Some(lock) if args.detach => detach(call, &plan, &house, &gauge, lock, args.timeout).await,
        Some(lock) => stay(call, plan, source, house, gauge, lock).await,
    }
}

/// Another `up` holds the folder. If it is ready, it replaces its parts by this program and this plan; otherwise that is a
/// conflict.
async fn already(
    call: &Invocation<'_>,
    plan: &Plan,
    source: Source,
    house: &House,
    gauge: &Gauge,
) -> Result<(), Problem> {
    let pid = house.up().map(|watch| format!(" (pid {})", watch.process.pid)).unwrap_or_default();
    match gauge.ready().await {
        Ok(_) => {
            call.ui.line(format!("already up{pid}"));
            let renewal = Renewal { source, executable: executable()?, every_part: true };
            let taken = edit::take(call, &gauge.remote, plan, &renewal).await?;
            let status = gauge.remote.status().await?;
            report(call, plan, house, gauge, &status, Some(taken)).await;
            Ok(())
        }
        Err(why) => Err(Problem::new(
            Code::UpRunning,
            format!(
                "another `strangler up`{pid} is running in {}, but is not ready: {why}{}",
                house.dir().display(),
                house.crash(Part::Controller).map(|crash| format!("; {crash}")).unwrap_or_default()
            ),
            "wait for it, or stop it with `strangler down`",
        )),
    }
}

async fn stay(
    call: &Invocation<'_>,
    plan: Plan,
    source: Source,
    house: House,
    gauge: Gauge,
    lock: Lock,
) -> Result<(), Problem> {
    let starter = Starter {
        executable: executable()?,
        plan: call.plan_file_absolute(),
        controller: gauge.remote.base().to_owned(),
        source,
    };
    let proxy = addresses(&plan).join("  ");
    call.ui.note(format!("proxy {proxy}  controller {}", gauge.remote.base()));
    end_leftovers(&house, call.ui).await;
    let supervisor = Supervisor::new(house, starter, plan, call.ui.progress())?;
    let watch = supervisor.run(gauge.remote).await?;
    drop(lock);
    call.ui.tick("stopped");
    if let Some(kept) = &watch.kept {
        say_kept(call.ui, kept);
    }
    Ok(())
}

/// Starts a supervisor without a terminal and waits until everything is ready. If that fails but the proxy serves, the
/// proxy is left running: it needs neither controller nor database, and clients may depend on it.
async fn detach(
    call: &Invocation<'_>,
    plan: &Plan,
    house: &House,
    gauge: &Gauge,
    lock: Lock,
    patience: Duration,
) -> Result<(), Problem> {
    let log = house.log("up")?;
    let copy = log.try_clone().map_err(|error| {
        Problem::new(
            Code::CommandFailed,
            format!("could not open the log of `up` twice: {error}"),
            "raise the limit that `ulimit -n` shows",
        )
    })?;
    let mut command = Command::new(executable()?);
    command.arg("--plan").arg(call.plan_file_absolute()).args(["up", "--supervise"]);
    command.stdin(Stdio::null()).stdout(copy).stderr(log);
    // The child takes the lock itself. If another `up` gets it first, the child's exit code says so.
    drop(lock);
    let mut child = command.spawn().map_err(|error| {
        Problem::new(
            Code::CommandFailed,
            format!("could not start strangler in the background: {error}"),
            "check `ulimit -u` and `ulimit -n`, and that the program file is executable",
        )
    })?;
    let mut progress = call.ui.progress();
    let until = Instant::now() + patience;
    let status = loop {
        let why = match gauge.ready().await {
            Ok(status) if house.up().is_some_and(|watch| watch.process.pid == child.id()) => break status,
            Ok(_) => "another controller answers at this address".to_owned(),
            Err(why) => why,
        };
        progress.state(&format!("starting: {why}"));
        if let Some(problem) = ended(house, &mut child) {
            return Err(problem);
        }
        let hopeless = failing(house, plan, &child);
        if hopeless.is_some() || Instant::now() >= until {
            let is_served = serves(house, gauge).await;
            let late = format!("not ready within {}: {why}", written(patience));
            let problem = in_vain(house, hopeless, &late, is_served);
            if !is_served {
                end(&mut child).await;
            }
            return Err(problem);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    progress.clear();
    report(call, plan, house, gauge, &status, None).await;
    Ok(())
}

/// The problem, if the supervisor has ended.
fn ended(house: &House, child: &mut Child) -> Option<Problem> {
    let Ok(Some(status)) = child.try_wait() else { return None };
    Some(match status.code() {
        Some(4) => Problem::new(
            Code::UpRunning,
            "another `strangler up` started first",
            "`strangler status` shows it; `strangler down` stops it",
        ),
        _ => last_words(house, "up", "strangler did not start"),
    })
}

/// A part that keeps dying, and how it last ended.
fn failing(house: &House, plan: &Plan, child: &Child) -> Option<(Part, String)> {
    if house.up().is_none_or(|watch| watch.process.pid != child.id()) {
        return None;
    }
    Part::of(plan).into_iter().find_map(|part| {
        let record = house.noted(part).filter(|record| record.restarts >= RESTARTS_MAX)?;
        Some((part, record.ended.unwrap_or_else(|| "ended".to_owned())))
    })
}

/// Whether our proxy serves. If it keeps dying, another process is answering at its address.
async fn serves(house: &House, gauge: &Gauge) -> bool {
    let is_up = house.running(Part::Proxy).is_some_and(|record| record.restarts < RESTARTS_MAX);
    is_up && gauge.remote.is_well(&gauge.readyz).await
}

/// Why the start failed: a part that does not stay up, or something that was not ready in time.
fn in_vain(house: &House, hopeless: Option<(Part, String)>, late: &str, is_served: bool) -> Problem {
    let fate = if is_served {
        "the proxy is serving, so everything is left running"
    } else {
        "everything was stopped again"
    };
    let problem = match hopeless {
        Some((part, how)) => {
            let message = format!("the {} does not stay up: it {how}; {fate}", part.name());
            last_words(house, part.name(), &message)
        }
        None => Problem::new(
            Code::CommandTimedOut,
            format!("{late}; {fate}"),
            format!("read the logs in {}", house.dir().join("log").display()),
        ),
    };
    if is_served {
        problem.remedy("`strangler status` shows when the rest is ready; `strangler down` stops it")
    } else {
        problem
    }
}

fn last_words(house: &House, name: &str, message: &str) -> Problem {
    let words = house.log_end(name, 4);
    let message =
        if words.is_empty() { message.to_owned() } else { format!("{message}\n  {}", words.join("\n  ")) };
    Problem::new(Code::PartFailed, message, format!("read the whole log: {}", house.log_path(name).display()))
}

async fn end(child: &mut Child) {
    let record = Process::of(child.id(), 0);
    record.signal(Signal::SIGTERM);
    if !record.wait(STOP_PATIENCE).await {
        record.signal(Signal::SIGKILL);
    }
    // It has ended or was just killed, so this does not block.
    let _ = child.wait();
}

/// The status once the live proxies know of every upstream, or the last one before the patience ends.
async fn looked(remote: &Remote) -> Option<Status> {
    let until = Instant::now() + VIEW_PATIENCE;
    loop {
        let status = remote.status().await.ok();
        if status.as_ref().is_some_and(view::is_known) || Instant::now() >= until {
            return status;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// This machine's proxy, and each other one that sees an upstream down.
fn show_proxies(call: &Invocation<'_>, addresses: &[String], status: &Status) {
    let mut down: Vec<(&AgentStatus, String)> = view::proxies(status)
        .filter(|(_, proxy)| !proxy.unhealthy.is_empty())
        .map(|(agent, proxy)| (agent, proxy.unhealthy.join(", ")))
        .collect();
    let shown = addresses.join("  ");
    match down.iter().position(|(agent, _)| agent.address.as_ref() == addresses.first()) {
        Some(own) => call.ui.cross(&format!("proxy       {shown}  cannot reach {}", down.remove(own).1)),
        None => call.ui.tick(&format!("proxy       {shown}")),
    }
    for (agent, down) in down {
        call.ui.cross(&format!("proxy       {}  cannot reach {down}", agent.agent.name));
    }
}

async fn report(
    call: &Invocation<'_>,
    plan: &Plan,
    house: &House,
    gauge: &Gauge,
    status: &Status,
    taken: Option<Taken>,
) {
    let proxy = addresses(plan);
    let looked = looked(&gauge.remote).await;
    let status = looked.as_ref().unwrap_or(status);
    let next: Vec<String> =
        status.slices.values().flat_map(|slice| slice.next_steps.iter().cloned()).take(2).collect();
    call.ui.tick(&format!("controller  {}", gauge.remote.base()));
    if Part::of(plan).contains(&Part::Bridge) {
        call.ui.tick(&format!("bridge      {}", local(&plan.bridge.listen)));
    }
    show_proxies(call, &proxy, status);
    let mut findings = view::upstreams(Some(status), crate::part::upstreams(plan, None).await, None);
    findings.extend(crate::part::certificates(plan));
    let is_said = |finding: &&Finding| matches!(finding.code, Code::UpstreamUnwell | Code::ProxyCertificate);
    findings.extend(status.findings.iter().filter(|finding| !is_said(finding)).cloned());
    for finding in &findings {
        call.ui.finding(finding);
    }
    call.ui.json(&json!({
        "already": taken.is_some(), "replaced": taken.unwrap_or_default().replaced, "controller": gauge.remote.base(),
        "proxy": proxy[0], "https": proxy.get(1), "proxies": view::document(status),
        "pid": house.up().map(|watch| watch.process.pid), "log": house.dir().join("log"),
        "findings": findings, "next_steps": next,
    }));
    call.ui.next_steps(&next);
}

/// Where clients reach the proxy: plainly, and by TLS if the plan says so.
fn addresses(plan: &Plan) -> Vec<String> {
    let secure = plan.proxy.tls.iter().map(|tls| format!("https://{}", tls.listen));
    std::iter::once(format!("http://{}", plan.proxy.listen)).chain(secure).collect()
}

/// If the executable was replaced meanwhile, its path names the new one.
pub(crate) fn executable() -> Result<PathBuf, Problem> {
    let path = std::env::current_exe().map_err(|error| {
        Problem::new(
            Code::CommandFailed,
            "could not find strangler's own executable",
            "run strangler by its full path",
        )
        .because(&error)
    })?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}
