//! The outbox: what Debezium's `EventRouter` sends for a row, and for what it sends nothing.

use super::{CONTEXT, change, column, context, relation};
use migrations::column_type::ColumnType;
use migrations::plan::Publish;
use rows::change::{Change, Column, Operation, ReplicaIdentity, Tuple, Value};
use rows::envelope::outbox::{Event, NoEvent, event};

const ID: &str = "406c07f3-26f0-4eea-a50c-109940064b8f";

fn columns(payload: ColumnType) -> Vec<Column> {
    vec![
        column("id", ColumnType::Uuid, true, false),
        column("aggregatetype", ColumnType::Text, false, false),
        column("aggregateid", ColumnType::Text, false, true),
        column("type", ColumnType::Text, false, false),
        column("payload", payload, false, true),
    ]
}

fn row(kind: &str, payload: Option<&str>) -> Tuple {
    let text = |text| Value::Text(str::as_bytes(text));
    let payload = payload.map_or(Value::Null, text);
    Tuple::of([text(ID), text(kind), text("7"), text("OrderCreated"), payload].into_iter())
}

fn outbox(payload: ColumnType, operation: Operation) -> Change {
    change(&relation(ReplicaIdentity::Default, columns(payload)), operation)
}

fn routed(change: &Change) -> Result<Option<Event>, NoEvent> {
    event(&context(Publish::default()), change)
}

#[test]
fn an_insert_is_an_event_with_the_aggregates_key_and_the_events_id() {
    for (kind, written, sent) in [
        (ColumnType::Jsonb, Some("{\"total\": 1.50}"), Some(b"{\"total\": 1.50}".to_vec())),
        (ColumnType::Bytea, Some("\\x00ff"), Some(vec![0, 255])),
        (ColumnType::Text, None, None),
    ] {
        let event = routed(&outbox(kind, Operation::Insert { new: row("Order", written) })).unwrap().unwrap();
        assert_eq!(event.topic, "outbox.event.Order");
        assert_eq!((event.key.as_deref(), event.value), (Some(b"7".as_slice()), sent));
        let headers: Vec<_> =
            event.headers.iter().map(|(name, value)| (*name, std::str::from_utf8(value).unwrap())).collect();
        assert_eq!(headers, [CONTEXT.as_slice(), &[("id", ID)]].concat());
    }
}

#[test]
fn only_inserts_are_events() {
    let of = |operation| routed(&outbox(ColumnType::Jsonb, operation));
    assert_eq!(of(Operation::Delete { old: row("Order", None) }), Ok(None));
    assert_eq!(of(Operation::Truncate), Ok(None));
    let updated = of(Operation::Update { old: None, new: row("Order", None) });
    assert!(matches!(updated, Err(NoEvent::Updated(_))), "{updated:?}");
}

#[test]
fn a_row_without_a_topic_or_a_column_says_what_is_missing() {
    for kind in ["", "Order line", "ž", &"x".repeat(237)] {
        let insert = outbox(ColumnType::Jsonb, Operation::Insert { new: row(kind, None) });
        assert!(matches!(routed(&insert), Err(NoEvent::NoType(_))), "{kind}");
    }
    let mut columns = columns(ColumnType::Jsonb);
    columns.truncate(4);
    let new = Tuple::of(columns.iter().map(|_| Value::Null));
    let insert = change(&relation(ReplicaIdentity::Default, columns), Operation::Insert { new });
    let error = routed(&insert).unwrap_err();
    assert!(error.to_string().contains("has no column `payload`"), "{error}");
}
