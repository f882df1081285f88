//! Acts on what a bridge reports: a copy that is whole, a stream that is lost.

mod verdict;

use crate::desk::Desk;
use crate::store::Draft;
use migrations::control::{BridgeReport, Condition};

/// Journals what the report proves. What cannot be written now comes again with the next report, a second later.
pub(crate) async fn take(desk: &Desk, report: &BridgeReport) {
    let Some(state) = desk.state() else { return };
    for (slice, stream) in &report.streams {
        // A copy by another plan may not be the one that was asked for; a bridge of our plan says so, or makes it anew.
        if report.other_plan().is_some() && matches!(stream.condition, Condition::Copied { .. }) {
            continue;
        }
        // Most reports prove nothing new; only those that do cost a look into the journal.
        if !desk.plan.slices.contains_key(slice)
            || verdict::event(&state.slice(slice), &stream.condition).is_none()
        {
            continue;
        }
        let decided = desk
            .decide(|state| {
                let event = verdict::event(&state.slice(slice), &stream.condition);
                Ok(event.map(|event| Draft {
                    actor: "bridge".to_owned(),
                    reason: String::new(),
                    slice: slice.clone(),
                    event,
                }))
            })
            .await;
        if let Err(refusal) = decided {
            tracing::warn!(%slice, why = refusal.message, "a bridge's report could not be journalled yet");
        }
    }
}
