//! The words of a verification: the comparison of both sides of a slice, row for row. The bridge speaks them at its own
//! port.
//!
//! Paths (all under a bearer token): `POST /v1/verify` ([`VerifyRequest`]) begins one, goes on with one that was stopped,
//! or joins the one that runs; `GET /v1/verify?slice=SLICE` looks at it; `POST /v1/verify/stop` ([`StopRequest`]) stops
//! it. Each answers [`Verification`]. `POST /v1/compare` ([`CompareRequest`]) answers [`CompareAnswer`].

use crate::names::{SliceName, TableName};
use crate::problem::Problem;
use crate::stage::{Epoch, Owner};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Begins or joins a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// [`crate::control::VERSION`].
    pub version: u32,
    pub slice: SliceName,
    /// Forget what was compared before.
    #[serde(default)]
    pub restart: bool,
    /// Without the pauses that leave most of the databases' time to others.
    #[serde(default)]
    pub full_speed: bool,
    /// Mend what differs.
    #[serde(default)]
    pub repair: bool,
}

/// Stops a verification; the next request goes on where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRequest {
    /// [`crate::control::VERSION`].
    pub version: u32,
    pub slice: SliceName,
}

/// How a verification stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// [`crate::control::VERSION`].
    pub version: u32,
    pub slice: SliceName,
    #[serde(flatten)]
    pub course: Course,
    /// Whose rows are the measure.
    pub owner: Owner,
    /// The owner's rows that were compared.
    pub rows: u64,
    /// How many there are, as the planner estimates.
    pub rows_estimated: u64,
    /// Rows that were proven to differ and still do.
    pub differences: Listed<Difference>,
    /// Rows that changed at each look, so that nothing is known of them.
    pub changing: Listed<RowKey>,
    /// Rows that seem to differ, which an open transaction of the owner's server keeps from being proven.
    pub undecided: Listed<RowKey>,
    /// Rows that differed and were mended.
    pub repaired: u64,
    /// Tables whose key is made by an expression. Rows that only the copy has are not looked for in them.
    pub unsearched: BTreeSet<TableName>,
    /// Whether the rows that change from now on are known, so that a cutover compares just these.
    pub is_watched: bool,
    /// How long it has run, in ms.
    pub elapsed_ms: u64,
}

impl Verification {
    /// Nothing was ever compared.
    pub fn none(slice: SliceName, owner: Owner) -> Verification {
        Verification {
            version: crate::control::VERSION,
            slice,
            course: Course::None,
            owner,
            rows: 0,
            rows_estimated: 0,
            differences: Listed::default(),
            changing: Listed::default(),
            undecided: Listed::default(),
            repaired: 0,
            unsearched: BTreeSet::new(),
            is_watched: false,
            elapsed_ms: 0,
        }
    }
}

/// What a verification does now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "course", rename_all = "kebab-case")]
pub enum Course {
    /// There is none.
    None,
    Running,
    /// It tries again by itself.
    Waiting {
        why: String,
    },
    /// It was stopped before its end. What was compared is kept.
    Stopped,
    Failed {
        problem: Box<Problem>,
    },
    Done,
}

impl Course {
    /// Whether it goes on by itself.
    pub fn is_under_way(&self) -> bool {
        matches!(self, Course::Running | Course::Waiting { .. })
    }
}

/// The first of many, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed<T> {
    pub total: u64,
    pub listed: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { total: 0, listed: Vec::new() }
    }
}

impl<T> Listed<T> {
    /// Counts one more; lists it, too, while fewer than `listed_max` are.
    pub fn push(&mut self, one: T, listed_max: usize) {
        self.total += 1;
        if self.listed.len() < listed_max {
            self.listed.push(one);
        }
    }
}

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowKey {
    /// As the plan has it under `from`.
    pub table: TableName,
    /// Its key's columns, as the owner's database has them, with their values as text.
    pub key: BTreeMap<String, String>,
}

/// A row that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    #[serde(flatten)]
    pub row: RowKey,
    #[serde(flatten)]
    pub how: How,
}

/// How a row differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum How {
    /// Only the owner has it.
    Missing,
    /// Only the copy has it.
    Extra,
    Values {
        /// The copy's columns with other values than the mapping makes.
        columns: Vec<String>,
    },
    /// The copy's database cannot make the mapped values.
    Unfit { why: String },
}

/// The coordinator's question inside a cutover, after the fence: are the rows that changed since the last verification
/// the same on both sides? Both sides stand still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareRequest {
    /// [`crate::control::VERSION`].
    pub version: u32,
    pub slice: SliceName,
    /// The epoch of the fence that the sink has passed.
    pub epoch: Epoch,
}

/// The bridge's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareAnswer {
    /// [`crate::control::VERSION`].
    pub version: u32,
    pub epoch: Epoch,
    /// Rows that were compared now.
    pub compared: u64,
    /// Whether every row was compared: in the last verification, or now if it changed since.
    pub complete: bool,
    /// Why it is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete_because: Option<String>,
    pub differences: Listed<Difference>,
}
