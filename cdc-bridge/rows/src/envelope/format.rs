//! How values of one column are written: the options that it depends on, and what its declaration adds.

use super::calendar::Fraction;
use crate::change::Column;
use migrations::plan::{Decimals, Publish, Times};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) decimals: Decimals,
    pub(super) times: Times,
    /// Of a `timestamptz`.
    pub(super) zoned: Fraction,
}

/// What a date or time without a zone is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
    /// Nothing: it is ISO text.
    Text,
}

impl Format {
    pub(super) fn of(publish: &Publish, column: &Column) -> Format {
        let modifier = column.stored.map_or(-1, |stored| stored.modifier);
        let zoned = match u8::try_from(modifier) {
            // Debezium asks for no digits by not asking for any number of them.
            Ok(0) => Fraction::Shortest,
            Ok(digits @ 1..=6) => Fraction::Digits(digits),
            _ => Fraction::Digits(6),
        };
        Format { decimals: publish.decimals, times: publish.times, zoned }
    }

    pub(super) fn time_unit(&self, precision: u8) -> Unit {
        match self.times {
            Times::AdaptiveTimeMicroseconds => Unit::Microseconds,
            _ => self.timestamp_unit(precision),
        }
    }

    pub(super) fn timestamp_unit(&self, precision: u8) -> Unit {
        match self.times {
            Times::Adaptive | Times::AdaptiveTimeMicroseconds if precision <= 3 => Unit::Milliseconds,
            Times::Adaptive | Times::AdaptiveTimeMicroseconds | Times::Microseconds => Unit::Microseconds,
            Times::Connect => Unit::Milliseconds,
            Times::Nanoseconds => Unit::Nanoseconds,
            Times::Isostring => Unit::Text,
        }
    }
}
