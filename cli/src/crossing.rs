//! What the verbs that move writes have in common: they ask the controller, watch until writes are held no longer, and
//! say how it ended. The work is the controller's: it goes on when nobody watches.

mod ending;
mod trace;
mod watch;
mod words;

use crate::edit;
use crate::failed::Failed;
use crate::invocation::{Invocation, typed};
use crate::remote::Remote;
use crate::signals::Signals;
use crate::span::{milliseconds, patience, span, written};
use crate::ui::harmless::harmless;
use ending::{Ending, Stop};
use migrations::api::{CrossingVerb, CrossingWish, Outcome, Status};
use migrations::code::Code;
use migrations::names::SliceName;
use migrations::problem::Problem;
use serde_json::{Value, json};
use std::time::Duration;
use watch::Watch;

/// How long the last look at the status may take, after which the result is printed without it.
const LAST_LOOK: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The slice's name
    #[arg(value_parser = typed::<SliceName>)]
    pub(crate) slice: SliceName,
    /// The reason, for the journal
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watching {
    /// Stop watching after this time, with exit code 8, or 6 if it is decided; the work goes on
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = patience)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Crossing {
    #[command(flatten)]
    pub(crate) named: Named,
    #[command(flatten)]
    watching: Watching,
    /// The longest that writes may be held; if it is not decided by then, it is given up [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = span)]
    hold: Option<Duration>,
    /// Print the steps, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Named {
    pub(crate) fn wish(&self, call: &Invocation<'_>) -> CrossingWish {
        CrossingWish { actor: call.actor(), reason: self.reason.clone(), ..CrossingWish::default() }
    }
}

/// Asks for a crossing, or only for its steps. `lasts` is the time of `--for`.
pub(crate) async fn cross(
    call: &Invocation<'_>,
    verb: CrossingVerb,
    args: &Crossing,
    lasts: Option<Duration>,
) -> Result<(), Failed> {
    let wish = CrossingWish {
        for_ms: lasts.map(milliseconds),
        hold_ms: args.hold.map(milliseconds),
        ..args.named.wish(call)
    };
    if args.dry_run {
        return tell(call, verb, &args.named.slice, &wish).await;
    }
    follow(call, verb, &args.named.slice, &wish, args.watching.timeout).await
}

/// Asks for something that is decided at once.
pub(crate) async fn decide(
    call: &Invocation<'_>,
    verb: CrossingVerb,
    named: &Named,
    done: &str,
) -> Result<(), Failed> {
    let remote = call.remote()?;
    edit::warn(call, &remote).await;
    let outcome = match remote.cross(&named.slice, verb, &named.wish(call)).await {
        Ok(outcome) => outcome,
        Err(problem) => return Err(refused(call, &remote, &named.slice, problem).await),
    };
    call.ui.tick(&format!("{}: {done}", named.slice));
    call.ui.outcome(&outcome);
    Ok(())
}

async fn tell(
    call: &Invocation<'_>,
    verb: CrossingVerb,
    slice: &SliceName,
    wish: &CrossingWish,
) -> Result<(), Failed> {
    let remote = call.remote()?;
    let steps = match remote.dry_run(slice, verb, wish).await {
        Ok(steps) => steps,
        Err(problem) => return Err(refused(call, &remote, slice, problem).await),
    };
    let next = vec![again(verb, slice, wish)];
    if call.ui.is_json() {
        let mut document = stands(&remote, slice).await;
        document["steps"] = json!(steps);
        document["next_steps"] = json!(next);
        call.ui.json(&document);
    }
    for step in &steps {
        call.ui.line(harmless(step));
    }
    call.ui.next_steps(&next);
    Ok(())
}

/// The command that does what a dry run tells.
fn again(verb: CrossingVerb, slice: &SliceName, wish: &CrossingWish) -> String {
    let option = |name: &str, ms: Option<u64>| {
        ms.map(|ms| format!(" {name} {}", written(Duration::from_millis(ms)))).unwrap_or_default()
    };
    format!("strangler {verb} {slice}{}{}", option("--for", wish.for_ms), option("--hold", wish.hold_ms))
}

/// Asks, and watches to the end, until patience runs out, or until a signal.
pub(crate) async fn follow(
    call: &Invocation<'_>,
    verb: CrossingVerb,
    slice: &SliceName,
    wish: &CrossingWish,
    patience: Duration,
) -> Result<(), Failed> {
    let remote = call.remote()?;
    edit::warn(call, &remote).await;
    let mut signals = Signals::listen()?;
    let asked = tokio::select! {
        asked = remote.cross(slice, verb, wish) => asked,
        () = signals.received() => return Err(unanswered(verb, slice).into()),
    };
    let outcome = match asked {
        Ok(outcome) => outcome,
        Err(problem) => return Err(refused(call, &remote, slice, problem).await),
    };
    let mut watch = Watch::new(&remote, verb, &outcome, call.ui.progress());
    let stop = tokio::select! {
        watched = watch.until_over() => watched.map_or_else(Stop::Absent, |()| Stop::Over),
        () = tokio::time::sleep(patience) => Stop::TimedOut(patience),
        () = signals.received() => Stop::Interrupted,
    };
    watch.clear();
    let status = last_look(&remote).await;
    say(call, verb, &outcome, &watch, status.as_ref(), stop)
}

fn say(
    call: &Invocation<'_>,
    verb: CrossingVerb,
    outcome: &Outcome,
    watch: &Watch<'_>,
    status: Option<&Status>,
    stop: Stop,
) -> Result<(), Failed> {
    let ending = Ending { verb, outcome, trace: &watch.trace, report: watch.report.as_ref(), status, stop };
    if let Some(problem) = ending.failure() {
        return Err(Failed::with(problem, &ending.document()));
    }
    call.ui.tick(&ending.headline());
    for line in ending.figures() {
        call.ui.line(format!("  {line}"));
    }
    for finding in &outcome.findings {
        call.ui.finding(finding);
    }
    call.ui.json(&ending.document());
    call.ui.next_steps(&ending.next_steps());
    Ok(())
}

fn unanswered(verb: CrossingVerb, slice: &SliceName) -> Problem {
    Problem::new(
        Code::CommandTimedOut,
        format!("{slice}: interrupted before the controller answered; it may still begin the {verb}"),
        format!("`strangler status` shows whether it did; `strangler abort {slice}` gives it up"),
    )
}

/// A refusal, and for programs where the slice stands.
async fn refused(call: &Invocation<'_>, remote: &Remote, slice: &SliceName, problem: Problem) -> Failed {
    if !call.ui.is_json() {
        return problem.into();
    }
    Failed::with(problem, &stands(remote, slice).await)
}

async fn stands(remote: &Remote, slice: &SliceName) -> Value {
    let status = last_look(remote).await;
    let stands = status.as_ref().and_then(|status| status.slices.get(slice));
    stands.map_or_else(
        || json!({ "slice": slice }),
        |stands| {
            json!({
                "slice": slice, "stage": stands.stage.name(), "epoch": stands.epoch, "owner": stands.owner,
                "next_steps": stands.next_steps,
            })
        },
    )
}

async fn last_look(remote: &Remote) -> Option<Status> {
    tokio::time::timeout(LAST_LOOK, remote.status()).await.ok()?.ok()
}
