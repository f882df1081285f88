//! How old the services' copies are, and which of them are too old to be read. Pure.
//!
//! A lane proves its copy's age whenever it reports that it follows, and how far behind. What it reports otherwise proves
//! nothing, so the copy gets older: a bridge that is silent, paused, waiting or cut off from its source needs no rule of its own.

use migrations::control::{Condition, LaneReport};
use migrations::names::SliceName;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Copies(BTreeMap<SliceName, Copy>);

#[derive(Debug, Default)]
struct Copy {
    /// Everything that was committed before this is in the copy.
    holds: Option<Instant>,
    is_withheld: bool,
}

/// Why the monolith answers the reads of a slice for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Withheld {
    Stopped,
    /// Routes of the plan may read a table that is not there yet.
    Adding,
    Old(Duration),
    /// No bridge has reported since this controller started that the slice is followed.
    Unknown,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Withheld::Stopped => f.write_str("its stream has stopped"),
            Withheld::Adding => f.write_str("a table is being added to it"),
            Withheld::Old(age) => write!(f, "the copy is {} s old", age.as_secs()),
            Withheld::Unknown => f.write_str("no bridge says how old the copy is"),
        }
    }
}

impl Copies {
    pub(crate) fn note(&mut self, slice: &SliceName, forward: &LaneReport, now: Instant) {
        let (Condition::Following, Some(lag_ms)) = (&forward.condition, forward.lag_ms) else { return };
        // A lane that is behind for a moment on a quiet server reports the age of the last change.
        let copy = self.0.entry(slice.clone()).or_default();
        copy.holds = copy.holds.max(now.checked_sub(Duration::from_millis(lag_ms)));
    }

    /// Whether a copy that may be `max` old is too old to be read. Once it is, it must be half as old before it is read again,
    /// so that reads do not go back and forth.
    pub(crate) fn judge(
        &mut self,
        slice: &SliceName,
        forward: Option<&LaneReport>,
        now: Instant,
        max: Duration,
    ) -> Option<Withheld> {
        let copy = self.0.entry(slice.clone()).or_default();
        let bound = if copy.is_withheld { max / 2 } else { max };
        let halted = |report: &LaneReport| {
            matches!(report.condition, Condition::Stopped { .. } | Condition::Lost { .. })
        };
        let why = match copy.holds.map(|holds| now.saturating_duration_since(holds)) {
            _ if forward.is_some_and(halted) => Some(Withheld::Stopped),
            _ if forward.is_some_and(|report| matches!(report.condition, Condition::Adding { .. })) => {
                Some(Withheld::Adding)
            }
            None => Some(Withheld::Unknown),
            Some(age) if age > bound => Some(Withheld::Old(age)),
            Some(_) => None,
        };
        copy.is_withheld = why.is_some();
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::code::Code;
    use migrations::finding::Finding;

    const MAX: Duration = Duration::from_secs(60);

    fn lane(condition: Condition, lag_s: u64) -> LaneReport {
        LaneReport { lag_ms: Some(lag_s * 1000), ..LaneReport::caught_up(condition) }
    }

    fn finding() -> Finding {
        Finding::error(Code::SinkRefusedRow, "no", "mend it")
    }

    /// What is said after each report, which comes so many seconds after the start.
    fn told(reports: &[(u64, Option<LaneReport>)]) -> Vec<Option<Withheld>> {
        let (began, slice) = (Instant::now() + Duration::from_secs(3600), "orders".parse().unwrap());
        let mut copies = Copies::default();
        let one = |(at, report): &(u64, Option<LaneReport>)| {
            let now = began + Duration::from_secs(*at);
            report.iter().for_each(|report| copies.note(&slice, report, now));
            copies.judge(&slice, report.as_ref(), now, MAX)
        };
        reports.iter().map(one).collect()
    }

    fn follows(lag_s: u64) -> Option<LaneReport> {
        Some(lane(Condition::Following, lag_s))
    }

    #[test]
    fn a_copy_that_follows_within_the_bound_is_read() {
        assert_eq!(told(&[(0, follows(0)), (1, follows(60)), (2, follows(30))]), [None, None, None]);
    }

    #[test]
    fn a_stopped_or_lost_stream_withholds_the_copy_at_once_and_it_comes_back_by_itself() {
        let stopped = Condition::Stopped { finding: finding(), position: None };
        let lost = Condition::Lost { attempt: migrations::journal::Generation(1), why: String::new() };
        for halted in [stopped, lost] {
            let said = told(&[(0, follows(0)), (1, Some(lane(halted, 0))), (2, follows(0))]);
            assert_eq!(said, [None, Some(Withheld::Stopped), None]);
        }
    }

    #[test]
    fn a_copy_that_lacks_a_table_of_the_plan_is_not_read() {
        let tables = ["public.prices".parse().unwrap()].into();
        let adding = Condition::Adding { tables, rows: 0, rows_estimated: 0, waits: None };
        let said = told(&[(0, follows(0)), (1, Some(lane(adding, 0))), (2, follows(0))]);
        assert_eq!(said, [None, Some(Withheld::Adding), None]);
    }

    #[test]
    fn a_copy_whose_age_nobody_proves_gets_old() {
        let paused = || Some(lane(Condition::Paused, 0));
        let waits = || Some(lane(Condition::Waiting { finding: finding() }, 0));
        let blind = || {
            let (lag_ms, lag_unknown) = (None, Some("the monolith's database is down".to_owned()));
            Some(LaneReport { lag_ms, lag_unknown, ..lane(Condition::Following, 0) })
        };
        for silent in [paused, waits, blind, || None] {
            let said = told(&[(0, follows(0)), (60, silent()), (61, silent())]);
            assert_eq!(said, [None, None, Some(Withheld::Old(Duration::from_secs(61)))]);
        }
        assert_eq!(told(&[(0, None), (1, follows(0))]), [Some(Withheld::Unknown), None]);
    }

    #[test]
    fn an_old_copy_is_read_again_when_it_is_half_as_old() {
        let said = told(&[(0, follows(61)), (0, follows(31)), (0, follows(30)), (0, follows(59))]);
        let old = |age| Some(Withheld::Old(Duration::from_secs(age)));
        assert_eq!(said[..2], [old(61), old(31)]);
        assert_eq!(said[2..], [None, None], "what was proven once stays so");
        let later = told(&[(0, follows(0)), (30, follows(59)), (200, follows(100)), (300, follows(50))]);
        assert_eq!(later, [None, None, old(100), old(50)]);
    }
}
