//! Receives the log's topic for one reader. Everything here blocks.

use super::client::{ANSWER_MAX, Cluster};
use super::listener::Listener;
use super::look::{Look, is_passing};
use super::record::{self, Head, Kind};
use crate::log::contract::{LogError, other_history};
use crate::log::values::{Found, Visit};
use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rows::change::Relation;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The client library is asked so often whether something arrived.
const POLL: Duration = Duration::from_millis(100);
/// A reader stays at one place, the log's end.
const FETCH_WAIT_MS: u64 = 500;

pub(crate) struct Tap {
    cluster: Cluster,
    topic: String,
    consumer: BaseConsumer<Listener>,
    /// What is received next; none before the first read.
    next: Option<u64>,
    /// The newest head before that, and the shapes in it.
    base: u64,
    relations: BTreeMap<String, Relation>,
    /// A writer began, and none of its values was handed out yet.
    has_begun: bool,
    /// The value that was handed out last, for a reader that had no room for it.
    held: Option<(u64, Bytes, bool)>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("topic", &self.topic).field("next", &self.next).finish()
    }
}

impl Tap {
    pub(super) fn new(cluster: Cluster, topic: String) -> Result<Tap, LogError> {
        let consumer = cluster.consumer(FETCH_WAIT_MS).create_with_context(Listener);
        let consumer = consumer.map_err(|error| cluster.error(&error))?;
        let (next, base, relations, has_begun, held) = (None, 0, BTreeMap::new(), false, None);
        Ok(Tap { cluster, topic, consumer, next, base, relations, has_begun, held })
    }

    /// The head at an offset.
    pub(crate) fn head(&self, at: u64) -> Result<Head, LogError> {
        let look = Look::new(&self.cluster)?;
        match look.bounds(&self.topic, 0)? {
            Some((first, next)) if (first as u64..next as u64).contains(&at) => {}
            _ => return Err(LogError::Trimmed),
        }
        let mut head = None;
        look.each(&self.topic, (at, at + 1), |message| {
            if record::kind(message.key(), message.offset()) == Some(Kind::Head) {
                head = Some(self.parsed(at, message.payload().unwrap_or_default())?);
            }
            Ok(())
        })?;
        head.ok_or_else(|| other_history(&self.topic))
    }

    pub(crate) fn read(&mut self, from: u64, base: u64, to: u64, visit: Visit<'_>) -> Result<(), LogError> {
        let held = self.held.take().filter(|(key, ..)| *key == from && self.base == base);
        if let Some((key, bytes, has_begun)) = held {
            self.has_begun |= has_begun;
            if self.hand_out(key, &bytes, visit)?.is_break() || key + 1 >= to {
                return Ok(());
            }
        } else if self.next != Some(from) || self.base != base {
            self.seek(from, base)?;
        }
        let mut deadline = Instant::now() + ANSWER_MAX;
        while self.next.is_some_and(|next| next < to) {
            let Some((at, kind, bytes)) = self.receive()? else {
                if Instant::now() > deadline {
                    return Err(self
                        .cluster
                        .unavailable(&format!("it does not deliver record {:?}", self.next)));
                }
                continue;
            };
            deadline = Instant::now() + ANSWER_MAX;
            match kind {
                Some(Kind::Value) if self.hand_out(at, &bytes, visit)?.is_break() => return Ok(()),
                Some(Kind::Head) => {
                    let head = self.parsed(at, &bytes)?;
                    (self.relations, self.base) = (head.relations, at);
                    self.has_begun |= head.begins;
                }
                Some(Kind::Value) | None => {}
            }
        }
        Ok(())
    }

    fn parsed(&self, at: u64, payload: &[u8]) -> Result<Head, LogError> {
        Head::read(at, payload).map_err(|why| self.cluster.damaged(&why))
    }

    fn hand_out(&mut self, key: u64, bytes: &Bytes, visit: Visit<'_>) -> Result<ControlFlow<()>, LogError> {
        let is_first = std::mem::take(&mut self.has_begun);
        self.held = Some((key, bytes.clone(), is_first));
        let relation = |hash: u64| {
            let found = self.relations.get(&record::shape(hash));
            found.cloned().ok_or_else(|| self.cluster.damaged("it lacks a table's shape"))
        };
        visit(Found { key, base: self.base, is_first, bytes: bytes.clone(), relation: &relation })
    }

    /// Begins to receive at an offset.
    fn seek(&mut self, from: u64, base: u64) -> Result<(), LogError> {
        (self.next, self.has_begun) = (None, false);
        self.relations = self.head(base)?.relations;
        self.base = base;
        let wrong = |error: KafkaError| self.cluster.error(&error);
        // The client library asks for topics that it does not know once a second only.
        let _ = self.consumer.fetch_metadata(Some(&self.topic), ANSWER_MAX);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.topic, 0, Offset::Offset(from as i64)).map_err(wrong)?;
        self.consumer.assign(&place).map_err(wrong)?;
        self.next = Some(from);
        Ok(())
    }

    /// The next record with what it is; none if none arrived for a moment.
    fn receive(&mut self) -> Result<Option<(u64, Option<Kind>, Bytes)>, LogError> {
        match self.consumer.poll(POLL) {
            None => Ok(None),
            Some(Ok(message)) => {
                let at = message.offset() as u64;
                if self.next != Some(at) {
                    return Err(LogError::Trimmed);
                }
                self.next = Some(at + 1);
                let kind = record::kind(message.key(), message.offset());
                Ok(Some((at, kind, Bytes::copy_from_slice(message.payload().unwrap_or_default()))))
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    Err(LogError::Trimmed)
                }
                _ if is_passing(&error) => Ok(None),
                _ => Err(self.cluster.error(&error)),
            },
        }
    }
}
