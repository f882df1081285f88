//! Connect's schema of a table's keys and envelopes as Kafka's `JsonConverter` writes it with `schemas.enable`
//! (source: Kafka, `JsonConverter.asJsonSchema`; Debezium, `SchemaFactory`, `PostgresSourceInfoStructMaker`).
//!
//! Written once for each shape of a table. Columns' defaults are left out.

use super::json;
use super::printed;
use crate::change::{Column, Relation};
use migrations::column_type::ColumnType;

pub(super) fn key(name: &str, relation: &Relation, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"struct","fields":["#);
    let mut is_first = true;
    for column in relation.columns.iter().filter(|column| column.is_key) {
        column_field(column, is_first, out);
        is_first = false;
    }
    out.extend_from_slice(br#"],"optional":false,"name":"#);
    json::string(format!("{name}.Key").as_bytes(), out);
    out.push(b'}');
}

pub(super) fn envelope(name: &str, relation: &Relation, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"struct","fields":["#);
    for field in ["before", "after"] {
        out.extend_from_slice(br#"{"type":"struct","fields":["#);
        for (index, column) in relation.columns.iter().enumerate() {
            column_field(column, index == 0, out);
        }
        out.extend_from_slice(br#"],"optional":true,"name":"#);
        json::string(format!("{name}.Value").as_bytes(), out);
        out.extend_from_slice(format!(r#","field":"{field}"}},"#).as_bytes());
    }
    source(out);
    out.extend_from_slice(TRANSACTION);
    out.extend_from_slice(&plain("string", false, "op"));
    for field in ["ts_ms", "ts_us", "ts_ns"] {
        out.push(b',');
        out.extend_from_slice(&plain("int64", true, field));
    }
    out.extend_from_slice(br#"],"optional":false,"name":"#);
    json::string(format!("{name}.Envelope").as_bytes(), out);
    out.extend_from_slice(br#","version":2}"#);
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

fn column_field(column: &Column, is_first: bool, out: &mut Vec<u8>) {
    if !is_first {
        out.push(b',');
    }
    type_fields(&column.kind, column.nullable, out);
    out.extend_from_slice(br#","field":"#);
    json::string(column.name.as_bytes(), out);
    out.push(b'}');
}

/// A type's schema without its closing brace.
fn type_fields(kind: &ColumnType, is_optional: bool, out: &mut Vec<u8>) {
    let optional = format!(r#","optional":{is_optional}"#);
    let named = |connect: &str, name: &str| {
        format!(r#"{{"type":"{connect}"{optional},"name":"{name}","version":1"#).into_bytes()
    };
    let written = match kind {
        ColumnType::Int2 => format!(r#"{{"type":"int16"{optional}"#).into_bytes(),
        ColumnType::Int4 => format!(r#"{{"type":"int32"{optional}"#).into_bytes(),
        ColumnType::Int8 | ColumnType::Oid => format!(r#"{{"type":"int64"{optional}"#).into_bytes(),
        ColumnType::Bool => format!(r#"{{"type":"boolean"{optional}"#).into_bytes(),
        ColumnType::Float4 => format!(r#"{{"type":"float"{optional}"#).into_bytes(),
        ColumnType::Float8 => format!(r#"{{"type":"double"{optional}"#).into_bytes(),
        ColumnType::Bytea => format!(r#"{{"type":"bytes"{optional}"#).into_bytes(),
        ColumnType::Text | ColumnType::Composite { .. } | ColumnType::Unsupported(_) => {
            format!(r#"{{"type":"string"{optional}"#).into_bytes()
        }
        ColumnType::Printed { form, .. } => {
            let (kind, name) = printed::schema(*form);
            format!("{{{kind}{optional}{name}").into_bytes()
        }
        ColumnType::Numeric { precision, scale } => format!(
            r#"{{"type":"bytes"{optional},"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{{"scale":"{scale}","connect.decimal.precision":"{precision}"}}"#
        )
        .into_bytes(),
        ColumnType::NumericAny => format!(
            r#"{{"type":"struct","fields":[{{"type":"int32","optional":false,"field":"scale"}},{{"type":"bytes","optional":false,"field":"value"}}]{optional},"name":"io.debezium.data.VariableScaleDecimal","version":1,"doc":"Variable scaled decimal""#
        )
        .into_bytes(),
        ColumnType::Uuid => named("string", "io.debezium.data.Uuid"),
        ColumnType::Json | ColumnType::Jsonb => named("string", "io.debezium.data.Json"),
        ColumnType::Date => named("int32", "io.debezium.time.Date"),
        ColumnType::Time { precision: 0..=3 } => named("int32", "io.debezium.time.Time"),
        ColumnType::Time { .. } => named("int64", "io.debezium.time.MicroTime"),
        ColumnType::Timestamp { precision: 0..=3 } => named("int64", "io.debezium.time.Timestamp"),
        ColumnType::Timestamp { .. } => named("int64", "io.debezium.time.MicroTimestamp"),
        ColumnType::Timestamptz => named("string", "io.debezium.time.ZonedTimestamp"),
        ColumnType::Enum { labels, .. } => {
            let mut written = named("string", "io.debezium.data.Enum");
            written.extend_from_slice(br#","parameters":{"allowed":"#);
            json::string(labels.join(",").as_bytes(), &mut written);
            written.push(b'}');
            written
        }
        ColumnType::Array(element) => {
            let mut written = br#"{"type":"array","items":"#.to_vec();
            type_fields(element, true, &mut written);
            written.push(b'}');
            written.extend_from_slice(optional.as_bytes());
            written
        }
    };
    out.extend_from_slice(&written);
}
