//! How much of a route's traffic goes to the service, in hundredths of a percent.

use crate::text::{BadText, travels_as_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The part of the clients that a service answers. A client's bucket is below it or not, so raising a share
/// never moves a client back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u16);

impl Share {
    /// How many buckets there are: one is a hundredth of a percent.
    pub const BUCKETS: u16 = 10_000;
    pub const MONOLITH: Share = Share(0);
    pub const SERVICE: Share = Share(Self::BUCKETS);

    /// Whether a client in `bucket` (0 to 9 999) is the service's.
    pub fn takes(self, bucket: u16) -> bool {
        bucket < self.0
    }

    /// In hundredths of a percent, 0 to 10 000.
    pub fn buckets(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (0, 0) => f.pad("monolith"),
            (100, 0) => f.pad("service"),
            (whole, 0) => f.pad(&format!("{whole}%")),
            (whole, cents) => f
                .pad(format!("{whole}.{cents:02}").trim_end_matches('0').to_owned().as_str())
                .and_then(|()| f.write_str("%")),
        }
    }
}

impl FromStr for Share {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let remedy = "write `monolith`, `service`, or a percentage such as `25%` (two decimals at most)";
        let bad = || BadText::new(text, "is not a share", remedy);
        match text {
            "monolith" => return Ok(Self::MONOLITH),
            "service" => return Ok(Self::SERVICE),
            _ => {}
        }
        let number = text.strip_suffix('%').ok_or_else(bad)?.trim_end();
        let (whole, cents) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |t: &str| !t.is_empty() && t.len() <= 3 && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(cents) || cents.len() > 2 {
            return Err(bad());
        }
        let whole: u32 = whole.parse().map_err(|_| bad())?;
        let cents: u32 = format!("{cents:0<2}").parse().map_err(|_| bad())?;
        let buckets = u16::try_from(whole * 100 + cents).map_err(|_| bad())?;
        if buckets <= Self::BUCKETS { Ok(Self(buckets)) } else { Err(bad()) }
    }
}

travels_as_text!(Share);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_read_back(buckets in 0u16..=10_000) {
            let share = Share(buckets);
            prop_assert_eq!(share.to_string().parse::<Share>().unwrap(), share);
        }

        #[test]
        fn raising_a_share_moves_no_client_back(low in 0u16..=10_000, high in 0u16..=10_000, bucket in 0u16..10_000) {
            let (low, high) = (low.min(high), low.max(high));
            prop_assert!(!Share(low).takes(bucket) || Share(high).takes(bucket));
        }
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for bad in ["", "%", "101%", "-1%", "1.234%", "25", "1e1%", "100.01%", "656%", "755%", "999.99%"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert_eq!("12.5%".parse::<Share>().unwrap().buckets(), 1250);
    }
}
