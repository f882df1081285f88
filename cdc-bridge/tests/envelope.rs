//! The envelope: what Debezium documents for each kind of change and value, and that every change comes back byte for
//! byte from the records it was written as.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is called by tests may fail like tests")]

use cdc_bridge::change::{
    Change, Column, ColumnType, Operation, Relation, ReplicaIdentity, Transaction, Tuple, Value,
};
use cdc_bridge::envelope::{Context, Encoded, Encoder, PLACEHOLDER, decode, header, topic};
use migrations::lsn::{CommitLsn, Position};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use std::sync::Arc;

const NOW_US: i64 = 1_700_000_000_123_456;

fn encoder(schemas: bool) -> Encoder {
    let (prefix, database) = ("shop".to_owned(), "main".to_owned());
    Encoder::new(Context { prefix, database, version: "0.1.0".to_owned(), schemas })
}

fn column(name: &str, kind: ColumnType, is_key: bool, nullable: bool) -> Column {
    Column { name: name.to_owned(), kind, is_key, nullable }
}

fn relation(identity: ReplicaIdentity, columns: Vec<Column>) -> Arc<Relation> {
    Arc::new(Relation { table: "public.orders".parse().unwrap(), identity, columns })
}

fn orders(identity: ReplicaIdentity) -> Arc<Relation> {
    relation(
        identity,
        vec![
            column("id", ColumnType::Int4, true, false),
            column("note", ColumnType::Text, false, true),
            column("total", ColumnType::Numeric { precision: 10, scale: 2 }, false, false),
        ],
    )
}

fn tuple(values: &[Option<&str>]) -> Tuple {
    Tuple::of(values.iter().map(|value| match value {
        None => Value::Null,
        Some("(unchanged)") => Value::Unchanged,
        Some(text) => Value::Text(text.as_bytes()),
    }))
}

fn change(relation: &Arc<Relation>, operation: Operation) -> Change {
    Change {
        position: Position { commit: CommitLsn(0x16_B374_D848), ordinal: 3 },
        lsn: 97_500_059_000,
        transaction: Transaction { xid: 571, committed_us: 1_559_033_904_863_456 },
        relation: Arc::clone(relation),
        mark: None,
        operation,
    }
}

/// A record as JSON: key, value, and headers but the position.
#[derive(Debug, PartialEq)]
struct Seen {
    key: Json,
    value: Json,
    headers: Vec<(String, String)>,
}

fn records(encoder: &mut Encoder, change: &Change) -> Vec<Seen> {
    let mut encoded = Encoded::new();
    encoder.encode(change, NOW_US, &mut encoded);
    let json =
        |bytes: Option<&[u8]>| bytes.map_or(Json::Null, |bytes| serde_json::from_slice(bytes).unwrap());
    let seen = |record: cdc_bridge::envelope::Record<'_>| {
        let position = record.header(header::POSITION).unwrap();
        assert_eq!(position, change.position.to_string().as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = record.headers().filter(|(name, _)| *name != header::POSITION);
        let headers = headers.map(|(name, value)| (name.to_owned(), text(value))).collect();
        Seen { key: json(record.key), value: json(record.value), headers }
    };
    encoded.records().map(seen).collect()
}

/// The change comes back from exactly one of its records.
fn comes_back(encoder: &mut Encoder, change: &Change) -> Result<(), String> {
    let mut encoded = Encoded::new();
    encoder.encode(change, NOW_US, &mut encoded);
    let mut back = Vec::new();
    for record in encoded.records() {
        for json in [record.key, record.value].into_iter().flatten() {
            serde_json::from_slice::<Json>(json).map_err(|error| error.to_string())?;
        }
        let decoded = decode(&change.relation, record.value, |name| record.header(name));
        back.extend(decoded.map_err(|error| error.to_string())?);
    }
    if back == [change.clone()] { Ok(()) } else { Err(format!("{back:?}")) }
}

