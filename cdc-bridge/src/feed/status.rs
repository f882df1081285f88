//! What capture is asked for, and how it stands.

use super::end::SessionEnd;
use crate::log::LogError;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lane::LaneId;
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::TableName;
use rows::change::Relation;
use rows::progress::Captured;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A lane with one of its copies, so that a loss is reported once.
pub(crate) type Attempt = (LaneId, Generation);

/// What capture is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// Each lane with its tables.
    lanes: BTreeMap<Attempt, BTreeSet<TableName>>,
    /// The tables whose changes are kept.
    pub(crate) tables: BTreeSet<TableName>,
}

impl Order {
    pub(crate) fn of(lanes: BTreeMap<Attempt, BTreeSet<TableName>>) -> Order {
        let tables = lanes.values().flatten().cloned().collect();
        Order { lanes, tables }
    }

    pub(crate) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.lanes.keys()
    }

    /// The lanes with those of their tables that are among these, and the tables that are not. A lane may go on with some
    /// of its tables when the others are added to it later.
    fn split(&self, published: &BTreeSet<TableName>) -> (Order, BTreeSet<TableName>) {
        let mut lanes = self.lanes.clone();
        lanes.values_mut().for_each(|tables| tables.retain(|table| published.contains(table)));
        lanes.retain(|_, tables| !tables.is_empty());
        (Order::of(lanes), self.tables.difference(published).cloned().collect())
    }

    /// The same without the lanes whose changes are lost.
    pub(crate) fn without(&self, lost: &BTreeMap<Attempt, String>) -> Order {
        let mut lanes = self.lanes.clone();
        lanes.retain(|attempt, _| !lost.contains_key(attempt));
        Order::of(lanes)
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Status {
    pub(crate) slot: String,
    /// The server's history, once a session began.
    pub(crate) timeline: Option<Timeline>,
    /// What the running session captures; empty if none runs.
    pub(crate) tables: Captured,
    /// The captured tables as they are now. A barrier or a fence comes later than what is older.
    pub(crate) shapes: Arc<BTreeMap<TableName, Relation>>,
    /// Everything before is durable in the log.
    pub(crate) captured: EndLsn,
    /// The newest end of WAL that the server reported.
    pub(crate) server_end: EndLsn,
    /// When the running session read something from the server last: microseconds since 1970.
    pub(crate) heard_us: i64,
    /// Changes captured since the start.
    pub(crate) changes: u64,
    /// What keeps capture from running; an error if someone must act.
    pub(crate) finding: Option<Finding>,
    /// Tables that the last session ended for, because changes of them may be missing.
    pub(crate) torn: BTreeSet<TableName>,
    /// Wanted tables that cannot be captured. Their lanes are left out until they can.
    pub(crate) apart: BTreeSet<TableName>,
    /// Tables that no session captures before the bridge is started again, and why.
    pub(crate) refused: BTreeMap<TableName, Finding>,
    /// The ordered lanes whose changes are lost, and why. The others go on without them.
    pub(crate) lost: BTreeMap<Attempt, String>,
    /// Slot and log are to be given up: what they held is lost to every lane.
    pub(crate) gives_up: bool,
    /// The log is at its bound: its slowest reader must be given up.
    pub(crate) is_full: bool,
    /// Nothing is to be captured, and no slot or log of ours is left.
    pub(crate) holds_nothing: bool,
}

/// A source that was silent for longer may have any number of changes. A session has it speak every second.
const BLIND_AFTER_US: i64 = 5_000_000;

impl Status {
    /// Why nobody knows by now what the source has, if nobody does.
    pub(crate) fn blind(&self, now_us: i64) -> Option<String> {
        if self.tables.is_empty() {
            let why = self.finding.as_ref().map_or("no session reads the source", |finding| &finding.message);
            return Some(format!("capture does not run: {why}"));
        }
        let silent_us = now_us.saturating_sub(self.heard_us);
        (silent_us > BLIND_AFTER_US)
            .then(|| format!("capture has read nothing from the source for {} s", silent_us / 1_000_000))
    }

    /// Source WAL that is not yet durable in the log, if that is known.
    pub(crate) fn lag_bytes(&self, now_us: i64) -> Option<u64> {
        self.blind(now_us).is_none().then(|| self.server_end.bytes_since(self.captured))
    }

    pub(crate) fn end(&mut self) {
        self.tables.clear();
    }

    /// A session for this order ended, and why.
    pub(crate) fn fail(&mut self, order: &Order, end: SessionEnd) {
        self.is_full = matches!(end, SessionEnd::Log(LogError::Full { .. }));
        self.finding = Some(end.finding());
        self.torn = end.torn();
        if let SessionEnd::Unpublished(tables) = &end {
            self.apart.extend(tables.iter().cloned());
        }
        if let SessionEnd::TooLarge(table, finding) = &end {
            self.refused.insert(table.clone(), (**finding).clone());
        }
        if let SessionEnd::Lost(why) = end {
            self.lose_all(order, &why);
        }
    }

    /// What a session can capture of an order, if these tables are published, and the tables that it cannot.
    pub(crate) fn split(
        &self,
        order: &Order,
        published: impl Iterator<Item = TableName>,
    ) -> (Order, BTreeSet<TableName>) {
        order.split(&published.filter(|table| !self.refused.contains_key(table)).collect())
    }

    /// The changes of one lane are lost. Slot and log stay for the others.
    pub(crate) fn lose(&mut self, lane: Attempt, why: &str) {
        self.lost.insert(lane, why.to_owned());
    }

    /// What slot and log held is lost to every lane.
    pub(crate) fn lose_all(&mut self, order: &Order, why: &str) {
        self.lost.extend(order.attempts().map(|attempt| (attempt.clone(), why.to_owned())));
        self.gives_up = true;
    }

    /// Forgets losses of lanes that nobody asks for any more.
    pub(crate) fn forget(&mut self, order: &Order) {
        self.lost.retain(|attempt, _| order.lanes.contains_key(attempt));
    }

    /// Whether something that this order asks for is lost, or is about to be.
    pub(crate) fn is_lost(&self, order: &Order) -> bool {
        self.gives_up || order.attempts().any(|attempt| self.lost.contains_key(attempt))
    }
}
