//! Numbers as people read them. Pure.

use std::time::Duration;

/// Groups of three digits: `1 204 331`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A time span in a fitting unit: `4 ms`, `1.2 s`, `3 min`, `5 h`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// What is left of a time: `4.2 s`, `9m 12s`, `1h 3m`.
pub(crate) fn left(left: Duration) -> String {
    const EXACT: Duration = Duration::from_secs(10);
    if left < EXACT {
        return span(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    }
    humantime::format_duration(Duration::from_secs(left.as_secs())).to_string()
}

/// A size in a fitting unit: `12 B`, `3.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// At most 100, even if the part is larger than the whole.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(100).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1 000"), (1_204_331, "1 204 331")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn spans_and_sizes_take_the_fitting_unit() {
        assert_eq!([span(4), span(1_250), span(60_000), span(7_200_000)], ["4 ms", "1.2 s", "1 min", "2 h"]);
        assert_eq!([size(12), size(3 << 20), size(u64::MAX)], ["12 B", "3.0 MiB", "16777215.9 TiB"]);
    }

    #[test]
    fn what_is_left_is_exact_only_at_the_end() {
        let shown = [4_200, 47_900, 552_000, 3_780_000].map(|ms| left(Duration::from_millis(ms)));
        assert_eq!(shown, ["4.2 s", "47s", "9m 12s", "1h 3m"]);
    }

    #[test]
    fn an_estimate_that_was_too_low_stays_at_the_whole() {
        assert_eq!([percent(1, 3), percent(5, 3), percent(u64::MAX, 0)], [33, 100, 100]);
    }
}
