//! What capture is asked for, and how it stands.

use super::end::SessionEnd;
use crate::log::LogError;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lane::LaneId;
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::TableName;
use rows::progress::Captured;
use std::collections::BTreeSet;

/// What capture is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) tables: BTreeSet<TableName>,
    /// Which copy each lane belongs to, so that a loss is reported once.
    pub(crate) attempts: BTreeSet<(LaneId, Generation)>,
}

/// Copies whose changes are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) attempts: BTreeSet<(LaneId, Generation)>,
    pub(crate) why: String,
    /// Whether the slot and the log are given up with them, because all slices are concerned.
    pub(crate) with_slot: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) slot: String,
    /// The server's history, once a session began.
    pub(crate) timeline: Option<Timeline>,
    /// What the running session captures; empty if none runs.
    pub(crate) tables: Captured,
    /// The tables whose topics a session may make or write to: those of one that runs, or is about to.
    pub(crate) touched: BTreeSet<TableName>,
    /// Everything before is durable in the log.
    pub(crate) captured: EndLsn,
    /// The newest end of WAL that the server reported.
    pub(crate) server_end: EndLsn,
    /// Changes captured since the start.
    pub(crate) changes: u64,
    /// What keeps capture from running; an error if someone must act.
    pub(crate) finding: Option<Finding>,
    pub(crate) lost: Option<Lost>,
    /// The log is at its bound: its slowest reader must be given up.
    pub(crate) is_full: bool,
    /// Nothing is to be captured, and no slot or log of ours is left.
    pub(crate) holds_nothing: bool,
}

impl Status {
    /// A session for these tables is about to begin.
    pub(crate) fn begin(&mut self, tables: &BTreeSet<TableName>) {
        self.touched.clone_from(tables);
        self.holds_nothing = false;
    }

    pub(crate) fn end(&mut self) {
        self.tables.clear();
        self.touched.clear();
    }

    /// A session for this order ended, and why.
    pub(crate) fn fail(&mut self, order: Order, end: SessionEnd) {
        self.is_full = matches!(end, SessionEnd::Log(LogError::Full { .. }));
        self.finding = Some(end.finding());
        if let SessionEnd::Lost(why) = end {
            self.lost = Some(Lost { attempts: order.attempts, why, with_slot: true });
        }
    }

    /// Whether copies of this order are lost, so that nothing is captured for it any more.
    pub(crate) fn is_lost(&self, order: &Order) -> bool {
        self.lost.as_ref().is_some_and(|lost| !lost.attempts.is_disjoint(&order.attempts))
    }

    /// A loss with which the slot is given up.
    pub(crate) fn lost_slot(&self) -> Option<&Lost> {
        self.lost.as_ref().filter(|lost| lost.with_slot)
    }
}
