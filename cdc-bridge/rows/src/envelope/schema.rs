//! Connect's schema of a table's keys and values as Kafka's `JsonConverter` writes it with `schemas.enable`
//! (source: Kafka, `JsonConverter.asJsonSchema`; Debezium, `SchemaFactory`, `PostgresSourceInfoStructMaker`).
//!
//! Written once for each shape of a table.

use super::format::{Format, Unit};
use super::row::{Field, Fields};
use super::{array, json, printed};
use migrations::column_type::ColumnType;
use migrations::plan::{Decimals, Times};

/// `name` is the topic's.
pub(super) fn key(name: &str, fields: &Fields, out: &mut Vec<u8>) {
    structure(fields.key(), out);
    named(&format!("{name}.Key"), false, out);
    out.push(b'}');
}

/// The rows alone, without an envelope.
pub(super) fn row(name: &str, fields: &Fields, out: &mut Vec<u8>) {
    structure(fields.all(), out);
    named(&format!("{name}.Value"), false, out);
    out.push(b'}');
}

pub(super) fn envelope(name: &str, fields: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"struct","fields":["#);
    for field in ["before", "after"] {
        structure(fields.all(), out);
        named(&format!("{name}.Value"), true, out);
        out.extend_from_slice(format!(r#","field":"{field}"}},"#).as_bytes());
    }
    source(out);
    out.extend_from_slice(TRANSACTION);
    out.extend_from_slice(&plain("string", false, "op"));
    for field in ["ts_ms", "ts_us", "ts_ns"] {
        out.push(b',');
        out.extend_from_slice(&plain("int64", true, field));
    }
    out.push(b']');
    named(&format!("{name}.Envelope"), false, out);
    out.extend_from_slice(br#","version":2}"#);
}

/// Up to the end of its fields.
fn structure<'f>(fields: impl Iterator<Item = &'f Field>, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"struct","fields":["#);
    for (index, field) in fields.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        type_fields(&field.column.kind, &field.format, field.column.nullable, out);
        if let Some(default) = &field.default {
            out.extend_from_slice(br#","default":"#);
            out.extend_from_slice(default);
        }
        out.extend_from_slice(br#","field":"#);
        json::string(field.column.name.as_bytes(), out);
        out.push(b'}');
    }
    out.push(b']');
}

fn named(name: &str, is_optional: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(format!(r#","optional":{is_optional},"name":"#).as_bytes());
    json::string(name.as_bytes(), out);
}

const TRANSACTION: &[u8] = br#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},{"type":"int64","optional":false,"field":"total_order"},{"type":"int64","optional":false,"field":"data_collection_order"}],"optional":true,"name":"event.block","version":1,"field":"transaction"},"#;

const SNAPSHOT: &[u8] = br#"{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"},"#;

fn source(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"struct","fields":["#);
    for (kind, field) in
        [("string", "version"), ("string", "connector"), ("string", "name"), ("int64", "ts_ms")]
    {
        out.extend_from_slice(&plain(kind, false, field));
        out.push(b',');
    }
    out.extend_from_slice(SNAPSHOT);
    let rest = [
        ("string", false, "db"),
        ("string", true, "sequence"),
        ("int64", true, "ts_us"),
        ("int64", true, "ts_ns"),
        ("string", false, "schema"),
        ("string", false, "table"),
        ("int64", true, "txId"),
        ("int64", true, "lsn"),
        ("int64", true, "xmin"),
        ("string", true, "origin"),
        ("int64", true, "origin_lsn"),
    ];
    for (index, (kind, is_optional, field)) in rest.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&plain(kind, is_optional, field));
    }
    out.extend_from_slice(
        br#"],"optional":false,"name":"io.debezium.connector.postgresql.Source","version":1,"field":"source"},"#,
    );
}

fn plain(kind: &str, is_optional: bool, field: &str) -> Vec<u8> {
    format!(r#"{{"type":"{kind}","optional":{is_optional},"field":"{field}"}}"#).into_bytes()
}

/// A type's schema without its closing brace.
fn type_fields(kind: &ColumnType, format: &Format, is_optional: bool, out: &mut Vec<u8>) {
    let optional = format!(r#","optional":{is_optional}"#);
    let plain = |connect: &str| format!(r#"{{"type":"{connect}"{optional}"#);
    let named =
        |connect: &str, name: &str| format!(r#"{{"type":"{connect}"{optional},"name":"{name}","version":1"#);
    let written = match kind {
        ColumnType::Int2 => plain("int16"),
        ColumnType::Int4 => plain("int32"),
        ColumnType::Int8 | ColumnType::Oid => plain("int64"),
        ColumnType::Bool => plain("boolean"),
        ColumnType::Float4 => plain("float"),
        ColumnType::Float8 => plain("double"),
        ColumnType::Bytea => plain("bytes"),
        ColumnType::Text | ColumnType::Composite { .. } | ColumnType::Unsupported(_) => plain("string"),
        ColumnType::Printed { form, .. } => {
            let (kind, name) = printed::schema(*form, format.decimals);
            format!("{{{kind}{optional}{name}")
        }
        ColumnType::Numeric { .. } | ColumnType::NumericAny if format.decimals == Decimals::String => {
            plain("string")
        }
        ColumnType::Numeric { .. } | ColumnType::NumericAny if format.decimals == Decimals::Double => {
            plain("double")
        }
        ColumnType::Numeric { precision, scale } => {
            let parameters =
                format!(r#","parameters":{{"scale":"{scale}","connect.decimal.precision":"{precision}"}}"#);
            named("bytes", "org.apache.kafka.connect.data.Decimal") + &parameters
        }
        ColumnType::NumericAny => format!(
            r#"{{"type":"struct","fields":[{{"type":"int32","optional":false,"field":"scale"}},{{"type":"bytes","optional":false,"field":"value"}}]{optional},"name":"io.debezium.data.VariableScaleDecimal","version":1,"doc":"Variable scaled decimal""#
        ),
        ColumnType::Uuid => named("string", "io.debezium.data.Uuid"),
        ColumnType::Json | ColumnType::Jsonb => named("string", "io.debezium.data.Json"),
        ColumnType::Date | ColumnType::Time { .. } | ColumnType::Timestamp { .. } => {
            let (connect, name) = temporal(kind, format);
            named(connect, name)
        }
        ColumnType::Timestamptz => named("string", "io.debezium.time.ZonedTimestamp"),
        ColumnType::Enum { labels, .. } => {
            let mut allowed = Vec::new();
            json::string(labels.join(",").as_bytes(), &mut allowed);
            let allowed = String::from_utf8_lossy(&allowed);
            format!(r#"{},"parameters":{{"allowed":{allowed}}}"#, named("string", "io.debezium.data.Enum"))
        }
        ColumnType::Array(element) => {
            out.extend_from_slice(br#"{"type":"array","items":"#);
            type_fields(element, format, array::takes_nulls(element), out);
            format!("}}{optional}")
        }
    };
    out.extend_from_slice(written.as_bytes());
}

/// Connect's type of dates and times without a zone, and its name.
fn temporal(kind: &ColumnType, format: &Format) -> (&'static str, &'static str) {
    let is_connect = format.times == Times::Connect;
    match kind {
        ColumnType::Date if is_connect => ("int32", "org.apache.kafka.connect.data.Date"),
        ColumnType::Date if format.times == Times::Isostring => ("string", "io.debezium.time.IsoDate"),
        ColumnType::Time { .. } if is_connect => ("int32", "org.apache.kafka.connect.data.Time"),
        ColumnType::Time { precision } => match format.time_unit(*precision) {
            Unit::Milliseconds => ("int32", "io.debezium.time.Time"),
            Unit::Microseconds => ("int64", "io.debezium.time.MicroTime"),
            Unit::Nanoseconds => ("int64", "io.debezium.time.NanoTime"),
            Unit::Text => ("string", "io.debezium.time.IsoTime"),
        },
        ColumnType::Timestamp { .. } if is_connect => ("int64", "org.apache.kafka.connect.data.Timestamp"),
        ColumnType::Timestamp { precision } => match format.timestamp_unit(*precision) {
            Unit::Milliseconds => ("int64", "io.debezium.time.Timestamp"),
            Unit::Microseconds => ("int64", "io.debezium.time.MicroTimestamp"),
            Unit::Nanoseconds => ("int64", "io.debezium.time.NanoTimestamp"),
            Unit::Text => ("string", "io.debezium.time.IsoTimestamp"),
        },
        _ => ("int32", "io.debezium.time.Date"),
    }
}
