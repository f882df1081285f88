//! Time spans as people type them. Pure.

use std::time::Duration;

/// No command watches longer than a day.
const PATIENCE_MAX: Duration = Duration::from_secs(86_400);

/// A span such as `10m`, `30s`, `500ms` or `1h 30m`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if !span.is_zero() => Ok(span),
        _ => Err("write a number with its unit, for example `10m`, `30s`, `500ms` or `1h`".to_owned()),
    }
}

/// How long to watch, from a second to a day. A number without a unit is seconds.
pub(crate) fn patience(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(Duration::from_secs);
    let patience = seconds.or_else(|_| span(text))?;
    if (Duration::from_secs(1)..=PATIENCE_MAX).contains(&patience) {
        return Ok(patience);
    }
    Err("write a time from a second to a day, for example `30s` or `5m`".to_owned())
}

/// In the form in which it could be typed: `10m`.
pub(crate) fn written(span: Duration) -> String {
    humantime::format_duration(span).to_string().replace(' ', "")
}

pub(crate) fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_needs_a_unit_and_is_never_nothing() {
        let spans = ["500ms", "30s", "10m", "1h", "1h 30m"].map(|text| milliseconds(span(text).unwrap()));
        assert_eq!(spans, [500, 30_000, 600_000, 3_600_000, 5_400_000]);
        for bad in ["", "10", "0s", "0", "-1s", "10 parsecs", "m", "99999999999999999999h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patience_is_between_a_second_and_a_day_and_may_be_plain_seconds() {
        assert_eq!(["30", "2m"].map(|text| patience(text).unwrap().as_secs()), [30, 120]);
        for bad in ["0", "86401", "999ms", "2d", "18446744073709551616", "soon"] {
            assert!(patience(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_span_is_shown_as_it_could_be_typed() {
        for text in ["500ms", "30s", "10m", "1h30m"] {
            assert_eq!(written(span(text).unwrap()), text);
        }
    }
}
