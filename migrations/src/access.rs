//! Who reads and writes a slice's tables, as far as it was seen, and what the plan says of each writer.

use crate::plan::{Slice, WriterFate};
use serde::{Deserialize, Serialize};

/// By what somebody was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The triggers that note writers for a while.
    Trigger,
    /// `pg_stat_statements`, which knows roles and no applications.
    Statements,
    /// A session that held a lock on the table when it was looked at.
    Session,
}

/// Somebody who was seen at a table of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessSeen {
    pub role: String,
    /// Its `application_name`; none where that is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub application: Option<String>,
    pub table: String,
    /// Its most frequent statement, shortened.
    pub query: String,
    /// Seconds in which the trigger noted this statement; calls; or looks in which a session was seen.
    pub times: u64,
    /// How long ago it was seen last, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds_ago: Option<u64>,
    pub by: Evidence,
}

impl AccessSeen {
    /// The name by which the plan is asked to mark it.
    pub fn name(&self) -> &str {
        self.application.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.role)
    }

    /// What the plan says of it: of its application, or else of its role.
    pub fn fate(&self, slice: &Slice) -> Option<WriterFate> {
        let of = |name: &str| slice.writers.get(name).copied();
        self.application.as_deref().and_then(of).or_else(|| of(&self.role))
    }
}

/// What is known of those who read or write a slice's tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accesses {
    pub seen: Vec<AccessSeen>,
    /// Whether the triggers that note writers were ever switched on.
    pub was_watched: bool,
    /// Whether `pg_stat_statements` can be read.
    pub has_statements: bool,
}

impl Accesses {
    /// Those that the plan does not mark, each name once. `pg_stat_statements` knows roles alone: of a role whose applications
    /// were noted it says nothing new. What a session did is shown, and not held against anybody: whether it is seen is luck.
    pub fn unmarked(&self, slice: &Slice) -> Vec<&AccessSeen> {
        let noted = |role: &str| self.seen.iter().any(|one| one.by == Evidence::Trigger && one.role == role);
        let mut unmarked: Vec<&AccessSeen> = Vec::new();
        for one in &self.seen {
            let counts = match one.by {
                Evidence::Trigger => true,
                Evidence::Statements => !noted(&one.role),
                Evidence::Session => false,
            };
            if counts && one.fate(slice).is_none() && !unmarked.iter().any(|other| other.name() == one.name())
            {
                unmarked.push(one);
            }
        }
        unmarked
    }
}
