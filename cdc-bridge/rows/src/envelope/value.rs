//! One value: from Postgres' text to Debezium's JSON, by the column's type (Debezium's documentation, "Data type
//! mappings", with its defaults: precise decimals, adaptive times, binary as base64).
//!
//! Knows whether the JSON gives the text back exactly; what to do where it does not is the row's business.

use super::array::{Token, walk};
use super::calendar::{self, INFINITY, NEGATIVE_INFINITY};
use super::decimal::Decimal;
use super::json;
use super::plain::{Written, bool, exact_if, float, int, string};
use super::printed;
use super::read;
use migrations::column_type::{ColumnType, Form};

/// What Debezium writes for a large value that did not change and was not sent (`unavailable.value.placeholder`).
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// The placeholder in `uuid[]`: Java's `UUID.nameUUIDFromBytes` of [`PLACEHOLDER`].
const PLACEHOLDER_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

pub(super) fn write(kind: &ColumnType, text: &[u8], out: &mut Vec<u8>) -> Written {
    match kind {
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => int(text, out),
        ColumnType::Bool => bool(text, out),
        ColumnType::Float4 | ColumnType::Float8 => float(text, out),
        ColumnType::Numeric { scale, .. } => numeric(text, i32::from(*scale), out),
        ColumnType::NumericAny => numeric_any(text, out),
        ColumnType::Text
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Enum { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Unsupported(_) => string(text, out),
        ColumnType::Printed { form, .. } => printed::write(*form, text, out),
        ColumnType::Bytea => bytea(text, out),
        ColumnType::Date => date(text, out),
        ColumnType::Time { precision } => time(text, *precision, out),
        ColumnType::Timestamp { precision } => timestamp(text, *precision, out),
        ColumnType::Timestamptz => timestamptz(text, out),
        ColumnType::Array(element) => array(element, text, out),
    }
}

/// Writes what stands in for a value that a column cannot be without: Debezium's fallback for each type.
pub(super) fn write_zero(kind: &ColumnType, out: &mut Vec<u8>) {
    let zero: &[u8] = match kind {
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => b"0",
        ColumnType::Date | ColumnType::Time { .. } | ColumnType::Timestamp { .. } => b"0",
        ColumnType::Bool => b"false",
        ColumnType::Float4 | ColumnType::Float8 => b"0.0",
        ColumnType::Numeric { .. } => b"\"AA==\"",
        ColumnType::NumericAny => br#"{"scale":0,"value":"AA=="}"#,
        ColumnType::Timestamptz => b"\"1970-01-01T00:00:00.000000Z\"",
        ColumnType::Array(_) => b"[]",
        ColumnType::Text
        | ColumnType::Bytea
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Enum { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Unsupported(_) => b"\"\"",
        ColumnType::Printed { form, .. } => return printed::write_zero(*form, out),
    };
    out.extend_from_slice(zero);
}

/// Writes Debezium's placeholder for a value that was not sent; false where a type has none.
pub(super) fn write_placeholder(kind: &ColumnType, out: &mut Vec<u8>) -> bool {
    match kind {
        ColumnType::Text
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Enum { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Uuid => {
            json::string(PLACEHOLDER.as_bytes(), out);
        }
        ColumnType::Printed { form, .. } if form.is_string() => {
            json::string(PLACEHOLDER.as_bytes(), out);
        }
        ColumnType::Bytea => json::base64(PLACEHOLDER.as_bytes(), out),
        ColumnType::Array(element) => match **element {
            ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid | ColumnType::Date => {
                let mut separator = b'[';
                for byte in PLACEHOLDER.bytes() {
                    out.push(separator);
                    json::number(i128::from(byte), out);
                    separator = b',';
                }
                out.push(b']');
            }
            ColumnType::Uuid => {
                out.push(b'[');
                json::string(PLACEHOLDER_UUID.as_bytes(), out);
                out.push(b']');
            }
            ColumnType::Text
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Enum { .. }
            | ColumnType::Composite { .. }
            | ColumnType::Printed { form: Form::Text, .. }
            | ColumnType::Bytea => {
                out.push(b'[');
                write_placeholder(element, out);
                out.push(b']');
            }
            _ => return false,
        },
        _ => return false,
    }
    true
}

fn numeric(text: &[u8], scale: i32, out: &mut Vec<u8>) -> Written {
    let Some(decimal) = Decimal::read(text) else { return Written::Nothing };
    let digits_behind = decimal.scale;
    let Some(decimal) = decimal.with_scale(scale) else { return Written::Nothing };
    json::base64(&decimal.unscaled(), out);
    exact_if(digits_behind == scale.max(0) && !is_negative_zero(text))
}

fn numeric_any(text: &[u8], out: &mut Vec<u8>) -> Written {
    let Some(decimal) = Decimal::read(text) else { return Written::Nothing };
    let digits_behind = decimal.scale;
    let decimal = decimal.stripped();
    out.extend_from_slice(b"{\"scale\":");
    json::number(i128::from(decimal.scale), out);
    out.extend_from_slice(b",\"value\":");
    json::base64(&decimal.unscaled(), out);
    out.push(b'}');
    exact_if(digits_behind == decimal.scale && !is_negative_zero(text))
}

fn is_negative_zero(text: &[u8]) -> bool {
    text.first() == Some(&b'-') && text.iter().all(|byte| matches!(byte, b'-' | b'0' | b'.'))
}

fn bytea(text: &[u8], out: &mut Vec<u8>) -> Written {
    match text.strip_prefix(b"\\x").and_then(unhex) {
        Some(bytes) => {
            json::base64(&bytes, out);
            Written::Exact
        }
        None => Written::Nothing,
    }
}

/// Reads lower-case hex.
fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

fn date(text: &[u8], out: &mut Vec<u8>) -> Written {
    let Some(days) = calendar::days(text) else { return Written::Nothing };
    json::number(i128::from(days), out);
    exact_if(gives(text, |text| calendar::write_days(days, text)))
}

fn time(text: &[u8], precision: u8, out: &mut Vec<u8>) -> Written {
    let Some(us) = calendar::time_us(text) else { return Written::Nothing };
    let is_coarse = precision <= 3;
    json::number(i128::from(if is_coarse { us / 1000 } else { us }), out);
    exact_if((!is_coarse || us % 1000 == 0) && gives(text, |text| calendar::write_time(us, text)))
}

fn timestamp(text: &[u8], precision: u8, out: &mut Vec<u8>) -> Written {
    match text {
        b"infinity" => json::number(i128::from(INFINITY), out),
        b"-infinity" => json::number(i128::from(NEGATIVE_INFINITY), out),
        text => {
            let Some(us) = calendar::timestamp_us(text) else { return Written::Nothing };
            let is_coarse = precision <= 3;
            let value = if is_coarse { us.div_euclid(1000) } else { us };
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            json::number(i128::from(value), out);
            let kept = i128::from(value) * if is_coarse { 1000 } else { 1 };
            let is_taken = matches!(value, INFINITY | NEGATIVE_INFINITY);
            return exact_if(
                kept == us && !is_taken && gives(text, |text| calendar::write_timestamp(us, text)),
            );
        }
    }
    Written::Exact
}

fn timestamptz(text: &[u8], out: &mut Vec<u8>) -> Written {
    if matches!(text, b"infinity" | b"-infinity") {
        json::string(text, out);
        return Written::Exact;
    }
    let Some(us) = calendar::timestamptz_us(text) else { return Written::Nothing };
    out.push(b'"');
    calendar::write_zoned(us, out);
    out.push(b'"');
    exact_if(gives(text, |text| calendar::write_timestamptz(us, text)))
}

/// Whether what would be read back is the text.
fn gives(text: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let mut back = Vec::with_capacity(32);
    write(&mut back);
    back == text
}

/// Dimensions become nested arrays. Whether the JSON gives the text back is found out by reading it.
fn array(kind: &ColumnType, text: &[u8], out: &mut Vec<u8>) -> Written {
    let start = out.len();
    let mut is_exact = true;
    let is_array = walk(text, |token| {
        let is_first = matches!(out[start..].last(), None | Some(b'['));
        if !is_first && token != Token::Close {
            out.push(b',');
        }
        match token {
            Token::Open => out.push(b'['),
            Token::Close => out.push(b']'),
            Token::Null => out.extend_from_slice(b"null"),
            Token::Element(text) => match write(kind, text, out) {
                Written::Exact => {}
                Written::Inexact => is_exact = false,
                Written::Nothing => {
                    is_exact = false;
                    out.extend_from_slice(b"null");
                }
            },
        }
        true
    });
    if !is_array {
        out.truncate(start);
        return Written::Nothing;
    }
    let mut back = Vec::with_capacity(text.len());
    let json = std::str::from_utf8(&out[start..]).unwrap_or_default();
    exact_if(is_exact && read::array(kind, json, &mut back) == Ok(()) && back == text)
}
