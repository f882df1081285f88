//! Why a session of capture ends without being asked to.

use super::source::SourceError;
use crate::log::LogError;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::TableName;
use migrations::problem::Problem;
use postgres::replication::ReplicationError;
use postgres::replication::frame::FrameError;
use rows::assemble::AssembleError;
use rows::pgoutput::DecodeError;

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
    #[error("table {0} left the publication and came back, so changes of it were not captured")]
    Republished(TableName),
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
            SessionEnd::Lost(_) | SessionEnd::Republished(_) | SessionEnd::Ended => waits(self.to_string()),
        }
    }
}

/// Something passes by itself.
pub(crate) fn waits(why: impl Into<String>) -> Finding {
    Finding::warning(Code::BridgeWaits, why, "it is tried again by itself")
}

impl From<ReplicationError> for SessionEnd {
    fn from(error: ReplicationError) -> Self {
        match error {
            ReplicationError::Frame(FrameError::TooLarge { bytes, .. }) => {
                SessionEnd::Stop(Box::new(row_too_large(bytes)))
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

fn row_too_large(bytes: usize) -> Finding {
    Finding::error(
        Code::CaptureRowTooLarge,
        format!("the change stream holds a message of {bytes} bytes, more than four times limits.max_row"),
        "raise `limits.max_row` in the plan, then restart the bridge",
    )
}
