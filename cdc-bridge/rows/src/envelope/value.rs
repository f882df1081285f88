//! One value: from Postgres' text to Debezium's JSON, by the column's type (Debezium's documentation, "Data type
//! mappings", and its source, `PostgresValueConverter`).
//!
//! Each writer says whether there was something to write: a text may have no form.

use super::array::{Token, takes_nulls, walk};
use super::calendar::{self, DAY_US, Fraction};
use super::decimal::Decimal;
use super::format::{Format, Unit};
use super::json;
use super::plain::{bool, double, int, single, string};
use super::printed;
use migrations::column_type::{ColumnType, Form};
use migrations::plan::{Decimals, Times};

/// What Debezium writes for a large value that did not change and was not sent (`unavailable.value.placeholder`).
pub const PLACEHOLDER: &str = "__debezium_unavailable_value";

/// The placeholder in `uuid[]`: Java's `UUID.nameUUIDFromBytes` of [`PLACEHOLDER`].
const PLACEHOLDER_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

pub(super) fn write(kind: &ColumnType, format: &Format, text: &[u8], out: &mut Vec<u8>) -> bool {
    match kind {
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => int(text, out),
        ColumnType::Bool => bool(text, out),
        ColumnType::Float4 => single(text, out),
        ColumnType::Float8 => double(text, out),
        ColumnType::Numeric { scale, .. } => numeric(text, Some(i32::from(*scale)), format.decimals, out),
        ColumnType::NumericAny => numeric(text, None, format.decimals, out),
        ColumnType::Text
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Enum { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Unsupported(_) => string(text, out),
        ColumnType::Printed { form, .. } => printed::write(*form, format.decimals, text, out),
        ColumnType::Bytea => bytea(text).map(|bytes| json::base64(&bytes, out)).is_some(),
        ColumnType::Date => date(text, format.times, out),
        ColumnType::Time { precision } => time(text, format.time_unit(*precision), out),
        ColumnType::Timestamp { precision } => timestamp(text, format.timestamp_unit(*precision), out),
        ColumnType::Timestamptz => timestamptz(text, format.zoned, out),
        ColumnType::Array(element) => array(element, format, text, out),
    }
}

/// Writes what stands in for a value that a column cannot be without: Debezium's fallback for each type.
pub(super) fn write_zero(kind: &ColumnType, format: &Format, out: &mut Vec<u8>) {
    let zero = match kind {
        ColumnType::Numeric { scale, .. } if format.decimals == Decimals::String => {
            match usize::try_from(*scale) {
                Ok(scale @ 1..) => return out.extend_from_slice(format!("\"0.{:0<scale$}\"", "").as_bytes()),
                _ => "\"0\"",
            }
        }
        ColumnType::NumericAny if format.decimals == Decimals::String => "\"0\"",
        ColumnType::Numeric { .. } | ColumnType::NumericAny if format.decimals == Decimals::Double => "0.0",
        ColumnType::Numeric { .. } => "\"AA==\"",
        ColumnType::NumericAny => r#"{"scale":0,"value":"AA=="}"#,
        ColumnType::Date if format.times == Times::Isostring => "\"1970-01-01Z\"",
        ColumnType::Time { .. } if format.times == Times::Isostring => "\"00:00:00Z\"",
        ColumnType::Timestamp { .. } if format.times == Times::Isostring => "\"1970-01-01T00:00:00Z\"",
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => "0",
        ColumnType::Date | ColumnType::Time { .. } | ColumnType::Timestamp { .. } => "0",
        ColumnType::Bool => "false",
        ColumnType::Float4 | ColumnType::Float8 => "0.0",
        ColumnType::Timestamptz => "\"1970-01-01T00:00:00Z\"",
        ColumnType::Array(_) => "[]",
        ColumnType::Text
        | ColumnType::Bytea
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Enum { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Unsupported(_) => "\"\"",
        ColumnType::Printed { form, .. } => return printed::write_zero(*form, format.decimals, out),
    };
    out.extend_from_slice(zero.as_bytes());
}

/// Writes Debezium's placeholder for a value that was not sent; false where a type has none.
pub(super) fn write_placeholder(kind: &ColumnType, format: &Format, out: &mut Vec<u8>) -> bool {
    match kind {
        ColumnType::Text
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Enum { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Uuid => {
            json::string(PLACEHOLDER.as_bytes(), out);
        }
        ColumnType::Printed { form: Form::Hstore, .. } => {
            json::string(format!(r#"{{"{PLACEHOLDER}":"{PLACEHOLDER}"}}"#).as_bytes(), out);
        }
        ColumnType::Printed { form, .. } if form.is_string() => {
            json::string(PLACEHOLDER.as_bytes(), out);
        }
        ColumnType::Bytea => json::base64(PLACEHOLDER.as_bytes(), out),
        ColumnType::Array(element) => match **element {
            // Its numbers are no dates of these modes.
            ColumnType::Date if matches!(format.times, Times::Isostring | Times::Connect) => return false,
            ColumnType::Int4 | ColumnType::Int8 | ColumnType::Date => {
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
            ColumnType::Text | ColumnType::Json | ColumnType::Jsonb | ColumnType::Bytea => {
                out.push(b'[');
                write_placeholder(element, format, out);
                out.push(b']');
            }
            _ => return false,
        },
        _ => return false,
    }
    true
}

/// Without a scale the number says its own.
fn numeric(text: &[u8], scale: Option<i32>, decimals: Decimals, out: &mut Vec<u8>) -> bool {
    let decimal = Decimal::read(text);
    match (decimals, decimal) {
        (Decimals::Double, _) => return double(text, out),
        (Decimals::String, Some(_)) => json::string(text, out),
        (Decimals::String, None) => json::string(
            match text {
                b"NaN" => b"NAN",
                b"Infinity" => b"POSITIVE_INFINITY",
                b"-Infinity" => b"NEGATIVE_INFINITY",
                _ => return false,
            },
            out,
        ),
        (Decimals::Precise, decimal) => match (decimal, scale) {
            (Some(decimal), Some(scale)) => {
                let Some(decimal) = decimal.with_scale(scale) else { return false };
                json::base64(&decimal.unscaled(), out);
            }
            (Some(decimal), None) => {
                let decimal = decimal.stripped();
                out.extend_from_slice(b"{\"scale\":");
                json::number(i128::from(decimal.scale), out);
                out.extend_from_slice(b",\"value\":");
                json::base64(&decimal.unscaled(), out);
                out.push(b'}');
            }
            (None, _) => return false,
        },
    }
    true
}

/// The bytes of a `bytea` in lower-case hex.
pub(super) fn bytea(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.strip_prefix(b"\\x")?.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn date(text: &[u8], times: Times, out: &mut Vec<u8>) -> bool {
    let days = match text {
        b"infinity" => Some(calendar::INFINITY_DAYS),
        b"-infinity" => Some(calendar::NEGATIVE_INFINITY_DAYS),
        text => calendar::days(text),
    };
    let Some(days) = days else { return false };
    if times == Times::Isostring {
        quoted(out, |out| {
            calendar::write_days(days, out);
            out.push(b'Z');
        });
    } else {
        json::number(i128::from(days), out);
    }
    true
}

fn time(text: &[u8], unit: Unit, out: &mut Vec<u8>) -> bool {
    let Some(us) = calendar::time_us(text) else { return false };
    match unit {
        Unit::Milliseconds => json::number(i128::from(us / 1000), out),
        Unit::Microseconds => json::number(i128::from(us), out),
        Unit::Nanoseconds => json::number(i128::from(us) * 1000, out),
        Unit::Text => quoted(out, |out| {
            // Java knows no 24:00.
            calendar::write_time(us % DAY_US, Fraction::Shortest, out);
            out.push(b'Z');
        }),
    }
    true
}

fn timestamp(text: &[u8], unit: Unit, out: &mut Vec<u8>) -> bool {
    let (us, is_infinite) = match text {
        b"infinity" => (Some(calendar::INFINITY_US), true),
        b"-infinity" => (Some(calendar::NEGATIVE_INFINITY_US), true),
        text => (calendar::timestamp_us(text), false),
    };
    let Some(us) = us else { return false };
    // Java's `TimeUnit` stops seconds at the ends of 64 bits, and its addition goes round there.
    let counted = |per_second: i64| {
        let seconds = us.div_euclid(1_000_000) as i64;
        let rest = us.rem_euclid(1_000_000) as i64 * (per_second / 1_000_000);
        seconds.saturating_mul(per_second).wrapping_add(rest)
    };
    match unit {
        Unit::Milliseconds => json::number(us.div_euclid(1000), out),
        Unit::Microseconds => json::number(i128::from(counted(1_000_000)), out),
        Unit::Nanoseconds if is_infinite => {
            json::number(i128::from(if us < 0 { i64::MIN } else { i64::MAX }), out);
        }
        Unit::Nanoseconds => json::number(i128::from(counted(1_000_000_000)), out),
        Unit::Text => quoted(out, |out| calendar::write_zoned(us, Fraction::Shortest, out)),
    }
    true
}

fn timestamptz(text: &[u8], fraction: Fraction, out: &mut Vec<u8>) -> bool {
    if matches!(text, b"infinity" | b"-infinity") {
        json::string(text, out);
        return true;
    }
    let us = calendar::timestamptz_us(text);
    us.map(|us| quoted(out, |out| calendar::write_zoned(us, fraction, out))).is_some()
}

/// Debezium knows one dimension: an array in an array is null.
fn array(kind: &ColumnType, format: &Format, text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut depth = 0;
    let is_array = walk(text, |token| {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            Token::Null | Token::Element(_) => {}
        }
        let (is_outer, is_inner) = (token == Token::Open && depth == 1, token == Token::Open && depth == 2);
        let is_item = depth == 1 && matches!(token, Token::Null | Token::Element(_));
        if is_outer {
            out.push(b'[');
        } else if token == Token::Close && depth == 0 {
            out.push(b']');
        }
        if !is_inner && !is_item {
            return true;
        }
        if out.len() > start + 1 {
            out.push(b',');
        }
        match token {
            Token::Element(text) => write(kind, format, text, out),
            _ => {
                out.extend_from_slice(b"null");
                takes_nulls(kind)
            }
        }
    });
    if !is_array {
        out.truncate(start);
    }
    is_array
}
