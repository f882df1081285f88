//! Values whose JSON is nearly their text: numbers, booleans and strings. Each writer says whether it wrote anything.

use super::{float, json};

pub(super) fn int(text: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = matches!(digits, [b'1'..=b'9', ..]) || text == b"0";
    if !is_canonical || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    out.extend_from_slice(text);
    true
}

pub(super) fn bool(text: &[u8], out: &mut Vec<u8>) -> bool {
    match text {
        b"t" => out.extend_from_slice(b"true"),
        b"f" => out.extend_from_slice(b"false"),
        _ => return false,
    }
    true
}

pub(super) fn single(text: &[u8], out: &mut Vec<u8>) -> bool {
    let value = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    value.map(|value| float::single(value, out)).is_some()
}

pub(super) fn double(text: &[u8], out: &mut Vec<u8>) -> bool {
    let value = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    value.map(|value| float::double(value, out)).is_some()
}

pub(super) fn string(text: &[u8], out: &mut Vec<u8>) -> bool {
    let is_text = std::str::from_utf8(text).is_ok();
    if is_text {
        json::string(text, out);
    }
    is_text
}
