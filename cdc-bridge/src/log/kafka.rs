//! The log in a Kafka cluster: a topic for each table, as Debezium would write it, and one of ours that promises.
//!
//! Rows and the promise go out together, without transactions and without a second round trip: a reader believes
//! `<prefix>.strangler.progress` and waits for the rows it speaks of. Others may read the topics of the tables.

mod client;
mod look;
mod merge;
mod murmur2;
mod reader;
mod record;
mod routes;
mod topics;
mod writer;

pub use reader::KafkaReader;
pub use writer::KafkaWriter;

use super::{Cursor, Event, LogError, LogId, Progress};
use crate::envelope::{self, Context, header};
use client::{ANSWER_MAX, Cluster};
use look::Look;
use migrations::finding::Finding;
use migrations::lsn::{EndLsn, Position};
use migrations::names::{PlanName, TableName};
use migrations::plan::LogChoice;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use reader::Begin;
use record::{Bookmark, LogRecord, ProgressRecord, Record, Sent, TablesRecord, VERSION};
use routes::{Route, Routes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use topics::{Shape, Topics};

/// Rows are this large at most where nobody says otherwise.
const ROW_BYTES_MAX: u64 = 16 << 20;
/// JSON of a row's old and new values, base64 and quotes included, in multiples of the row.
const RECORD_GROWTH: u64 = 3;
/// Records of a partition's end that are looked at for its last position: tombstones have none.
const TAIL_RECORDS: i64 = 16;

/// The log in Kafka. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KafkaLog {
    inner: Arc<Inner>,
}

/// What the log's parts share.
#[derive(Debug)]
struct Inner {
    cluster: Cluster,
    context: Context,
    partitions: i32,
    replication: i32,
    id: Mutex<LogId>,
    routes: Mutex<Routes>,
    /// The number of the last writer.
    session: AtomicU64,
    row_bytes_max: AtomicU64,
}

/// Where the progress topic stands.
struct Last {
    offset: i64,
    record: ProgressRecord,
    /// Everything that it promises has arrived.
    is_kept: bool,
    tables: Option<i64>,
}

impl KafkaLog {
    /// Finds the log, or gives a new one its name; it is made when something is first to be kept.
    pub async fn open(choice: &LogChoice, plan: &PlanName, database: &str) -> Result<Self, LogError> {
        let LogChoice::Kafka { brokers, topic_prefix, partitions, replication, schemas } = choice else {
            let message = format!("the log of plan {plan} is not one that this strangler knows");
            return Err(LogError::Refused(Finding::error(
                "log.unknown",
                message,
                "write `log: { kafka: … }`",
            )));
        };
        let context = Context {
            prefix: topic_prefix.clone(),
            database: database.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            schemas: *schemas,
        };
        let inner = Inner {
            cluster: Cluster { brokers: brokers.clone() },
            context,
            partitions: i32::from(*partitions).max(1),
            replication: i32::from(*replication).max(1),
            id: Mutex::new(LogId(uuid::Uuid::new_v4().to_string())),
            routes: Mutex::default(),
            session: AtomicU64::new(0),
            row_bytes_max: AtomicU64::new(ROW_BYTES_MAX),
        };
        let log = Self { inner: Arc::new(inner) };
        log.blocking(|inner| inner.find().map(drop)).await?;
        Ok(log)
    }

    /// Which log it is.
    pub fn id(&self) -> LogId {
        self.inner.id()
    }

    /// Where it is, for people.
    pub fn describe(&self) -> String {
        format!("Kafka {}, topics {}.*", self.inner.cluster.brokers, self.inner.context.prefix)
    }

    /// The last progress record whose flush has arrived.
    pub async fn end(&self) -> Result<Option<Progress>, LogError> {
        self.blocking(|inner| Ok(inner.last()?.and_then(Last::promise))).await
    }

    /// Makes the missing topics and checks the others.
    pub async fn prepare(&self, tables: &BTreeSet<TableName>, row_bytes_max: u64) -> Result<(), LogError> {
        self.inner.row_bytes_max.store(row_bytes_max, Ordering::Relaxed);
        let names: Vec<String> = self.topics(tables).into_iter().collect();
        let topics = Topics::new(&self.inner.cluster)?;
        topics.ensure(&names, self.inner.shape(self.inner.partitions)).await?;
        self.be_born().await
    }

    /// Begins to append behind the last progress record.
    pub async fn writer(&self) -> Result<KafkaWriter, LogError> {
        let session = self.inner.session.fetch_add(1, Ordering::SeqCst) + 1;
        self.be_born().await?;
        let inner = self.inner.clone();
        let last = self.blocking(Inner::take_up).await?;
        KafkaWriter::new(inner, session, last.as_ref())
    }

