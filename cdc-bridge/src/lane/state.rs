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

    /// The report, with the lag against where the source and the log are.
    pub(crate) fn report(&self, capture: &Status, now_us: i64) -> LaneReport {
        let follows =
            matches!(self.condition, Condition::Following | Condition::Paused | Condition::Stopped { .. });
        let is_behind = follows && self.passed < capture.captured;
        let age_ms = u64::try_from((now_us - self.committed_us) / 1000).unwrap_or(0);
        LaneReport {
            condition: self.condition.clone(),
            lag_bytes: if follows { capture.server_end.bytes_since(self.passed) } else { 0 },
            lag_ms: if is_behind && self.committed_us > 0 { age_ms } else { self.took_ms },
            changes: self.changes,
            foreign: self.foreign.as_ref().map_or(0, |foreign| foreign.count),
            fenced: self.fenced,
            began: self.began,
        }
    }
}
