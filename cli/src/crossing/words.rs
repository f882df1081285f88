//! A crossing's steps in words, for whoever watches. Pure.

use super::trace::{End, Fate, Trace};
use migrations::api::{CrossingReport, CrossingVerb, Phase};

/// In the order in which they end. The journal says when the first one has; a report, when the others have.
const PHASES: [Phase; 7] = [
    Phase::Drained,
    Phase::Fenced,
    Phase::Arrived,
    Phase::Compared,
    Phase::Numbered,
    Phase::Decided,
    Phase::Released,
];

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: &'static str,
    /// How long it took, if that is known.
    pub(crate) ms: Option<u64>,
}

/// How much of a crossing was shown already.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    is_prepared: bool,
    phases: usize,
}

impl Shown {
    /// The steps that have ended since the last call, in their order.
    pub(crate) fn news(
        &mut self,
        verb: CrossingVerb,
        trace: &Trace,
        report: Option<&CrossingReport>,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        if !self.is_prepared && trace.was_held() {
            self.is_prepared = true;
            if verb != CrossingVerb::Rollback {
                let text = "everything is ready, and the way back is kept";
                lines.push(Line { text, ms: trace.prepared_ms() });
            }
        }
        for (place, phase) in PHASES.into_iter().enumerate().skip(self.phases) {
            if has_ended(phase, trace, report) {
                lines.push(Line { text: words(phase, verb), ms: took(phase, report) });
                self.phases = place + 1;
            }
        }
        lines
    }
}

/// Whether a phase has ended well. How the crossing ends is the journal's to say.
fn has_ended(phase: Phase, trace: &Trace, report: Option<&CrossingReport>) -> bool {
    let decided = match trace.fate() {
        Fate::Undecided => None,
        Fate::Decided(end) | Fate::Over(end) => Some(end),
    };
    match phase {
        Phase::Decided => matches!(decided, Some(End::Committed | End::Rehearsed)),
        Phase::Released => matches!(trace.fate(), Fate::Over(End::Committed)),
        // A report may be ahead of what was read of the journal.
        _ => trace.was_held() && report.is_some_and(|report| report.phases.contains_key(&phase)),
    }
}

/// From the end of the phase before it, or from the beginning of the hold.
fn took(phase: Phase, report: Option<&CrossingReport>) -> Option<u64> {
    let phases = &report?.phases;
    let ended = phases.get(&phase)?;
    let before = phases.range(..phase).next_back().map_or(0, |(_, ms)| *ms);
    Some(ended.saturating_sub(before))
}

fn words(phase: Phase, verb: CrossingVerb) -> &'static str {
    let goes_back = verb == CrossingVerb::Rollback;
    match phase {
        Phase::Drained => "writes are held and drained",
        Phase::Fenced if goes_back => "the service's gate is shut",
        Phase::Fenced => "the monolith's gate is shut",
        Phase::Arrived if goes_back => "everything that the service wrote has arrived",
        Phase::Arrived => "everything that the monolith wrote has arrived",
        Phase::Compared => "what changed is equal on both sides",
        Phase::Numbered if goes_back => "the monolith's sequences are set",
        Phase::Numbered => "the service's sequences are set",
        Phase::Decided if verb == CrossingVerb::Rehearse => "the monolith's gate is open again",
        Phase::Decided if goes_back => "the monolith owns the slice",
        Phase::Decided => "the service owns the slice",
        Phase::Released => "the proxies have let go what they held",
    }
}

/// What is done or waited for now, as far as it is known.
pub(crate) fn present(verb: CrossingVerb, trace: &Trace, report: Option<&CrossingReport>) -> String {
    if let Some(step) = report.and_then(|report| report.steps.last()) {
        return step.clone();
    }
    match trace.fate() {
        Fate::Decided(_) => "let go what is held".to_owned(),
        _ if trace.was_held() => "writes are held".to_owned(),
        _ => format!("prepare the {}", noun(verb)),
    }
}

pub(crate) fn noun(verb: CrossingVerb) -> &'static str {
    match verb {
        CrossingVerb::Cutover => "cutover",
        CrossingVerb::Rehearse => "rehearsal",
        CrossingVerb::Rollback => "rollback",
        CrossingVerb::Confirm => "confirmation",
        CrossingVerb::Abort => "abort",
        CrossingVerb::Complete => "completion",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::journal::{Entry, Generation};
    use serde_json::{Value, json};

    fn entry(generation: u64, event: Value) -> Entry {
        let mut entry = json!({
            "generation": generation, "at": format!("2026-01-01T10:00:0{generation}Z"), "actor": "", "reason": "",
            "slice": "orders",
        });
        entry.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
        serde_json::from_value(entry).unwrap()
    }

    fn report(phases: Value) -> CrossingReport {
        serde_json::from_value(json!({
            "slice": "orders", "verb": "rollback", "epoch": 6, "steps": ["a", "b"], "phases": phases, "held_ms_p99": 0, "held_ms_max": 0,
        }))
        .unwrap()
    }

    #[test]
    fn each_step_is_shown_once_with_the_time_since_the_one_before() {
        let (mut shown, verb) = (Shown::default(), CrossingVerb::Rollback);
        let mut trace = Trace::from(&"orders".parse().unwrap(), Generation(1));
        assert_eq!(shown.news(verb, &trace, None), []);
        trace.take(&[entry(1, json!({ "event": "rollback-started", "epoch": 6, "until": 9 }))]);
        let first = report(json!({ "drained": 3, "fenced": 11 }));
        let lines = shown.news(verb, &trace, Some(&first));
        assert_eq!(lines.iter().map(|line| line.ms).collect::<Vec<_>>(), [Some(3), Some(8)]);
        assert_eq!(lines[1].text, "the service's gate is shut");
        assert_eq!(shown.news(verb, &trace, Some(&first)), []);
        assert_eq!(present(verb, &trace, Some(&first)), "b");

        trace.take(&[entry(2, json!({ "event": "rollback-committed", "epoch": 6 }))]);
        trace.take(&[entry(3, json!({ "event": "released", "epoch": 6 }))]);
        let texts: Vec<&str> = shown.news(verb, &trace, None).iter().map(|line| line.text).collect();
        assert_eq!(texts, ["the monolith owns the slice", "the proxies have let go what they held"]);
    }

    #[test]
    fn what_was_given_up_is_not_shown_as_decided() {
        let (mut shown, verb) = (Shown::default(), CrossingVerb::Cutover);
        let mut trace = Trace::from(&"orders".parse().unwrap(), Generation(1));
        let started = json!({
            "event": "cutover-started", "epoch": 5, "intent": "cutover", "plan": "0000000000000000",
            "schema": "0000000000000000", "reverse_from": "0/1", "until": 1,
        });
        let given_up = report(json!({ "drained": 3, "decided": 4 }));
        assert_eq!(
            shown.news(verb, &trace, Some(&given_up)),
            [],
            "the journal does not say yet that writes are held"
        );
        trace.take(&[
            entry(1, started),
            entry(2, json!({ "event": "cutover-aborted", "epoch": 6, "why": "late" })),
        ]);
        let texts: Vec<&str> =
            shown.news(verb, &trace, Some(&given_up)).iter().map(|line| line.text).collect();
        assert_eq!(texts, ["everything is ready, and the way back is kept", "writes are held and drained"]);
    }
}
