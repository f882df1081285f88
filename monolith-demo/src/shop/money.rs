//! Money: whole cents inside, a decimal string with two places outside. Never floating point.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest amount that `numeric(12, 2)` holds, in cents.
pub const CENTS_MAX: i64 = 999_999_999_999;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cents(pub i64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount: write it like \"12.50\"")]
pub struct NotMoney(String);

impl Cents {
    /// The sum; `None` if it is beyond [`CENTS_MAX`].
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).filter(|sum| sum.abs() <= CENTS_MAX).map(Self)
    }

    /// The price of `quantity` pieces; `None` if it is beyond [`CENTS_MAX`].
    #[must_use]
    pub fn times(self, quantity: i32) -> Option<Self> {
        self.0.checked_mul(i64::from(quantity)).filter(|product| product.abs() <= CENTS_MAX).map(Self)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", cents / 100, cents % 100)
    }
}

impl FromStr for Cents {
    type Err = NotMoney;

    /// Reads `12`, `12.5` or `12.50`, with an optional minus sign.
    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let refuse = || NotMoney(text.chars().take(40).collect());
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "00"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || whole.len() > 10 || fraction.len() > 2 {
            return Err(refuse());
        }
        let whole: i64 = whole.parse().map_err(|_| refuse())?;
        let part: i64 = fraction.parse().map_err(|_| refuse())?;
        let cents = whole * 100 + if fraction.len() == 1 { part * 10 } else { part };
        Ok(Self(if negative { -cents } else { cents }))
    }
}

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_parse_as_they_are_written() {
        for (text, cents) in [("12.50", 1250), ("0.05", 5), ("7", 700), ("7.5", 750), ("-3.01", -301)] {
            assert_eq!(text.parse(), Ok(Cents(cents)), "{text}");
        }
        for cents in [0, 5, 99, 100, 1250, -5, -301, CENTS_MAX] {
            assert_eq!(Cents(cents).to_string().parse(), Ok(Cents(cents)));
        }
    }

    #[test]
    fn text_that_is_no_amount_is_refused() {
        for text in ["", ".", "1.", ".5", "1.234", "1,5", "+1", "--1", "1e3", "99999999999", "NaN"] {
            assert!(text.parse::<Cents>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sum_beyond_the_limit_is_refused() {
        assert_eq!(Cents(CENTS_MAX).plus(Cents(1)), None);
        assert_eq!(Cents(i64::MAX / 2).times(3), None);
        assert_eq!(Cents(150).times(3), Some(Cents(450)));
    }
}
