//! The options of what is published: what each leaves out or writes otherwise.

use super::{NOW_US, change, context, encoder, orders, publishing, records, seen, tuple};
use migrations::plan::{Publish, Skipped};
use rows::change::{Operation, ReplicaIdentity};
use rows::envelope::heartbeat::heartbeat;
use rows::envelope::{Context, Encoder, NEW_KEY, OLD_KEY};
use serde_json::{Value as Json, json};

#[test]
fn what_is_skipped_is_not_written() {
    let orders = orders(ReplicaIdentity::Default);
    let row = || tuple(&[Some("1"), None, Some("1.00")]);
    let skipped = Skipped { creates: true, updates: true, deletes: true, truncates: true };
    for operation in [
        Operation::Insert { new: row() },
        Operation::Update { old: None, new: row() },
        Operation::Delete { old: row() },
        Operation::Truncate,
    ] {
        let change = change(&orders, operation);
        assert_eq!(records(&mut publishing(Publish { skipped, ..Publish::default() }), &change), []);
    }
}

#[test]
fn a_heartbeat_has_the_prefix_and_the_time_with_and_without_schemas() {
    let plain = heartbeat(&context(Publish::default()), NOW_US);
    assert_eq!(plain.topic, "__debezium-heartbeat.shop");
    assert_eq!(plain.key, br#"{"serverName":"shop"}"#);
    assert_eq!(plain.value, br#"{"ts_ms":1700000000123}"#);
    let full = heartbeat(&context(Publish { has_schemas: true, ..Publish::default() }), NOW_US);
    let read = |bytes: &[u8]| serde_json::from_slice::<Json>(bytes).unwrap();
    let record = |name: &str, kind: &str, field: &str, payload: Json| {
        let name = format!("io.debezium.connector.common.{name}");
        let fields = json!([{"type": kind, "optional": false, "field": field}]);
        let schema =
            json!({"type": "struct", "fields": fields, "optional": false, "name": name, "version": 1});
        json!({"schema": schema, "payload": payload})
    };
    let key = record("ServerNameKey", "string", "serverName", json!({"serverName": "shop"}));
    assert_eq!(read(&full.key), key);
    let value = record("Heartbeat", "int64", "ts_ms", json!({"ts_ms": 1_700_000_000_123_i64}));
    assert_eq!(read(&full.value), value);
}

#[test]
fn tombstones_can_be_left_out() {
    let publish = Publish { has_tombstones: false, ..Publish::default() };
    let delete =
        change(&orders(ReplicaIdentity::Default), Operation::Delete { old: tuple(&[Some("1"), None, None]) });
    let records = records(&mut publishing(publish), &delete);
    assert_eq!(records.iter().map(|record| &record.value["op"]).collect::<Vec<_>>(), ["d"]);
}

#[test]
fn unwrapped_values_are_rows_and_a_delete_is_a_tombstone() {
    let orders = orders(ReplicaIdentity::Default);
    let unwrapped = || Publish { is_unwrapped: true, skipped: Skipped::default(), ..Publish::default() };
    let (old, new) = (tuple(&[Some("1"), None, None]), tuple(&[Some("2"), Some("x"), Some("5.00")]));
    let update = change(&orders, Operation::Update { old: Some(old), new });
    let row = json!({"id": 2, "note": "x", "total": "AfQ="});
    assert_eq!(
        records(&mut publishing(unwrapped()), &update),
        [
            seen(json!({"id": 1}), Json::Null, &[(NEW_KEY, "{\"id\":2}")]),
            seen(json!({"id": 2}), row.clone(), &[(OLD_KEY, "{\"id\":1}")]),
        ]
    );
    assert_eq!(records(&mut publishing(unwrapped()), &change(&orders, Operation::Truncate)), []);
    let with_schemas = Publish { has_schemas: true, ..unwrapped() };
    let record = records(&mut publishing(with_schemas), &update).remove(1);
    assert_eq!(record.value["payload"], row);
    let schema = &record.value["schema"];
    assert_eq!((&schema["name"], &schema["optional"]), (&json!("shop.public.orders.Value"), &json!(false)));
}

#[test]
fn hidden_columns_are_neither_in_rows_nor_in_schemas_and_a_key_stays() {
    let hidden = ["note".to_owned(), "id".to_owned()].into();
    let context = Context {
        hidden: [("public.orders".parse().unwrap(), hidden)].into(),
        ..context(Publish { has_schemas: true, ..Publish::default() })
    };
    let insert = change(
        &orders(ReplicaIdentity::Default),
        Operation::Insert { new: tuple(&[Some("1"), Some("secret"), Some("12.30")]) },
    );
    let record = records(&mut Encoder::new(context), &insert).remove(0);
    assert_eq!(record.value["payload"]["after"], json!({"id": 1, "total": "BM4="}));
    assert!(!record.value["schema"].to_string().contains("note"));
}

#[test]
fn an_update_that_is_too_large_says_nothing_of_the_old_row() {
    let update = change(
        &orders(ReplicaIdentity::Full),
        Operation::Update {
            old: Some(tuple(&[Some("1"), Some("long"), Some("4.00")])),
            new: tuple(&[Some("1"), Some("(unchanged)"), Some("5.00")]),
        },
    );
    let mut encoder = encoder(false).with_records_up_to(0);
    let record = records(&mut encoder, &update).remove(0);
    assert_eq!(record.value["before"], Json::Null);
    assert_eq!(record.value["after"]["note"], "long");
}
