//! Floating point numbers as Java spells them (`Double.toString` and `Float.toString` since JDK 19): the shortest digits
//! that give the number back, with a point always, and an exponent outside of 10^-3 up to 10^7.

use super::json;

pub(super) fn double(value: f64, out: &mut Vec<u8>) {
    if !special(value, out) {
        let two_digits = format!("{value:.1e}");
        let is_same = two_digits.parse() == Ok(value);
        spell(&if is_same { two_digits } else { format!("{value:e}") }, out);
    }
}

pub(super) fn single(value: f32, out: &mut Vec<u8>) {
    if !special(f64::from(value), out) {
        let two_digits = format!("{value:.1e}");
        let is_same = two_digits.parse() == Ok(value);
        spell(&if is_same { two_digits } else { format!("{value:e}") }, out);
    }
}

/// What is no number is a string in Jackson's JSON.
fn special(value: f64, out: &mut Vec<u8>) -> bool {
    let word: &[u8] = match value {
        value if value.is_nan() => b"NaN",
        f64::INFINITY => b"Infinity",
        f64::NEG_INFINITY => b"-Infinity",
        _ => return false,
    };
    json::string(word, out);
    true
}

/// Respells Rust's scientific notation, such as `-1.25e-7`.
fn spell(scientific: &str, out: &mut Vec<u8>) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let digits = mantissa.replace('.', "");
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    let spelled = match usize::try_from(exponent) {
        Ok(exponent @ 0..7) => {
            let whole =
                digits.get(..=exponent).map_or_else(|| format!("{digits:0<0$}", exponent + 1), str::to_owned);
            format!("{sign}{whole}.{}", or_zero(digits.get(exponent + 1..)))
        }
        Err(_) if (-3..0).contains(&exponent) => {
            format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1))
        }
        _ => format!("{sign}{}.{}E{exponent}", &digits[..1], or_zero(digits.get(1..))),
    };
    out.extend_from_slice(spelled.as_bytes());
}

fn or_zero(digits: Option<&str>) -> &str {
    digits.filter(|digits| !digits.is_empty()).unwrap_or("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled_as_java_spells_them() {
        let doubles = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (0.00123, "0.00123"),
            (0.000_999, "9.99E-4"),
            (1_234_567.0, "1234567.0"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (123_456_789.0, "1.23456789E8"),
            (1e20, "1.0E20"),
            (-1.5e-7, "-1.5E-7"),
            (2e23, "2.0E23"),
            (f64::MAX, "1.7976931348623157E308"),
            (5e-324, "4.9E-324"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ];
        for (value, expected) in doubles {
            let mut out = Vec::new();
            double(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        for (value, expected) in
            [(0.1_f32, "0.1"), (16_777_216.0, "1.6777216E7"), (1e-45, "1.4E-45"), (3.4e38, "3.4E38")]
        {
            let mut out = Vec::new();
            single(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