fn source() -> Json {
    json!({
        "version": "0.1.0", "connector": "postgresql", "name": "shop", "ts_ms": 1_559_033_904_863_i64,
        "snapshot": "false", "db": "main", "sequence": "[\"97500059720\",\"97500059000\"]",
        "ts_us": 1_559_033_904_863_456_i64, "ts_ns": 1_559_033_904_863_456_000_i64,
        "schema": "public", "table": "orders", "txId": 571, "lsn": 97_500_059_000_i64,
        "xmin": null, "origin": null, "origin_lsn": null,
    })
}

fn envelope(op: &str, before: Json, after: Json) -> Json {
    json!({
        "before": before, "after": after, "source": source(), "transaction": null, "op": op,
        "ts_ms": 1_700_000_000_123_i64, "ts_us": NOW_US, "ts_ns": 1_700_000_000_123_456_000_i64,
    })
}

fn seen(key: Json, value: Json, headers: &[(&str, &str)]) -> Seen {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Seen { key, value, headers }
}

#[test]
fn an_insert_is_a_create_with_its_fields_in_debeziums_order() {
    let change = change(
        &orders(ReplicaIdentity::Default),
        Operation::Insert { new: tuple(&[Some("1"), Some("a \"b\""), Some("12.30")]) },
    );
    let after = json!({"id": 1, "note": "a \"b\"", "total": "BM4="});
    assert_eq!(
        records(&mut encoder(false), &change),
        [seen(json!({"id": 1}), envelope("c", Json::Null, after), &[])]
    );
    let mut encoded = Encoded::new();
    encoder(false).encode(&change, NOW_US, &mut encoded);
    let record = encoded.records().next().unwrap();
    let expected = concat!(
        r#"{"before":null,"after":{"id":1,"note":"a \"b\"","total":"BM4="},"#,
        r#""source":{"version":"0.1.0","connector":"postgresql","name":"shop","ts_ms":1559033904863,"#,
        r#""snapshot":"false","db":"main","sequence":"[\"97500059720\",\"97500059000\"]","#,
        r#""ts_us":1559033904863456,"ts_ns":1559033904863456000,"schema":"public","table":"orders","#,
        r#""txId":571,"lsn":97500059000,"xmin":null,"origin":null,"origin_lsn":null},"transaction":null,"#,
        r#""op":"c","ts_ms":1700000000123,"ts_us":1700000000123456,"ts_ns":1700000000123456000}"#
    );
    assert_eq!(std::str::from_utf8(record.value.unwrap()).unwrap(), expected);
    assert_eq!(comes_back(&mut encoder(false), &change), Ok(()));
}

#[test]
fn an_update_has_a_before_only_where_the_source_sent_it() {
    let new = tuple(&[Some("1"), None, Some("5.00")]);
    let default =
        change(&orders(ReplicaIdentity::Default), Operation::Update { old: None, new: new.clone() });
    let after = json!({"id": 1, "note": null, "total": "AfQ="});
    assert_eq!(
        records(&mut encoder(false), &default),
        [seen(json!({"id": 1}), envelope("u", Json::Null, after.clone()), &[])]
    );
    let old = Some(tuple(&[Some("1"), Some("x"), Some("4.00")]));
    let full = change(&orders(ReplicaIdentity::Full), Operation::Update { old, new });
    let before = json!({"id": 1, "note": "x", "total": "AZA="});
    assert_eq!(
        records(&mut encoder(false), &full),
        [seen(json!({"id": 1}), envelope("u", before, after), &[])]
    );
    for change in [default, full] {
        assert_eq!(comes_back(&mut encoder(false), &change), Ok(()));
    }
}

#[test]
fn a_delete_by_key_has_zeros_where_null_is_not_allowed_and_a_tombstone_behind_it() {
    let delete =
        change(&orders(ReplicaIdentity::Default), Operation::Delete { old: tuple(&[Some("1"), None, None]) });
    let before = json!({"id": 1, "note": null, "total": "AA=="});
    assert_eq!(
        records(&mut encoder(false), &delete),
        [
            seen(json!({"id": 1}), envelope("d", before, Json::Null), &[]),
            seen(json!({"id": 1}), Json::Null, &[]),
        ]
    );
    assert_eq!(comes_back(&mut encoder(false), &delete), Ok(()));
}

