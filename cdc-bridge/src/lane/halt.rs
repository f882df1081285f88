//! Why a lane does not go on: it tries again, it waits for someone to act, or it must be copied again.

use crate::feed::end::waits;
use crate::feed::source::SourceError;
use crate::log::LogError;
use migrations::code::{Code, Retry};
use migrations::finding::Finding;
use migrations::lsn::Position;
use migrations::names::SliceName;
use migrations::problem::{Diagnostic, Problem};
use postgres::{ConnectError, Refusal, in_words};

/// Why a lane does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// Something is not available. The lane tries again.
    #[error("{}", .0.message)]
    Away(Box<Finding>),
    /// The database refuses for now, perhaps the change at this position. The lane tries again; if that brings it no
    /// further, it stops with the finding.
    #[error("{}", .0.message)]
    Contended(Box<Finding>, Option<Position>),
    /// Someone must act, perhaps about the change at this position. The next entry of the journal wakes the lane.
    #[error("{}", .0.message)]
    Stopped(Box<Finding>, Option<Position>),
    /// The copy must begin again.
    #[error("{0}")]
    Lost(String),
}

impl Halt {
    pub(crate) fn away(why: impl Into<String>) -> Self {
        Halt::Away(Box::new(waits(why)))
    }

    /// Another bridge works on the same lane.
    pub(crate) fn contested(why: String) -> Self {
        Halt::Away(Box::new(Finding::warning(Code::BridgeWaits, why, "stop one of the two bridges")))
    }

    /// Someone must act, as the finding says.
    pub(crate) fn stop(finding: impl Into<Box<Finding>>) -> Self {
        Halt::Stopped(finding.into(), None)
    }

    pub(crate) fn no_progress(whose: &str, why: &str) -> Self {
        let finding = Finding::error(
            Code::LaneNoProgress,
            format!("{whose} refuses the same again and again: {why}"),
            "remove the cause that these words name, then `strangler sync resume`",
        );
        Halt::Contended(Box::new(finding), None)
    }

    /// An error of the sink's database outside of rows: rights, missing objects and other shapes stop, everything else is
    /// tried again.
    pub(crate) fn of(error: tokio_postgres::Error) -> Self {
        let why = in_words(&error);
        match Refusal::of(&error) {
            Refusal::Away => Halt::away(why),
            Refusal::Rows | Refusal::Contended => Halt::no_progress("the sink's database", &why),
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

/// The finding of a lane that has stopped, with commands that can be pasted: they name the slice, and the last one lets it go on.
pub(crate) fn pasted(mut finding: Finding, slice: &SliceName) -> Finding {
    let remedy = &mut finding.remedy;
    if !remedy.contains("strangler sync ") {
        remedy.push_str("; then `strangler sync resume`");
    }
    if !remedy.contains("every slice") {
        for verb in ["resume", "drop", "start"] {
            *remedy = remedy
                .replace(&format!("`strangler sync {verb}`"), &format!("`strangler sync {verb} {slice}`"));
        }
    }
    finding
}

impl From<ConnectError> for Halt {
    fn from(error: ConnectError) -> Self {
        Halt::Away(Box::new(Finding::warning(Code::BridgeWaits, error.to_string(), error.remedy())))
    }
}

impl From<SourceError> for Halt {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Locked(why) => Halt::no_progress("the source's database", &why),
            error => Halt::Away(Box::new(Problem::from(error).into())),
        }
    }
}

impl From<LogError> for Halt {
    fn from(error: LogError) -> Self {
        if matches!(error, LogError::Trimmed) {
            return Halt::Lost(error.to_string());
        }
        let finding = error.finding();
        match finding.code.policy().retry {
            Retry::AfterRemedy => Halt::stop(finding),
            Retry::ByItself => Halt::Away(Box::new(finding)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_names_the_slice_and_says_how_it_goes_on() {
        let slice: SliceName = "orders".parse().unwrap();
        let remedy = |text: &str| pasted(Finding::error(Code::SinkGate, "", text), &slice).remedy;
        for (given, pasted) in [
            ("free it", "free it; then `strangler sync resume orders`"),
            ("free it, then `strangler sync resume`", "free it, then `strangler sync resume orders`"),
            (
                "`strangler sync drop`, then `strangler sync start`",
                "`strangler sync drop orders`, then `strangler sync start orders`",
            ),
            (
                "run `strangler sync resume orders --skip 0/1+1`",
                "run `strangler sync resume orders --skip 0/1+1`",
            ),
            ("give up every slice, `strangler sync drop`", "give up every slice, `strangler sync drop`"),
        ] {
            assert_eq!(remedy(given), pasted);
        }
    }
}
