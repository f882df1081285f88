//! The words for what a coordinator did: how a crossing went, and what `reconcile` mended.

use super::crossing::CrossingVerb;
use crate::finding::Finding;
use crate::names::SliceName;
use crate::stage::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the last crossing of a slice goes or went. The controller that drove it keeps it in memory only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrossingReport {
    pub slice: SliceName,
    /// `cutover`, `rehearse` or `rollback`.
    pub verb: CrossingVerb,
    /// The epoch of its hold; before writes are held, the slice's.
    pub epoch: Epoch,
    /// What was done, in its order and in the words of a dry run.
    pub steps: Vec<String>,
    /// When each part was over, in ms since writes were held.
    pub phases: BTreeMap<Phase, u64>,
    /// How long writes were held, in ms; none while they are, or if they never were.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold_ms: Option<u64>,
    /// 99 of 100 held writes waited no longer, in ms, as the live proxies report it.
    pub held_ms_p99: u64,
    /// The longest wait of a write, in ms, as the live proxies report it.
    pub held_ms_max: u64,
    /// Why rows were left uncompared that did not change either, if some were.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_compared: Option<String>,
    /// None while it is under way.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end: Option<CrossingEnd>,
}

/// A part of a hold, by what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No write that was sent before the hold is under way, or no longer was waited for it.
    Drained,
    /// The old owner's gate is shut.
    Fenced,
    /// Everything that the old owner wrote is on the other side.
    Arrived,
    Compared,
    Numbered,
    /// The decision is in the journal.
    Decided,
    /// The new owner's gate is open, and the proxies were told.
    Released,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum CrossingEnd {
    Committed,
    Aborted { why: String },
}

/// What `reconcile` did to make a slice's gates match the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconciled {
    pub slice: SliceName,
    /// What was changed; nothing if all was right.
    pub did: Vec<String>,
    /// What does not match the journal and could not be mended.
    pub findings: Vec<Finding>,
}
