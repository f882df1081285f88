//! Why a lane does not go on: it tries again, it waits for someone to act, or it must be copied again.

use crate::feed::source::SourceError;
use crate::log::LogError;
use migrations::code::{Code, Retry};
use migrations::finding::Finding;
use migrations::lsn::Position;
use postgres::{ConnectError, Refusal, in_words};

/// Why a lane does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// Something is not available. The lane tries again.
    #[error("{0}")]
    Away(String),
    /// Someone must act, perhaps about the change at this position. The next entry of the journal wakes the lane.
    #[error("{}", .0.message)]
    Stopped(Box<Finding>, Option<Position>),
    /// The copy must begin again.
    #[error("{0}")]
    Lost(String),
}

impl Halt {
    /// Someone must act, as the finding says.
    pub fn stop(finding: impl Into<Box<Finding>>) -> Self {
        Halt::Stopped(finding.into(), None)
    }

    /// An error of the sink's database outside of rows: rights, missing objects and other shapes stop, everything else is tried again.
    pub fn of(error: tokio_postgres::Error) -> Self {
        let why = in_words(&error);
        match Refusal::of(&error) {
            Refusal::Rows | Refusal::Away => Halt::Away(why),
            Refusal::NotInstalled => Halt::stop(Finding::error(
                Code::SinkNotInstalled,
                format!("the sink's database lacks what strangler needs: {why}"),
                "run `strangler install` again with an admin URL for this database, then `strangler sync resume`",
            )),
            Refusal::NoRight => Halt::stop(Finding::error(
                Code::SinkNoRight,
                format!("the sink's database gives strangler's role no right: {why}"),
                "run `strangler install` again with an admin URL for this database, then `strangler sync resume`",
            )),
            Refusal::OtherShape => Halt::stop(Finding::error(
                Code::SinkOtherShape,
                format!("the sink's tables are not as the copy found them: {why}"),
                "put back the table, column or type that was dropped or renamed, then `strangler sync resume`; or \
                 correct the plan, and copy again: `strangler sync drop`, then `strangler sync start`",
            )),
        }
    }
}

impl From<ConnectError> for Halt {
    fn from(error: ConnectError) -> Self {
        Halt::Away(error.to_string())
    }
}

impl From<SourceError> for Halt {
    fn from(error: SourceError) -> Self {
        Halt::Away(error.to_string())
    }
}

impl From<LogError> for Halt {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Trimmed => Halt::Lost(error.to_string()),
            other => {
                match other.finding().filter(|finding| finding.code.policy().retry == Retry::AfterRemedy) {
                    Some(finding) => Halt::stop(finding),
                    None => Halt::Away(other.to_string()),
                }
            }
        }
    }
}
