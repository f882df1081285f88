//! What a log's adapters, writers and readers speak of: what is appended, what is read, where, and why not.

use super::bookmark::Cursor;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::problem::{Diagnostic, Problem};
use rows::change::Change;
use rows::progress::Progress;

/// A reader's batch ends after this many bytes of changes, so that memory stays bounded.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// [`super::Log::recent`] never returns more changes.
pub const RECENT_MAX: usize = 1000;

/// Who owns a log. An embedded log lies in our own folder. A cluster may hold logs of others under any name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// It was made or given up by this process.
    Us,
    /// It was made for the server of this system identifier, or filled from it.
    Server(String),
    /// It was made for another plan, or for another database, as it says itself.
    Other(String),
    /// Someone removed the records that say whose it is.
    Unknown,
    /// It is empty: it has no name and no tables yet.
    Nobody,
}

/// What a writer appends at once.
#[derive(Debug, Clone, Default)]
pub struct Flush {
    /// Changes in position order; large transactions come in several flushes.
    pub changes: Vec<Change>,
    /// Present where the last change ends a transaction (or no change is in flight).
    pub progress: Option<Progress>,
}

/// What a reader delivers at once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Changes of the reader's tables, positions rising.
    pub changes: Vec<Change>,
    /// Present when everything up to `progress.end` has been delivered; the cursor begins after it. Several
    /// flushes may come as one batch, if they captured the same tables: then it is the last one's record with the
    /// messages of all.
    pub progress: Option<(Progress, Cursor)>,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store on disk or the cluster does not answer; worth another try.
    #[error("the log {place} is not available: {why}")]
    Unavailable { place: String, why: String, hint: String },
    /// There is no log; in Kafka, no topic with a log in it.
    #[error("there is no log yet")]
    Missing,
    #[error("the log is full: it holds {bytes} bytes")]
    Full { bytes: u64 },
    #[error("the log no longer holds the changes that this slice still needs")]
    Trimmed,
    #[error("{}", .0.message)]
    Refused(Finding),
    #[error("the log {place} is damaged: {why}")]
    Damaged { place: String, why: String },
}

const HINT_DAMAGED: &str = "restore it, or move it away (in Kafka: delete its topic) while the bridge is down, and \
                            copy the slices again with `strangler sync drop`, then `strangler sync start`";

pub(crate) fn unknown(plan: &str) -> LogError {
    let message = format!("the log of plan {plan} is not one that this strangler knows");
    LogError::Refused(Finding::error(Code::LogUnknown, message, "write `log: { kafka: … }`"))
}

/// A reader has read something else up to its cursor than the log holds.
pub(crate) fn other_history(place: &str) -> LogError {
    LogError::Refused(Finding::error(
        Code::LogOtherHistory,
        format!("the log {place} does not hold what was read from it: it was set back to an earlier moment"),
        "copy the slice again: `strangler sync drop`, then `strangler sync start`",
    ))
}

impl Diagnostic for LogError {
    fn code(&self) -> Code {
        match self {
            LogError::Refused(finding) => finding.code,
            LogError::Damaged { .. } => Code::LogDamaged,
            LogError::Unavailable { .. } | LogError::Missing | LogError::Full { .. } | LogError::Trimmed => {
                Code::BridgeWaits
            }
        }
    }

    fn remedy(&self) -> String {
        match self {
            LogError::Refused(finding) => &finding.remedy,
            LogError::Damaged { .. } => HINT_DAMAGED,
            LogError::Unavailable { hint, .. } => hint,
            LogError::Missing => "it is made when the first slice is followed (`strangler sync start`)",
            LogError::Full { .. } => {
                "the slice that is furthest behind is evicted, or raise the log's `max` in the plan"
            }
            LogError::Trimmed => "copy the slice again with `strangler sync drop` and `sync start`",
        }
        .to_owned()
    }
}

impl LogError {
    pub fn finding(&self) -> Finding {
        match self {
            LogError::Refused(finding) => finding.clone(),
            other => Problem::of(other).into(),
        }
    }
}