#[test]
fn a_changed_key_is_a_delete_a_tombstone_and_a_create() {
    let update = change(
        &orders(ReplicaIdentity::Default),
        Operation::Update {
            old: Some(tuple(&[Some("1"), None, None])),
            new: tuple(&[Some("2"), Some("(unchanged)"), Some("5.00")]),
        },
    );
    let before = json!({"id": 1, "note": null, "total": "AA=="});
    let after = json!({"id": 2, "note": PLACEHOLDER, "total": "AfQ="});
    assert_eq!(
        records(&mut encoder(false), &update),
        [
            seen(json!({"id": 1}), envelope("d", before, Json::Null), &[(header::NEW_KEY, "{\"id\":2}")]),
            seen(json!({"id": 1}), Json::Null, &[]),
            seen(
                json!({"id": 2}),
                envelope("c", Json::Null, after),
                &[(header::EXACT, "{\"note\":null}"), (header::OLD_KEY, "{\"id\":1}")]
            ),
        ]
    );
    for schemas in [false, true] {
        assert_eq!(comes_back(&mut encoder(schemas), &update), Ok(()));
    }
}

#[test]
fn an_unchanged_large_value_comes_from_the_old_row_where_that_has_it() {
    let update = change(
        &orders(ReplicaIdentity::Full),
        Operation::Update {
            old: Some(tuple(&[Some("1"), Some("long"), Some("4.00")])),
            new: tuple(&[Some("1"), Some("(unchanged)"), Some("5.00")]),
        },
    );
    let record = records(&mut encoder(false), &update).remove(0);
    assert_eq!(record.value["after"]["note"], "long");
    assert_eq!(comes_back(&mut encoder(false), &update), Ok(()));
}

#[test]
fn a_truncate_has_neither_key_nor_rows() {
    let truncate = change(&orders(ReplicaIdentity::Default), Operation::Truncate);
    assert_eq!(
        records(&mut encoder(false), &truncate),
        [seen(Json::Null, envelope("t", Json::Null, Json::Null), &[])]
    );
    assert_eq!(comes_back(&mut encoder(true), &truncate), Ok(()));
}

#[test]
fn a_mark_travels_in_a_header() {
    let mut marked = change(&orders(ReplicaIdentity::Default), Operation::Truncate);
    marked.mark = Some(Arc::from("orders"));
    assert_eq!(
        records(&mut encoder(false), &marked)[0].headers,
        [("strangler.mark".to_owned(), "orders".to_owned())]
    );
    assert_eq!(comes_back(&mut encoder(false), &marked), Ok(()));
}

#[test]
fn schemas_wrap_key_and_value() {
    let change = change(
        &orders(ReplicaIdentity::Default),
        Operation::Insert { new: tuple(&[Some("1"), None, Some("12.30")]) },
    );
    let record = records(&mut encoder(true), &change).remove(0);
    let key = json!({
        "type": "struct", "optional": false, "name": "shop.public.orders.Key",
        "fields": [{"type": "int32", "optional": false, "field": "id"}],
    });
    assert_eq!(record.key, json!({"schema": key, "payload": {"id": 1}}));
    let schema = &record.value["schema"];
    assert_eq!((&schema["name"], &schema["version"]), (&json!("shop.public.orders.Envelope"), &json!(2)));
    let fields: Vec<&str> =
        schema["fields"].as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"]);
    let decimal = json!({
        "type": "bytes", "optional": false, "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
        "parameters": {"scale": "2", "connect.decimal.precision": "10"}, "field": "total",
    });
    assert_eq!(schema["fields"][0]["name"], "shop.public.orders.Value");
    assert_eq!(schema["fields"][0]["fields"][2], decimal);
    // The source's schema names the payload's fields in their order, which only the text has.
    let mut encoded = Encoded::new();
    encoder(true).encode(&change, NOW_US, &mut encoded);
    let value = String::from_utf8(encoded.records().next().unwrap().value.unwrap().to_vec()).unwrap();
    let payload = value.split_once("\"payload\":").unwrap().1.split_once("\"source\":").unwrap().1;
    let declared = schema["fields"][2]["fields"].as_array().unwrap();
    let places: Vec<usize> =
        declared.iter().map(|field| payload.find(&format!("{}:", field["field"])).unwrap()).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(record.value["payload"]["source"].as_object().unwrap().len(), declared.len());
    assert_eq!(comes_back(&mut encoder(true), &change), Ok(()));
}

