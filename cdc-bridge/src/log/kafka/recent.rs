//! The newest records of the tables' topics, for people. Everything here blocks.

use super::client::Cluster;
use super::look::Look;
use super::record::position;
use crate::log::contract::{Event, LogError};
use migrations::lsn::Position;
use rdkafka::message::{Headers, Message, OwnedMessage};
use std::collections::BTreeSet;

/// The newest change events, oldest first.
pub(super) fn recent(cluster: &Cluster, topics: &BTreeSet<String>, n: usize) -> Result<Vec<Event>, LogError> {
    let look = Look::new(cluster)?;
    let mut found = Vec::new();
    for topic in topics {
        for partition in 0..look.partitions(topic)?.unwrap_or(0) {
            let Some((first, next)) = look.bounds(topic, partition)? else { continue };
            // Every event may have a tombstone after it.
            let from = (next - 2 * n as i64).max(first);
            let messages = look.read(topic, partition, from, next)?;
            let events = messages.iter().filter_map(|message| Some((position(message)?, event(message)?)));
            found.extend(events);
        }
    }
    Ok(newest(found, n))
}

/// The last `n` of what was found, in the stream's order.
fn newest(mut found: Vec<(Position, Event)>, n: usize) -> Vec<Event> {
    // Of a changed key the delete comes first. What a writer repeated is shown once.
    found.sort_by_key(|(position, event)| (*position, operation(event) != "d"));
    found.dedup_by(|(one, a), (other, b)| one == other && operation(a) == operation(b));
    let from = found.len().saturating_sub(n);
    found.into_iter().skip(from).map(|(_, event)| event).collect()
}

/// What an envelope says was done. With a schema, it is one level deeper.
fn operation(event: &Event) -> &serde_json::Value {
    let envelope = event.value.get("payload").unwrap_or(&event.value);
    &envelope["op"]
}

fn event(message: &OwnedMessage) -> Option<Event> {
    let json = |bytes: Option<&[u8]>| serde_json::from_slice(bytes.unwrap_or(b"null")).ok();
    let headers = message
        .headers()?
        .iter()
        .filter_map(|found| Some((found.key.to_owned(), String::from_utf8_lossy(found.value?).into_owned())));
    Some(Event {
        topic: message.topic().to_owned(),
        key: json(message.key())?,
        value: json(message.payload())?,
        headers: headers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn both_halves_of_a_changed_key_are_shown_once_with_a_schema_or_without() {
        let position = |ordinal| format!("0/10+{ordinal}").parse().unwrap();
        let event =
            |value: Value| Event { topic: "t".to_owned(), key: Value::Null, value, headers: [].into() };
        for is_deep in [false, true] {
            let value = |op: &str| {
                if is_deep { json!({ "schema": {}, "payload": { "op": op } }) } else { json!({ "op": op }) }
            };
            let written = |ordinal, op: &str| (position(ordinal), event(value(op)));
            // What a writer repeats after a crash comes after what it wrote before.
            let found = vec![
                written(1, "u"),
                written(2, "d"),
                written(2, "c"),
                written(1, "u"),
                written(2, "d"),
                written(2, "c"),
                written(3, "u"),
            ];
            let shown = |n| -> Vec<Value> {
                newest(found.clone(), n).iter().map(|event| operation(event).clone()).collect()
            };
            let once = |ops: &[&str]| ops.iter().map(|op| json!(op)).collect::<Vec<Value>>();
            assert_eq!(shown(2), once(&["c", "u"]));
            assert_eq!(shown(9), once(&["u", "d", "c", "u"]));
        }
    }
}
