//! Where a slice stands in a crossing. What a coordinator has seen counts in one place only.

use migrations::journal::SliceState;
use migrations::stage::{Epoch, Stage};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) stage: &'static str,
    pub(crate) epoch: Epoch,
    pub(crate) is_preparing: bool,
    pub(crate) is_held: bool,
}

impl Place {
    pub(crate) fn of(state: &SliceState) -> Place {
        Place {
            stage: state.stage.name(),
            epoch: state.epoch,
            is_preparing: state.preparing.is_some(),
            is_held: state.hold.is_some(),
        }
    }

    /// Whether a coordinator is needed: something is under way, or will be by itself.
    pub(crate) fn needs_coordinator(state: &SliceState) -> bool {
        state.is_crossing() || matches!(state.stage, Stage::Split { returns_at: Some(_), .. })
    }
}
