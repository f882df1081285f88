//! The state of a slice's copy as the controller's status shows it, and whether the bridge has done what was decided.
//! Pure.

use crate::outlook::{bridge, lag, listed, time_lag};
use crate::ui::figure;
use crate::ui::harmless::harmless;
use crate::verb::no_slice;
use migrations::api::{SliceStatus, Status, SyncVerb};
use migrations::code::Code;
use migrations::control::{BridgeReport, Condition};
use migrations::finding::Finding;
use migrations::lane::LaneId;
use migrations::names::SliceName;
use migrations::problem::Problem;
use migrations::stage::Stage;
use serde_json::{Value, json};

pub(crate) enum CopyState<'a> {
    Dropped,
    Waiting(String),
    /// Rows so far, and the estimate of all rows.
    Copying(u64, u64),
    Following(String),
    Stopped(&'a Finding),
}

impl<'a> CopyState<'a> {
    /// Combines the last report with the stage. A report that is older than the stage is ignored.
    pub(crate) fn of(slice: &'a SliceStatus, status: &Status) -> Self {
        let waiting = |why: &str| CopyState::Waiting(why.to_owned());
        if slice.stage == Stage::Monolith {
            return CopyState::Dropped;
        }
        let bridge = bridge(status);
        // A lane that is stopped stands in the way, whichever it is.
        let stopped = slice.lanes.values().find(|lane| matches!(lane.condition, Condition::Stopped { .. }));
        let Some(stream) = stopped.or_else(|| slice.lane()) else {
            return waiting("waiting for a bridge; start one with `strangler up --detach`");
        };
        match (&stream.condition, slice.stage) {
            (Condition::Stopped { finding, .. }, _) => CopyState::Stopped(finding),
            _ if bridge.is_none() => waiting("waiting for the bridge, which is silent"),
            (Condition::Waiting { finding }, _) => {
                CopyState::Waiting(format!("waiting: {}", finding.message))
            }
            (Condition::Copying { rows, rows_estimated }, _) => CopyState::Copying(*rows, *rows_estimated),
            (Condition::Adding { tables, rows, rows_estimated, waits }, stage) => {
                let added = match waits {
                    Some(why) => format!("waits: {why}"),
                    None => of_about(*rows, *rows_estimated),
                };
                let lag = time_lag(stream);
                CopyState::Following(format!(
                    "{}  adding {}: {added}  lag {lag}",
                    stage.name(),
                    listed(tables)
                ))
            }
            (Condition::Copied { .. }, Stage::Copying) => {
                match bridge.and_then(|(_, bridge)| bridge.other_plan()) {
                    Some(other) => {
                        CopyState::Waiting(format!("copied, but {}; {}", other.message, other.remedy))
                    }
                    None => waiting("copied; about to follow"),
                }
            }
            (Condition::Lost { why, .. }, _) => {
                CopyState::Waiting(format!("lost, and will be copied again: {why}"))
            }
            (Condition::Paused, stage) => {
                CopyState::Following(format!("{}  paused  lag {}", stage.name(), lag(slice)))
            }
            (Condition::Following, Stage::Copying) | (Condition::Idle, _) => waiting("about to start"),
            (Condition::Following | Condition::Copied { .. }, stage) => {
                CopyState::Following(format!("{}  lag {}", stage.name(), time_lag(stream)))
            }
        }
    }

    pub(crate) fn words(&self) -> String {
        match self {
            CopyState::Dropped => "not copied".to_owned(),
            CopyState::Waiting(why) | CopyState::Following(why) => harmless(why),
            CopyState::Copying(rows, estimated) => format!("copied {}", of_about(*rows, *estimated)),
            CopyState::Stopped(finding) => format!("stopped: {}", harmless(&finding.message)),
        }
    }
}

fn of_about(rows: u64, estimated: u64) -> String {
    format!("{} of about {} rows", figure::count(rows), figure::count(estimated.max(rows)))
}

pub(crate) fn find<'a>(status: &'a Status, slice: &SliceName) -> Result<&'a SliceStatus, Problem> {
    status.slices.get(slice).ok_or_else(|| no_slice(slice, status.slices.keys()))
}

/// What to do is said once, by the finding: only it knows whether the slice goes on or must be copied again.
pub(crate) fn stopped(slice: &SliceName, finding: &Finding) -> Problem {
    let message = format!("{slice}: the stream has stopped");
    Problem::new(Code::SliceStopped, message, finding.remedy.clone()).with(vec![finding.clone()])
}

pub(crate) fn document(slice: &SliceName, stands: &SliceStatus, findings: &[Finding]) -> Value {
    json!({
        "slice": slice, "stage": stands.stage.name(), "epoch": stands.epoch, "owner": stands.owner,
        "lanes": stands.lanes, "findings": findings, "next_steps": stands.next_steps,
    })
}

/// Whether the live bridge reports what `verb` asked for.
pub(crate) fn has_settled(status: &Status, slice: &SliceName, verb: SyncVerb) -> bool {
    let Some((agent, bridge)) = bridge(status) else { return false };
    if agent.generation < Some(status.generation) {
        return false;
    }
    let condition = bridge.lanes.get(&LaneId::forward(slice.clone())).map(|stream| &stream.condition);
    let nothing_left =
        status.slices.values().all(|stands| !stands.has_tables || stands.stage == Stage::Monolith);
    match verb {
        SyncVerb::Pause => matches!(condition, Some(Condition::Paused)),
        SyncVerb::Start | SyncVerb::Resume => condition.is_some_and(moves),
        // A bridge with another plan may not know the slice or all its tables, so its silence proves nothing.
        SyncVerb::Drop => {
            matches!(condition, Some(Condition::Idle))
                && bridge.other_plan().is_none()
                && (!nothing_left || bridge.holds_nothing)
        }
    }
}

