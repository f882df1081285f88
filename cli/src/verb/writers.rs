//! `strangler writers`: shows who writes a slice's tables, and what the plan says of each.

use crate::accesses;
use crate::invocation::{Invocation, typed};
use crate::signals::Signals;
use crate::span::{self, span};
use crate::verb::no_slice;
use migrations::names::SliceName;
use migrations::preflight;
use migrations::problem::Problem;
use serde_json::json;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The slice's name
    #[arg(value_parser = typed::<SliceName>)]
    slice: SliceName,
    /// Note every writer for this time, by triggers; they end by themselves
    #[arg(long, value_name = "TIME", value_parser = span)]
    observe: Option<Duration>,
    /// Forget what was noted before
    #[arg(long)]
    forget: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let plan = call.plan()?;
    let Some(slice) = plan.slices.get(&args.slice) else {
        return Err(no_slice(&args.slice, plan.slices.keys()));
    };
    let mut signals = Signals::listen()?;
    let mut progress = call.ui.progress();
    match args.observe {
        Some(time) => progress.state(&format!("noting who writes, for {}", span::written(time))),
        None => progress.state("looking who writes"),
    }
    let ended = async move { signals.received().await };
    let writers = crate::part::writers(&plan, slice, args.observe, args.forget, ended).await?;
    progress.clear();
    let findings = preflight::unmarked(slice, &writers);
    let mut next = Vec::new();
    if !writers.was_watched {
        next.push(format!("strangler writers {} --observe 10m", slice.name));
    }
    let marks: Vec<_> = writers.seen.iter().map(|one| one.fate(slice)).collect();
    call.ui.json(&json!({
        "slice": slice.name, "writers": accesses::document(&writers, &marks), "was_watched": writers.was_watched,
        "has_statements": writers.has_statements, "findings": findings, "next_steps": next,
    }));
    accesses::show(call.ui, &writers, Some(&marks));
    for finding in findings.iter().filter(|_| !call.ui.is_json()) {
        call.ui.finding(finding);
    }
    if findings.is_empty() && writers.was_watched {
        call.ui.tick(&format!("{}: every writer that was seen is marked", slice.name));
    }
    call.ui.next_steps(&next);
    Ok(())
}
