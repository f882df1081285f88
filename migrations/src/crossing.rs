//! What a crossing of writes from one owner to the other is made of: what was wanted, and what was proven when it began.

use crate::lsn::{EndLsn, Of, Service};
use crate::text::{BadText, travels_as_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A moment by the clock of the journal's database: milliseconds since the Unix epoch. It bounds how long something may
/// take and never decides about data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    pub fn after(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long it is from `earlier` to here; nothing if `earlier` is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A hash that tells two states of something apart: of a plan's meaning, of the tables' shapes. Written as 16 hexadecimal
/// digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub u64);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::new(text, "is not a hash of 16 hexadecimal digits", "");
        let is_plain =
            text.len() == 16 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        if !is_plain {
            return Err(bad());
        }
        u64::from_str_radix(text, 16).map(Digest).map_err(|_| bad())
    }
}

travels_as_text!(Digest);

/// What a crossing to the service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "intent", rename_all = "kebab-case")]
pub enum Intent {
    /// The service shall own the slice: until it is given back, or for so long and no longer unless someone confirms.
    Cutover {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        for_ms: Option<u64>,
    },
    /// Everything but the decision itself, and back.
    Rehearse,
}

/// A crossing that is wanted and being prepared. Nothing of it touches traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparing {
    #[serde(flatten)]
    pub intent: Intent,
    /// The plan it was wanted under.
    pub plan: Digest,
    /// How long writes may be held.
    pub hold_ms: u64,
    /// When preparing is given up.
    pub until: Moment,
}

/// What was proven when writes were stopped for a cutover. It is kept as long as there is a way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    #[serde(flatten)]
    pub intent: Intent,
    /// The plan's hash.
    pub plan: Digest,
    /// The hash of the tables' shapes on both sides.
    pub schema: Digest,
    /// From where on the service's changes are kept for the way back.
    pub reverse_from: Of<Service, EndLsn>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_digest_reads_back_and_nothing_else_is_one(value: u64, text in "[0-9a-fA-F+]{0,17}") {
            prop_assert_eq!(Digest(value).to_string().parse(), Ok(Digest(value)));
            if let Ok(read) = text.parse::<Digest>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }

    #[test]
    fn time_between_moments_is_never_negative() {
        let moment = Moment(5).after(Duration::from_millis(7));
        assert_eq!(moment, Moment(12));
        assert_eq!(moment.since(Moment(5)), Duration::from_millis(7));
        assert_eq!(Moment(5).since(moment), Duration::ZERO);
    }
}
