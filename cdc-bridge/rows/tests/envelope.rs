//! The envelope: what Debezium documents for each kind of change and value, and that every change comes back byte for
//! byte from the records it was written as.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is called by tests may fail like tests")]

use migrations::column_type::ColumnType;
use migrations::lsn::{CommitLsn, Position};
use migrations::plan::Publish;
use rows::change::{Change, Column, Operation, Relation, ReplicaIdentity, Transaction, Tuple, Value};
use rows::envelope::{Context, Encoded, Encoder, PLACEHOLDER, decode, header, topic};
use serde_json::{Value as Json, json};
use std::sync::Arc;

#[path = "envelope/roundtrip.rs"]
mod roundtrip;
#[path = "envelope/vectors.rs"]
mod vectors;

const NOW_US: i64 = 1_700_000_000_123_456;

fn encoder(has_schemas: bool) -> Encoder {
    let [prefix, database, version] = ["shop", "main", "0.1.0"].map(str::to_owned);
    let publish = Publish { has_schemas, ..Publish::default() };
    Encoder::new(Context { prefix, database, version, publish })
}

fn column(name: &str, kind: ColumnType, is_key: bool, nullable: bool) -> Column {
    Column {
        name: name.to_owned(),
        kind,
        is_key,
        nullable,
        number: 0,
        stored: None,
        declared: None,
        key_position: 0,
        default: None,
    }
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
    let seen = |record: rows::envelope::Record<'_>| {
        let position = record.header(header::POSITION).unwrap();
        assert_eq!(position, change.position.to_string().as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = record.headers().filter(|(name, _)| *name != header::POSITION);
        let headers = headers.map(|(name, value)| (name.to_owned(), text(value))).collect();
        Seen { key: json(record.key), value: json(record.value), headers }
    };
    encoded.records().map(seen).collect()
}

fn comes_back(encoder: &mut Encoder, change: &Change) -> Result<(), String> {
    comes_back_as(encoder, change, change)
}

fn comes_back_as(encoder: &mut Encoder, change: &Change, expected: &Change) -> Result<(), String> {
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
    if back == [expected.clone()] { Ok(()) } else { Err(format!("{back:?}")) }
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
