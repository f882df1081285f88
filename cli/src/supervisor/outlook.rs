//! What a supervisor makes of the controller's status: one line for whoever watches, and which slot keeps WAL. Pure.

use crate::house::record::Kept;
use crate::part::Part;
use crate::ui::figure;
use migrations::api::{SliceStatus, Status};
use migrations::control::{Condition, Report};

/// The slot that keeps WAL if everything stops now. A bridge that is silent just now leaves `known` standing.
pub fn kept(status: &Status, known: Option<&Kept>) -> Option<Kept> {
    let captured = status.slices.iter().filter(|(_, slice)| slice.stage.is_captured() && slice.has_tables);
    let slices: Vec<String> = captured.map(|(name, _)| name.to_string()).collect();
    if slices.is_empty() {
        return None;
    }
    let reported = status.agents.iter().find_map(|agent| match &agent.report {
        Report::Bridge(bridge) => bridge.capture.as_ref().map(|capture| capture.slot.clone()),
        Report::Proxy(_) => None,
    });
    let slot = reported.or_else(|| known.map(|known| known.slot.clone()))?;
    Some(Kept { slot, slices })
}

/// Parts and slices on one line. Without `figures` it changes only when something happens.
pub fn line(parts: impl Iterator<Item = (Part, bool)>, status: Option<&Status>, figures: bool) -> String {
    let mark = |runs: bool| if runs { '✔' } else { '✗' };
    let mut words: Vec<String> =
        parts.map(|(part, runs)| format!("{} {}", part.name(), mark(runs))).collect();
    for (name, slice) in status.iter().flat_map(|status| &status.slices) {
        words.push(format!("{name} {}", condition(slice, figures)));
    }
    words.join("  ")
}

/// How a slice stands, in few words.
pub fn condition(slice: &SliceStatus, figures: bool) -> String {
    let stage = slice.stage.name();
    let Some(stream) = &slice.stream else { return stage.to_owned() };
    match &stream.condition {
        Condition::Idle | Condition::Copied { .. } => stage.to_owned(),
        Condition::Copying { rows, rows_estimated } if figures => {
            format!("copying {} %", figure::percent(*rows, *rows_estimated))
        }
        Condition::Copying { .. } => "copying".to_owned(),
        Condition::Following if figures => format!("{stage}, lag {}", figure::span(stream.lag_ms)),
        Condition::Following => stage.to_owned(),
        Condition::Paused => format!("{stage}, paused"),
        Condition::Waiting { .. } => format!("{stage}, waiting"),
        Condition::Lost { .. } => format!("{stage}, lost"),
        Condition::Stopped { .. } => format!("{stage}, stopped"),
    }
}
