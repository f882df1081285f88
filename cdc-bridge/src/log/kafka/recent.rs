//! The newest records of the tables' topics, for people. Everything here blocks.

use super::client::Cluster;
use super::look::Look;
use super::record::position;
use crate::log::contract::{Event, LogError};
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
    // Stable: the two halves of a changed key keep their order. What a writer repeated is shown once.
    found.sort_by_key(|(position, _)| *position);
    found.dedup_by(|(one, a), (other, b)| one == other && a.value["op"] == b.value["op"]);
    let from = found.len().saturating_sub(n);
    Ok(found.into_iter().skip(from).map(|(_, event)| event).collect())
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
