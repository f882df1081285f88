//! Every change comes back byte for byte, whatever its table, its values and what the source sent of them.

use super::{NOW_US, change, column, comes_back, comes_back_as, encoder, relation};
use migrations::column_type::{ColumnType, Form};
use migrations::lsn::{CommitLsn, Position};
use proptest::prelude::*;
use rows::change::{Change, Column, Operation, ReplicaIdentity, Transaction, Tuple, Value};
use rows::envelope::{Encoded, PLACEHOLDER, decode};
use std::sync::Arc;

fn scalar_kind() -> impl Strategy<Value = ColumnType> {
    let mood =
        ColumnType::Enum { name: "public.mood".to_owned(), labels: vec!["a,b".to_owned(), "\"".to_owned()] };
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
            ColumnType::Jsonb,
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
            Form::SparseVector,
        ])
        .prop_map(|form| ColumnType::Printed { name: "t".to_owned(), form }),
        (1u16..1000, -1000i16..1000).prop_map(|(precision, scale)| ColumnType::Numeric { precision, scale }),
        (1u16..20, 0i16..6).prop_map(|(precision, scale)| ColumnType::Numeric { precision, scale }),
        (0u8..=6).prop_map(|precision| ColumnType::Time { precision }),
        (0u8..=6).prop_map(|precision| ColumnType::Timestamp { precision }),
    ]
}

fn clock() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("24:00:00".to_owned()),
        (0u32..24, 0u32..60, 0u32..60, prop_oneof![Just(0u32), 0u32..1_000_000]).prop_map(|(h, m, s, us)| {
            let fraction = format!(".{us:06}");
            let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
            format!("{h:02}:{m:02}:{s:02}{fraction}")
        }),
    ]
}

/// Date, and whether it is before Christ.
fn day() -> impl Strategy<Value = (String, &'static str)> {
    (prop_oneof![1u32..3000, 9_990u32..300_000], 1u32..13, 1u32..29, any::<bool>()).prop_map(
        |(y, m, d, bc)| {
            let (y, era) = if bc { (y % 4700 + 1, " BC") } else { (y, "") };
            (format!("{y:04}-{m:02}-{d:02}"), era)
        },
    )
}

/// What Postgres prints for a value of the type; for some types also what it would not print.
fn text_of(kind: &ColumnType) -> BoxedStrategy<Vec<u8>> {
    let special = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        prop::sample::select(texts)
    };
    let text: BoxedStrategy<String> = match kind {
        ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 => {
            any::<i64>().prop_map(|n| n.to_string()).boxed()
        }
        ColumnType::Oid => any::<u32>().prop_map(|n| n.to_string()).boxed(),
        ColumnType::Bool => special(&["t", "f"]).boxed(),
        ColumnType::Float4 | ColumnType::Float8 => prop_oneof![
            any::<f64>().prop_map(|n| n.to_string()),
            (-9.0f64..9.0, -300i32..300).prop_map(|(n, e)| format!("{n}e{e:+03}")),
            special(&["NaN", "Infinity", "-Infinity", "-0", "0", "1.0", "5e-324"]),
        ]
        .boxed(),
        ColumnType::Numeric { scale, .. } => {
            let scale = *scale;
            let fraction = format!("[0-9]{{{0}}}", scale.max(0));
            let zeros = "0".repeat(usize::try_from(-scale).unwrap_or(0));
            prop_oneof![
                ("-?(0|[1-9][0-9]{0,40})", prop::string::string_regex(&fraction).unwrap()).prop_map(
                    move |(whole, fraction)| {
                        let dot = if fraction.is_empty() { "" } else { "." };
                        let zeros = if whole.ends_with('0') && whole.len() < 3 { "" } else { &zeros };
                        format!("{whole}{zeros}{dot}{fraction}")
                    }
                ),
                special(&["NaN", "0", "1.5", "-0.000"]),
            ]
            .boxed()
        }
        ColumnType::NumericAny => prop_oneof![
            "-?(0|[1-9][0-9]{0,50})(\\.[0-9]{1,30})?",
            "[1-9][0-9]{999}(\\.[0-9]{1,1000})?",
            special(&["NaN", "Infinity", "-Infinity", "-0.000", "0.000", "0"]),
        ]
        .boxed(),
        ColumnType::Bytea => prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| bytes.iter().fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")))
            .boxed(),
        ColumnType::Date => prop_oneof![
            day().prop_map(|(day, era)| day + era),
            special(&["infinity", "-infinity", "5874897-12-31"])
        ]
        .boxed(),
        ColumnType::Time { .. } => clock().boxed(),
        ColumnType::Timestamp { .. } => prop_oneof![
            (day(), clock()).prop_map(|((day, era), clock)| format!("{day} {clock}{era}")),
            special(&["infinity", "-infinity", "294276-12-31 23:59:59.999999"]),
        ]
        .boxed(),
        ColumnType::Timestamptz => prop_oneof![
            (day(), clock()).prop_map(|((day, era), clock)| format!("{day} {clock}+00{era}")),
            (day(), clock()).prop_map(|((day, era), clock)| format!("{day} {clock}+05:30{era}")),
            special(&["infinity", "-infinity"]),
        ]
        .boxed(),
        ColumnType::Array(element) => array_text(element),
        ColumnType::Printed { .. } => printed_text(),
        _ => prop_oneof!["\\PC{0,20}", "[\\x01-\\x7f]{0,20}", Just(PLACEHOLDER.to_owned())].boxed(),
    };
    // Whatever the text, even if Postgres would never print it, it comes back.
    prop_oneof![
        20 => text.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
    .boxed()
}

