//! One value back: from Debezium's JSON to Postgres' text, the inverse of `value`.

use super::array::{DEPTH_MAX, write_element};
use super::calendar::{self, INFINITY, NEGATIVE_INFINITY};
use super::decimal;
use super::json;
use migrations::column_type::ColumnType;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misfit;

/// Writes the text of a JSON value that is not null.
pub(super) fn text(kind: &ColumnType, json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match kind {
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Oid => number(json, out),
        ColumnType::Bool => bool(json, out),
        ColumnType::Float4 | ColumnType::Float8 => float(json, out),
        ColumnType::Numeric { scale, .. } => numeric(json, i32::from(*scale), out),
        ColumnType::NumericAny => numeric_any(json, out),
        ColumnType::Text
        | ColumnType::Uuid
        | ColumnType::Json
        | ColumnType::Jsonb
        | ColumnType::Enum { .. }
        | ColumnType::Composite { .. }
        | ColumnType::Unsupported(_) => string(json, out),
        ColumnType::Printed { form, .. } if form.is_string() => string(json, out),
        // The text is in a header.
        ColumnType::Printed { .. } => Err(Misfit),
        ColumnType::Bytea => bytea(json, out),
        ColumnType::Date => {
            let days: i32 = json.parse().map_err(|_| Misfit)?;
            calendar::write_days(i64::from(days), out);
            Ok(())
        }
        ColumnType::Time { precision } => time(json, *precision, out),
        ColumnType::Timestamp { precision } => timestamp(json, *precision, out),
        ColumnType::Timestamptz => timestamptz(json, out),
        ColumnType::Array(element) => array(element, json, out),
    }
}

/// Writes the text of a JSON array.
pub(super) fn array(kind: &ColumnType, json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    dimension(kind, json, DEPTH_MAX, out)
}

fn dimension(kind: &ColumnType, json: &str, depth_left: usize, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let depth_left = depth_left.checked_sub(1).ok_or(Misfit)?;
    let elements: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| Misfit)?;
    let mut element_text = Vec::new();
    out.push(b'{');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match element.get() {
            "null" => out.extend_from_slice(b"NULL"),
            nested if nested.starts_with('[') => dimension(kind, nested, depth_left, out)?,
            scalar => {
                element_text.clear();
                text(kind, scalar, &mut element_text)?;
                write_element(&element_text, out);
            }
        }
    }
    out.push(b'}');
    Ok(())
}

fn number(json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    json.parse::<i64>().map_err(|_| Misfit)?;
    out.extend_from_slice(json.as_bytes());
    Ok(())
}

fn bool(json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match json {
        "true" => out.push(b't'),
        "false" => out.push(b'f'),
        _ => return Err(Misfit),
    }
    Ok(())
}

fn float(json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if json.starts_with('"') {
        return string(json, out);
    }
    json.parse::<f64>().map_err(|_| Misfit)?;
    out.extend_from_slice(json.strip_suffix(".0").unwrap_or(json).as_bytes());
    Ok(())
}

fn string(json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let mut scratch = String::new();
    out.extend_from_slice(json::unquoted(json, &mut scratch).ok_or(Misfit)?.as_bytes());
    Ok(())
}

fn bytes(json: &str) -> Result<Vec<u8>, Misfit> {
    let mut scratch = String::new();
    let text = json::unquoted(json, &mut scratch).ok_or(Misfit)?;
    json::unbase64(text.as_bytes()).ok_or(Misfit)
}

fn bytea(json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = bytes(json)?;
    out.reserve(2 + bytes.len() * 2);
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
    Ok(())
}

fn numeric(json: &str, scale: i32, out: &mut Vec<u8>) -> Result<(), Misfit> {
    decimal::write(&bytes(json)?, scale, out);
    Ok(())
}

fn numeric_any(json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    #[derive(Deserialize)]
    struct VariableScale<'a> {
        scale: i32,
        #[serde(borrow)]
        value: Cow<'a, str>,
    }
    let number: VariableScale<'_> = serde_json::from_str(json).map_err(|_| Misfit)?;
    decimal::write(&json::unbase64(number.value.as_bytes()).ok_or(Misfit)?, number.scale, out);
    Ok(())
}

fn time(json: &str, precision: u8, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let value: i64 = json.parse().map_err(|_| Misfit)?;
    let us = if precision <= 3 { value.checked_mul(1000).ok_or(Misfit)? } else { value };
    if !(0..=calendar::DAY_US).contains(&us) {
        return Err(Misfit);
    }
    calendar::write_time(us, out);
    Ok(())
}

fn timestamp(json: &str, precision: u8, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let value: i64 = json.parse().map_err(|_| Misfit)?;
    match value {
        INFINITY => out.extend_from_slice(b"infinity"),
        NEGATIVE_INFINITY => out.extend_from_slice(b"-infinity"),
        value if precision <= 3 => calendar::write_timestamp(i128::from(value) * 1000, out),
        value => calendar::write_timestamp(i128::from(value), out),
    }
    Ok(())
}

fn timestamptz(json: &str, out: &mut Vec<u8>) -> Result<(), Misfit> {
    let mut scratch = String::new();
    let text = json::unquoted(json, &mut scratch).ok_or(Misfit)?;
    if matches!(text, "infinity" | "-infinity") {
        out.extend_from_slice(text.as_bytes());
        return Ok(());
    }
    calendar::write_timestamptz(calendar::zoned_us(text.as_bytes()).ok_or(Misfit)?, out);
    Ok(())
}
