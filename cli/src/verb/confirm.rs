//! `strangler confirm`: a slice that would return by itself stays at the service.

use crate::crossing::{self, Named};
use crate::failed::Failed;
use crate::invocation::Invocation;
use migrations::api::CrossingVerb;

pub(crate) async fn run(call: &Invocation<'_>, args: &Named) -> Result<(), Failed> {
    let done = "confirmed; the slice stays at the service";
    crossing::decide(call, CrossingVerb::Confirm, args, done).await
}
