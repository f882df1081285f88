//! Acts on what a bridge reports: a copy that is whole, a stream that is lost.

mod verdict;

use crate::desk::Desk;
use crate::store::Draft;
use migrations::control::{BridgeReport, Condition};

/// Journals what the report proves. What cannot be written now comes again with the next report, a second later.
pub(crate) async fn take(desk: &Desk, report: &BridgeReport) {
    let Some(state) = desk.state() else { return };
    let is_of_other_plan = report.other_plan().is_some();
    for (lane, report) in &report.lanes {
        let slice = &lane.slice;
        // A copy by another plan may not be the one that was asked for; a bridge of our plan says so, or makes it anew.
        if is_of_other_plan && matches!(report.condition, Condition::Copied { .. }) {
            continue;
        }
        // Most reports prove nothing new; only those that do cost a look into the journal.
        if !desk.plan.slices.contains_key(slice)
            || verdict::event(&state.slice(slice), lane, &report.condition).is_none()
        {
            continue;
        }
        let decided = desk
            .decide(|state| {
                let Some(event) = verdict::event(&state.slice(slice), lane, &report.condition) else {
                    return Ok(None);
                };
                let decided = state.plan_move(slice, event)?;
                Ok(Some(Draft { actor: "bridge".to_owned(), reason: String::new(), decided }))
            })
            .await;
        if let Err(refusal) = decided {
            tracing::warn!(%lane, why = refusal.message, "a bridge's report could not be journalled yet");
        }
    }
}
