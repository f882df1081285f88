//! The envelope: what Debezium's connector writes for each kind of change and value.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is called by tests may fail like tests")]

use migrations::column_type::{ColumnType, Form};
use migrations::lsn::{CommitLsn, Position};
use migrations::names::TableName;
use migrations::plan::{Publish, Skipped};
use rows::change::{Change, Column, Operation, Relation, ReplicaIdentity, Transaction, Tuple, Value};
use rows::envelope::{Context, Encoded, Encoder, NEW_KEY, OLD_KEY, PLACEHOLDER, topic};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;

#[path = "envelope/options.rs"]
mod options;
#[path = "envelope/outbox.rs"]
mod outbox;
#[path = "envelope/properties.rs"]
mod properties;
#[path = "envelope/vectors.rs"]
mod vectors;

const NOW_US: i64 = 1_700_000_000_123_456;

fn context(publish: Publish) -> Context {
    let [prefix, database, version] = ["shop", "main", "0.1.0"].map(str::to_owned);
    Context { prefix, database, version, publish, hidden: BTreeMap::new() }
}

fn publishing(publish: Publish) -> Encoder {
    Encoder::new(context(publish))
}

fn encoder(has_schemas: bool) -> Encoder {
    publishing(Publish { has_schemas, ..Publish::default() })
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

/// A record as JSON: key, value, and headers but those that all records have.
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
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut headers: Vec<_> =
            record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect();
        let context = headers.split_off(headers.len() - 3);
        let context: Vec<_> = context.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(context, CONTEXT);
        Seen { key: json(record.key), value: json(record.value), headers }
    };
    encoded.records().map(seen).collect()
}

/// The headers of every record.
const CONTEXT: [(&str, &str); 3] = [
    ("__debezium.context.connectorLogicalName", "shop"),
    ("__debezium.context.taskId", "0"),
    ("__debezium.context.connectorName", "postgresql"),
];

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
            seen(json!({"id": 1}), envelope("d", before, Json::Null), &[(NEW_KEY, "{\"id\":2}")]),
            seen(json!({"id": 1}), Json::Null, &[(NEW_KEY, "{\"id\":2}")]),
            seen(json!({"id": 2}), envelope("c", Json::Null, after), &[(OLD_KEY, "{\"id\":1}")]),
        ]
    );
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
}

#[test]
fn a_truncate_has_neither_key_nor_rows() {
    let truncate = change(&orders(ReplicaIdentity::Default), Operation::Truncate);
    let all = Publish { skipped: Skipped::default(), ..Publish::default() };
    assert_eq!(
        records(&mut publishing(all), &truncate),
        [seen(Json::Null, envelope("t", Json::Null, Json::Null), &[])]
    );
    assert_eq!(records(&mut encoder(false), &truncate), [], "Debezium skips them if not told otherwise");
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
}

#[test]
fn topics_hold_only_what_kafka_allows() {
    let topic = |name: &str| topic("shop", &TableName { schema: "sales".to_owned(), name: name.to_owned() });
    assert_eq!(topic("Order lines"), "shop.sales.Order_lines");
    assert_eq!(topic("a.b\"c"), "shop.sales.a.b_c");
    // Java counts what is outside of Unicode's first plane twice.
    assert_eq!(topic("ž🐘"), "shop.sales.___");
}

#[test]
fn names_with_points_and_quotes_are_written_as_they_are() {
    let table = TableName { schema: "a.b".to_owned(), name: "c\"d".to_owned() };
    let columns = vec![column("x.\"y\"", ColumnType::Int4, true, false)];
    let odd = Arc::new(Relation { table, identity: ReplicaIdentity::Default, columns });
    let insert = change(&odd, Operation::Insert { new: tuple(&[Some("1")]) });
    let record = records(&mut encoder(true), &insert).remove(0);
    assert_eq!(record.key["payload"], json!({"x.\"y\"": 1}));
    assert_eq!(record.key["schema"]["name"], "shop.a.b.c_d.Key");
    let source = &record.value["payload"]["source"];
    assert_eq!((&source["schema"], &source["table"]), (&json!("a.b"), &json!("c\"d")));
}

