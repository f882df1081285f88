//! How far the log in the cluster is: its name, its last promise and whether it was kept, and where a writer and a reader
//! go on. Everything here blocks.

use super::client::Cluster;
use super::delivery::{Deliveries, Tally, produce};
use super::lock::locked;
use super::look::Look;
use super::record::{
    Bookmark, LogRecord, MadeFor, ProgressRecord, Record, Sent, TablesRecord, VERSION, position,
};
use super::routes::{PROGRESS_SLOT, Route, Routes};
use super::topics::Shape;
use crate::log::contract::{LogError, other_history};
use migrations::lsn::{EndLsn, Position, Timeline};
use migrations::names::PlanName;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use rows::envelope::Context;
use rows::progress::{LogId, Progress};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// So many records of a partition's end are read for its last position: tombstones have none.
const TAIL_RECORDS: i64 = 16;
/// A log that was known counts as gone if it is missing again after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);

pub(super) enum Found {
    Nothing,
    /// An empty topic: its maker was stopped before it wrote the log's name.
    Blank,
    /// A topic whose records someone removed.
    Emptied,
    Log(Named),
}

/// What a log says of itself at its beginning.
pub(super) struct Named {
    /// The system identifier of the server that it was made for, unless someone took the log's first records away.
    pub(crate) system_id: Option<String>,
    /// For whom it was made, unless that is this plan and this database, or is not known either.
    pub(crate) other: Option<MadeFor>,
}

/// Where the progress topic stands.
pub(super) struct Last {
    offset: i64,
    record: ProgressRecord,
    /// Everything that it promises has arrived.
    is_kept: bool,
    tables: Option<i64>,
}

impl Last {
    /// The system identifier of the server that the log was filled from.
    pub(super) fn system_id(&self) -> String {
        self.record.progress.timeline.system_id.clone()
    }

    /// What holds: its promise if it was kept, else the one before.
    pub(super) fn promise(self) -> Option<Progress> {
        if self.is_kept { Some(self.record.progress) } else { self.record.before() }
    }
}

/// JSON of a row, in multiples of the row: text of control characters alone is escaped to six times its size. More than this
/// would make a record of the largest usual row larger than a broker takes in one request (`socket.request.max.bytes`,
/// 100 MiB). Where an update with old and new values would be larger, the old ones are left out.
const RECORD_GROWTH: u64 = 6;

/// What the log's parts share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) cluster: Cluster,
    pub(super) plan: PlanName,
    pub(super) context: Context,
    pub(super) partitions: i32,
    pub(super) replication: i32,
    pub(super) id: Mutex<LogId>,
    pub(super) routes: Mutex<Routes>,
    /// The tables' topics that this process prepared and did not remove.
    pub(super) made: Mutex<BTreeSet<String>>,
    /// The number of the last writer.
    pub(super) session: AtomicU64,
    pub(super) row_bytes_max: AtomicU64,
    /// Whether this process made the log, or removed something that was read from it.
    pub(super) is_used: AtomicBool,
    /// Whether the log was there when it was looked for last.
    pub(super) is_known: AtomicBool,
}

impl Inner {
    pub(super) fn id(&self) -> LogId {
        locked(&self.id).clone()
    }

    pub(super) fn made_for(&self) -> MadeFor {
        MadeFor { plan: self.plan.to_string(), database: self.context.database.clone() }
    }

    /// The next log is another one: it gets another name, and the writers of this one are done.
    pub(super) fn begin_anew(&self) {
        self.session.fetch_add(1, Ordering::SeqCst);
        self.is_used.store(false, Ordering::SeqCst);
        locked(&self.routes).clear();
        *locked(&self.id) = LogId(uuid::Uuid::new_v4().to_string());
    }

    pub(super) fn session(&self) -> u64 {
        self.session.load(Ordering::SeqCst)
    }

    pub(super) fn progress_topic(&self) -> String {
        format!("{}.strangler.progress", self.context.prefix)
    }

    pub(super) fn record_bytes_max(&self) -> u64 {
        let row = self.row_bytes_max.load(Ordering::Relaxed);
        (row.saturating_mul(RECORD_GROWTH) + (1 << 20)).min(900 << 20)
    }

    pub(super) fn shape(&self, partitions: i32) -> Shape {
        Shape { partitions, replication: self.replication, record_bytes_max: self.record_bytes_max() }
    }

    /// Looks for the log. Where one was known and is gone, what comes next is another one: slot and copies tell by its name
    /// that they were of the one before.
    pub(super) fn find(&self) -> Result<Found, LogError> {
        let is_there = |found: &Found| matches!(found, Found::Log(_));
        let mut found = self.look_for()?;
        if self.is_known.load(Ordering::SeqCst) && !is_there(&found) {
            // A broker that has just started may not know it yet.
            std::thread::sleep(SECOND_LOOK);
            found = self.look_for()?;
        }
        if self.is_known.swap(is_there(&found), Ordering::SeqCst) && !is_there(&found) {
            self.begin_anew();
        }
        Ok(found)
    }

