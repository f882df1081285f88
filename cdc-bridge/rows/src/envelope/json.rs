//! Writes JSON's strings, numbers and base64 straight into bytes.
//!
//! Knows no table and no type of Postgres.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Writes a string with its quotes. The text must be UTF-8, else the JSON is not. Escapes are those of Jackson, which writes
/// Debezium's JSON: where it writes bytes, also characters of four bytes, as two units of UTF-16.
pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    quoted(text, 0xF0, out);
}

/// The same within a JSON that is itself a text: there Jackson leaves large characters as they are.
pub(super) fn string_in_text(text: &[u8], out: &mut Vec<u8>) {
    quoted(text, u8::MAX, out);
}

/// Escapes what must be, and characters whose first byte is `large_from` or more.
fn quoted(text: &[u8], large_from: u8, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.iter().enumerate() {
        if !matches!(byte, 0..0x20 | b'"' | b'\\') && *byte < large_from {
            continue;
        }
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0C => out.extend_from_slice(b"\\f"),
            0xF0.. => match large(&text[at..]) {
                Some(char) => {
                    char.encode_utf16(&mut [0; 2]).iter().for_each(|code| unit(*code, out));
                    plain = at + char.len_utf8();
                }
                None => plain = at,
            },
            control => unit(u16::from(*control), out),
        }
    }
    out.extend_from_slice(&text[plain..]);
    out.push(b'"');
}

/// The character of four bytes that a text begins with.
fn large(text: &[u8]) -> Option<char> {
    std::str::from_utf8(text.get(..4)?).ok()?.chars().next()
}

/// Writes `\u` and the number of a unit of UTF-16.
fn unit(code: u16, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(b"\\u");
    out.extend([12, 8, 4, 0].map(|shift| HEX[usize::from((code >> shift) & 15)]));
}

pub(super) fn number(value: i128, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    digits(value.unsigned_abs(), 1, out);
}

/// Writes a number's digits, with zeros before them up to `width` (39 at most).
pub(super) fn digits(value: u128, width: usize, out: &mut Vec<u8>) {
    let mut buffer = [b'0'; 39];
    let mut at = buffer.len();
    // Division of 128 bits is slow, and nearly every number is short.
    let mut long = value;
    while long > u128::from(u64::MAX) {
        at -= 1;
        buffer[at] += (long % 10) as u8;
        long /= 10;
    }
    let mut rest = long as u64;
    while rest > 0 {
        at -= 1;
        buffer[at] += (rest % 10) as u8;
        rest /= 10;
    }
    at = at.min(buffer.len() - width.min(buffer.len()));
    out.extend_from_slice(&buffer[at..]);
}

/// Writes bytes as a base64 string with its quotes.
pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The place is as long as base64 makes it, which is all that can fail.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        string(text, &mut out);
        out
    }

    #[test]
    fn strings_are_escaped_as_jackson_does() {
        let text = "a\u{1}\u{1F}\n\"\\é€\u{FFFF}\u{10000}🐘z";
        let expected = "\"a\\u0001\\u001F\\n\\\"\\\\é€\u{FFFF}\\uD800\\uDC00\\uD83D\\uDC18z\"";
        assert_eq!(String::from_utf8(written(text.as_bytes())).unwrap(), expected);
        let mut out = Vec::new();
        string_in_text("\n🐘".as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "\"\\n🐘\"");
    }

    #[test]
    fn what_is_no_utf_8_stays_as_it_is() {
        for text in [b"a\xF0".as_slice(), b"\xF0\x9F\x90", b"\xFFabc", b"\xF4\xFF\xFF\xFFx"] {
            assert_eq!(written(text), [b"\"", text, b"\""].concat());
        }
    }
}
