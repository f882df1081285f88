//! `strangler rehearse`: does everything that a cutover does before the decision, and goes back.

use crate::crossing::{self, Crossing};
use crate::failed::Failed;
use crate::invocation::Invocation;
use migrations::api::CrossingVerb;

pub(crate) async fn run(call: &Invocation<'_>, args: &Crossing) -> Result<(), Failed> {
    crossing::cross(call, CrossingVerb::Rehearse, args, None).await
}
