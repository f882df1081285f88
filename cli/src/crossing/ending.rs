//! How the watching of a crossing ended: a line for people, a document for programs, and a failure with its exit code.
//! Pure.

use super::trace::{End, Fate, Trace};
use super::words::noun;
use crate::span::written;
use crate::ui::figure;
use migrations::api::{CrossingReport, CrossingVerb, Outcome, Phase, SliceStatus, Status};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::SliceName;
use migrations::problem::Problem;
use migrations::stage::{Epoch, Owner, Stage};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Why watching ended.
#[derive(Debug)]
pub(crate) enum Stop {
    Over,
    TimedOut(Duration),
    Interrupted,
    /// No controller answers any more.
    Absent(Problem),
}

#[derive(Debug)]
pub(crate) struct Ending<'a> {
    pub(crate) verb: CrossingVerb,
    pub(crate) outcome: &'a Outcome,
    pub(crate) trace: &'a Trace,
    pub(crate) report: Option<&'a CrossingReport>,
    /// Everything, asked after watching ended; none if no controller answered.
    pub(crate) status: Option<&'a Status>,
    pub(crate) stop: Stop,
}

/// What `--output json` prints, also as a part of a failure.
#[derive(Debug, Serialize)]
pub(crate) struct Document<'a> {
    slice: &'a SliceName,
    #[serde(flatten)]
    stage: Stage,
    epoch: Epoch,
    owner: Owner,
    /// None while writes are held, or before it is decided.
    ended: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    /// When each part was over, in ms since writes were held.
    phases: BTreeMap<Phase, u64>,
    hold_ms: Option<u64>,
    /// 99 of 100 held writes waited no longer.
    held_ms_p99: Option<u64>,
    /// The longest wait of a write.
    held_ms_max: Option<u64>,
    /// A failure has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<&'a [Finding]>,
    next_steps: Vec<String>,
}

