//! `strangler complete`: gives the way back up for ever. The one verb that cannot be undone.

use crate::crossing::{self, Named};
use crate::failed::Failed;
use crate::invocation::{Invocation, typed};
use migrations::api::CrossingVerb;
use migrations::code::Code;
use migrations::names::SliceName;
use migrations::problem::Problem;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    named: Named,
    /// The slice's name once more, instead of being asked for it
    #[arg(long, value_name = "SLICE", value_parser = typed::<SliceName>)]
    yes: Option<SliceName>,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Failed> {
    let slice = &args.named.slice;
    let question =
        format!("After this, slice {slice} can never return to the monolith. Type its name to go on:");
    let answer = match &args.yes {
        Some(name) => Some(name.to_string()),
        None => call.ui.ask(&question),
    };
    if answer.as_deref() != Some(slice.as_str()) {
        let remedy = format!("type the slice's name when asked, or add `--yes {slice}`");
        return Err(Problem::new(Code::CommandUsage, "nothing was completed", remedy).into());
    }
    let done = "the move is final, and the way back is given up";
    crossing::decide(call, CrossingVerb::Complete, &args.named, done).await
}
