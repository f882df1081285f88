//! Whatever a row holds: its records are JSON, its headers text, and its values of the schema's types.

use super::{NOW_US, change, column, publishing, relation};
use migrations::column_type::{ColumnType, Form};
use migrations::plan::{Decimals, Publish, Skipped, Times};
use proptest::prelude::*;
use rows::change::{Column, Operation, ReplicaIdentity, Tuple, Value};
use rows::envelope::Encoded;
use serde_json::Value as Json;

fn printed(form: Form) -> ColumnType {
    ColumnType::Printed { name: "t".to_owned(), form }
}

fn scalar() -> impl Strategy<Value = ColumnType> {
    let mood = ColumnType::Enum { name: "m".to_owned(), labels: vec!["a,b".to_owned(), "\"".to_owned()] };
    prop_oneof![
        prop::sample::select(vec![
            ColumnType::Int2,
            ColumnType::Int4,
            ColumnType::Int8,
            ColumnType::Oid,
            ColumnType::Bool,
            ColumnType::Float4,
            ColumnType::Float8,
            ColumnType::NumericAny,
            ColumnType::Text,
            ColumnType::Bytea,
            ColumnType::Uuid,
            ColumnType::Json,
            ColumnType::Date,
            ColumnType::Timestamptz,
            mood,
        ]),
        prop::sample::select(vec![
            Form::Text,
            Form::Interval,
            Form::ZonedTime,
            Form::Money,
            Form::Bits { length: Some(1) },
            Form::Bits { length: None },
            Form::Hstore,
            Form::Point,
            Form::Geometry,
            Form::Vector,
            Form::HalfVector,
            Form::SparseVector,
        ])
        .prop_map(printed),
        (1u16..1000, -1000i16..1000).prop_map(|(precision, scale)| ColumnType::Numeric { precision, scale }),
        (0u8..=6).prop_map(|precision| ColumnType::Time { precision }),
        (0u8..=6).prop_map(|precision| ColumnType::Timestamp { precision }),
    ]
}

fn kind() -> impl Strategy<Value = ColumnType> {
    prop_oneof![
        4 => scalar(),
        1 => scalar().prop_map(|kind| ColumnType::Array(Box::new(kind))),
    ]
}

/// What types print, and what they would not.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let texts = [
        "",
        "0",
        "-1",
        "1.50",
        "-0.000",
        "1e+300",
        "NaN",
        "-Infinity",
        "t",
        "infinity",
        "2016-11-04",
        "0044-03-15 BC",
        "294276-12-31 23:59:59.999999",
        "2016-11-04 13:51:30.5+00",
        "24:00:00",
        "13:51:30.123789+02",
        "$1,234.56",
        "1 year 2 mons -3 days +04:05:06.7",
        "0101",
        "\"a\"=>NULL",
        "(1,-1)",
        "[1,2.5]",
        "{1:1.5}/5",
        "\\x00ff",
        "{}",
        "{1,NULL,\"a b\"}",
        "{{1,2},{3,4}}",
        "[0:1]={1,2}",
        "{$1.50}",
        "__debezium_unavailable_value",
    ];
    prop_oneof![
        3 => prop::sample::select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => "\\PC{0,20}".prop_map(String::into_bytes),
        1 => "[-+0-9:. {}\"\\\\,NULe]{0,30}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ]
}

#[derive(Debug, Clone)]
enum Cell {
    Null,
    Unchanged,
    Text(Vec<u8>),
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![1 => Just(Cell::Null), 1 => Just(Cell::Unchanged), 6 => text().prop_map(Cell::Text)]
}

fn tuple(cells: &[Cell]) -> Tuple {
    Tuple::of(cells.iter().map(|cell| match cell {
        Cell::Null => Value::Null,
        Cell::Unchanged => Value::Unchanged,
        Cell::Text(text) => Value::Text(text),
    }))
}

fn columns() -> impl Strategy<Value = Vec<(Column, Cell, Cell)>> {
    let column =
        (kind(), any::<bool>(), any::<bool>(), prop::option::of("\\PC{0,20}|'[0-9a-z]{0,5}'::text"), 0i16..3)
            .prop_map(|(kind, is_key, nullable, default, key_position)| Column {
                default,
                key_position,
                ..column("c", kind, is_key, nullable && !is_key)
            });
    prop::collection::vec((column, cell(), cell()), 1..6)
}

fn publish() -> impl Strategy<Value = Publish> {
    let decimals = prop::sample::select(vec![Decimals::Precise, Decimals::String, Decimals::Double]);
    let times = prop::sample::select(vec![
        Times::Adaptive,
        Times::AdaptiveTimeMicroseconds,
        Times::Connect,
        Times::Isostring,
        Times::Microseconds,
        Times::Nanoseconds,
    ]);
    (decimals, times, any::<[bool; 4]>()).prop_map(
        |(decimals, times, [has_schemas, replaces_null, is_unwrapped, has_tombstones])| Publish {
            decimals,
            times,
            has_schemas,
            replaces_null,
            is_unwrapped,
            has_tombstones,
            skipped: Skipped::default(),
            ..Publish::default()
        },
    )
}

/// Whether a value is what Connect's schema of it says, as a sink's `JsonConverter` reads it.
fn is_of(schema: &Json, value: &Json) -> bool {
    if value.is_null() {
        return schema["optional"] == true;
    }
    match schema["type"].as_str().unwrap() {
        "struct" => schema["fields"]
            .as_array()
            .unwrap()
            .iter()
            .all(|field| is_of(field, &value[field["field"].as_str().unwrap()])),
        "array" => value.as_array().unwrap().iter().all(|item| is_of(&schema["items"], item)),
        "map" => value.is_array(),
        "boolean" => value.is_boolean(),
        "int16" | "int32" | "int64" => value.is_i64() || value.is_u64(),
        "float" | "double" => value.is_number() || value.is_string(),
        _ => value.is_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn records_are_json_of_their_schemas_whatever_a_row_holds(
        columns in columns(),
        publish in publish(),
        operation in 0..4,
        has_old: bool,
    ) {
        let mut kinds = Vec::new();
        for (index, (column, ..)) in columns.iter().enumerate() {
            kinds.push(Column { name: format!("c{index}\"\n"), ..column.clone() });
        }
        let old = tuple(&columns.iter().map(|(_, old, _)| old.clone()).collect::<Vec<_>>());
        let new = tuple(&columns.iter().map(|(.., new)| new.clone()).collect::<Vec<_>>());
        let operation = match operation {
            0 => Operation::Insert { new },
            1 => Operation::Delete { old },
            2 => Operation::Truncate,
            _ => Operation::Update { old: has_old.then_some(old), new },
        };
        let change = change(&relation(ReplicaIdentity::Full, kinds), operation);
        let has_schemas = publish.has_schemas;
        let mut encoded = Encoded::new();
        publishing(publish).encode(&change, NOW_US, &mut encoded);
        for record in encoded.records() {
            for json in [record.key, record.value].into_iter().flatten() {
                let json: Json = serde_json::from_slice(json).map_err(|error| {
                    TestCaseError::fail(format!("{error}: {}", String::from_utf8_lossy(json)))
                })?;
                prop_assert!(!has_schemas || is_of(&json["schema"], &json["payload"]), "{json}");
            }
            prop_assert!(record.headers().all(|(_, value)| std::str::from_utf8(value).is_ok()));
        }
    }
}
