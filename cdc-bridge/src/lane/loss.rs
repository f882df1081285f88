//! A lane that is lost while the service owns its slice: a copy would not bring it back.

use super::plan::LanePlan;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::lane::Direction;
use migrations::lsn::EndLsn;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `passed` and `noted_us` say how far the lane had come, and when; 0 if that is not known.
pub(crate) fn finding(plan: &LanePlan, why: &str, passed: EndLsn, noted_us: i64) -> Finding {
    let slice = &plan.id.slice;
    let since = since(passed, noted_us);
    let (message, remedy) = match plan.id.direction {
        Direction::Reverse => (
            format!(
                "the way back of slice {slice} is lost: {why}; a rollback would lose what service {} wrote since {since}",
                plan.slice.service
            ),
            format!(
                "let the service keep the slice: `strangler complete {slice}`; `strangler verify {slice}` lists what the \
                 monolith does not have"
            ),
        ),
        Direction::Forward => (
            format!(
                "the lane that watches slice {slice} in the monolith is lost: {why}; writes past its gate are not noticed, \
                 and reference tables of service {} stay as they were at {since}",
                plan.slice.service
            ),
            format!("after a rollback the slice is copied again by itself: `strangler rollback {slice}`"),
        ),
    };
    Finding::error(Code::SliceLaneLost, message, remedy)
}

fn since(passed: EndLsn, noted_us: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(noted_us / 1_000_000).ok().filter(|_| noted_us > 0);
    match at.and_then(|at| at.format(&Rfc3339).ok()) {
        Some(at) => format!("{at} (WAL {passed})"),
        None => "its beginning".to_owned(),
    }
}