#[test]
fn topics_hold_only_what_kafka_allows() {
    let table = "sales.Order lines".parse().unwrap();
    assert_eq!(topic("shop", &table), "shop.sales.Order_lines");
}

#[test]
fn a_key_of_two_columns_skips_what_stands_between() {
    let wide = relation(
        ReplicaIdentity::Default,
        vec![
            column("a", ColumnType::Int8, true, false),
            column("body", ColumnType::Text, false, true),
            column("b", ColumnType::Text, true, false),
        ],
    );
    let update = change(
        &wide,
        Operation::Update {
            old: Some(tuple(&[Some("1"), None, Some("x")])),
            new: tuple(&[Some("1"), Some("t"), Some("y")]),
        },
    );
    assert_eq!(records(&mut encoder(false), &update)[2].key, json!({"a": 1, "b": "y"}));
    assert_eq!(comes_back(&mut encoder(false), &update), Ok(()));
}

#[test]
fn an_old_row_by_another_index_says_which_columns_it_has() {
    let indexed = relation(
        ReplicaIdentity::Index,
        vec![column("id", ColumnType::Int4, true, false), column("code", ColumnType::Text, false, false)],
    );
    let new = tuple(&[Some("1"), Some("c2")]);
    let update = change(&indexed, Operation::Update { old: Some(tuple(&[None, Some("c1")])), new });
    let record = records(&mut encoder(false), &update).remove(0);
    assert_eq!(record.value["before"], json!({"id": 0, "code": "c1"}));
    assert_eq!(record.headers, [("strangler.identity".to_owned(), "[\"code\"]".to_owned())]);
    assert_eq!(comes_back(&mut encoder(false), &update), Ok(()));
}

#[test]
fn records_of_others_are_errors() {
    let orders = orders(ReplicaIdentity::Default);
    let bare = decode(&orders, Some(b"{}"), |_| None).unwrap_err();
    assert!(bare.to_string().contains("strangler.position"), "{bare}");
    let at = |name: &str| (name == header::POSITION).then_some(b"0/10+1".as_slice());
    for value in [
        "",
        "{}",
        "[]",
        "null",
        "{\"op\":\"c\"}",
        "\u{0}",
        r#"{"op":"x","source":{"txId":1,"lsn":1,"ts_us":1}}"#,
        r#"{"op":"c","source":{"txId":1,"lsn":1,"ts_us":1},"after":{"id":"one","note":null,"total":null}}"#,
        r#"{"op":"c","source":{"txId":1,"lsn":1,"ts_us":1},"after":{"id":1,"total":null,"note":null}}"#,
        r#"{"op":"c","source":{"txId":1,"lsn":1,"ts_us":1},"after":{"id":1,"note":null,"total":null,"more":1}}"#,
    ] {
        assert!(decode(&orders, Some(value.as_bytes()), at).is_err(), "{value}");
    }
    assert_eq!(decode(&orders, None, |_| None), Ok(None));
}

