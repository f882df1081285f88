//! Appends to Kafka: every flush with its progress record in one go, acknowledgements counted, none awaited alone.

use super::client::Cluster;
use super::delivery::{Deliveries, Tally, produce};
use super::lock::locked;
use super::murmur2;
use super::record::{ProgressRecord, RELATION_HEADER, Record, TablesRecord, VERSION};
use super::routes::{PROGRESS_SLOT, Route};
use super::standing::Inner;
use crate::log::contract::{Flush, LogError};
use crate::log::floor::Floor;
use migrations::lsn::{Durable, EndLsn};
use migrations::names::TableName;
use postgres::clock::now_us;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use rows::binary::relation_hash;
use rows::change::{Change, Operation, Relation};
use rows::envelope::{Encoded, Encoder};
use rows::progress::Progress;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Relations that a session remembers; beyond it forgets all and looks at them again.
const SHAPES_MAX: usize = 4096;
/// What the shape's header and Kafka's own fields add to a record, and more.
const FRAME_BYTES: u64 = 4096;
#[derive(Debug)]
pub struct KafkaWriter {
    cluster: Cluster,
    /// Taken while an append runs, and not put back after an error: then the session is over.
    work: Option<Box<Work>>,
}

impl KafkaWriter {
    /// A session after the last durable record. `sent` is what earlier ones sent.
    pub(super) fn new(inner: Arc<Inner>, session: u64, last: Option<&Progress>) -> Result<Self, LogError> {
        let cluster = inner.cluster.clone();
        let tally = Arc::new(Tally::default());
        let producer = cluster
            .producer(inner.record_bytes_max())
            .create_with_context(Deliveries(tally.clone()))
            .map_err(|error| cluster.error(&error))?;
        let floor = Floor::new(inner.id(), last);
        let work = Work {
            session,
            floor,
            producer,
            tally,
            encoder: Encoder::new(inner.context.clone())
                .with_records_up_to((inner.record_bytes_max() - FRAME_BYTES) as usize),
            encoded: Encoded::new(),
            shapes: Shapes::default(),
            acknowledged: last.map(|progress| progress.end).unwrap_or_default(),
            inner,
        };
        Ok(Self { cluster, work: Some(Box::new(work)) })
    }

    /// Appends a flush; acknowledged by all when it returns.
    pub(crate) async fn append(&mut self, flush: Flush) -> Result<Option<Durable<EndLsn>>, LogError> {
        let ended = || self.cluster.unavailable("the writer's session has ended with an error");
        let mut work = self.work.take().ok_or_else(ended)?;
        let append = tokio::task::spawn_blocking(move || {
            let end = work.append(flush)?;
            Ok::<_, LogError>((work, end))
        });
        let (work, end) = append.await.map_err(|error| self.cluster.unavailable(&error.to_string()))??;
        self.work = Some(work);
        Ok(end.map(Durable::attest))
    }
}

/// What a session remembers from one append to the next.
struct Work {
    inner: Arc<Inner>,
    session: u64,
    floor: Floor,
    producer: ThreadedProducer<Deliveries>,
    tally: Arc<Tally>,
    encoder: Encoder,
    encoded: Encoded,
    shapes: Shapes,
    /// The end of the last record whose flush was acknowledged.
    acknowledged: EndLsn,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("session", &self.session).field("floor", &self.floor).finish()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What was not acknowledged was not promised. It must not reach the cluster during the next session.
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

/// The shapes of tables that this session has written into the progress topic.
#[derive(Debug, Default)]
struct Shapes {
    /// By the address of the relation that is kept alive here.
    known: HashMap<usize, Shape>,
    newest: BTreeMap<TableName, String>,
    relations: BTreeMap<String, Relation>,
    /// The generation of the routes that `known` holds.
    generation: u64,
}

#[derive(Debug)]
struct Shape {
    _kept: Arc<Relation>,
    hash: String,
    topic: String,
    route: Option<Route>,
}

impl Work {
    fn append(&mut self, flush: Flush) -> Result<Option<EndLsn>, LogError> {
        if self.inner.session() != self.session {
            return Err(self.inner.cluster.unavailable("another writer has begun; there is one at a time"));
        }
        let admitted = self.floor.admit(flush)?;
        let Flush { changes, progress } = admitted.flush;
        if changes.is_empty() && progress.is_none() {
            return Ok(admitted.end);
        }
        self.tally.begin();
        self.shapes.renew_routes(locked(&self.inner.routes).generation);
        self.send_shapes(&changes)?;
        let now_us = now_us();
        let mut encoded = std::mem::take(&mut self.encoded);
        for change in &changes {
            self.encoder.encode(change, now_us, &mut encoded);
            self.send_change(change, &encoded)?;
        }
        self.encoded = encoded;
        let end = progress.as_ref().map(|progress| progress.end);
        if let Some(progress) = progress {
            let record = ProgressRecord {
                progress,
                acknowledged: self.acknowledged,
                sent: locked(&self.inner.routes).sent(),
            };
            self.send_record(&Record::Progress(Box::new(record)))?;
        }
        self.tally.wait().map_err(|error| self.inner.cluster.error(&error))?;
        if self.tally.went_back() {
            return Err(self.inner.cluster.damaged("its progress topic was deleted while it was written to"));
        }
        self.settle(end);
        Ok(admitted.end)
    }

