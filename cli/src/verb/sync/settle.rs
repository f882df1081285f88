//! Waiting until the bridge has done what was decided about a slice's copy.

use super::{LOOK_EVERY, stopped};
use crate::problem::Problem;
use crate::remote::{Remote, timed_out};
use crate::supervisor::outlook::bridge;
use crate::ui::Ui;
use migrations::api::Status;
use migrations::control::{BridgeReport, Condition};
use migrations::names::SliceName;
use migrations::stage::Stage;
use std::time::{Duration, Instant};

/// How long a live bridge may take to act on a decision before it is no longer waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one is waited for where none is live; it may be about to start.
const ABSENT_PATIENCE: Duration = Duration::from_secs(5);
/// A stream that goes on must do so for so long: what stopped it comes first, and may stop it again.
const STEADY: Duration = Duration::from_secs(1);

/// Waits, not for long, until the bridge has done what was decided: a slot that `drop` gives up is gone then.
pub async fn settled(ui: &Ui, remote: &Remote, slice: &SliceName, verb: &str) -> Result<(), Problem> {
    let mut progress = ui.progress();
    let begun = Instant::now();
    let mut since: Option<Instant> = None;
    loop {
        let status = remote.status().await.ok();
        if status.as_ref().is_some_and(|status| has_settled(status, slice, verb)) {
            if verb != "resume" || since.get_or_insert_with(Instant::now).elapsed() >= STEADY {
                return Ok(());
            }
        } else {
            since = None;
        }
        let is_live = status.as_ref().and_then(bridge).is_some();
        if begun.elapsed() >= if is_live { PATIENCE } else { ABSENT_PATIENCE } {
            return Err(unsettled(status.as_ref(), slice, verb));
        }
        progress.state(&format!("{slice}: waiting for the bridge"));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether the live bridge reports what `verb` asked for.
fn has_settled(status: &Status, slice: &SliceName, verb: &str) -> bool {
    let Some((agent, bridge)) = bridge(status) else { return false };
    if agent.generation < Some(status.generation) {
        return false;
    }
    let condition = bridge.streams.get(slice).map(|stream| &stream.condition);
    let nothing_left =
        status.slices.values().all(|stands| !stands.has_tables || stands.stage == Stage::Monolith);
    match verb {
        "pause" => matches!(condition, Some(Condition::Paused)),
        "resume" => condition.is_some_and(moves),
        // A bridge with another plan may know nothing of the slice, or not all of its tables: what it does not report, or
        // holds no more, proves nothing.
        _ => {
            matches!(condition, Some(Condition::Idle))
                && bridge.other_plan().is_none()
                && (!nothing_left || bridge.holds_nothing)
        }
    }
}

fn moves(condition: &Condition) -> bool {
    matches!(condition, Condition::Following | Condition::Copying { .. } | Condition::Copied { .. })
}

/// Why it is not done: a stream that was to go on may stand where it stood, or the bridge has not come to it.
fn unsettled(status: Option<&Status>, slice: &SliceName, verb: &str) -> Problem {
    let bridge = status.and_then(bridge).map(|(_, bridge)| bridge);
    let stream = bridge.and_then(|bridge| bridge.streams.get(slice));
    let other_plan = bridge.and_then(BridgeReport::other_plan).filter(|_| verb == "drop");
    match (stream.map(|stream| &stream.condition), other_plan) {
        (Some(Condition::Stopped { finding, position }), _) if verb == "resume" => {
            stopped(slice, finding, *position)
        }
        (_, Some(other)) => timed_out(format!("{slice}: it is decided, and not done: {}", other.message))
            .hint(format!("{}; then it is done", other.hint)),
        _ => timed_out(format!("{slice}: it is decided, but the bridge has not done it yet"))
            .hint("it does so as soon as it can; `strangler status` shows when, and whether it is live"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::control::Report;
    use migrations::finding::Finding;
    use serde_json::{Value, json};

    fn status(condition: &Value) -> Status {
        let stream = json!({ "condition": condition, "lag_bytes": 0, "lag_ms": 0, "changes": 0 });
        let report =
            json!({ "bridge": { "capture": null, "streams": { "orders": stream }, "findings": [] } });
        serde_json::from_value(json!({
            "plan": "shop", "journal": "00000000-0000-0000-0000-000000000001", "generation": 3,
            "slices": {}, "findings": [],
            "agents": [{
                "agent": { "kind": "bridge", "name": "one" }, "address": null, "live": true, "seen_ms_ago": 1,
                "generation": 3, "report": report,
            }],
        }))
        .unwrap()
    }

    #[test]
    fn the_last_slice_is_given_up_when_the_bridge_holds_nothing_any_more() {
        let slice: SliceName = "orders".parse().unwrap();
        let given_up = |condition: &Value, holds_nothing| {
            let mut status = status(condition);
            if let Report::Bridge(report) = &mut status.agents[0].report {
                report.holds_nothing = holds_nothing;
            }
            has_settled(&status, &slice, "drop")
        };
        let idle = json!({ "condition": "idle" });
        assert!(given_up(&idle, true) && !given_up(&idle, false));
        assert!(!given_up(&json!({ "condition": "waiting", "why": "not looked at yet" }), true));
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
        let other = || Finding::warning(BridgeReport::OTHER_PLAN, "another plan", "start it again");
        assert!(has_settled(&reported(&|_| {}), &slice, "drop"));
        let unknown = reported(&|report| report.streams.clear());
        assert!(!has_settled(&unknown, &slice, "drop"), "it does not know the slice");
        let old = reported(&|report| report.findings.push(other()));
        assert!(!has_settled(&old, &slice, "drop"), "it may not know all of its tables");
        let problem = unsettled(Some(&old), &slice, "drop");
        assert!(problem.exit() == 8 && problem.message.contains("another plan"), "{}", problem.message);
    }

    #[test]
    fn a_slice_goes_on_when_its_stream_moves() {
        let slice: SliceName = "orders".parse().unwrap();
        let goes_on = |condition: &Value| has_settled(&status(condition), &slice, "resume");
        assert!(goes_on(&json!({ "condition": "following" })));
        assert!(goes_on(&json!({ "condition": "copying", "rows": 1, "rows_estimated": 9 })));
        assert!(!goes_on(&json!({ "condition": "paused" })));
        assert!(!goes_on(&json!({ "condition": "waiting", "why": "the service's database is away" })));

        let finding = Finding::error("sink.refused-row", "no", "mend it");
        let stands = json!({ "condition": "stopped", "finding": finding });
        assert!(!goes_on(&stands));
        let problem = unsettled(Some(&status(&stands)), &slice, "resume");
        assert_eq!((problem.exit(), problem.findings), (1, vec![finding]));
        assert_eq!(unsettled(None, &slice, "resume").exit(), 8);
    }
}
