//! `strangler readers`: shows who reads a slice's tables in the monolith's database. After a cutover they read what came back.

use crate::accesses;
use crate::invocation::{Invocation, typed};
use crate::signals::Signals;
use crate::span::span;
use crate::verb::no_slice;
use migrations::names::SliceName;
use migrations::problem::Problem;
use serde_json::json;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The slice's name
    #[arg(value_parser = typed::<SliceName>)]
    slice: SliceName,
    /// Look at the sessions for this time
    #[arg(long, value_name = "TIME", value_parser = span, default_value = "3s")]
    observe: Duration,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Problem> {
    let plan = call.plan()?;
    let Some(slice) = plan.slices.get(&args.slice) else {
        return Err(no_slice(&args.slice, plan.slices.keys()));
    };
    let mut signals = Signals::listen()?;
    let mut progress = call.ui.progress();
    progress.state("looking who reads");
    let ended = async move { signals.received().await };
    let readers = crate::part::readers(&plan, slice, args.observe, ended).await?;
    progress.clear();
    call.ui.json(&json!({
        "slice": slice.name, "readers": readers.seen, "has_statements": readers.has_statements, "next_steps": [],
    }));
    accesses::show(call.ui, &readers, None);
    Ok(())
}
