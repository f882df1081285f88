//! `strangler sync`: copy a slice's tables and keep them in step; look, pause, go on, give up.

mod settle;

use crate::invocation::Invocation;
use crate::problem::Problem;
use crate::remote::{Remote, timed_out};
use crate::supervisor::Signals;
use crate::supervisor::outlook::bridge;
use crate::ui::harmless::harmless;
use crate::ui::progress::Progress;
use crate::ui::{Ui, figure};
use crate::verb::route::finish;
use crate::verb::status::lag;
use migrations::api::{SliceStatus, Status, SyncWish};
use migrations::control::Condition;
use migrations::finding::Finding;
use migrations::lsn::Position;
use migrations::names::SliceName;
use migrations::stage::Stage;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often the copy is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the controller may be away, e.g. while it is restarted, before watching is given up.
const ABSENCE_MAX: Duration = Duration::from_secs(30);

/// What to do about a slice's copy.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Copy the slice's tables, then follow; waits until it follows
    Start(Start),
    /// Show how the copy stands; exit 1 if it has stopped, or capture has
    Status(Named),
    /// Stop applying; changes are still captured, and kept
    Pause(Wish),
    /// Go on applying
    Resume(Resume),
    /// Give the copy up: no slot, no gate and no position remain
    Drop(Drop),
}

/// A slice.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Which slice
    slice: SliceName,
}

