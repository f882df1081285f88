//! Changes into records, and records into their topics.

use super::Output;
use crate::log::kafka::{Cluster, Deliveries, Shape, Tally, Topics, produce};
use crate::log::{Log, LogError};
use postgres::clock::now_us;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use rows::change::Change;
use rows::envelope::{Encoded, Encoder};
use std::collections::BTreeSet;
use std::sync::Arc;

/// JSON of a row, in multiples of the row: text of control characters alone is escaped to six times its size. More than this
/// would make a record of the largest usual row larger than a broker takes in one request (`socket.request.max.bytes`,
/// 100 MiB).
const RECORD_GROWTH: u64 = 6;
/// Topics that are remembered as made; beyond it they are made again, which changes nothing.
const TOPICS_MAX: usize = 4096;

pub(super) struct Work {
    cluster: Cluster,
    topics: Topics,
    shape: Shape,
    made: BTreeSet<String>,
    producer: ThreadedProducer<Deliveries>,
    tally: Arc<Tally>,
    encoder: Encoder,
    encoded: Encoded,
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
            encoder: Encoder::new(log.context().clone()),
            encoded: Encoded::new(),
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
        self.make_topics(&changes).await?;
        let cluster = self.cluster.clone();
        let publish = tokio::task::spawn_blocking(move || {
            let records = self.send(&changes)?;
            Ok((self, records))
        });
        publish.await.map_err(|error| cluster.unavailable(&error.to_string()))?
    }

    async fn make_topics(&mut self, changes: &[Change]) -> Result<(), LogError> {
        let names: BTreeSet<String> =
            changes.iter().map(|change| self.encoder.topic(&change.relation.table)).collect();
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

    fn send(&mut self, changes: &[Change]) -> Result<u64, LogError> {
        let wrong = |error| self.cluster.error(&error);
        let (now_us, mut count) = (now_us(), 0);
        self.tally.begin();
        for change in changes {
            self.encoder.encode(change, now_us, &mut self.encoded);
            let topic = self.encoder.topic(&change.relation.table);
            for record in self.encoded.records() {
                let mut headers = OwnedHeaders::new_with_capacity(record.headers().len());
                for (key, value) in record.headers() {
                    headers = headers.insert(Header { key, value: Some(value) });
                }
                let mut out = BaseRecord::with_opaque_to(&topic, 0).headers(headers);
                (out.key, out.payload) = (record.key, record.value);
                produce(&self.producer, &self.tally, out).map_err(wrong)?;
                count += 1;
            }
        }
        self.tally.wait().map_err(wrong)?;
        Ok(count)
    }
}