/// Type, Postgres' text, Debezium's JSON, and whether the JSON alone gives the text back.
fn vectors() -> Vec<(ColumnType, &'static str, Json, bool)> {
    let array = |kind| ColumnType::Array(Box::new(kind));
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    let (time, timestamp) =
        (|precision| ColumnType::Time { precision }, |precision| ColumnType::Timestamp { precision });
    vec![
        (ColumnType::Int2, "-32768", json!(-32768), true),
        (ColumnType::Int8, "9223372036854775807", json!(i64::MAX), true),
        (ColumnType::Oid, "4294967295", json!(4_294_967_295_u32), true),
        (ColumnType::Bool, "t", json!(true), true),
        (ColumnType::Float4, "3.3", json!(3.3), true),
        (ColumnType::Float8, "1", json!(1.0), true),
        (ColumnType::Float8, "1e+20", json!(1e20), true),
        (ColumnType::Float8, "-Infinity", json!("-Infinity"), true),
        (numeric(3, 2), "1.10", json!("bg=="), true),
        (numeric(6, 4), "22.2200", json!("A2P4"), true),
        (numeric(4, 0), "-128", json!("gA=="), true),
        (numeric(4, 0), "128", json!("AIA="), true),
        (numeric(5, -2), "12300", json!("ew=="), true),
        (numeric(3, 2), "NaN", Json::Null, false),
        (ColumnType::NumericAny, "10.1111", json!({"scale": 4, "value": "AYr3"}), true),
        // Debezium strips zeros at the end: the text needs the header.
        (ColumnType::NumericAny, "10.00", json!({"scale": 0, "value": "Cg=="}), false),
        (ColumnType::NumericAny, "Infinity", Json::Null, false),
        (ColumnType::Text, "ž\u{1}\t\"\\", json!("ž\u{1}\t\"\\"), true),
        (ColumnType::Bytea, "\\x010203", json!("AQID"), true),
        (ColumnType::Jsonb, "{\"a\": 1}", json!("{\"a\": 1}"), true),
        (ColumnType::Date, "2016-11-04", json!(17109), true),
        (ColumnType::Date, "0001-12-31 BC", json!(-719_163), true),
        (ColumnType::Date, "infinity", Json::Null, false),
        (time(3), "13:51:30.123", json!(49_890_123), true),
        (time(6), "13:51:30", json!(49_890_000_000_i64), true),
        (time(6), "24:00:00", json!(86_400_000_000_i64), true),
        (timestamp(3), "2016-11-04 13:51:30.123", json!(1_478_267_490_123_i64), true),
        (timestamp(6), "2016-11-04 13:51:30.123456", json!(1_478_267_490_123_456_i64), true),
        (timestamp(6), "21016-11-04 13:51:30.123457", json!(601_060_312_290_123_457_i64), true),
        (timestamp(6), "1936-10-25 22:10:12.608", json!(-1_047_174_587_392_000_i64), true),
        (timestamp(6), "4713-12-31 23:59:59.999999 BC", json!(-210_831_897_600_000_001_i64), true),
        (timestamp(6), "294247-01-01 23:59:59.999999", json!(9_223_371_331_199_999_999_i64), true),
        (timestamp(6), "294276-12-31 23:59:59.999999", json!(i64::MAX), false),
        (timestamp(6), "infinity", json!(9_223_372_036_825_200_000_i64), true),
        (timestamp(6), "-infinity", json!(-9_223_372_036_832_400_000_i64), true),
        (timestamp(6), "294247-01-10 04:00:25.2", json!(9_223_372_036_825_200_000_i64), false),
        (
            ColumnType::Timestamptz,
            "2016-11-04 11:51:30.123456+00",
            json!("2016-11-04T11:51:30.123456Z"),
            true,
        ),
        (ColumnType::Timestamptz, "2020-04-01 11:51:02+00", json!("2020-04-01T11:51:02.000000Z"), true),
        (ColumnType::Timestamptz, "21016-11-04 06:51:30+00", json!("+21016-11-04T06:51:30.000000Z"), true),
        (
            ColumnType::Timestamptz,
            "4714-12-31 23:59:59.999999+00 BC",
            json!("-4713-12-31T23:59:59.999999Z"),
            true,
        ),
        (ColumnType::Timestamptz, "infinity", json!("infinity"), true),
        (array(ColumnType::Int4), "{1,NULL,3}", json!([1, null, 3]), true),
        (array(ColumnType::Int4), "{{1,2},{3,4}}", json!([[1, 2], [3, 4]]), true),
        (array(ColumnType::Int4), "{}", json!([]), true),
        (array(ColumnType::Int4), "[0:1]={1,2}", Json::Null, false),
        (
            array(ColumnType::Text),
            r#"{"a b","",NULL,"null","q\"\\"}"#,
            json!(["a b", "", null, "null", "q\"\\"]),
            true,
        ),
        (array(numeric(10, 2)), "{1.10,2.22}", json!(["bg==", "AN4="]), true),
        (array(ColumnType::NumericAny), "{1.5,NaN}", json!([{"scale": 1, "value": "Dw=="}, null]), false),
        (
            array(ColumnType::Timestamptz),
            "{\"2020-04-01 11:51:02+00\"}",
            json!(["2020-04-01T11:51:02.000000Z"]),
            true,
        ),
        (array(ColumnType::Bytea), "{\"\\\\x0102\"}", json!(["AQI="]), true),
    ]
}