/// A table whose key names its columns in another order than the table.
fn keyed() -> Arc<Relation> {
    let key = |name: &str, kind, key_position| Column { key_position, ..column(name, kind, true, false) };
    let total = ColumnType::Numeric { precision: 10, scale: 2 };
    let columns = vec![
        key("a", ColumnType::Text, 2),
        column("body", ColumnType::Text, false, true),
        key("b", total, 1),
    ];
    relation(ReplicaIdentity::Default, columns)
}

#[test]
fn a_key_has_its_columns_in_the_keys_order() {
    let insert = change(&keyed(), Operation::Insert { new: tuple(&[Some("x"), None, Some("1.50")]) });
    let mut encoded = Encoded::new();
    encoder(false).encode(&insert, NOW_US, &mut encoded);
    let key = encoded.records().next().unwrap().key.unwrap().to_vec();
    assert_eq!(String::from_utf8(key).unwrap(), r#"{"b":"AJY=","a":"x"}"#);
    let record = records(&mut encoder(true), &insert).remove(0);
    assert_eq!(record.key["schema"]["fields"][0]["field"], "b");
}

#[test]
fn a_changed_keys_headers_are_as_connects_simple_converter_writes_them() {
    let (old, new) = (&[Some("x"), None, Some("1.50")], &[Some("\"\\\n"), None, Some("-0.25")]);
    let update = change(&keyed(), Operation::Update { old: Some(tuple(old)), new: tuple(new) });
    let headers: Vec<_> =
        records(&mut encoder(true), &update).into_iter().map(|record| record.headers).collect();
    let to = [(NEW_KEY.to_owned(), "{\"b\":-0.25,\"a\":\"\\\"\\\\\n\"}".to_owned())];
    let from = [(OLD_KEY.to_owned(), "{\"b\":1.50,\"a\":\"x\"}".to_owned())];
    assert_eq!(headers, [to.clone(), to, from]);
}

#[test]
fn an_amount_of_money_in_a_changed_key_is_a_number() {
    let money = ColumnType::Printed { name: "money".to_owned(), form: Form::Money };
    let keyed = relation(ReplicaIdentity::Full, vec![column("m", money, true, false)]);
    let (old, new) = (tuple(&[Some("$1,003.00")]), tuple(&[Some("-$0.50")]));
    let update = change(&keyed, Operation::Update { old: Some(old), new });
    let found: Vec<_> =
        records(&mut encoder(true), &update).into_iter().flat_map(|record| record.headers).collect();
    let to = (NEW_KEY.to_owned(), "{\"m\":-0.50}".to_owned());
    let from = (OLD_KEY.to_owned(), "{\"m\":1003.00}".to_owned());
    assert_eq!(found, [to.clone(), to, from]);
}

#[test]
fn an_old_row_without_its_key_is_told_in_an_update() {
    let indexed = relation(
        ReplicaIdentity::Index,
        vec![column("id", ColumnType::Int4, true, false), column("code", ColumnType::Text, false, false)],
    );
    let new = tuple(&[Some("1"), Some("c2")]);
    let update = change(&indexed, Operation::Update { old: Some(tuple(&[None, Some("c1")])), new });
    let record = records(&mut encoder(false), &update).remove(0);
    assert_eq!(record.value["before"], json!({"id": 0, "code": "c1"}));
    assert_eq!(record.value["op"], "u");
}

#[test]
fn defaults_are_in_the_schemas_of_value_and_key() {
    let with = |default: &str, column| Column { default: Some(default.to_owned()), ..column };
    let columns = vec![
        with("nextval('orders_id_seq'::regclass)", column("id", ColumnType::Int4, true, false)),
        with("'new'::text", column("state", ColumnType::Text, false, true)),
    ];
    let defaults = relation(ReplicaIdentity::Default, columns);
    let delete = change(&defaults, Operation::Delete { old: tuple(&[Some("1"), None]) });
    let record = records(&mut encoder(true), &delete).remove(0);
    let id = json!({"type": "int32", "optional": false, "default": 0, "field": "id"});
    assert_eq!(record.key["schema"]["fields"], json!([id]));
    let state = json!({"type": "string", "optional": true, "default": "new", "field": "state"});
    assert_eq!(record.value["schema"]["fields"][0]["fields"], json!([id, state]));
    assert_eq!(record.value["payload"]["before"], json!({"id": 1, "state": "new"}));
}
