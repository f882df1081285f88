//! Changes into records, and records into their topics.

use super::Output;
use crate::log::kafka::{Cluster, Deliveries, Shape, Tally, Topics, produce};
use crate::log::{Log, LogError};
use postgres::clock::now_us;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use rows::change::Change;
use rows::envelope::heartbeat::heartbeat;
use rows::envelope::{Context, Encoded, Encoder, outbox};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// JSON of a row, in multiples of the row: text of control characters alone is escaped to six times its size. More than this
/// would make a record of the largest usual row larger than a broker takes in one request (`socket.request.max.bytes`,
/// 100 MiB).
const RECORD_GROWTH: u64 = 6;
/// What the protocol adds to a record and its batch, at most.
const FRAME_BYTES: u64 = 4 << 10;
/// Topics that are remembered as made; beyond it they are made again, which changes nothing.
const TOPICS_MAX: usize = 4096;

pub(super) struct Work {
    cluster: Cluster,
    context: Context,
    topics: Topics,
    shape: Shape,
    made: BTreeSet<String>,
    producer: ThreadedProducer<Deliveries>,
    tally: Arc<Tally>,
    encoder: Encoder,
    encoded: Encoded,
    /// The last heartbeat, or the start.
    beaten: Instant,
}

/// What a change becomes, with the topic that it goes to.
enum Outgoing {
    Records(String, Change),
    /// A row of an outbox.
    Event(outbox::Event),
}

impl Drop for Work {
    fn drop(&mut self) {
        // The next session publishes it again.
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

impl Work {
    pub(super) fn new(output: &Output, log: &Log) -> Result<Box<Work>, LogError> {
        let cluster = output.cluster.clone();
        let record_bytes_max =
            (output.row_bytes_max.saturating_mul(RECORD_GROWTH) + (1 << 20)).min(900 << 20);
        let tally = Arc::new(Tally::default());
        // A key goes where Kafka's Java producer puts it.
        let mut config = cluster.producer(record_bytes_max);
        let producer = config.set("partitioner", "murmur2_random");
        let producer = producer.create_with_context(Deliveries(tally.clone()));
        let Output { partitions, replication, .. } = *output;
        Ok(Box::new(Work {
            topics: Topics::new(&cluster)?,
            shape: Shape { partitions, replication, record_bytes_max },
            made: BTreeSet::new(),
            producer: producer.map_err(|error| cluster.error(&error))?,
            cluster,
            tally,
            context: log.context().clone(),
            encoder: Encoder::new(log.context().clone())
                .with_records_up_to(usize::try_from(record_bytes_max - FRAME_BYTES).unwrap_or(usize::MAX)),
            encoded: Encoded::new(),
            beaten: Instant::now(),
        }))
    }

    /// Publishes changes; all records are acknowledged when it returns. How many there were.
    pub(super) async fn publish(
        mut self: Box<Self>,
        changes: Vec<Change>,
    ) -> Result<(Box<Self>, u64), LogError> {
        if changes.is_empty() {
            return Ok((self, 0));
        }
        let outgoing: Vec<Outgoing> = changes.into_iter().filter_map(|change| self.routed(change)).collect();
        self.make_topics(&outgoing).await?;
        let cluster = self.cluster.clone();
        let publish = tokio::task::spawn_blocking(move || {
            let records = self.send(&outgoing)?;
            Ok((self, records))
        });
        publish.await.map_err(|error| cluster.unavailable(&error.to_string()))?
    }

    /// Publishes a heartbeat if one is due; it is acknowledged when this returns.
    pub(super) async fn beat(mut self: Box<Self>) -> Result<Box<Self>, LogError> {
        let interval = self.context.publish.heartbeat_ms;
        if interval == 0 || self.beaten.elapsed() < Duration::from_millis(interval) {
            return Ok(self);
        }
        let beat = heartbeat(&self.context, now_us());
        if !self.made.contains(&beat.topic) {
            let shape = Shape { partitions: 1, ..self.shape };
            self.topics.ensure(std::slice::from_ref(&beat.topic), shape).await?;
            self.made.insert(beat.topic.clone());
        }
        self.beaten = Instant::now();
        let cluster = self.cluster.clone();
        let publish = tokio::task::spawn_blocking(move || {
            self.tally.begin();
            self.produce(&beat.topic, (Some(&beat.key), Some(&beat.value)), std::iter::empty())?;
            self.tally.wait().map_err(|error| self.cluster.error(&error))?;
            Ok(self)
        });
        publish.await.map_err(|error| cluster.unavailable(&error.to_string()))?
    }

    /// None for a change that nothing is to be said of.
    fn routed(&self, change: Change) -> Option<Outgoing> {
        if !self.context.publish.outbox.contains(&change.relation.table) {
            return Some(Outgoing::Records(self.encoder.topic(&change.relation.table), change));
        }
        outbox::event(&self.context, &change).map_or_else(
            |why| {
                tracing::warn!("{why}");
                None
            },
            |event| event.map(Outgoing::Event),
        )
    }

    async fn make_topics(&mut self, outgoing: &[Outgoing]) -> Result<(), LogError> {
        let names: BTreeSet<String> = outgoing.iter().map(|one| one.topic().to_owned()).collect();
        let new: Vec<String> = names.difference(&self.made).cloned().collect();
        if !new.is_empty() {
            self.topics.ensure(&new, self.shape).await?;
            if self.made.len() > TOPICS_MAX {
                self.made.clear();
            }
            self.made.extend(new);
        }
        Ok(())
    }

    fn send(&mut self, outgoing: &[Outgoing]) -> Result<u64, LogError> {
        let (now_us, mut count) = (now_us(), 0);
        let mut encoded = std::mem::take(&mut self.encoded);
        self.tally.begin();
        for one in outgoing {
            match one {
                Outgoing::Event(event) => {
                    let headers = event.headers.iter().map(|(name, value)| (*name, value.as_slice()));
                    self.produce(&event.topic, (event.key.as_deref(), event.value.as_deref()), headers)?;
                    count += 1;
                }
                Outgoing::Records(topic, change) => {
                    self.encoder.encode(change, now_us, &mut encoded);
                    for record in encoded.records() {
                        self.produce(topic, (record.key, record.value), record.headers())?;
                        count += 1;
                    }
                }
            }
        }
        self.encoded = encoded;
        self.tally.wait().map_err(|error| self.cluster.error(&error))?;
        Ok(count)
    }

    fn produce<'a>(
        &self,
        topic: &str,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: impl Iterator<Item = (&'static str, &'a [u8])>,
    ) -> Result<(), LogError> {
        let into = |all: OwnedHeaders, (key, value)| all.insert(Header { key, value: Some(value) });
        let mut out = BaseRecord::with_opaque_to(topic, 0).headers(headers.fold(OwnedHeaders::new(), into));
        (out.key, out.payload) = (key, value);
        produce(&self.producer, &self.tally, out).map_err(|error| self.cluster.error(&error))
    }
}

impl Outgoing {
    fn topic(&self) -> &str {
        match self {
            Outgoing::Records(topic, _) => topic,
            Outgoing::Event(event) => &event.topic,
        }
    }
}
