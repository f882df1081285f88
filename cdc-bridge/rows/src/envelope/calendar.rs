//! Dates and times: from Postgres' ISO text (PostgreSQL manual, 8.5.2, `DateStyle = ISO`, `TimeZone = UTC`) to counts of
//! days and microseconds since 1970, and to Java's ISO text.
//!
//! The calendar is the proleptic Gregorian one on both sides. Readers take what Postgres writes and nothing else.

use super::json::digits;

/// What Debezium makes of infinite timestamps without time zone, in microseconds (pgjdbc's `DATE_POSITIVE_INFINITY` and
/// `DATE_NEGATIVE_INFINITY`).
pub(super) const INFINITY_US: i128 = 9_223_372_036_825_200_000;
pub(super) const NEGATIVE_INFINITY_US: i128 = -9_223_372_036_832_400_000;
/// What it makes of infinite dates, in days: -5877611-06-21 and the day after
/// (`PostgresValueConverter.POSITIVE_INFINITY_LOCAL_DATE`).
pub(super) const INFINITY_DAYS: i64 = -2_147_472_692;
pub(super) const NEGATIVE_INFINITY_DAYS: i64 = INFINITY_DAYS + 1;

/// How many digits of a second are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fraction {
    /// As many as there are, none for a whole second (`DateTimeFormatter.ISO_LOCAL_TIME`).
    Shortest,
    Digits(u8),
}

pub(super) const DAY_US: i64 = 86_400_000_000;

/// Days since 1970-01-01 of a date like `2024-02-29` or `0044-03-15 BC`.
pub(super) fn days(text: &[u8]) -> Option<i64> {
    let (text, is_bc) = era(text);
    date(text, is_bc)
}

/// Microseconds since midnight of a time like `13:51:30.5`; `24:00:00` is the end of the day.
pub(super) fn time_us(text: &[u8]) -> Option<i64> {
    let (hours, rest) = text.split_at_checked(2)?;
    let (minutes, rest) = rest.strip_prefix(b":")?.split_at_checked(2)?;
    let (seconds, fraction) = rest.strip_prefix(b":")?.split_at_checked(2)?;
    let whole = (number(hours)? * 60 + number(minutes)?) * 60 + number(seconds)?;
    let fraction = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=6).contains(&digits.len()) => {
            number(digits)? * 10_i64.pow(6 - digits.len() as u32)
        }
        _ => return None,
    };
    let us = whole * 1_000_000 + fraction;
    (number(minutes)? < 60 && number(seconds)? < 60 && us <= DAY_US).then_some(us)
}

/// Microseconds since 1970-01-01 00:00 of a timestamp like `2016-11-04 13:51:30.5` or `0044-03-15 12:00:00 BC`.
/// Postgres' last thirty years do not fit 64 bits.
pub(super) fn timestamp_us(text: &[u8]) -> Option<i128> {
    let (text, is_bc) = era(text);
    let space = text.iter().position(|byte| *byte == b' ')?;
    let days = date(&text[..space], is_bc)?;
    Some(i128::from(days) * i128::from(DAY_US) + i128::from(time_us(&text[space + 1..])?))
}

/// The same with a time zone, which is UTC: `2016-11-04 13:51:30.5+00`.
pub(super) fn timestamptz_us(text: &[u8]) -> Option<i128> {
    let (text, is_bc) = era(text);
    let local = text.strip_suffix(b"+00")?;
    if !is_bc {
        return timestamp_us(local);
    }
    timestamp_us(&[local, b" BC"].concat())
}

/// Writes Java's `ISO_LOCAL_DATE`: `2016-11-04`, `+21016-11-04`, `-0043-03-15`.
pub(super) fn write_days(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    if year > 9999 {
        out.push(b'+');
    } else if year < 0 {
        out.push(b'-');
    }
    digits(u128::from(year.unsigned_abs()), 4, out);
    out.push(b'-');
    digits(month as u128, 2, out);
    out.push(b'-');
    digits(day as u128, 2, out);
}

/// Writes a time of a day up to its end: `13:51:30.5`.
pub(super) fn write_time(us: i64, fraction: Fraction, out: &mut Vec<u8>) {
    write_clock(us, out);
    let (us, kept) = (
        (us % 1_000_000) as u128,
        match fraction {
            Fraction::Shortest => 6,
            Fraction::Digits(kept) => usize::from(kept.min(6)),
        },
    );
    if kept == 0 || (us == 0 && fraction == Fraction::Shortest) {
        return;
    }
    out.push(b'.');
    let start = out.len();
    digits(us, 6, out);
    out.truncate(start + kept);
    while fraction == Fraction::Shortest && out.last() == Some(&b'0') {
        out.pop();
    }
}

/// Writes Java's `ISO_OFFSET_DATE_TIME` in UTC: `2016-11-04T11:51:30.123456Z`.
pub(super) fn write_zoned(us: i128, fraction: Fraction, out: &mut Vec<u8>) {
    let (days, time) = split(us);
    write_days(days, out);
    out.push(b'T');
    write_time(time, fraction, out);
    out.push(b'Z');
}

fn split(us: i128) -> (i64, i64) {
    let day = i128::from(DAY_US);
    (us.div_euclid(day) as i64, us.rem_euclid(day) as i64)
}

fn era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

fn date(text: &[u8], is_bc: bool) -> Option<i64> {
    let (year, month, day) = parts(text)?;
    if year == 0 {
        return None;
    }
    days_of(if is_bc { 1 - year } else { year }, month, day)
}

/// Year, month and day of `YYYY-MM-DD`, where the year may be longer.
fn parts(text: &[u8]) -> Option<(i64, i64, i64)> {
    let (year, rest) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (month, day) = rest.strip_prefix(b"-")?.split_at_checked(2)?;
    if !(4..=7).contains(&year.len()) {
        return None;
    }
    Some((number(year)?, number(month)?, number(day.strip_prefix(b"-")?)?))
}

fn number(text: &[u8]) -> Option<i64> {
    let mut value = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

fn write_clock(us: i64, out: &mut Vec<u8>) {
    let seconds = us / 1_000_000;
    digits((seconds / 3600) as u128, 2, out);
    out.push(b':');
    digits((seconds / 60 % 60) as u128, 2, out);
    out.push(b':');
    digits((seconds % 60) as u128, 2, out);
}

/// Days since 1970-01-01 of a date, with astronomical years (0 is 1 BC). The algorithms here and in [`civil`] count
/// in eras of 400 years that begin in March (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    (civil(days) == (year, month, day)).then_some(days)
}

fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinite_dates_are_the_days_that_debezium_names() {
        assert_eq!(days_of(-5_877_611, 6, 21), Some(INFINITY_DAYS));
        assert_eq!(days_of(-5_877_611, 6, 22), Some(NEGATIVE_INFINITY_DAYS));
    }
}
