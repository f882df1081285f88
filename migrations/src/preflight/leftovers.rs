//! Findings about what an earlier attempt may have left: gates that stand otherwise than the journal says, or cannot be turned,
//! and slots without a reader.

use super::server;
use super::sight::{DatabaseSeen, GateSeen, HeadSeen};
use crate::code::Code;
use crate::finding::Finding;
use crate::plan::{Plan, Slice};

pub(super) fn judge(
    plan: &Plan,
    slice: &Slice,
    monolith: &DatabaseSeen,
    service: &DatabaseSeen,
    found: &mut Vec<Finding>,
) {
    server::slots(plan, service, found);
    let Some(head) = monolith.heads.get(slice.name.as_str()) else { return };
    for (seen, is_shut) in [(monolith, false), (service, true)] {
        if let Some(gate) = seen.gates.get(slice.name.as_str()) {
            found.extend(gate_of(slice, seen, head, gate, is_shut));
        }
    }
}

/// `is_shut` is how it stands while the monolith owns the slice.
fn gate_of(
    slice: &Slice,
    seen: &DatabaseSeen,
    head: &HeadSeen,
    gate: &GateSeen,
    is_shut: bool,
) -> Option<Finding> {
    let name = &slice.name;
    if gate.gate.epoch > head.epoch {
        return Some(Finding::error(
            Code::GateAhead,
            format!(
                "the gate of slice {name} in {} has seen epoch {}, and the journal only {}: the journal lost entries",
                seen.database, gate.gate.epoch, head.epoch
            ),
            format!(
                "stop the writers of slice {name}, restore the journal, and run `strangler verify {name}`"
            ),
        ));
    }
    let is_settled = head.stage == "following" && !head.is_held;
    if is_settled && gate.gate.is_shut != is_shut {
        return Some(Finding::error(
            Code::GateOther,
            format!(
                "the gate of slice {name} in {} is {}, and the journal says that the monolith owns the slice",
                seen.database, gate.gate
            ),
            format!("run `strangler reconcile {name}`"),
        ));
    }
    gate.refusal.as_ref().map(|why| {
        Finding::error(
            Code::GateOther,
            format!(
                "the gate of slice {name} in {} could not be shut and opened for a trial: {why}",
                seen.database
            ),
            format!(
                "if it is busy, run `strangler doctor {name}` again; otherwise run `strangler install` again"
            ),
        )
    })
}
