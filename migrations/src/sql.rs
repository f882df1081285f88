//! All SQL that strangler installs, and the names of what it makes in databases.

use crate::names::PlanName;

/// The schema of everything we install.
pub const SCHEMA: &str = "strangler";

/// The publication of a plan's tables in the monolith's database.
pub fn publication(plan: &PlanName) -> String {
    format!("strangler_{}", plan.as_str().replace('-', "_"))
}

/// The replication slot that keeps WAL for the log with id `log`: a log that is gone is recognised by its slot's name.
pub fn slot(plan: &PlanName, log: &str) -> String {
    let log: String = log.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{}{}", slot_prefix(plan), log.to_ascii_lowercase())
}

/// What the names of all of a plan's slots begin with.
pub fn slot_prefix(plan: &PlanName) -> String {
    format!("strangler_{}_", plan.as_str().replace('-', "_"))
}
