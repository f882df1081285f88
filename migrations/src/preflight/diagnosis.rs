//! What `doctor` says of a plan: what stands between its slices and being followed, and between each slice and its cutover.

use super::cutover::Precondition;
use crate::finding::Finding;
use crate::names::SliceName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the live systems shall be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    Following,
    Cutover,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// What is wrong or doubtful for copying and following, errors first.
    pub following: Vec<Finding>,
    /// The slices that could be cut over. Left out while something hinders following: much of it would be said twice.
    pub cutover: BTreeMap<SliceName, Readiness>,
}

/// What stands between a slice and its cutover.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether the slice is followed, so that a cutover may come next.
    pub is_next: bool,
    pub preconditions: Vec<Precondition>,
}

impl Readiness {
    pub fn is_ready(&self) -> bool {
        self.preconditions.iter().all(Precondition::is_met)
    }
}

impl Diagnosis {
    pub fn may_follow(&self) -> bool {
        !self.following.iter().any(Finding::is_error)
    }

    /// Everything that was found about an aim, errors first.
    pub fn findings(&self, aim: Aim) -> Vec<Finding> {
        let mut found = self.following.clone();
        if aim == Aim::Cutover {
            let preconditions = self.cutover.values().flat_map(|readiness| &readiness.preconditions);
            for finding in preconditions.flat_map(|precondition| &precondition.findings) {
                // Slices that share a database share what is wrong with it.
                if !found.contains(finding) {
                    found.push(finding.clone());
                }
            }
        }
        found.sort_by_key(|finding| finding.severity);
        found
    }
}
