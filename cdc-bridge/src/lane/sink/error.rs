//! Why a sink does not take changes: whether another try helps, or a person must.

use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lsn::Position;
use postgres::{ConnectError, Refusal, in_words};

/// Why a batch was not applied. Nothing of it is in the database then.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The database does not answer or is busy: worth another try.
    #[error("the service's database does not take changes: {why}")]
    Away {
        /// In its words.
        why: String,
    },
    /// It will not work by itself.
    #[error("{}", .finding.message)]
    Stopped {
        /// What is wrong.
        finding: Box<Finding>,
        /// The change it stands at.
        position: Option<Position>,
    },
}

impl From<ConnectError> for SinkError {
    fn from(error: ConnectError) -> Self {
        SinkError::Away { why: error.to_string() }
    }
}

impl SinkError {
    /// It will not work by itself, as the finding says.
    pub fn stop(finding: impl Into<Box<Finding>>) -> Self {
        SinkError::Stopped { finding: finding.into(), position: None }
    }

    /// An error outside of rows: rights, missing objects and other shapes stop, everything else is tried again.
    pub fn of(error: tokio_postgres::Error) -> Self {
        let why = in_words(&error);
        match Refusal::of(&error) {
            Refusal::Rows | Refusal::Away => SinkError::Away { why },
            Refusal::NotInstalled => SinkError::stop(Finding::error(
                Code::SinkNotInstalled,
                format!("the service's database lacks what strangler needs: {why}"),
                "run `strangler install` again with an admin URL for this service, then `strangler sync resume`",
            )),
            Refusal::NoRight => SinkError::stop(Finding::error(
                Code::SinkNoRight,
                format!("the service's database gives strangler's role no right: {why}"),
                "run `strangler install` again with an admin URL for this service, then `strangler sync resume`",
            )),
            Refusal::OtherShape => SinkError::stop(Finding::error(
                Code::SinkOtherShape,
                format!("the service's tables are not as the copy found them: {why}"),
                "put back the table, column or type that was dropped or renamed, then `strangler sync resume`; or \
                 correct the plan, and copy again: `strangler sync drop`, then `strangler sync start`",
            )),
        }
    }
}
