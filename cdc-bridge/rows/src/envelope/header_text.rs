//! Values as Connect's default converter writes them into headers (Kafka source, `SimpleHeaderConverter` and
//! `Values.append`): nearly JSON, but decimals are numbers, what is no number has no quotes, and only quotes and
//! backslashes are escaped.

use super::decimal::Decimal;
use super::format::Format;
use super::printed;
use crate::change::Value;
use migrations::column_type::{ColumnType, Form};
use migrations::plan::Decimals;

/// Writes a text within a struct.
pub(super) fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Writes a value within a struct. `json` is the value as the record has it.
pub(super) fn write(kind: &ColumnType, format: &Format, value: Value<'_>, json: &[u8], out: &mut Vec<u8>) {
    let decimal = match (kind, format.decimals, value) {
        (ColumnType::Numeric { scale, .. }, Decimals::Precise, Value::Text(text)) => {
            Decimal::read(text).and_then(|decimal| decimal.with_scale(i32::from(*scale)))
        }
        (ColumnType::Printed { form: Form::Money, .. }, Decimals::Precise, Value::Text(text)) => {
            printed::amount(text)
        }
        _ => None,
    };
    if let Some(decimal) = decimal {
        return decimal.write_java(out);
    }
    match serde_json::from_slice::<String>(json) {
        Ok(word) if is_number(kind, format) => out.extend_from_slice(word.as_bytes()),
        Ok(text) => quoted(&text, out),
        Err(_) => out.extend_from_slice(json),
    }
}

/// Whether a string is one of the words for what is no number.
fn is_number(kind: &ColumnType, format: &Format) -> bool {
    match kind {
        ColumnType::Float4 | ColumnType::Float8 => true,
        ColumnType::Numeric { .. } | ColumnType::NumericAny => format.decimals == Decimals::Double,
        _ => false,
    }
}
