//! How a lane stands, and what of it is reported to the controller.

use super::border::Foreign;
use super::kept::Kept;
use crate::feed::end::waits;
use crate::feed::status::Status;
use crate::log::Cursor;
use migrations::control::{Began, Condition, LaneReport};
use migrations::lane::Direction;
use migrations::lsn::EndLsn;
use migrations::stage::Epoch;
use rows::progress::Message;
use std::collections::VecDeque;

/// The logical message by which a barrier is recognised.
const BARRIER_PREFIX: &str = "strangler.barrier";

/// So long after a change it is still said how long that change took.
const TOOK_SHOWN_MS: u64 = 5_000;

/// Barriers that are remembered; each waits in a proxy that has one in flight per slice.
const TOKENS_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LaneState {
    /// What is reported to the controller. The lag is computed for each report.
    pub(crate) condition: Condition,
    /// Everything before is durable in the sink; the slice's tables are as the source was there.
    pub(crate) passed: EndLsn,
    /// The part of `passed` that the sink's database keeps too.
    pub(crate) durable: EndLsn,
    /// The newest barriers that were passed, by their tokens.
    pub(crate) tokens: VecDeque<String>,
    /// Everything before this in the log is no longer needed; none until it is known.
    pub(crate) cursor: Option<Cursor>,
    /// Everything before this in the log was read. The sink's database may not have noted it.
    pub(crate) seen: Option<Cursor>,
    /// Changes applied since the start.
    pub(crate) changes: u64,
    /// What others wrote where the lane only watches, and what nobody has settled yet.
    pub(crate) foreign: Option<Foreign>,
    /// The highest epoch whose fence the sink has passed.
    pub(crate) fenced: Option<Epoch>,
    /// From where on a lane back has everything.
    pub(crate) began: Option<Began>,
    /// When the sink last noted how far it is: microseconds since 1970.
    pub(crate) noted_us: i64,
    /// How long the last change took from its commit to the sink, in ms.
    pub(crate) took_ms: u64,
    /// When the newest passed transaction committed: microseconds since 1970 by the source's clock.
    pub(crate) committed_us: i64,
}

impl LaneState {
    /// Nothing is known yet. That is not `Idle`: a removal that was asked for would look done.
    pub(crate) fn new() -> Self {
        Self {
            condition: Condition::Waiting { finding: waits("the bridge has not looked at it yet") },
            passed: EndLsn(0),
            durable: EndLsn(0),
            tokens: VecDeque::new(),
            cursor: None,
            seen: None,
            changes: 0,
            foreign: None,
            fenced: None,
            began: None,
            noted_us: 0,
            took_ms: 0,
            committed_us: 0,
        }
    }

    /// Nothing is kept any more; the count goes on.
    pub(crate) fn reset(&mut self) {
        *self = Self { changes: self.changes, ..Self::new() };
    }

    /// The lane goes on from what its sink keeps.
    pub(crate) fn take_up(&mut self, kept: &Kept, direction: Direction) {
        self.cursor = Some(kept.cursor.clone());
        (self.passed, self.durable) = (kept.passed, kept.passed);
        (self.fenced, self.noted_us) = (kept.border.fenced, kept.noted_us);
        self.foreign.clone_from(&kept.foreign);
        self.began = match direction {
            Direction::Forward => None,
            Direction::Reverse => {
                kept.copied_at.map(|place| Began { attempt: kept.attempt, at: EndLsn(place.0) })
            }
        };
    }

    /// A copy begins: it will need what the log holds after this cursor, whose place in the source is `captured`.
    pub(crate) fn restart(&mut self, cursor: Cursor, captured: EndLsn) {
        self.cursor = Some(cursor);
        self.seen = None;
        (self.passed, self.durable) = (captured, captured);
    }

    pub(crate) fn barriers(&mut self, messages: &[Message]) {
        let tokens = messages.iter().filter(|message| message.prefix == BARRIER_PREFIX);
        self.tokens.extend(tokens.map(|message| message.content.clone()));
        let surplus = self.tokens.len().saturating_sub(TOKENS_MAX);
        self.tokens.drain(..surplus);
    }

    /// Everything that committed up to a moment was passed, and perhaps a change of a transaction was applied. A moment of 0
    /// is unknown: a session of capture begins without one.
    pub(crate) fn committed(&mut self, passed_us: i64, applied_us: Option<i64>, now_us: i64) {
        self.committed_us = self.committed_us.max(passed_us).max(applied_us.unwrap_or_default());
        if let Some(applied_us) = applied_us.filter(|us| *us > 0) {
            self.took_ms = u64::try_from((now_us - applied_us) / 1000).unwrap_or(0);
        }
    }

    /// The report, with the lag against where the source and the log are.
    pub(crate) fn report(&self, capture: &Status, now_us: i64) -> LaneReport {
        let (lag_ms, lag_unknown) = match self.lag_ms(capture, now_us) {
            Ok(lag_ms) => (lag_ms, None),
            Err(why) => (None, Some(why)),
        };
        LaneReport {
            condition: self.condition.clone(),
            lag_bytes: lag_ms.map(|_| capture.server_end.bytes_since(self.passed)),
            lag_ms,
            lag_unknown,
            changes: self.changes,
            foreign: self.foreign.as_ref().map_or(0, |foreign| foreign.count),
            fenced: self.fenced,
            began: self.began,
        }
    }

