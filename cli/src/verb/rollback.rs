//! `strangler rollback`: gives a slice back to the monolith, with everything that the service wrote.

use crate::crossing::{self, Crossing};
use crate::failed::Failed;
use crate::invocation::Invocation;
use migrations::api::CrossingVerb;

pub(crate) async fn run(call: &Invocation<'_>, args: &Crossing) -> Result<(), Failed> {
    crossing::cross(call, CrossingVerb::Rollback, args, None).await
}
