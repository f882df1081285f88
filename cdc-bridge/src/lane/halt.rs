//! Why a stream does not go on, and what of every error that means: tried again, looked at by someone, or copied anew.

use super::copy::CopyError;
use super::sink::SinkError;
use crate::feed::source::SourceError;
use crate::log::LogError;
use migrations::code::Retry;
use migrations::finding::Finding;
use migrations::lsn::Position;

/// Why a stream does not go on.
#[derive(Debug)]
pub enum Halt {
    /// Something is away; it is tried again.
    Away(String),
    /// Someone must look; the next entry of the journal wakes it.
    Stopped(Box<Finding>, Option<Position>),
    /// The copy must begin anew.
    Lost(String),
}

impl From<SinkError> for Halt {
    fn from(error: SinkError) -> Self {
        match error {
            SinkError::Away { why } => Halt::Away(why),
            SinkError::Stopped { finding, position } => Halt::Stopped(finding, position),
        }
    }
}

impl From<LogError> for Halt {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Trimmed => Halt::Lost(error.to_string()),
            other => {
                match other.finding().filter(|finding| finding.code.policy().retry == Retry::AfterRemedy) {
                    Some(finding) => Halt::Stopped(Box::new(finding), None),
                    None => Halt::Away(other.to_string()),
                }
            }
        }
    }
}

impl From<SourceError> for Halt {
    fn from(error: SourceError) -> Self {
        Halt::Away(error.to_string())
    }
}

impl From<CopyError> for Halt {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(error) => error.into(),
            CopyError::Sink(error) => error.into(),
            CopyError::Log(error) => error.into(),
        }
    }
}