/// Texts of types of which nothing else is known, and of no type at all.
fn printed_text() -> BoxedStrategy<String> {
    let texts = [
        "1 day",
        "-1 years +2 mons",
        "999999999999 days",
        "10:00:00+02",
        "99:99:99",
        "$1,000.00",
        "0101",
        "0101000000",
        "010100",
        "1e",
        "\"a\"=>\"1\"",
        "\"a\"=>",
        "(1,2)",
        "(1e999,0)",
        "[1,2]",
        "{1:2}/3",
    ];
    let texts = prop::sample::select(texts.map(str::to_owned).to_vec());
    prop_oneof![texts, "\\PC{0,20}"].boxed()
}

fn array_text(element: &ColumnType) -> BoxedStrategy<String> {
    let item = prop_oneof![
        6 => text_of(element).prop_map(|text| quoted(&String::from_utf8_lossy(&text))),
        1 => Just("NULL".to_owned()),
    ];
    let flat = prop::collection::vec(item, 1..4).prop_map(|items| format!("{{{}}}", items.join(",")));
    let nested = prop::collection::vec(flat.clone(), 1..3).prop_map(|rows| format!("{{{}}}", rows.join(",")));
    prop_oneof![
        4 => flat,
        2 => nested.clone(),
        1 => nested.prop_map(|rows| format!("{{{rows},{rows}}}")),
        1 => Just("{}".to_owned()),
        1 => Just("[2:3]={1,2}".to_owned()),
    ]
    .boxed()
}

/// As `array_out` quotes.
fn quoted(text: &str) -> String {
    let special = |c: char| matches!(c, '"' | '\\' | '{' | '}' | ',' | ' ' | '\t'..='\r');
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special) {
        return text.to_owned();
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[derive(Debug, Clone)]
struct Cell {
    column: Column,
    old: Option<Vec<u8>>,
    new: Option<Vec<u8>>,
    is_unchanged: bool,
    is_in_index: bool,
}

fn cell(index: usize) -> impl Strategy<Value = Cell> {
    let kind = prop_oneof![3 => scalar_kind(), 1 => scalar_kind().prop_map(|kind| ColumnType::Array(Box::new(kind)))];
    let texts = kind.prop_flat_map(|kind| {
        let text = text_of(&kind);
        (
            Just(kind),
            prop::option::weighted(0.9, text.clone()),
            prop::option::weighted(0.9, text),
            any::<bool>(),
        )
    });
    (texts, any::<[bool; 3]>(), prop::bool::weighted(0.1), "[a-z\"\\\\ é]{0,4}").prop_map(
        move |((kind, old, new, is_same), [is_key, nullable, is_in_index], is_unchanged, name)| {
            let column = column(&format!("{name}{index}"), kind, is_key, nullable && !is_key);
            let new = if is_same { old.clone() } else { new };
            Cell { column, old, new, is_unchanged, is_in_index }
        },
    )
}

fn cells() -> impl Strategy<Value = Vec<Cell>> {
    (cell(0), prop::collection::vec(cell(1), 0..6)).prop_map(|(first, mut rest)| {
        for (index, cell) in rest.iter_mut().enumerate() {
            cell.column.name.push_str(&index.to_string());
        }
        rest.insert(0, first);
        rest
    })
}

fn value(text: &Option<Vec<u8>>) -> Value<'_> {
    text.as_deref().map_or(Value::Null, Value::Text)
}