    /// The lag in ms; none before the lane follows. Fails with why nobody knows it.
    fn lag_ms(&self, capture: &Status, now_us: i64) -> Result<Option<u64>, String> {
        match &self.condition {
            Condition::Idle
            | Condition::Copying { .. }
            | Condition::Copied { .. }
            | Condition::Lost { .. } => {
                return Ok(None);
            }
            Condition::Waiting { finding } => return Err(finding.message.clone()),
            Condition::Following
            | Condition::Adding { .. }
            | Condition::Paused
            | Condition::Stopped { .. } => {}
        }
        if let Some(why) = capture.blind(now_us) {
            return Err(why);
        }
        let ms_since = |us: i64| u64::try_from((now_us - us) / 1000).unwrap_or(0);
        let age_ms = ms_since(self.committed_us);
        match self.passed < capture.captured {
            true if self.committed_us > 0 => Ok(Some(age_ms)),
            // After a restart: what the sink has is as old as its last note, at least.
            true if self.noted_us > 0 => Ok(Some(ms_since(self.noted_us))),
            true => Err("nothing was applied since the bridge started".to_owned()),
            // How long the last change took says nothing any more about what came after it.
            false if age_ms > self.took_ms + TOOK_SHOWN_MS => Ok(Some(0)),
            false => Ok(Some(self.took_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::names::TableName;
    use rows::progress::Captured;

    const NOW_US: i64 = 1_000_000_000_000;

    fn seconds_ago(seconds: i64) -> i64 {
        NOW_US - seconds * 1_000_000
    }

    /// A source of which 10 is captured, and that was heard of so many seconds ago.
    fn capture(heard: i64) -> Status {
        let table: TableName = "public.orders".parse().unwrap();
        let tables: Captured = [(table, rows::progress::Membership(1))].into();
        Status { captured: EndLsn(10), tables, heard_us: seconds_ago(heard), ..Status::default() }
    }

    /// A lane that passed everything up to `passed`.
    fn lane(passed: u64, took_s: u64, committed: i64, noted: i64) -> LaneState {
        LaneState {
            condition: Condition::Following,
            passed: EndLsn(passed),
            took_ms: took_s * 1000,
            committed_us: seconds_ago(committed),
            noted_us: seconds_ago(noted),
            ..LaneState::new()
        }
    }

    /// The lag in s that it reports.
    fn lag_s(passed: u64, took_s: u64, committed: i64, noted: i64) -> u64 {
        lane(passed, took_s, committed, noted).report(&capture(0), NOW_US).lag_ms.unwrap() / 1000
    }

    #[test]
    fn the_lag_is_the_age_of_what_is_missing() {
        assert_eq!(lag_s(9, 1, 30, 1), 30, "behind");
        assert_eq!(lag_s(10, 3, 4, 1), 3, "the last change took so long");
        assert_eq!(lag_s(10, 600, 700, 1), 0, "nothing is missing since the bridge has caught up");
    }

    #[test]
    fn a_record_that_knows_no_moment_makes_no_lag() {
        let mut state = LaneState::new();
        state.committed(0, None, NOW_US);
        state.committed(0, Some(seconds_ago(7)), NOW_US);
        assert_eq!((state.committed_us, state.took_ms), (seconds_ago(7), 7000));
        state.committed(seconds_ago(3), Some(0), NOW_US);
        assert_eq!((state.committed_us, state.took_ms), (seconds_ago(3), 7000));
        state.committed(0, None, NOW_US);
        assert_eq!(state.committed_us, seconds_ago(3));
        // Behind, before anything is known but when the sink wrote last.
        let unknown = NOW_US / 1_000_000;
        assert_eq!(lag_s(9, 0, unknown, 40), 40);
        assert_eq!(lag_s(10, 0, unknown, 40), 0);
    }

    /// The lag that a lane reports, or why it is unknown; neither if it has none.
    fn told(lane: &LaneState, capture: &Status) -> (Option<u64>, Option<String>) {
        let report = lane.report(capture, NOW_US);
        assert_eq!(report.lag_ms.is_some(), report.lag_bytes.is_some());
        (report.lag_ms, report.lag_unknown)
    }

    #[test]
    fn a_lag_is_unknown_while_nobody_hears_the_source() {
        let conditions = [
            Condition::Following,
            Condition::Paused,
            Condition::Stopped { finding: waits("a row"), position: None },
            Condition::Adding { tables: [].into(), rows: 0, rows_estimated: 0, waits: None },
        ];
        let stopped = Status {
            finding: Some(waits("the database is down")),
            captured: EndLsn(10),
            ..Status::default()
        };
        for condition in conditions {
            let lane = LaneState { condition, ..lane(10, 0, 700, 1) };
            assert_eq!(told(&lane, &capture(4)), (Some(0), None));
            let (lag, why) = told(&lane, &capture(7));
            assert!(
                lag.is_none() && why.as_ref().unwrap().ends_with("nothing from the source for 7 s"),
                "{why:?}"
            );
            let (lag, why) = told(&lane, &stopped);
            assert!(lag.is_none() && why.as_ref().unwrap().contains("the database is down"), "{why:?}");
        }
    }

    #[test]
    fn a_lane_that_waits_does_not_know_its_lag_and_one_that_copies_has_none() {
        let waiting = LaneState {
            condition: Condition::Waiting { finding: waits("the log is away") },
            ..lane(10, 0, 700, 1)
        };
        assert_eq!(told(&waiting, &capture(0)), (None, Some("the log is away".to_owned())));
        let copying =
            LaneState { condition: Condition::Copying { rows: 1, rows_estimated: 2 }, ..lane(10, 0, 700, 1) };
        assert_eq!(told(&copying, &Status::default()), (None, None));
        let behind = LaneState { committed_us: 0, noted_us: 0, ..lane(9, 0, 0, 0) };
        assert!(told(&behind, &capture(0)).1.is_some(), "it is behind, and has applied nothing yet");
    }
}
