//! Why a session of capture ends without being asked to.

use super::source::SourceError;
use crate::log::LogError;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::TableName;
use migrations::problem::Problem;
use postgres::replication::ReplicationError;
use postgres::replication::frame::{FrameError, ServerError};
use rows::assemble::AssembleError;
use rows::pgoutput::DecodeError;
use std::collections::BTreeSet;
use tokio_postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{}", .0.message)]
    Stop(Box<Finding>),
    /// What lies between is gone: every slice must be copied again.
    #[error("{0}")]
    Lost(String),
    /// What was written to these tables meanwhile may not have been captured.
    #[error("the publication was changed, also if it is as before by now: {} may lack changes", names(.0))]
    Republished(BTreeSet<TableName>),
    /// These tables cannot be captured. The next session begins without the lanes that need them.
    #[error("not published completely, or under another name: {}", names(.0))]
    Unpublished(BTreeSet<TableName>),
    /// Tables can be captured that could not when the session began.
    #[error("more tables are published")]
    Regrouped,
    /// A row of this table is larger than the plan allows. The next session begins without the table.
    #[error("{}", .1.message)]
    TooLarge(TableName, Box<Finding>),
    /// The server cannot send what comes next.
    #[error("the server cannot send a change: {0}")]
    Unsendable(Box<ServerError>),
    #[error("the server ended the stream")]
    Ended,
}

impl SessionEnd {
    pub(crate) fn finding(&self) -> Finding {
        match self {
            SessionEnd::Source(error) => Problem::of(error).into(),
            SessionEnd::Log(error) => error.finding(),
            SessionEnd::Assemble(error) => Problem::of(error).into(),
            SessionEnd::Decode(error) => Problem::of(error).into(),
            SessionEnd::Stop(finding) => (**finding).clone(),
            SessionEnd::Lost(_)
            | SessionEnd::Republished(_)
            | SessionEnd::Unpublished(_)
            | SessionEnd::Regrouped
            | SessionEnd::TooLarge(..)
            | SessionEnd::Unsendable(_)
            | SessionEnd::Ended => waits(self.to_string()),
        }
    }

    /// The tables whose changes are not known to be captured without a gap.
    pub(crate) fn torn(&self) -> BTreeSet<TableName> {
        match self {
            SessionEnd::Republished(tables) | SessionEnd::Unpublished(tables) => tables.clone(),
            SessionEnd::TooLarge(table, _) => [table.clone()].into(),
            _ => BTreeSet::new(),
        }
    }
}

fn names(tables: &BTreeSet<TableName>) -> String {
    let names: Vec<String> = tables.iter().map(|table| format!("table {table}")).collect();
    names.join(", ")
}

/// Something passes by itself.
pub(crate) fn waits(why: impl Into<String>) -> Finding {
    Finding::warning(Code::BridgeWaits, why, "it is tried again by itself")
}

impl From<ReplicationError> for SessionEnd {
    fn from(error: ReplicationError) -> Self {
        if let Some(why) = error.too_large_for_server() {
            return SessionEnd::Unsendable(Box::new(why.clone()));
        }
        match error {
            ReplicationError::Frame(FrameError::TooLarge { bytes, .. }) => {
                SessionEnd::Stop(Box::new(message_too_large(bytes)))
            }
            // The stream is read with the catalog as it was then, so it can never be read past this place.
            error if error.code() == Some(SqlState::UNDEFINED_OBJECT) => {
                SessionEnd::Lost(format!("the publication or the slot was missing for a while: {error}"))
            }
            other => SessionEnd::Source(other.into()),
        }
    }
}

impl From<tokio_postgres::Error> for SessionEnd {
    fn from(error: tokio_postgres::Error) -> Self {
        SessionEnd::Source(error.into())
    }
}

impl From<postgres::ConnectError> for SessionEnd {
    fn from(error: postgres::ConnectError) -> Self {
        SessionEnd::Source(error.into())
    }
}

/// Wanted tables are not published, or they are no longer the same tables.
pub(crate) fn other_table(tables: &BTreeSet<TableName>) -> Finding {
    Finding::error(
        Code::CaptureOtherTable,
        format!(
            "the changes of {} cannot be followed: not published completely, or renamed, or another table has the name now",
            names(tables)
        ),
        "give the table its name back, or run `strangler sync drop` for its slice, correct the table or the plan, run \
         `strangler install` again, then `strangler sync start`; the other slices go on",
    )
}

pub(crate) fn row_too_large(table: &TableName, bytes: u64) -> Finding {
    Finding::error(
        Code::CaptureRowTooLarge,
        format!(
            "a row of {table} has {bytes} bytes, more than limits.max_row allows; the other slices go on"
        ),
        "raise `limits.max_row` in the plan, then `strangler reload`; the table's slice is copied again",
    )
}

fn message_too_large(bytes: usize) -> Finding {
    Finding::error(
        Code::CaptureRowTooLarge,
        format!(
            "the change stream holds a message of {bytes} bytes that is no row, more than four times limits.max_row"
        ),
        "raise `limits.max_row` in the plan, then `strangler reload`",
    )
}