    /// Behind the last progress record.
    pub async fn end_cursor(&self) -> Result<Cursor, LogError> {
        self.be_born().await?;
        self.blocking(|inner| Ok(inner.end_bookmark()?.cursor())).await
    }

    /// Reads from a cursor on.
    pub async fn reader(&self, tables: BTreeSet<TableName>, from: &Cursor) -> Result<KafkaReader, LogError> {
        let bookmark = Bookmark::read(from);
        let mut bookmark =
            bookmark.ok_or_else(|| self.inner.cluster.damaged("a cursor is not one of ours"))?;
        if bookmark.log != self.id() {
            return Err(LogError::Trimmed);
        }
        let topics = self.topics(&tables);
        bookmark.offsets.retain(|topic, _| topics.contains(topic));
        self.blocking(move |inner| {
            let shapes = inner.check(&bookmark)?;
            let known: usize = bookmark.offsets.values().map(BTreeMap::len).sum();
            let partitions = known.max(topics.len() * inner.partitions as usize) + 1;
            KafkaReader::new(Begin {
                cluster: inner.cluster.clone(),
                progress_topic: inner.progress_topic(),
                tables,
                topics,
                bookmark,
                shapes,
                partitions,
            })
        })
        .await
    }

    /// The newest change events.
    pub async fn recent(&self, tables: &BTreeSet<TableName>, n: usize) -> Result<Vec<Event>, LogError> {
        let topics = self.topics(tables);
        self.blocking(move |inner| inner.recent(&topics, n)).await
    }

    /// Takes the topics of these tables away.
    pub async fn forget(&self, tables: &BTreeSet<TableName>) -> Result<(), LogError> {
        let names: Vec<String> = self.topics(tables).into_iter().collect();
        locked(&self.inner.routes).remove(&names);
        Topics::new(&self.inner.cluster)?.delete(&names).await
    }

    /// Takes the progress topic away; the next log is another one.
    pub async fn destroy(&self) -> Result<(), LogError> {
        self.inner.session.fetch_add(1, Ordering::SeqCst);
        locked(&self.inner.routes).clear();
        *locked(&self.inner.id) = LogId(uuid::Uuid::new_v4().to_string());
        Topics::new(&self.inner.cluster)?.delete(&[self.inner.progress_topic()]).await
    }

    fn topics(&self, tables: &BTreeSet<TableName>) -> BTreeSet<String> {
        tables.iter().map(|table| envelope::topic(&self.inner.context.prefix, table)).collect()
    }

