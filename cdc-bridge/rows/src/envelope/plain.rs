//! Values whose JSON is nearly their text: numbers, booleans and strings.

use super::json;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// The JSON gives the text back byte for byte.
    Exact,
    /// The JSON is what Debezium writes, but the text is more than it says.
    Inexact,
    /// Debezium's JSON has no form for it; nothing was written.
    Nothing,
}

pub(super) fn exact_if(is_exact: bool) -> Written {
    if is_exact { Written::Exact } else { Written::Inexact }
}

pub(super) fn int(text: &[u8], out: &mut Vec<u8>) -> Written {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = matches!(digits, [b'1'..=b'9', ..]) || text == b"0";
    if !is_canonical || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return Written::Nothing;
    }
    out.extend_from_slice(text);
    Written::Exact
}

pub(super) fn bool(text: &[u8], out: &mut Vec<u8>) -> Written {
    match text {
        b"t" => out.extend_from_slice(b"true"),
        b"f" => out.extend_from_slice(b"false"),
        _ => return Written::Nothing,
    }
    Written::Exact
}

/// Postgres' shortest text is a JSON number but for a point that Java always writes.
pub(super) fn float(text: &[u8], out: &mut Vec<u8>) -> Written {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        json::string(text, out);
        return Written::Exact;
    }
    let (mantissa, exponent) = match text.iter().position(|byte| *byte == b'e') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = mantissa.strip_prefix(b"-").unwrap_or(mantissa);
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        is_number(exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent))
    });
    let has_leading_zero = whole.len() > 1 && whole[0] == b'0';
    if !is_number(whole) || has_leading_zero || !fraction.is_none_or(is_number) || !exponent_fits {
        return Written::Nothing;
    }
    out.extend_from_slice(text);
    if fraction.is_none() && exponent.is_none() {
        out.extend_from_slice(b".0");
    }
    exact_if(!(fraction == Some(b"0") && exponent.is_none()))
}

pub(super) fn string(text: &[u8], out: &mut Vec<u8>) -> Written {
    if std::str::from_utf8(text).is_err() {
        return Written::Nothing;
    }
    json::string(text, out);
    Written::Exact
}