/// A slice, and why.
#[derive(Debug, clap::Args)]
pub struct Wish {
    #[command(flatten)]
    named: Named,
    /// Why, for the journal
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// How to start.
#[derive(Debug, clap::Args)]
pub struct Start {
    #[command(flatten)]
    wish: Wish,
    /// Return at once; the copy goes on
    #[arg(short, long)]
    detach: bool,
    /// Stop watching after this many seconds, with exit code 8; the copy goes on
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Empty the service's tables first although they hold rows
    #[arg(long)]
    replace: bool,
}

/// How to go on.
#[derive(Debug, clap::Args)]
pub struct Resume {
    #[command(flatten)]
    wish: Wish,
    /// Leave this change out for ever: the position that the finding names
    #[arg(long, value_name = "POSITION")]
    skip: Option<Position>,
}

/// How to give up.
#[derive(Debug, clap::Args)]
pub struct Drop {
    #[command(flatten)]
    wish: Wish,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Does one of them.
pub async fn run(call: &Invocation<'_>, verb: &Verb) -> Result<(), Problem> {
    match verb {
        Verb::Start(start) => begin(call, start).await,
        Verb::Status(named) => status(call, &named.slice).await,
        Verb::Pause(wish) => {
            order(call, "pause", wish, None, "paused; changes are kept until `sync resume`").await
        }
        Verb::Resume(resume) => order(call, "resume", &resume.wish, resume.skip, "goes on").await,
        Verb::Drop(drop) => {
            let slice = &drop.wish.named.slice;
            let question = format!("Give up the copy of `{slice}`? Starting again copies every row anew.");
            if !drop.yes && !call.ui.confirm(&question) {
                return Err(Problem::usage("nothing was dropped").hint("say yes, or add --yes"));
            }
            order(call, "drop", &drop.wish, None, "the copy is given up").await
        }
    }
}

async fn order(
    call: &Invocation<'_>,
    verb: &str,
    wish: &Wish,
    skip: Option<Position>,
    done: &str,
) -> Result<(), Problem> {
    let slice = &wish.named.slice;
    let wish = SyncWish { actor: call.actor(), reason: wish.reason.clone(), skip, replace: false };
    let remote = call.remote()?;
    let outcome = remote.sync(slice, verb, &wish).await?;
    if let Err(problem) = settle::settled(call.ui, &remote, slice, verb).await {
        call.ui.json(&outcome);
        return Err(problem);
    }
    call.ui.tick(&format!("{slice}: {done}"));
    finish(call, &outcome);
    Ok(())
}

async fn status(call: &Invocation<'_>, slice: &SliceName) -> Result<(), Problem> {
    let remote = call.remote()?;
    let status = remote.status().await?;
    let stands = find(&status, slice)?;
    let view = view(stands, &status);
    if let View::Stopped(finding, position) = view {
        return Err(stopped(slice, finding, position));
    }
    // What the bridge says of itself is true of each slice that it keeps.
    let findings = match (&view, bridge(&status)) {
        (View::Dropped, _) | (_, None) => &[],
        (_, Some((_, bridge))) => &bridge.findings[..],
    };
    if findings.iter().any(Finding::is_error) {
        return Err(Problem::error(format!("{slice}: capture has stopped, new changes do not come"))
            .with(findings.to_vec())
            .hint("mend what is marked ✗; until then the monolith keeps the changes as WAL"));
    }
    call.ui.json(&document(slice, stands, findings));
    call.ui.line(format!("{slice}: {}", view.words()));
    for finding in findings {
        call.ui.finding(finding);
    }
    call.ui.next_steps(&stands.next_steps);
    Ok(())
}

async fn begin(call: &Invocation<'_>, start: &Start) -> Result<(), Problem> {
    let remote = call.remote()?;
    let slice = &start.wish.named.slice;
    let wish = SyncWish {
        actor: call.actor(),
        reason: start.wish.reason.clone(),
        skip: None,
        replace: start.replace,
    };
    let outcome = remote.sync(slice, "start", &wish).await?;
    for finding in &outcome.findings {
        call.ui.finding(finding);
    }
    if start.detach {
        call.ui.json(&outcome);
        call.ui.line(format!("{slice}: the copy has begun"));
        call.ui.next_steps(&outcome.next_steps);
        return Ok(());
    }
    let mut signals = Signals::listen()?;
    let seconds = start.timeout.unwrap_or(u64::from(u32::MAX));
    let watched = tokio::select! {
        watched = watch(call.ui, &remote, slice) => watched?,
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {
            return Err(unwatched(slice, &format!("not yet following after {seconds} s")));
        }
        () = signals.received() => return Err(unwatched(slice, "no longer watched")),
    };
    call.ui.json(&document(slice, &watched, &outcome.findings));
    call.ui.next_steps(&watched.next_steps);
    Ok(())
}

fn unwatched(slice: &SliceName, why: &str) -> Problem {
    timed_out(format!("{slice}: {why}; the copy goes on"))
        .hint(format!("`strangler sync status {slice}` shows it"))
}

/// Watches a copy until it follows. Ends early only for what will not mend itself.
async fn watch(ui: &Ui, remote: &Remote, slice: &SliceName) -> Result<SliceStatus, Problem> {
    let mut progress = ui.progress();
    let mut heard = Instant::now();
    loop {
        match remote.status().await {
            Ok(status) => {
                heard = Instant::now();
                let stands = find(&status, slice)?;
                match view(stands, &status) {
                    follows @ View::Following(_) => {
                        progress.clear();
                        ui.line(format!("{slice}: {}", follows.words()));
                        return Ok(stands.clone());
                    }
                    View::Stopped(finding, position) => return Err(stopped(slice, finding, position)),
                    View::Dropped => {
                        return Err(Problem::error(format!("{slice}: the copy was given up meanwhile"))
                            .hint("`strangler journal` says by whom"));
                    }
                    under_way => draw(&mut progress, slice, &under_way),
                }
            }
            Err(problem) if heard.elapsed() > ABSENCE_MAX => return Err(problem),
            Err(problem) => progress.state(&format!("{slice}: {}", problem.message)),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn draw(progress: &mut Progress, slice: &SliceName, view: &View<'_>) {
    let text = format!("{slice}: {}", view.words());
    match view {
        View::Copying(rows, estimated) => progress.part(&text, *rows, *estimated),
        _ => progress.state(&text),
    }
}

/// What there is to say of a slice's copy.
enum View<'a> {
    Dropped,
    Waiting(String),
    Copying(u64, u64),
    Following(String),
    Stopped(&'a Finding, Option<Position>),
}

impl View<'_> {
    fn words(&self) -> String {
        match self {
            View::Dropped => "not copied".to_owned(),
            View::Waiting(why) | View::Following(why) => harmless(why),
            View::Copying(rows, estimated) => {
                let whole = figure::count((*estimated).max(*rows));
                format!("copied {} of about {whole} rows", figure::count(*rows))
            }
            View::Stopped(finding, _) => format!("stopped: {}", harmless(&finding.message)),
        }
    }
}

/// What the last report, read together with the stage, means. A report that is older than the stage is not believed.
fn view<'a>(slice: &'a SliceStatus, status: &Status) -> View<'a> {
    let waiting = |why: &str| View::Waiting(why.to_owned());
    if slice.stage == Stage::Monolith {
        return View::Dropped;
    }
    let bridge = bridge(status);
    let Some(stream) = slice.stream.as_ref() else {
        return waiting("waiting for a bridge; `strangler up --detach` starts one");
    };
    match (&stream.condition, slice.stage) {
        (Condition::Stopped { finding, position }, _) => View::Stopped(finding, *position),
        _ if bridge.is_none() => waiting("the bridge is silent; waiting for it"),
        (Condition::Waiting { why }, _) => View::Waiting(format!("waiting: {why}")),
        (Condition::Copying { rows, rows_estimated }, _) => View::Copying(*rows, *rows_estimated),
        (Condition::Copied { .. }, Stage::Copying) => {
            match bridge.and_then(|(_, bridge)| bridge.other_plan()) {
                Some(other) => View::Waiting(format!("copied, but {}; {}", other.message, other.hint)),
                None => waiting("copied; about to follow"),
            }
        }
        (Condition::Lost { why, .. }, _) => View::Waiting(format!("lost, to be copied again: {why}")),
        (Condition::Paused, stage) => {
            View::Following(format!("{}  paused  lag {}", stage.name(), lag(stream)))
        }
        (Condition::Following, Stage::Copying) | (Condition::Idle, _) => waiting("about to start"),
        (Condition::Following | Condition::Copied { .. }, stage) => {
            View::Following(format!("{}  lag {}", stage.name(), figure::span(stream.lag_ms)))
        }
    }
}

fn find<'a>(status: &'a Status, slice: &SliceName) -> Result<&'a SliceStatus, Problem> {
    status.slices.get(slice).ok_or_else(|| Problem::no_slice(slice, status.slices.keys()))
}

fn stopped(slice: &SliceName, finding: &Finding, position: Option<Position>) -> Problem {
    let resume = format!("strangler sync resume {slice}");
    let problem = Problem::error(format!("{slice}: the stream has stopped")).with(vec![finding.clone()]);
    let problem = problem.hint(format!("mend it, then `{resume}`"));
    match position {
        Some(position) => {
            problem.hint(format!("or leave that change out for ever: `{resume} --skip {position}`"))
        }
        None => problem,
    }
}

fn document(slice: &SliceName, stands: &SliceStatus, findings: &[Finding]) -> Value {
    json!({
        "slice": slice, "stage": stands.stage.name(), "epoch": stands.epoch, "owner": stands.owner,
        "stream": stands.stream, "findings": findings, "next_steps": stands.next_steps,
    })
}
