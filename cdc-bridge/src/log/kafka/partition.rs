//! One partition as a reader receives it: a queue of its own, and records read back into changes.

use super::bell::Bell;
use super::client::Cluster;
use super::listener::Listener;
use super::record::RELATION_HEADER;
use crate::log::contract::LogError;
use migrations::lsn::Position;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;
use rows::change::{Change, Relation};
use rows::envelope::{self, EnvelopeError, header};
use std::collections::HashMap;
use std::sync::Arc;

/// What was received of a partition.
pub(super) type Queue = PartitionQueue<Listener>;

pub(super) struct Partition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) queue: Queue,
}

/// A queue of its own for a partition, which is received from an offset on.
pub(super) fn queue(
    cluster: &Cluster,
    consumer: &Arc<BaseConsumer<Listener>>,
    bell: &Arc<Bell>,
    (topic, partition, offset): (&str, i32, i64),
) -> Result<Queue, LogError> {
    let wrong = |error: KafkaError| cluster.error(&error);
    // Before it is assigned: nothing of it must come by the common queue.
    let queue = consumer.split_partition_queue(topic, partition);
    let mut queue = queue.ok_or_else(|| cluster.unavailable("a partition has no queue"))?;
    let bell = bell.clone();
    queue.set_nonempty_callback(move || bell.ring());
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(wrong)?;
    consumer.incremental_assign(&place).map_err(wrong)?;
    Ok(queue)
}

pub(super) enum Unread {
    Envelope(EnvelopeError),
    Shape { hash: String, offset: i64 },
}

/// A record's change, where it has one that is new and of the reader's tables.
pub(super) fn read(
    message: &BorrowedMessage<'_>,
    shapes: &HashMap<String, Option<Arc<Relation>>>,
    is_new: impl Fn(Position) -> bool,
) -> Result<Option<Change>, Unread> {
    let Some(headers) = message.headers() else { return Ok(None) };
    let find = |name: &str| headers.iter().find(|header| header.key == name).and_then(|header| header.value);
    let text = |name: &str| find(name).and_then(|value| std::str::from_utf8(value).ok());
    let position = text(header::POSITION).and_then(|position| position.parse().ok());
    let (Some(position), Some(hash)) = (position, text(RELATION_HEADER)) else {
        // Someone else's record; it cannot be a change of ours.
        return Ok(None);
    };
    if !is_new(position) || message.payload().is_none() {
        return Ok(None);
    }
    match shapes.get(hash) {
        Some(Some(relation)) => envelope::decode(relation, message.payload(), find).map_err(Unread::Envelope),
        Some(None) => Ok(None),
        None => Err(Unread::Shape { hash: hash.to_owned(), offset: message.offset() }),
    }
}