#[test]
fn values_are_written_as_debezium_documents_them() {
    for (kind, text, json, is_exact) in vectors() {
        let relation = relation(ReplicaIdentity::Default, vec![column("v", kind.clone(), false, true)]);
        let change = change(
            &relation,
            Operation::Insert { new: Tuple::of([Value::Text(text.as_bytes())].into_iter()) },
        );
        let record = records(&mut encoder(false), &change).remove(0);
        assert_eq!(record.value["after"]["v"], json, "{kind:?} {text}");
        assert_eq!(record.headers.is_empty(), is_exact, "{kind:?} {text}: {:?}", record.headers);
        assert_eq!(comes_back(&mut encoder(false), &change), Ok(()), "{kind:?} {text}");
    }
}

#[test]
fn placeholders_stand_for_large_values_that_were_not_sent() {
    let array = |kind| ColumnType::Array(Box::new(kind));
    let bytes: Vec<u8> = PLACEHOLDER.bytes().collect();
    for (kind, json) in [
        (ColumnType::Text, json!(PLACEHOLDER)),
        (ColumnType::Jsonb, json!(PLACEHOLDER)),
        (ColumnType::Bytea, json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")),
        (array(ColumnType::Text), json!([PLACEHOLDER])),
        (array(ColumnType::Int8), json!(bytes)),
        (array(ColumnType::Uuid), json!(["b68a35a7-17ad-35b3-af2a-ae46edb4545a"])),
        (ColumnType::NumericAny, Json::Null),
    ] {
        let relation = relation(ReplicaIdentity::Default, vec![column("v", kind.clone(), false, true)]);
        let new = Tuple::of([Value::Unchanged].into_iter());
        let change = change(&relation, Operation::Update { old: None, new });
        let record = records(&mut encoder(false), &change).remove(0);
        assert_eq!(record.value["after"]["v"], json, "{kind:?}");
        assert_eq!(comes_back(&mut encoder(false), &change), Ok(()));
    }
    // A column may hold the placeholder's very text.
    let relation = relation(ReplicaIdentity::Default, vec![column("v", ColumnType::Text, false, true)]);
    let new = Tuple::of([Value::Text(PLACEHOLDER.as_bytes())].into_iter());
    assert_eq!(comes_back(&mut encoder(false), &change(&relation, Operation::Insert { new })), Ok(()));
}

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
        _ => prop_oneof!["\\PC{0,20}", "[\\x01-\\x7f]{0,20}", Just(PLACEHOLDER.to_owned())].boxed(),
    };
    // Whatever the text, even if Postgres would never print it, it comes back.
    prop_oneof![
        20 => text.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ]
    .boxed()
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