    fn look_for(&self) -> Result<Found, LogError> {
        let look = Look::new(&self.cluster)?;
        let topic = self.progress_topic();
        if look.partitions(&topic)?.is_none() {
            return Ok(Found::Nothing);
        }
        let Some((first, next)) = look.bounds(&topic, 0)? else { return Ok(Found::Nothing) };
        let messages = look.read(&topic, 0, first, next.min(first + 1))?;
        let Some(message) = messages.first() else {
            return Ok(if next == 0 { Found::Blank } else { Found::Emptied });
        };
        let damaged = |why: &str| self.cluster.damaged(&format!("{topic} {why}"));
        let record = Record::read(message.key(), message.payload());
        let record = record.ok_or_else(|| damaged("holds a record that is not strangler's"))?;
        if record.version() != VERSION {
            return Err(damaged("is of another version of strangler"));
        }
        let named = match &record {
            Record::Log(name) => {
                let ours = self.made_for();
                let other = Some(name.made_for.clone()).filter(|made_for| *made_for != ours);
                Named { system_id: Some(name.system_id.clone()), other }
            }
            // A broker may make a missing topic when something is written into it.
            _ if message.offset() == 0 => {
                return Err(damaged(
                    "was deleted while a bridge wrote into it: it does not begin with the log's name",
                ));
            }
            // Someone took the first records away.
            _ => Named { system_id: None, other: None },
        };
        *locked(&self.id) = record.log().clone();
        Ok(Found::Log(named))
    }

    /// Writes the log's name, and the server that it is made for, into its new topic.
    pub(super) fn write_name(&self, server: &Timeline) -> Result<(), LogError> {
        Look::new(&self.cluster)?.await_partitions(&self.progress_topic())?;
        let wrong = |error: &KafkaError| self.cluster.error(error);
        let tally = Arc::new(Tally::default());
        let producer = self.cluster.producer(self.record_bytes_max());
        let producer: ThreadedProducer<Deliveries> =
            producer.create_with_context(Deliveries(tally.clone())).map_err(|error| wrong(&error))?;
        let record = Record::Log(LogRecord {
            version: VERSION,
            log: self.id(),
            system_id: server.system_id.clone(),
            made_for: self.made_for(),
        });
        let (key, value) = record.bytes().map_err(|error| self.cluster.damaged(&error.to_string()))?;
        let topic = self.progress_topic();
        let record = BaseRecord::with_opaque_to(&topic, PROGRESS_SLOT);
        let record = record.partition(0).key(key.as_bytes()).payload(value.as_slice());
        tally.begin();
        produce(&producer, &tally, record).and_then(|()| tally.wait()).map_err(|error| wrong(&error))
    }

    /// The newest progress record and whether all it promises is there.
    pub(super) fn last(&self) -> Result<Option<Last>, LogError> {
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

    /// Whether a partition has what was sent to it. What someone removed since, as records or with the whole
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
    pub(super) fn take_up(&self) -> Result<Option<Progress>, LogError> {
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

    /// A topic's partitions. A new topic is read first: what is in it was never promised.
    pub(super) fn route(&self, topic: &str) -> Result<Route, LogError> {
        if let Some(route) = locked(&self.routes).get(topic) {
            return Ok(route);
        }
        let look = Look::new(&self.cluster)?;
        let count = look.await_partitions(topic)?;
        self.add_route(&look, topic, count, &BTreeMap::new())
    }

    pub(super) fn end_bookmark(&self) -> Result<Bookmark, LogError> {
        let log = self.id();
        let Some(last) = self.last()? else {
            let offsets = BTreeMap::new();
            return Ok(Bookmark { log, progress: 0, tables: None, end: EndLsn(0), point: None, offsets });
        };
        let look = Look::new(&self.cluster)?;
        let mut offsets: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (topic, partitions) in &last.record.sent {
            for (partition, sent) in partitions {
                // A topic that was removed and made again is met again, where a writer says that it begins.
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
            point: last.is_kept.then(|| last.record.progress.point()),
            offsets,
        })
    }

    /// Refuses a bookmark whose reader read something else than what lies before it. What was removed is not missed.
    fn must_be_at(&self, look: &Look, bookmark: &Bookmark) -> Result<(), LogError> {
        let Some(point) = &bookmark.point else { return Ok(()) };
        let topic = self.progress_topic();
        let before = bookmark.progress - 1;
        if look.bounds(&topic, 0)?.is_none_or(|(first, _)| before < first) {
            return Ok(());
        }
        let messages = look.read(&topic, 0, before, before + 1)?;
        match messages.first().and_then(|message| Record::read(message.key(), message.payload())) {
            Some(Record::Progress(record)) if record.progress.point() == *point => Ok(()),
            _ => Err(other_history(&topic)),
        }
    }

    /// Whether everything after a bookmark is still kept; the shapes that it points to.
    pub(super) fn check(&self, bookmark: &Bookmark) -> Result<Option<TablesRecord>, LogError> {
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
        self.must_be_at(&look, bookmark)?;
        let Some(offset) = bookmark.tables else { return Ok(None) };
        let messages = look.read(&progress, 0, offset, offset + 1)?;
        match messages.first().and_then(|message| Record::read(message.key(), message.payload())) {
            Some(Record::Tables(tables)) => Ok(Some(tables)),
            _ => Err(self.cluster.damaged("a cursor does not point to tables' shapes")),
        }
    }
}