    /// Notes what was acknowledged. After a record, a reader may begin after all of it.
    fn settle(&mut self, end: Option<EndLsn>) {
        locked(&self.inner.routes).acknowledge(&self.tally.next(), end.is_some());
        self.acknowledged = end.unwrap_or(self.acknowledged);
        self.shapes.drop_old();
    }

    /// Writes the shapes that are new since the session's last such record, with all that are in use.
    fn send_shapes(&mut self, changes: &[Change]) -> Result<(), LogError> {
        if self.shapes.known.len() >= SHAPES_MAX {
            self.shapes.known.clear();
        }
        let mut is_new = false;
        for change in changes {
            if self.shapes.known.contains_key(&(Arc::as_ptr(&change.relation) as usize)) {
                continue;
            }
            let json = serde_json::to_vec(change.relation.as_ref())
                .map_err(|error| self.inner.cluster.damaged(&error.to_string()))?;
            let hash = format!("{:016x}", relation_hash(&json));
            let topic = self.encoder.topic(&change.relation.table);
            is_new |= self.shapes.add(&change.relation, hash, topic);
        }
        if !is_new {
            return Ok(());
        }
        let relations = self.shapes.relations.clone();
        self.send_record(&Record::Tables(TablesRecord { version: VERSION, log: self.inner.id(), relations }))
    }

    fn send_record(&self, record: &Record) -> Result<(), LogError> {
        let (key, value) = record.bytes().map_err(|error| self.inner.cluster.damaged(&error.to_string()))?;
        let topic = self.inner.progress_topic();
        let record = BaseRecord::with_opaque_to(&topic, PROGRESS_SLOT);
        let record = record.partition(0).key(key.as_bytes()).payload(value.as_slice());
        produce(&self.producer, &self.tally, record).map_err(|error| self.inner.cluster.error(&error))
    }

    fn send_change(&mut self, change: &Change, encoded: &Encoded) -> Result<(), LogError> {
        let missing = || self.inner.cluster.damaged("a table's shape was not written");
        let shape =
            self.shapes.known.get_mut(&(Arc::as_ptr(&change.relation) as usize)).ok_or_else(missing)?;
        let route = match shape.route {
            Some(route) => route,
            None => *shape.route.insert(self.inner.route(&shape.topic)?),
        };
        let shape = &*shape;
        let records = encoded.records();
        // A deletion's tombstone and the delete half of a changed key say nothing that must be awaited.
        let telling =
            if matches!(change.operation, Operation::Delete { .. }) { 0 } else { records.len() - 1 };
        for (index, record) in records.enumerate() {
            let partition = record.key.map_or(0, |key| murmur2::partition(key, route.count));
            let slot = route.slot(partition);
            if index == telling {
                locked(&self.inner.routes).note_sent(slot, change.position);
            }
            let mut headers = OwnedHeaders::new_with_capacity(record.headers().len() + 1);
            for (key, value) in record.headers() {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            headers = headers.insert(Header { key: RELATION_HEADER, value: Some(shape.hash.as_bytes()) });
            let mut out =
                BaseRecord::with_opaque_to(&shape.topic, slot).partition(partition).headers(headers);
            out.key = record.key;
            out.payload = record.value;
            produce(&self.producer, &self.tally, out).map_err(|error| self.inner.cluster.error(&error))?;
        }
        Ok(())
    }
}

impl Shapes {
    /// Whether the shape must be written.
    fn add(&mut self, relation: &Arc<Relation>, hash: String, topic: String) -> bool {
        let is_new = self.relations.insert(hash.clone(), relation.as_ref().clone()).is_none();
        self.newest.insert(relation.table.clone(), hash.clone());
        let address = Arc::as_ptr(relation) as usize;
        self.known.insert(address, Shape { _kept: relation.clone(), hash, topic, route: None });
        is_new
    }

    /// Behind a flush each table has one shape in use: old ones go, so that records stay small. One that comes back
    /// is written again.
    fn drop_old(&mut self) {
        let newest = &self.newest;
        let before = self.relations.len();
        self.relations.retain(|hash, relation| newest.get(&relation.table) == Some(hash));
        if self.relations.len() < before {
            let relations = &self.relations;
            self.known.retain(|_, shape| relations.contains_key(&shape.hash));
        }
    }

    /// Routes that no longer hold are looked up again.
    fn renew_routes(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.known.values_mut().for_each(|shape| shape.route = None);
        }
    }
}