impl<'a> Ending<'a> {
    fn slice(&self) -> &'a SliceName {
        &self.outcome.slice
    }

    fn stands(&self) -> Option<&'a SliceStatus> {
        self.status.and_then(|status| status.slices.get(self.slice()))
    }

    pub(crate) fn document(&self) -> Document<'a> {
        let (ended, why) = match self.trace.fate() {
            Fate::Over(End::Committed) => (Some("committed"), None),
            Fate::Over(End::Rehearsed) => (Some("rehearsed"), None),
            Fate::Over(End::Aborted { why, .. }) => (Some("aborted"), Some(why.as_str())),
            Fate::Undecided | Fate::Decided(_) => (None, None),
        };
        let stands = self.stands();
        let (stage, epoch, owner) = stands
            .map_or((self.outcome.stage, self.outcome.epoch, self.outcome.owner), |stands| {
                (stands.stage, stands.epoch, stands.owner)
            });
        Document {
            slice: self.slice(),
            stage,
            epoch,
            owner,
            ended,
            why,
            phases: self.report.map(|report| report.phases.clone()).unwrap_or_default(),
            hold_ms: self.hold_ms(),
            held_ms_p99: self.report.map(|report| report.held_ms_p99),
            held_ms_max: self.report.map(|report| report.held_ms_max),
            findings: self.failure().is_none().then_some(&self.outcome.findings[..]),
            next_steps: self.next_steps(),
        }
    }

    pub(crate) fn next_steps(&self) -> Vec<String> {
        let watch = "strangler status -w".to_owned();
        match (self.stands(), self.trace.fate()) {
            (Some(stands), _) => stands.next_steps.clone(),
            (None, Fate::Undecided) => vec![watch, format!("strangler abort {}", self.slice())],
            (None, Fate::Decided(_) | Fate::Over(_)) => vec![watch],
        }
    }

    fn hold_ms(&self) -> Option<u64> {
        self.report.and_then(|report| report.hold_ms).or_else(|| self.trace.hold_ms())
    }

    /// What went well, for people.
    pub(crate) fn headline(&self) -> String {
        let slice = self.slice();
        match self.trace.fate() {
            Fate::Over(End::Committed) if self.verb == CrossingVerb::Rollback => {
                format!("{slice}: the monolith owns the slice again, with everything that the service wrote")
            }
            Fate::Over(End::Committed) => match self.returns_in() {
                Some(left) => {
                    format!(
                        "{slice}: the service owns the slice, and returns it in {left} unless it is confirmed"
                    )
                }
                None => format!("{slice}: the service owns the slice"),
            },
            Fate::Over(End::Rehearsed) => {
                format!("{slice}: rehearsed; the monolith owns the slice as before")
            }
            _ => format!("{slice}: given up; the {} owns the slice", self.document().owner),
        }
    }

    fn returns_in(&self) -> Option<String> {
        let Stage::Split { returns_at, .. } = self.stands()?.stage else { return None };
        Some(figure::left(returns_at?.since(self.status?.now)))
    }

    /// How long it took, for people.
    pub(crate) fn figures(&self) -> Vec<String> {
        let Some(held) = self.hold_ms() else { return Vec::new() };
        let held = figure::span(held);
        let mut lines = vec![match self.report.map(|report| (report.held_ms_p99, report.held_ms_max)) {
            None => format!("writes were held for {held}"),
            Some((_, 0)) => format!("writes were held for {held}, and no write had to wait"),
            Some((p99, longest)) => {
                let (p99, longest) = (figure::span(p99), figure::span(longest));
                format!(
                    "writes were held for {held}; the longest waited {longest}, 99 of 100 no longer than {p99}"
                )
            }
        }];
        if let (CrossingVerb::Rehearse, Some(report)) = (self.verb, self.report) {
            let phases = report.phases.iter().map(|(phase, ms)| format!("{} {ms} ms", name(*phase)));
            lines.push(format!("after the hold began: {}", phases.collect::<Vec<_>>().join(", ")));
        }
        lines
    }

    /// What did not go well; none if everything did.
    pub(crate) fn failure(&self) -> Option<Problem> {
        let problem = match self.trace.fate() {
            Fate::Over(End::Committed | End::Rehearsed) => return None,
            Fate::Over(End::Aborted { .. }) if self.verb == CrossingVerb::Abort => return None,
            Fate::Over(End::Aborted { why, again }) => self.aborted(why, *again),
            Fate::Decided(end) => self.unfinished(end),
            Fate::Undecided => self.undecided(),
        };
        Some(problem.with(self.outcome.findings.clone()))
    }

    fn aborted(&self, why: &str, again: bool) -> Problem {
        let (slice, verb) = (self.slice(), self.verb);
        let owner = if verb == CrossingVerb::Rollback { "service" } else { "monolith" };
        let message = format!(
            "{slice}: the {} was given up, and the {owner} owns the slice as before: {why}",
            noun(verb)
        );
        let problem = Problem::new(
            Code::SliceAborted,
            message,
            format!("remove the cause, then run `strangler {verb} {slice}` again"),
        );
        match (verb, again) {
            (CrossingVerb::Rehearse, _) => {
                problem.remedy("a cutover would have been given up in the same way")
            }
            (_, true) => problem.remedy(&format!(
                "it is tried again by itself; `strangler confirm {slice}` leaves the slice at the service"
            )),
            (_, false) => problem,
        }
    }

    fn unfinished(&self, end: &End) -> Problem {
        let decided = match (end, self.verb) {
            (End::Committed, CrossingVerb::Rollback) => "the monolith owns the slice again",
            (End::Committed, _) => "the service owns the slice",
            (End::Rehearsed | End::Aborted { .. }, _) => "it was given up",
        };
        let message =
            format!("{}: {decided}, but writes are still held; {}", self.slice(), self.ended_watching());
        Problem::new(
            Code::SliceUnfinished,
            message,
            "the controller goes on by itself until it is done; `strangler status -w` shows it and names what is in the way",
        )
    }

    fn undecided(&self) -> Problem {
        let (slice, noun) = (self.slice(), noun(self.verb));
        let message = format!("{slice}: the {noun} is not decided yet; {}", self.ended_watching());
        match &self.stop {
            Stop::Absent(problem) => Problem::new(
                Code::CommandTimedOut,
                message,
                format!("the {noun} is given up by itself if no controller drives it; `strangler status` shows it once one answers"),
            )
            .because(problem),
            _ => Problem::new(
                Code::CommandTimedOut,
                message,
                format!("the {noun} goes on at the controller; `strangler status -w` shows it"),
            )
            .remedy(&format!("to give it up: `strangler abort {slice}`")),
        }
    }

    fn ended_watching(&self) -> String {
        match &self.stop {
            Stop::Over => "watching ended".to_owned(),
            Stop::TimedOut(patience) => format!("watching ended after {}", written(*patience)),
            Stop::Interrupted => "watching was interrupted".to_owned(),
            Stop::Absent(problem) => problem.message.clone(),
        }
    }
}

/// By its name in JSON.
fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Drained => "drained",
        Phase::Fenced => "fenced",
        Phase::Arrived => "arrived",
        Phase::Compared => "compared",
        Phase::Numbered => "numbered",
        Phase::Decided => "decided",
        Phase::Released => "released",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::journal::Generation;
    use serde_json::json;

    #[test]
    fn a_controller_that_went_away_leaves_the_question_open_and_says_who_answers_it() {
        let outcome: Outcome = serde_json::from_value(json!({
            "slice": "orders", "stage": "following", "copied_at": "0/1", "epoch": 4, "owner": "monolith",
            "generation": 7, "proxies": { "live": 1, "have": 1 }, "next_steps": [],
        }))
        .unwrap();
        let trace = Trace::from(&outcome.slice, Generation(7));
        let away = Problem::new(Code::ApiUnreachable, "no controller answers", "start it");
        let ending = Ending {
            verb: CrossingVerb::Cutover,
            outcome: &outcome,
            trace: &trace,
            report: None,
            status: None,
            stop: Stop::Absent(away),
        };
        let problem = ending.failure().unwrap();
        assert_eq!((problem.exit(), &problem.causes[..]), (8, &["no controller answers".to_owned()][..]));
        assert!(
            problem.remedy.contains("given up by itself if no controller drives it"),
            "{}",
            problem.remedy
        );
        let document = serde_json::to_value(ending.document()).unwrap();
        assert_eq!((&document["stage"], &document["ended"]), (&json!("following"), &json!(null)));
        assert_eq!(document["next_steps"], json!(["strangler status -w", "strangler abort orders"]));
    }
}
