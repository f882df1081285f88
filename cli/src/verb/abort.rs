//! `strangler abort`: gives a cutover, a rehearsal or a rollback up that is not decided yet.

use crate::crossing::{self, Named, Watching};
use crate::failed::Failed;
use crate::invocation::Invocation;
use migrations::api::CrossingVerb;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    watching: Watching,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Failed> {
    let wish = args.named.wish(call);
    crossing::follow(call, CrossingVerb::Abort, &args.named.slice, &wish, args.watching.timeout).await
}