/// The old row as the replica identity has it; a key's columns are never null.
fn old_row(identity: ReplicaIdentity, cells: &[Cell]) -> Tuple {
    Tuple::of(cells.iter().map(|cell| {
        let is_sent = match identity {
            ReplicaIdentity::Full => return value(&cell.old),
            ReplicaIdentity::Index => cell.is_in_index,
            _ => cell.column.is_key,
        };
        if is_sent { Value::Text(cell.old.as_deref().unwrap_or(b"0")) } else { Value::Null }
    }))
}

fn new_row(cells: &[Cell], with_unchanged: bool) -> Tuple {
    Tuple::of(cells.iter().map(|cell| match cell.is_unchanged && with_unchanged {
        true => Value::Unchanged,
        false => value(&cell.new),
    }))
}

fn lean(change: &Change) -> Operation {
    let Operation::Update { old: Some(old), new } = &change.operation else {
        return change.operation.clone();
    };
    if change.relation.identity != ReplicaIdentity::Full {
        return change.operation.clone();
    }
    let taken = |index| match new.get(index) {
        Value::Unchanged => old.get(index),
        sent => sent,
    };
    let key = |index: usize| if change.relation.columns[index].is_key { old.get(index) } else { Value::Null };
    let (old, new) = (Tuple::of((0..old.len()).map(key)), Tuple::of((0..new.len()).map(taken)));
    Operation::Update { old: Some(old), new }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn every_change_comes_back_byte_for_byte(
        cells in cells(),
        kind in 0..5,
        identity in prop::sample::select(vec![ReplicaIdentity::Default, ReplicaIdentity::Full, ReplicaIdentity::Index]),
        schemas: bool,
        mark in prop::option::of("[a-z]{1,5}"),
        (commit, ordinal, lsn, xid, committed_us) in any::<(u64, u64, u64, u32, i64)>(),
    ) {
        let columns = cells.iter().map(|cell| cell.column.clone()).collect();
        let relation = relation(identity, columns);
        let operation = match kind {
            0 => Operation::Insert { new: new_row(&cells, false) },
            1 if identity != ReplicaIdentity::Full => Operation::Update { old: None, new: new_row(&cells, true) },
            1 | 2 => Operation::Update { old: Some(old_row(identity, &cells)), new: new_row(&cells, true) },
            3 => Operation::Delete { old: old_row(identity, &cells) },
            _ => Operation::Truncate,
        };
        let change = Change {
            position: Position { commit: CommitLsn(commit), ordinal },
            lsn,
            transaction: Transaction { xid, committed_us },
            relation,
            mark: mark.map(Arc::from),
            operation,
        };
        prop_assert_eq!(comes_back(&mut encoder(schemas), &change), Ok(()));
        // Where no record is small enough, a whole old row comes back as its key, and nothing else is another.
        let expected = Change { operation: lean(&change), ..change.clone() };
        let mut encoder = encoder(schemas).with_records_up_to(0);
        prop_assert_eq!(comes_back_as(&mut encoder, &change, &expected), Ok(()));
    }

    #[test]
    fn damaged_records_never_panic(
        cells in cells(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_header: bool,
    ) {
        let columns = cells.iter().map(|cell| cell.column.clone()).collect();
        let relation = relation(ReplicaIdentity::Full, columns);
        let operation = Operation::Update { old: Some(old_row(ReplicaIdentity::Full, &cells)), new: new_row(&cells, true) };
        let mut encoded = Encoded::new();
        encoder(false).encode(&change(&relation, operation), NOW_US, &mut encoded);
        for record in encoded.records() {
            let harm = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                for (place, byte) in &damage {
                    if !bytes.is_empty() {
                        let at = place.index(bytes.len());
                        bytes[at] = *byte;
                    }
                }
                bytes
            };
            let value = record.value.map(|value| if is_header { value.to_vec() } else { harm(value) });
            let headers: Vec<(&str, Vec<u8>)> = record
                .headers()
                .map(|(name, value)| (name, if is_header { harm(value) } else { value.to_vec() }))
                .collect();
            let find = |name: &str| headers.iter().find(|(its, _)| *its == name).map(|(_, value)| value.as_slice());
            let _ = decode(&relation, value.as_deref(), find);
        }
    }
}
