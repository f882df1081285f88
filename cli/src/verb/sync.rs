//! `strangler sync`: copies a slice's tables and follows changes; shows, pauses, resumes and drops the copy.

mod copy;

use crate::edit;
use crate::invocation::{Invocation, typed};
use crate::outlook::bridge;
use crate::remote::Remote;
use crate::signals::Signals;
use crate::span::{patience, written};
use crate::ui::Ui;
use crate::ui::progress::Progress;
use copy::{CopyState, document, find, has_settled, stopped, unsettled};
use migrations::api::{SliceStatus, SyncVerb, SyncWish};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lsn::{Of, Position};
use migrations::names::SliceName;
use migrations::problem::Problem;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long the controller may be unreachable, for example during a restart, before watching ends.
const ABSENCE_MAX: Duration = Duration::from_secs(30);
/// How long to wait for a live bridge to act on a decision.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait if no bridge is live. One may be about to start.
const ABSENT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a resumed stream must keep moving: the change that stopped it comes first and may stop it again.
const STEADY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Copy the slice's tables, then follow changes; return when the slice follows
    Start(Start),
    /// Show the state of the copy; exit with 1 if the copy or capture has stopped
    Status(Named),
    /// Stop applying changes; the log keeps new ones
    Pause(Wish),
    /// Apply changes again
    Resume(Resume),
    /// Give up the copy, and remove its slot, gate and position
    Drop(Drop),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The slice's name
    #[arg(value_parser = typed::<SliceName>)]
    slice: SliceName,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Wish {
    #[command(flatten)]
    named: Named,
    /// The reason, for the journal
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    #[command(flatten)]
    wish: Wish,
    /// Return at once; the copy continues
    #[arg(short, long)]
    detach: bool,
    /// Stop watching after this time, with exit code 8; the copy continues
    #[arg(long, value_name = "TIME", value_parser = patience)]
    timeout: Option<Duration>,
    /// Empty the service's tables first, even if they hold rows
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    wish: Wish,
    /// Skip the change at this position for good; the finding names the position
    #[arg(long, value_name = "POSITION", value_parser = typed::<Position>)]
    skip: Option<Position>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drop {
    #[command(flatten)]
    wish: Wish,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, verb: &Verb) -> Result<(), Problem> {
    match verb {
        Verb::Start(start) => begin(call, start).await,
        Verb::Status(named) => status(call, &named.slice).await,
        Verb::Pause(wish) => {
            order(
                call,
                SyncVerb::Pause,
                wish,
                None,
                "paused; the log keeps changes until `strangler sync resume`",
            )
            .await
        }
        Verb::Resume(resume) => order(call, SyncVerb::Resume, &resume.wish, resume.skip, "resumed").await,
        Verb::Drop(drop) => {
            let slice = &drop.wish.named.slice;
            let question = format!("Drop the copy of `{slice}`? A new start copies every row again.");
            if !drop.yes && !call.ui.confirm(&question) {
                return Err(Problem::new(
                    Code::CommandUsage,
                    "nothing was dropped",
                    "answer `y`, or add --yes",
                ));
            }
            order(call, SyncVerb::Drop, &drop.wish, None, "the copy is dropped").await
        }
    }
}

async fn order(
    call: &Invocation<'_>,
    verb: SyncVerb,
    wish: &Wish,
    skip: Option<Position>,
    done: &str,
) -> Result<(), Problem> {
    let slice = &wish.named.slice;
    let wish = SyncWish {
        actor: call.actor(),
        reason: wish.reason.clone(),
        skip: skip.map(Of::monolith),
        replace: false,
    };
    let remote = call.remote()?;
    edit::warn(call, &remote).await;
    let outcome = remote.sync(slice, verb, &wish).await?;
    if let Err(problem) = settled(call.ui, &remote, slice, verb).await {
        call.ui.json(&outcome);
        return Err(problem);
    }
    call.ui.tick(&format!("{slice}: {done}"));
    call.ui.outcome(&outcome);
    Ok(())
}

/// Waits until the bridge has done what was decided. After a `drop`, for example, the slot is gone.
async fn settled(ui: &Ui, remote: &Remote, slice: &SliceName, verb: SyncVerb) -> Result<(), Problem> {
    let mut progress = ui.progress();
    let begun = Instant::now();
    let mut since: Option<Instant> = None;
    loop {
        let status = remote.status().await.ok();
        if status.as_ref().is_some_and(|status| has_settled(status, slice, verb)) {
            if verb != SyncVerb::Resume || since.get_or_insert_with(Instant::now).elapsed() >= STEADY {
                return Ok(());
            }
        } else {
            since = None;
        }
        let is_live = status.as_ref().and_then(bridge).is_some();
        if begun.elapsed() >= if is_live { PATIENCE } else { ABSENT_PATIENCE } {
            return Err(unsettled(status.as_ref(), slice, verb));
        }
        progress.state(&format!("{slice}: waiting for the bridge"));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn status(call: &Invocation<'_>, slice: &SliceName) -> Result<(), Problem> {
    let remote = call.remote()?;
    let status = remote.status().await?;
    let stands = find(&status, slice)?;
    let state = CopyState::of(stands, &status);
    if let CopyState::Stopped(finding) = state {
        return Err(stopped(slice, finding));
    }
    // A finding about the bridge itself concerns each of its slices.
    let findings = match (&state, bridge(&status)) {
        (CopyState::Dropped, _) | (_, None) => &[],
        (_, Some((_, bridge))) => &bridge.findings[..],
    };
    if findings.iter().any(Finding::is_error) {
        return Err(Problem::new(
            Code::SliceStopped,
            format!("{slice}: capture has stopped, so new changes do not arrive"),
            "fix each finding marked ✗; until then the monolith keeps the changes as WAL",
        )
        .with(findings.to_vec()));
    }
    call.ui.json(&document(slice, stands, findings));
    call.ui.line(format!("{slice}: {}", state.words()));
    for finding in findings {
        call.ui.finding(finding);
    }
    call.ui.next_steps(&stands.next_steps);
    Ok(())
}

async fn begin(call: &Invocation<'_>, start: &Start) -> Result<(), Problem> {
    let remote = call.remote()?;
    edit::warn(call, &remote).await;
    let slice = &start.wish.named.slice;
    let wish = SyncWish {
        actor: call.actor(),
        reason: start.wish.reason.clone(),
        skip: None,
        replace: start.replace,
    };
    let outcome = remote.sync(slice, SyncVerb::Start, &wish).await?;
    for finding in &outcome.findings {
        call.ui.finding(finding);
    }
    if start.detach {
        call.ui.json(&outcome);
        call.ui.line(format!("{slice}: the copy has started"));
        call.ui.next_steps(&outcome.next_steps);
        return Ok(());
    }
    let mut signals = Signals::listen()?;
    let patience = start.timeout.unwrap_or(Duration::MAX);
    let watched = tokio::select! {
        watched = watch(call.ui, &remote, slice) => watched?,
        () = tokio::time::sleep(patience) => {
            return Err(unwatched(slice, &format!("not yet following after {}", written(patience))));
        }
        () = signals.received() => return Err(unwatched(slice, "watching was interrupted")),
    };
    call.ui.json(&document(slice, &watched, &outcome.findings));
    call.ui.next_steps(&watched.next_steps);
    Ok(())
}

fn unwatched(slice: &SliceName, why: &str) -> Problem {
    Problem::new(
        Code::CommandTimedOut,
        format!("{slice}: {why}; the copy continues"),
        format!("`strangler sync status {slice}` shows its state"),
    )
}

/// Watches a copy until it follows. Ends early only on a problem that needs a person.
async fn watch(ui: &Ui, remote: &Remote, slice: &SliceName) -> Result<SliceStatus, Problem> {
    let mut progress = ui.progress();
    let mut heard = Instant::now();
    loop {
        match remote.status().await {
            Ok(status) => {
                heard = Instant::now();
                let stands = find(&status, slice)?;
                match CopyState::of(stands, &status) {
                    follows @ CopyState::Following(_) => {
                        progress.clear();
                        ui.line(format!("{slice}: {}", follows.words()));
                        return Ok(stands.clone());
                    }
                    CopyState::Stopped(finding) => return Err(stopped(slice, finding)),
                    CopyState::Dropped => {
                        return Err(Problem::new(
                            Code::SliceStopped,
                            format!("{slice}: the copy was dropped by someone else"),
                            "`strangler journal` shows who dropped it",
                        ));
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

fn draw(progress: &mut Progress, slice: &SliceName, state: &CopyState<'_>) {
    let text = format!("{slice}: {}", state.words());
    match state {
        CopyState::Copying(rows, estimated) => progress.part(&text, *rows, *estimated),
        _ => progress.state(&text),
    }
}
