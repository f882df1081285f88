//! How crossings go: what was done, how long each part took, and what keeps one from its end. Kept in memory, for people.

use crate::ends::Ends;
use migrations::api::{CrossingEnd, CrossingReport, CrossingVerb, Phase};
use migrations::crossing::Intent;
use migrations::finding::Finding;
use migrations::journal::SliceState;
use migrations::names::SliceName;
use migrations::stage::{Epoch, Stage};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Lines that are kept of one crossing. One that is tried again and again has more, which say nothing new.
const STEPS_MAX: usize = 200;

/// The last crossing of each slice, and what is wrong with it now.
#[derive(Debug)]
pub(crate) struct Courses {
    reports: Mutex<BTreeMap<SliceName, CrossingReport>>,
    alarms: Mutex<BTreeMap<SliceName, Finding>>,
    ends: Option<Ends>,
}

impl Courses {
    pub(crate) fn new() -> Courses {
        Courses { reports: Mutex::default(), alarms: Mutex::default(), ends: Ends::new() }
    }

    pub(crate) fn ends(&self) -> Option<&Ends> {
        self.ends.as_ref()
    }

    pub(crate) fn of(&self, slice: &SliceName) -> Option<CrossingReport> {
        lock(&self.reports).get(slice).cloned()
    }

    pub(crate) fn publish(&self, report: &CrossingReport) {
        let before = lock(&self.reports).insert(report.slice.clone(), report.clone());
        if let Some(ends) = &self.ends {
            ends.note(before.as_ref(), report);
        }
    }

    pub(crate) fn alarms(&self) -> Vec<Finding> {
        lock(&self.alarms).values().cloned().collect()
    }

    pub(crate) fn is_alarmed(&self, slice: &SliceName) -> bool {
        lock(&self.alarms).contains_key(slice)
    }

    /// Says what is wrong, or that nothing is any more. Whether that is news.
    pub(crate) fn alarm(&self, slice: &SliceName, finding: Option<Finding>) -> bool {
        let mut alarms = lock(&self.alarms);
        match finding {
            Some(finding) => alarms.insert(slice.clone(), finding.clone()).as_ref() != Some(&finding),
            None => alarms.remove(slice).is_some(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves it whole: each change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One crossing, as its coordinator measures it.
#[derive(Debug)]
pub(crate) struct Course {
    report: CrossingReport,
    held_since: Option<Instant>,
}

impl Course {
    /// The crossing that a slice is in; none if it is in none, e.g. while it waits for the end of `--for`.
    pub(crate) fn of(slice: &SliceName, state: &SliceState, held_since: Option<Instant>) -> Option<Course> {
        let verb = match (state.preparing, state.stage) {
            (Some(preparing), _) => forth(preparing.intent),
            (None, Stage::Cutting { crossing, .. }) => forth(crossing.intent),
            (None, Stage::Split { .. }) if state.hold.is_some() => CrossingVerb::Cutover,
            (None, Stage::Returning { .. }) => CrossingVerb::Rollback,
            (None, _) if state.hold.is_some() => CrossingVerb::Rollback,
            (None, _) => return None,
        };
        let report = CrossingReport {
            slice: slice.clone(),
            verb,
            epoch: state.epoch,
            steps: Vec::new(),
            phases: BTreeMap::new(),
            hold_ms: None,
            held_ms_p99: 0,
            held_ms_max: 0,
            not_compared: None,
            end: None,
        };
        Some(Course { report, held_since: held_since.filter(|_| state.hold.is_some()) })
    }

    pub(crate) fn report(&self) -> &CrossingReport {
        &self.report
    }

    pub(crate) fn did(&mut self, line: String) {
        if self.report.steps.len() < STEPS_MAX && self.report.steps.last() != Some(&line) {
            self.report.steps.push(line);
        }
    }

    pub(crate) fn hold(&mut self, epoch: Epoch) {
        self.report.epoch = epoch;
        self.held_since = Some(Instant::now());
    }

    /// How long writes are held by now, or were; none if that was not seen from the beginning.
    pub(crate) fn held(&self) -> Option<Duration> {
        let known = self.report.hold_ms.map(Duration::from_millis);
        known.or_else(|| self.held_since.map(|since| since.elapsed()))
    }

    /// A part is over; only the first time counts.
    pub(crate) fn reached(&mut self, phase: Phase) {
        if let Some(since) = self.held_since {
            self.report.phases.entry(phase).or_insert_with(|| milliseconds(since.elapsed()));
        }
    }

    /// Why not all rows were compared, if they were not.
    pub(crate) fn compared(&mut self, incomplete_because: Option<String>) {
        self.report.not_compared = incomplete_because;
    }

    /// Writes are held no longer.
    pub(crate) fn let_go(&mut self) {
        self.report.hold_ms = self.held().map(milliseconds);
        self.held_since = None;
    }

    pub(crate) fn end(&mut self, end: CrossingEnd) {
        self.report.end = Some(end);
    }
}

fn forth(intent: Intent) -> CrossingVerb {
    match intent {
        Intent::Cutover { .. } => CrossingVerb::Cutover,
        Intent::Rehearse => CrossingVerb::Rehearse,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