    /// Makes the progress topic and writes the log's name into it, unless that was done. Where two do so at once,
    /// the first one's name counts.
    async fn be_born(&self) -> Result<(), LogError> {
        if self.blocking(|inner| inner.find()).await? {
            return Ok(());
        }
        let topics = Topics::new(&self.inner.cluster)?;
        topics.ensure(&[self.inner.progress_topic()], self.inner.shape(1)).await?;
        self.blocking(|inner| {
            inner.write_name()?;
            if inner.find()? {
                Ok(())
            } else {
                Err(inner.cluster.unavailable("the new log is not there yet"))
            }
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Arc<Inner>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let inner = self.inner.clone();
        let run = tokio::task::spawn_blocking(move || run(&inner)).await;
        run.map_err(|error| self.inner.cluster.unavailable(&error.to_string()))?
    }
}

impl Inner {
    fn id(&self) -> LogId {
        locked(&self.id).clone()
    }

    fn session(&self) -> u64 {
        self.session.load(Ordering::SeqCst)
    }

    fn progress_topic(&self) -> String {
        format!("{}.strangler.progress", self.context.prefix)
    }

    fn record_bytes_max(&self) -> u64 {
        let row = self.row_bytes_max.load(Ordering::Relaxed);
        (row.saturating_mul(RECORD_GROWTH) + (1 << 20)).min(900 << 20)
    }

    fn shape(&self, partitions: i32) -> Shape {
        Shape { partitions, replication: self.replication, record_bytes_max: self.record_bytes_max() }
    }

    /// Whether the log is there; then its name is known.
    fn find(&self) -> Result<bool, LogError> {
        let look = Look::new(&self.cluster)?;
        let topic = self.progress_topic();
        if look.partitions(&topic)?.is_none() {
            return Ok(false);
        }
        let Some((first, next)) = look.bounds(&topic, 0)? else { return Ok(false) };
        let messages = look.read(&topic, 0, first, next.min(first + 1))?;
        let Some(message) = messages.first() else { return Ok(false) };
        let record = Record::read(message.key(), message.payload());
        let record =
            record.ok_or_else(|| self.cluster.damaged(&format!("{topic} holds what is not ours")))?;
        if record.version() != VERSION {
            return Err(self.cluster.damaged(&format!("{topic} is of another version of strangler")));
        }
        *locked(&self.id) = record.log().clone();
        Ok(true)
    }

    fn write_name(&self) -> Result<(), LogError> {
        let wrong = |error: &rdkafka::error::KafkaError| self.cluster.error(error);
        let producer: BaseProducer =
            self.cluster.producer(self.record_bytes_max()).create().map_err(|error| wrong(&error))?;
        let record = Record::Log(LogRecord { version: VERSION, log: self.id() });
        let (key, value) = record.bytes().map_err(|error| self.cluster.damaged(&error.to_string()))?;
        let topic = self.progress_topic();
        let record = BaseRecord::to(&topic).partition(0).key(key).payload(&value);
        producer.send(record).map_err(|(error, _)| wrong(&error))?;
        producer.flush(ANSWER_MAX).map_err(|error| wrong(&error))
    }

    /// The newest progress record and whether all it promises is there.
    fn last(&self) -> Result<Option<Last>, LogError> {
        let look = Look::new(&self.cluster)?;
        let topic = self.progress_topic();
        let Some((first, next)) = look.bounds(&topic, 0)? else { return Ok(None) };
        let (mut until, mut step) = (next, 8);
        let mut last: Option<(i64, ProgressRecord)> = None;
        while until > first {
            let from = (until - step).max(first);
            for message in look.read(&topic, 0, from, until)?.iter().rev() {
                match (Record::read(message.key(), message.payload()), last.is_some()) {
                    (Some(Record::Progress(record)), false) => last = Some((message.offset(), *record)),
                    (Some(Record::Tables(_)), true) => {
                        return self.judge(&look, last, Some(message.offset()));
                    }
                    _ => {}
                }
            }
            (until, step) = (from, (step * 2).min(1000));
        }
        self.judge(&look, last, None)
    }

    fn judge(
        &self,
        look: &Look,
        last: Option<(i64, ProgressRecord)>,
        tables: Option<i64>,
    ) -> Result<Option<Last>, LogError> {
        let Some((offset, record)) = last else { return Ok(None) };
        let mut is_kept = true;
        for (topic, partition, sent) in record.doubtful() {
            is_kept &= self.has_arrived(look, topic, partition, sent)?;
        }
        Ok(Some(Last { offset, record, is_kept, tables }))
    }

    /// Whether a partition has what was sent to it. What someone took away since, as records or with the whole
    /// topic, is not missed.
    fn has_arrived(&self, look: &Look, topic: &str, partition: i32, sent: Sent) -> Result<bool, LogError> {
        let Some((first, next)) = look.bounds(topic, partition)? else { return Ok(true) };
        if !(first..=next).contains(&sent.offset) {
            return Ok(true);
        }
        let from = (next - TAIL_RECORDS).max(sent.offset);
        let tail = look.read(topic, partition, from, next)?;
        Ok(tail.iter().filter_map(position).any(|position| position >= sent.last))
    }

    /// What a new writer goes on from: the last kept record and the partitions as they are now.
    fn take_up(self: &Arc<Self>) -> Result<Option<Progress>, LogError> {
        let last = self.last()?;
        let look = Look::new(&self.cluster)?;
        let mut sent = last.as_ref().map(|last| last.record.sent.clone()).unwrap_or_default();
        if let Some(last) = last.as_ref().filter(|last| !last.is_kept) {
            // What did not arrive is promised again when it is sent again.
            let floor = last.record.acknowledged;
            sent.values_mut().for_each(|parts| parts.retain(|_, sent| floor.is_past(sent.last.commit)));
        }
        locked(&self.routes).clear();
        for (topic, sent) in sent {
            if let Some(count) = look.partitions(&topic)? {
                self.add_route(&look, &topic, count, &sent)?;
            }
        }
        Ok(last.and_then(Last::promise))
    }

    fn add_route(
        &self,
        look: &Look,
        topic: &str,
        count: i32,
        sent: &BTreeMap<i32, Sent>,
    ) -> Result<Route, LogError> {
        let mut partitions = Vec::with_capacity(count as usize);
        for partition in 0..count {
            let next = look.bounds(topic, partition)?.map_or(0, |(_, next)| next);
            let last: Position = sent.get(&partition).map(|sent| sent.last).unwrap_or_default();
            partitions.push((last, next));
        }
        Ok(locked(&self.routes).add(topic, &partitions))
    }

    /// A topic's partitions. One that is met for the first time is looked at: what is in it was never promised.
    fn route(&self, topic: &str) -> Result<Route, LogError> {
        if let Some(route) = locked(&self.routes).get(topic) {
            return Ok(route);
        }
        let look = Look::new(&self.cluster)?;
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            match look.partitions(topic)? {
                Some(count) => return self.add_route(&look, topic, count, &BTreeMap::new()),
                // A topic that was just made is not known to every broker at once.
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
                None => return Err(self.cluster.unavailable(&format!("topic {topic} is not there"))),
            }
        }
    }

    fn end_bookmark(&self) -> Result<Bookmark, LogError> {
        let log = self.id();
        let Some(last) = self.last()? else {
            return Ok(Bookmark { log, progress: 0, tables: None, end: EndLsn(0), offsets: BTreeMap::new() });
        };
        let look = Look::new(&self.cluster)?;
        let mut offsets: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (topic, partitions) in &last.record.sent {
            for (partition, sent) in partitions {
                // A topic that was taken away and made again is met anew, where a writer says that it begins.
                let bounds = look.bounds(topic, *partition)?.filter(|(_, next)| sent.offset <= *next);
                if let Some((first, _)) = bounds {
                    offsets.entry(topic.clone()).or_default().insert(*partition, sent.offset.max(first));
                }
            }
        }
        Ok(Bookmark {
            log,
            progress: if last.is_kept { last.offset + 1 } else { last.offset },
            tables: last.tables,
            end: if last.is_kept { last.record.progress.end } else { last.record.acknowledged },
            offsets,
        })
    }

    /// Whether everything behind a bookmark is still kept; the shapes that it points to.
    fn check(&self, bookmark: &Bookmark) -> Result<Option<TablesRecord>, LogError> {
        let look = Look::new(&self.cluster)?;
        let progress = self.progress_topic();
        let begins = bookmark.tables.unwrap_or(bookmark.progress);
        let mut places = vec![(progress.as_str(), 0, begins), (progress.as_str(), 0, bookmark.progress)];
        for (topic, partitions) in &bookmark.offsets {
            places.extend(partitions.iter().map(|(partition, offset)| (topic.as_str(), *partition, *offset)));
        }
        for (topic, partition, offset) in places {
            match look.bounds(topic, partition)? {
                Some((first, next)) if (first..=next).contains(&offset) => {}
                _ => return Err(LogError::Trimmed),
            }
        }
        let Some(offset) = bookmark.tables else { return Ok(None) };
        let messages = look.read(&progress, 0, offset, offset + 1)?;
        match messages.first().and_then(|message| Record::read(message.key(), message.payload())) {
            Some(Record::Tables(tables)) => Ok(Some(tables)),
            _ => Err(self.cluster.damaged("a cursor does not point to tables' shapes")),
        }
    }

    fn recent(&self, topics: &BTreeSet<String>, n: usize) -> Result<Vec<Event>, LogError> {
        let look = Look::new(&self.cluster)?;
        let mut found = Vec::new();
        for topic in topics {
            for partition in 0..look.partitions(topic)?.unwrap_or(0) {
                let Some((first, next)) = look.bounds(topic, partition)? else { continue };
                // Every event may have a tombstone behind it.
                let from = (next - 2 * n as i64).max(first);
                let messages = look.read(topic, partition, from, next)?;
                let events =
                    messages.iter().filter_map(|message| Some((position(message)?, event(message)?)));
                found.extend(events);
            }
        }
        // Stable: the two halves of a changed key keep their order. What a writer repeated is shown once.
        found.sort_by_key(|(position, _)| *position);
        found.dedup_by(|(one, a), (other, b)| one == other && a.value["op"] == b.value["op"]);
        let from = found.len().saturating_sub(n);
        Ok(found.into_iter().skip(from).map(|(_, event)| event).collect())
    }
}

impl Last {
    /// What holds: its promise if it was kept, else the one before.
    fn promise(self) -> Option<Progress> {
        if self.is_kept { Some(self.record.progress) } else { self.record.before() }
    }
}

/// The position in a record's headers; a tombstone counts for nothing.
fn position(message: &OwnedMessage) -> Option<Position> {
    message.payload()?;
    let headers = message.headers()?;
    let value = headers.iter().find(|found| found.key == header::POSITION)?.value?;
    std::str::from_utf8(value).ok()?.parse().ok()
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

/// A panic of another thread leaves numbers that are right either way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
