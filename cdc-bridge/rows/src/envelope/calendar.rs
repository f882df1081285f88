//! Dates and times: between Postgres' ISO text (PostgreSQL manual, 8.5.2, `DateStyle = ISO`, `TimeZone = UTC`), counts
//! of days and microseconds since 1970, and Java's ISO text of a zoned timestamp.
//!
//! The calendar is the proleptic Gregorian one on both sides. Readers take what Postgres writes and nothing else.

use super::json::digits;

/// What Debezium writes for infinite timestamps without time zone, whatever their unit (pgjdbc's
/// `DATE_POSITIVE_INFINITY` and `DATE_NEGATIVE_INFINITY`).
pub(super) const INFINITY: i64 = 9_223_372_036_825_200_000;
pub(super) const NEGATIVE_INFINITY: i64 = -9_223_372_036_832_400_000;

pub(super) const DAY_US: i64 = 86_400_000_000;

/// Days since 1970-01-01 of a date like `2024-02-29` or `0044-03-15 BC`.
pub(super) fn days(text: &[u8]) -> Option<i64> {
    let (text, is_bc) = era(text);
    date(text, is_bc)
}

/// Writes a date as Postgres does.
pub(super) fn write_days(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    write_date(if year > 0 { year } else { 1 - year }, month, day, out);
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
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

/// Writes a time as Postgres does: a fraction only if there is one, without zeros at its end.
pub(super) fn write_time(us: i64, out: &mut Vec<u8>) {
    write_clock(us, out);
    let fraction = us % 1_000_000;
    if fraction != 0 {
        out.push(b'.');
        digits(fraction as u128, 6, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Microseconds since 1970-01-01 00:00 of a timestamp like `2016-11-04 13:51:30.5` or `0044-03-15 12:00:00 BC`.
/// Postgres' last thirty years do not fit 64 bits.
pub(super) fn timestamp_us(text: &[u8]) -> Option<i128> {
    let (text, is_bc) = era(text);
    let space = text.iter().position(|byte| *byte == b' ')?;
    let days = date(&text[..space], is_bc)?;
    Some(i128::from(days) * i128::from(DAY_US) + i128::from(time_us(&text[space + 1..])?))
}

/// Writes a timestamp as Postgres does.
pub(super) fn write_timestamp(us: i128, out: &mut Vec<u8>) {
    write_moment(us, b"", out);
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

/// Writes a timestamp with time zone as Postgres does.
pub(super) fn write_timestamptz(us: i128, out: &mut Vec<u8>) {
    write_moment(us, b"+00", out);
}

/// Writes Java's `ISO_OFFSET_DATE_TIME` with six digits of a second, as Debezium's `ZonedTimestamp` for a column
/// without precision: `2016-11-04T11:51:30.123456Z`, `+21016-11-04T06:51:30.000000Z`, `-0043-03-15T00:00:00.000000Z`.
pub(super) fn write_zoned(us: i128, out: &mut Vec<u8>) {
    let (days, time) = split(us);
    let (year, month, day) = civil(days);
    if year > 9999 {
        out.push(b'+');
    } else if year < 0 {
        out.push(b'-');
    }
    write_date(year.abs(), month, day, out);
    out.push(b'T');
    write_clock(time, out);
    out.push(b'.');
    digits((time % 1_000_000) as u128, 6, out);
    out.push(b'Z');
}

/// Reads what [`write_zoned`] wrote.
pub(super) fn zoned_us(text: &[u8]) -> Option<i128> {
    let (is_negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        text => (false, text),
    };
    let separator = text.iter().position(|byte| *byte == b'T')?;
    let (year, month, day) = parts(&text[..separator])?;
    let days = days_of(if is_negative { -year } else { year }, month, day)?;
    let time = time_us(text[separator + 1..].strip_suffix(b"Z")?)?;
    Some(i128::from(days) * i128::from(DAY_US) + i128::from(time))
}

fn write_moment(us: i128, zone: &[u8], out: &mut Vec<u8>) {
    let (days, time) = split(us);
    let (year, month, day) = civil(days);
    write_date(if year > 0 { year } else { 1 - year }, month, day, out);
    out.push(b' ');
    write_time(time, out);
    out.extend_from_slice(zone);
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
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

fn write_date(year: i64, month: i64, day: i64, out: &mut Vec<u8>) {
    digits(year as u128, 4, out);
    out.push(b'-');
    digits(month as u128, 2, out);
    out.push(b'-');
    digits(day as u128, 2, out);
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
