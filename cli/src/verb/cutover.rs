//! `strangler cutover`: moves a slice's writes to the service.

use crate::crossing::{self, Crossing};
use crate::failed::Failed;
use crate::invocation::Invocation;
use crate::span::span;
use migrations::api::CrossingVerb;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    crossing: Crossing,
    /// Give everything back by itself after this time, unless `strangler confirm` comes first
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    lasts: Option<Duration>,
}

pub(crate) async fn run(call: &Invocation<'_>, args: &Args) -> Result<(), Failed> {
    crossing::cross(call, CrossingVerb::Cutover, &args.crossing, args.lasts).await
}