fn moves(condition: &Condition) -> bool {
    matches!(
        condition,
        Condition::Following
            | Condition::Adding { .. }
            | Condition::Copying { .. }
            | Condition::Copied { .. }
    )
}

/// Why it is not done: a resumed stream may have stopped again, or the bridge has not acted yet.
pub(crate) fn unsettled(status: Option<&Status>, slice: &SliceName, verb: SyncVerb) -> Problem {
    let bridge = status.and_then(bridge).map(|(_, bridge)| bridge);
    let stream = bridge.and_then(|bridge| bridge.lanes.get(&LaneId::forward(slice.clone())));
    let other_plan = bridge.and_then(BridgeReport::other_plan).filter(|_| verb == SyncVerb::Drop);
    match (stream.map(|stream| &stream.condition), other_plan) {
        (Some(Condition::Stopped { finding, .. }), _) if verb == SyncVerb::Resume => stopped(slice, finding),
        (_, Some(other)) => Problem::new(
            Code::CommandTimedOut,
            format!("{slice}: decided, but not done yet: {}", other.message),
            format!("{}; the bridge then does it", other.remedy),
        ),
        _ => Problem::new(
            Code::CommandTimedOut,
            format!("{slice}: decided, but the bridge has not done it yet"),
            "the bridge does it as soon as it can; `strangler status` shows whether a bridge is live",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::code::Code;
    use migrations::control::Report;

    fn status(condition: &Value) -> Status {
        let stream =
            json!({ "condition": condition, "lag_bytes": 0, "lag_ms": 0, "changes": 0, "foreign": 0 });
        let report = json!({ "bridge": { "feeds": {}, "lanes": { "orders/forward": stream }, "findings": [], "holds_nothing": false } });
        serde_json::from_value(json!({
            "plan": "shop", "journal": "00000000-0000-0000-0000-000000000001", "generation": 3, "now": 0,
            "slices": {}, "findings": [],
            "agents": [{
                "agent": { "kind": "bridge", "name": "one" }, "address": null, "live": true, "seen_ms_ago": 1,
                "generation": 3, "report": report,
            }],
        }))
        .unwrap()
    }

    fn waiting(why: &str) -> Value {
        json!({ "condition": "waiting", "finding": Finding::warning(Code::BridgeWaits, why, "") })
    }

    #[test]
    fn the_last_slice_is_given_up_when_the_bridge_holds_nothing_any_more() {
        let slice: SliceName = "orders".parse().unwrap();
        let given_up = |condition: &Value, holds_nothing| {
            let mut status = status(condition);
            if let Report::Bridge(report) = &mut status.agents[0].report {
                report.holds_nothing = holds_nothing;
            }
            has_settled(&status, &slice, SyncVerb::Drop)
        };
        let idle = json!({ "condition": "idle" });
        assert!(given_up(&idle, true) && !given_up(&idle, false));
        assert!(!given_up(&waiting("not looked at yet"), true));
    }

    #[test]
    fn a_bridge_with_another_plan_gives_nothing_up() {
        let slice: SliceName = "orders".parse().unwrap();
        let reported = |change: &dyn Fn(&mut BridgeReport)| {
            let mut status = status(&json!({ "condition": "idle" }));
            if let Report::Bridge(report) = &mut status.agents[0].report {
                report.holds_nothing = true;
                change(report);
            }
            status
        };
        let other = || Finding::warning(Code::BridgeOtherPlan, "another plan", "start it again");
        assert!(has_settled(&reported(&|_| {}), &slice, SyncVerb::Drop));
        let unknown = reported(&|report| report.lanes.clear());
        assert!(!has_settled(&unknown, &slice, SyncVerb::Drop), "it does not know the slice");
        let old = reported(&|report| report.findings.push(other()));
        assert!(!has_settled(&old, &slice, SyncVerb::Drop), "it may not know all of its tables");
        let problem = unsettled(Some(&old), &slice, SyncVerb::Drop);
        assert!(problem.exit() == 8 && problem.message.contains("another plan"), "{}", problem.message);
    }

    #[test]
    fn a_slice_goes_on_when_its_stream_moves() {
        let slice: SliceName = "orders".parse().unwrap();
        let goes_on = |condition: &Value| has_settled(&status(condition), &slice, SyncVerb::Resume);
        assert!(goes_on(&json!({ "condition": "following" })));
        assert!(goes_on(&json!({ "condition": "copying", "rows": 1, "rows_estimated": 9 })));
        let adding =
            json!({ "condition": "adding", "tables": ["public.prices"], "rows": 1, "rows_estimated": 9 });
        assert!(goes_on(&adding));
        assert!(!goes_on(&json!({ "condition": "paused" })));
        assert!(!goes_on(&waiting("the service's database is away")));

        let finding = Finding::error(Code::SinkRefusedRow, "no", "mend it");
        let stands = json!({ "condition": "stopped", "finding": finding });
        assert!(!goes_on(&stands));
        let problem = unsettled(Some(&status(&stands)), &slice, SyncVerb::Resume);
        assert_eq!((problem.exit(), &problem.remedy[..], problem.findings), (1, "mend it", vec![finding]));
        assert_eq!(unsettled(None, &slice, SyncVerb::Resume).exit(), 8);
    }
}
