//! `strangler tail`: a slice's changes, one line each.

use crate::invocation::{Invocation, typed};
use crate::outlook::bridge;
use crate::remote::Tail;
use crate::signals::Signals;
use crate::ui::change;
use crate::verb::no_slice;
use migrations::code::Code;
use migrations::names::SliceName;
use migrations::problem::Problem;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The slice's name
    #[arg(value_parser = typed::<SliceName>)]
    slice: SliceName,
    /// How many past events to print, at most 1000
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(0..=1000))]
    count: u32,
    /// Keep printing new events until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Print each change's record as a consumer of the topics reads it, one JSON document a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let remote = call.remote()?;
    let status = remote.status().await?;
    let Some(stands) = status.slices.get(&args.slice) else {
        return Err(no_slice(&args.slice, status.slices.keys()));
    };
    if !stands.has_tables {
        let message =
            format!("slice `{}` has no tables in the plan, so it has no changes to show", args.slice);
        return Err(Problem::new(
            Code::SliceImpossible,
            message,
            "to follow changes, name the slice's tables under `tables:` in the plan",
        ));
    }
    let address = bridge(&status).and_then(|(agent, _)| agent.address.as_deref()).ok_or_else(|| {
        Problem::new(
            Code::ApiUnreachable,
            "no bridge is live, and only a bridge can read the log",
            "start one with `strangler up --detach`, or read .strangler/log/bridge.log",
        )
    })?;
    let is_raw = args.json || call.ui.is_json();
    let tail = Tail { slice: &args.slice, n: args.count, follow: args.follow, told: !is_raw };
    let mut signals = Signals::listen()?;
    // A busy bridge may take long to answer.
    let mut lines = tokio::select! {
        lines = remote.tail(address, &tail) => lines?,
        () = signals.received() => return Ok(()),
    };
    let mut shown = 0u64;
    while !call.ui.is_gone() {
        let line = tokio::select! {
            line = lines.next() => line,
            () = signals.received() => break,
        };
        match line.transpose()? {
            None => break,
            Some(line) if line.is_empty() => {}
            Some(line) if is_raw => call.ui.raw(&format!("{line}\n")),
            Some(line) => call.ui.raw(&format!("{}\n", change::line(&line))),
        }
        shown += 1;
    }
    if shown == 0 && !args.follow {
        call.ui.note("no changes yet; the first copy does not pass through the log");
        call.ui.hint(&format!("wait for changes with `strangler tail {} -f`", args.slice));
    }
    Ok(())
}
