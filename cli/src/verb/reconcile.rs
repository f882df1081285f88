//! `strangler reconcile`: waits for what is under way, then makes the gates match the journal.

use crate::crossing::Watching;
use crate::failed::Failed;
use crate::invocation::{Invocation, typed};
use crate::remote::Remote;
use crate::signals::Signals;
use crate::ui::progress::Progress;
use crate::verb::no_slice;
use migrations::api::{Reconciled, SliceStatus, Status};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::SliceName;
use migrations::problem::Problem;
use migrations::stage::Owner;
use serde_json::{Value, json};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this slice [default: all slices]
    #[arg(value_parser = typed::<SliceName>)]
    slice: Option<SliceName>,
    #[command(flatten)]
    watching: Watching,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Failed> {
    let remote = call.remote()?;
    let only = args.slice.as_ref();
    let mut status = remote.status().await?;
    if let Some(slice) = only.filter(|slice| !status.slices.contains_key(*slice)) {
        return Err(no_slice(slice, status.slices.keys()).into());
    }
    let mut signals = Signals::listen()?;
    let mut progress = call.ui.progress();
    let ended = tokio::select! {
        settled = settled(&remote, only, &mut status, &mut progress) => settled.map(|()| true)?,
        () = tokio::time::sleep(args.watching.timeout) => false,
        () = signals.received() => false,
    };
    progress.clear();
    if let Some(problem) = under_way(&status, only).filter(|_| !ended) {
        return Err(Failed::with(problem, &document(&status, only, &[])));
    }
    let done = remote.reconcile(only).await?;
    // What was turned changes nothing in the journal, so the status from before still holds.
    say(call, &status, only, &done)
}

/// Returns when none of the slices is crossing.
async fn settled(
    remote: &Remote,
    only: Option<&SliceName>,
    status: &mut Status,
    progress: &mut Progress,
) -> Result<(), Problem> {
    while let Some((name, slice)) = crossing(status, only) {
        progress.state(&format!("{name}: {}, waiting for its end", slice.stage.name()));
        tokio::time::sleep(LOOK_EVERY).await;
        *status = remote.status().await?;
    }
    Ok(())
}

fn crossing<'s>(status: &'s Status, only: Option<&SliceName>) -> Option<(&'s SliceName, &'s SliceStatus)> {
    let is_crossing = |slice: &SliceStatus| slice.preparing.is_some() || slice.hold.is_some();
    status.slices.iter().find(|(name, slice)| only.is_none_or(|only| only == *name) && is_crossing(slice))
}

/// What is still under way, as a failure.
fn under_way(status: &Status, only: Option<&SliceName>) -> Option<Problem> {
    let (name, slice) = crossing(status, only)?;
    let is_decided = slice.hold.is_some() && slice.owner != Owner::Nobody;
    let watch = "`strangler status -w` shows how it goes on";
    Some(if is_decided {
        let message =
            format!("{name}: the {} owns the slice, but writes are still held; watching ended", slice.owner);
        Problem::new(Code::SliceUnfinished, message, watch)
    } else {
        let message = format!("{name}: a cutover or rollback is not decided yet; watching ended");
        let problem = Problem::new(Code::CommandTimedOut, message, watch);
        problem.remedy(&format!("to give it up: `strangler abort {name}`"))
    })
}

fn say(
    call: &Invocation<'_>,
    status: &Status,
    only: Option<&SliceName>,
    done: &[Reconciled],
) -> Result<(), Failed> {
    for one in done {
        for did in &one.did {
            call.ui.tick(&format!("{}: {did}", one.slice));
        }
        if one.did.is_empty() && one.findings.is_empty() {
            call.ui.tick(&format!("{}: the gates match the journal", one.slice));
        }
    }
    let findings: Vec<Finding> = done.iter().flat_map(|one| one.findings.clone()).collect();
    let document = document(status, only, done);
    if let Some(worst) = findings.iter().find(|finding| finding.is_error()) {
        let message = "not everything could be made to match the journal";
        let problem =
            Problem::new(worst.code, message, "do what each ✗ says, then run `strangler reconcile` again");
        return Err(Failed::with(problem.with(findings), &document));
    }
    for finding in &findings {
        call.ui.finding(finding);
    }
    call.ui.json(&document);
    Ok(())
}

/// One slice's document, or the list of all.
fn document(status: &Status, only: Option<&SliceName>, done: &[Reconciled]) -> Value {
    let of = |(name, slice): (&SliceName, &SliceStatus)| {
        let done = done.iter().find(|one| one.slice == *name);
        json!({
            "slice": name, "stage": slice.stage.name(), "epoch": slice.epoch, "owner": slice.owner,
            "did": done.map_or(&[][..], |one| &one.did), "next_steps": slice.next_steps,
        })
    };
    match only.and_then(|only| status.slices.get_key_value(only)) {
        Some(slice) => of(slice),
        None => json!({ "slices": status.slices.iter().map(of).collect::<Vec<_>>() }),
    }
}
