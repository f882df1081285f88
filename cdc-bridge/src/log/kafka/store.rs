//! A log's store in a Kafka cluster: a topic of one partition, whose offsets are the keys of its values.
//!
//! Everything here blocks: callers are on threads that may.

use super::client::Cluster;
use super::delivery::{Deliveries, Tally, produce};
use super::lock::locked;
use super::look::Look;
use super::record::{self, Head, Kind, Last, MadeFor, VERSION};
use super::tap::Tap;
use super::topics::{Shape, Topics};
use crate::log::contract::{LogError, Owner};
use crate::log::extent::Extent;
use crate::log::values::Addition;
use bytes::Bytes;
use migrations::lsn::Timeline;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use rows::binary::Value;
use rows::change::Relation;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;
use tokio::sync::watch;

/// A log that was known counts as gone if it is missing again after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// So often a writer's first head may be overtaken by the last records of the one before.
const TRIES: usize = 5;
/// Another head is written behind so many bytes, each value counted with [`VALUE_BYTES`] more, or behind four times as
/// many as it has itself: who begins reads no more than these, and a trim leaves no more.
const HEAD_EVERY_BYTES: u64 = 8 << 20;
const VALUE_BYTES: u64 = 2 << 10;
/// A session with more shapes ends, and forgets those that nothing uses any more.
const RELATIONS_MAX: usize = 4096;
/// The newest head is searched for in steps of so many records.
const STEP_MAX: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Store {
    pub(super) cluster: Cluster,
    pub(crate) topic: String,
    made_for: MadeFor,
    replication: i32,
    bytes_max: u64,
    row_bytes_max: AtomicU64,
    /// Held while the log is looked at or changed.
    session: Mutex<Session>,
    published: watch::Sender<Extent>,
    /// Whether this process made the log.
    is_used: AtomicBool,
    /// Whether the log was there when it was looked for last.
    is_known: AtomicBool,
}

#[derive(Debug, Default)]
struct Session {
    /// Tells writers from each other.
    number: u64,
    live: Option<Live>,
    /// Bytes of values since the log's beginning.
    written: u64,
}

/// A writer that may append.
struct Live {
    producer: ThreadedProducer<Deliveries>,
    tally: Arc<Tally>,
    /// The next record's offset.
    next: u64,
    head: u64,
    system_id: String,
    relations: BTreeMap<String, Relation>,
    /// Behind so many bytes, counted like [`HEAD_EVERY_BYTES`], another head is due.
    until_head: u64,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("next", &self.next).field("head", &self.head).finish()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // What was not acknowledged was not promised.
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

enum Found {
    Nothing,
    /// A topic without records. `next` is where the first one will be; 0 if it never had any.
    Empty {
        next: u64,
    },
    Log(Box<Seen>),
}

/// A log as it was seen.
struct Seen {
    /// The newest head, and where it lies.
    head: Head,
    at: u64,
    next: u64,
}

impl Store {
    pub(crate) fn new(
        cluster: Cluster,
        topic: String,
        made_for: MadeFor,
        (replication, bytes_max, row_bytes_max): (i32, u64, u64),
    ) -> Store {
        Store {
            cluster,
            topic,
            made_for,
            replication,
            bytes_max,
            row_bytes_max: AtomicU64::new(row_bytes_max),
            session: Mutex::default(),
            published: watch::Sender::new(Extent::new(0)),
            is_used: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
        }
    }

    pub(crate) fn place(&self) -> String {
        format!("Kafka {}, topic {}", self.cluster.brokers, self.topic)
    }

    pub(crate) fn extent(&self) -> watch::Receiver<Extent> {
        self.published.subscribe()
    }

    /// Whether a writer of this process may append.
    pub(crate) fn is_written_here(&self) -> bool {
        match self.session.try_lock() {
            Ok(session) => session.live.is_some(),
            Err(TryLockError::Poisoned(session)) => session.into_inner().live.is_some(),
            Err(TryLockError::WouldBlock) => true,
        }
    }

    pub(crate) fn look(&self) -> Result<Extent, LogError> {
        self.seen(&mut locked(&self.session))?;
        Ok(self.published.borrow().clone())
    }

    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::SeqCst)
    }

    pub(crate) fn known(&self) -> Result<Extent, LogError> {
        if self.is_known() { Ok(self.published.borrow().clone()) } else { self.look() }
    }

    pub(crate) fn owner(&self) -> Result<Option<Owner>, LogError> {
        Ok(Some(match self.find(&mut locked(&self.session))? {
            Found::Nothing => return Ok(None),
            Found::Empty { next: 0 } => Owner::Nobody,
            Found::Empty { .. } => Owner::Unknown,
            Found::Log(_) if self.is_used.load(Ordering::SeqCst) => Owner::Us,
            Found::Log(seen) if seen.head.made_for != self.made_for => {
                let MadeFor { plan, database } = seen.head.made_for;
                Owner::Other(format!("plan {plan}, database {database}"))
            }
            Found::Log(seen) => {
                let last = self.published.borrow().last.clone();
                Owner::Server(last.map_or(seen.head.system_id, |last| last.timeline.system_id))
            }
        }))
    }

    /// Makes the topic, and the log in it, unless that was done. Where two do so at once, the first one's log counts.
    pub(crate) fn prepare(&self, row_bytes_max: u64, server: &Timeline) -> Result<(), LogError> {
        self.row_bytes_max.store(row_bytes_max, Ordering::Relaxed);
        let session = &mut locked(&self.session);
        if matches!(self.find(session)?, Found::Log(_)) {
            return Ok(());
        }
        let record_bytes_max = self.record_bytes_max();
        let shape = Shape { partitions: 1, replication: self.replication, record_bytes_max };
        block(async || Topics::new(&self.cluster)?.ensure_log(&self.topic, shape).await)?;
        Look::new(&self.cluster)?.await_partitions(&self.topic)?;
        // A broker that did not know the topic knows it now.
        let next = match self.find(session)? {
            Found::Log(_) => return Ok(()),
            Found::Nothing => 0,
            Found::Empty { next } => next,
        };
        let head = Head {
            version: VERSION,
            log: self.published.borrow().log.clone(),
            system_id: server.system_id.clone(),
            made_for: self.made_for.clone(),
            begins: true,
            before: None,
            written: 0,
            last: None,
            relations: BTreeMap::new(),
        };
        let (producer, tally) = self.producer()?;
        tally.begin();
        self.send(&producer, &tally, (Kind::Head, next), &self.json(&head)?)?;
        tally.wait().map_err(|error| self.cluster.error(&error))?;
        let name = head.log;
        self.seen(session).map_err(|error| match error {
            LogError::Missing => self.cluster.unavailable("the new log is not there yet"),
            error => error,
        })?;
        self.is_used.fetch_or(self.published.borrow().log == name, Ordering::SeqCst);
        Ok(())
    }

    /// Begins a writer's session at the log's end: every earlier session is over, in this process and elsewhere.
    pub(crate) fn begin_session(&self) -> Result<(u64, Extent), LogError> {
        let mut session = locked(&self.session);
        session.live = None;
        let (producer, tally) = self.producer()?;
        for _ in 0..TRIES {
            let Seen { head, at, next } = *self.seen(&mut session)?;
            let extent = self.published.borrow().clone();
            let head = Head {
                begins: true,
                before: Some(at),
                written: session.written,
                last: last(&extent),
                relations: BTreeMap::new(),
                ..head
            };
            tally.begin();
            self.send(&producer, &tally, (Kind::Head, next), &self.json(&head)?)?;
            tally.wait().map_err(|error| self.cluster.error(&error))?;
            if tally.is_astray() {
                // The last records of another writer came before it.
                continue;
            }
            session.number += 1;
            session.live = Some(Live {
                producer,
                tally,
                next: next + 1,
                head: next,
                system_id: head.system_id,
                relations: BTreeMap::new(),
                until_head: HEAD_EVERY_BYTES,
            });
            return Ok((session.number, extent));
        }
        Err(self.cluster.unavailable("another bridge writes into the log"))
    }

    pub(crate) fn append(&self, number: u64, addition: &Addition) -> Result<(), LogError> {
        let session = &mut *locked(&self.session);
        let mut live = session
            .live
            .take_if(|_| session.number == number)
            .ok_or_else(|| self.cluster.unavailable("another writer has begun; there is one at a time"))?;
        let mut extent = self.published.borrow().clone();
        let added: u64 = addition.values.iter().map(|value| value.len() as u64).sum();
        if extent.bytes + added > self.bytes_max {
            return Err(LogError::Full { bytes: extent.bytes });
        }
        live.tally.begin();
        if live.needs_head(addition) {
            self.send_head(&mut live, session.written, &extent)?;
        }
        for value in &addition.values {
            self.send(&live.producer, &live.tally, (Kind::Value, live.next), value)?;
            live.next += 1;
            live.until_head = live.until_head.saturating_sub(value.len() as u64 + VALUE_BYTES);
        }
        live.tally.wait().map_err(|error| self.cluster.error(&error))?;
        if live.tally.is_astray() {
            return Err(self.cluster.unavailable("another writer has begun, or the topic was made anew"));
        }
        session.written += added;
        extent.bytes += added;
        if let Some(progress) = &addition.progress {
            (extent.promised, extent.base) = (live.next, live.head);
            extent.last = Some(progress.clone());
        }
        session.live = Some(live);
        self.published.send_replace(extent);
        Ok(())
    }

    fn send_head(&self, live: &mut Live, written: u64, extent: &Extent) -> Result<(), LogError> {
        if live.relations.len() > RELATIONS_MAX {
            return Err(self.cluster.unavailable("a session with fewer shapes of tables begins"));
        }
        let head = self.json(&Head {
            version: VERSION,
            log: extent.log.clone(),
            system_id: live.system_id.clone(),
            made_for: self.made_for.clone(),
            begins: false,
            before: Some(live.head),
            written,
            last: last(extent),
            relations: live.relations.clone(),
        })?;
        self.send(&live.producer, &live.tally, (Kind::Head, live.next), &head)?;
        live.head = live.next;
        live.next += 1;
        live.until_head = HEAD_EVERY_BYTES.max(4 * head.len() as u64);
        Ok(())
    }

    fn send(
        &self,
        producer: &ThreadedProducer<Deliveries>,
        tally: &Tally,
        (kind, offset): (Kind, u64),
        payload: &[u8],
    ) -> Result<(), LogError> {
        let key = record::key(kind, offset);
        let record = BaseRecord::with_opaque_to(&self.topic, offset as usize);
        let record = record.partition(0).key(key.as_bytes()).payload(payload);
        produce(producer, tally, record).map_err(|error| self.cluster.error(&error))
    }

    fn producer(&self) -> Result<(ThreadedProducer<Deliveries>, Arc<Tally>), LogError> {
        let tally = Arc::new(Tally::default());
        let config = self.cluster.producer(self.record_bytes_max());
        let producer = config.create_with_context(Deliveries(tally.clone()));
        Ok((producer.map_err(|error: KafkaError| self.cluster.error(&error))?, tally))
    }

    /// Drops the records before a head.
    pub(crate) fn trim(&self, head: u64) -> Result<(), LogError> {
        let session = locked(&self.session);
        if self.published.borrow().first >= head {
            return Ok(());
        }
        let first = self.tap()?.head(head)?;
        block(async || Topics::new(&self.cluster)?.delete_records(&self.topic, head).await)?;
        self.published.send_modify(|extent| {
            (extent.first, extent.bytes) = (head, session.written.saturating_sub(first.written));
        });
        Ok(())
    }

    /// Removes the topic; the next log is another one.
    pub(crate) fn destroy(&self) -> Result<(), LogError> {
        let session = &mut locked(&self.session);
        self.is_known.store(false, Ordering::SeqCst);
        self.begin_anew(session);
        block(async || Topics::new(&self.cluster)?.delete(&self.topic).await)
    }

    pub(crate) fn tap(&self) -> Result<Tap, LogError> {
        Tap::new(self.cluster.clone(), self.topic.clone())
    }

    fn json(&self, head: &Head) -> Result<Vec<u8>, LogError> {
        serde_json::to_vec(head).map_err(|error| self.cluster.damaged(&error.to_string()))
    }

    /// Changes in binary are as large as the rows; a `bytea` is twice as large as its bytes, and there are two rows in an
    /// update.
    fn record_bytes_max(&self) -> u64 {
        let row = self.row_bytes_max.load(Ordering::Relaxed);
        (row.saturating_mul(4) + (1 << 20)).min(900 << 20)
    }

    /// The next log is another one: it gets another name, and the writers of this one are done.
    fn begin_anew(&self, session: &mut Session) {
        *session = Session { number: session.number, ..Session::default() };
        self.is_used.store(false, Ordering::SeqCst);
        self.published.send_replace(Extent::new(0));
    }

    fn seen(&self, session: &mut Session) -> Result<Box<Seen>, LogError> {
        match self.find(session)? {
            Found::Log(seen) => Ok(seen),
            Found::Nothing | Found::Empty { .. } => Err(LogError::Missing),
        }
    }

    /// Looks for the log. Where one was known and is gone, what comes next is another one: slot and copies tell by its name
    /// that they were of the one before.
    fn find(&self, session: &mut Session) -> Result<Found, LogError> {
        let is_there = |found: &Found| matches!(found, Found::Log(_));
        let mut found = self.look_for(session)?;
        if self.is_known.load(Ordering::SeqCst) && !is_there(&found) {
            // A broker that has just started may not know it yet.
            std::thread::sleep(SECOND_LOOK);
            found = self.look_for(session)?;
        }
        if self.is_known.swap(is_there(&found), Ordering::SeqCst) && !is_there(&found) {
            self.begin_anew(session);
        }
        Ok(found)
    }

    fn look_for(&self, session: &mut Session) -> Result<Found, LogError> {
        let look = Look::new(&self.cluster)?;
        if look.partitions(&self.topic)?.is_none() {
            return Ok(Found::Nothing);
        }
        let Some((first, next)) = look.bounds(&self.topic, 0)? else { return Ok(Found::Nothing) };
        let (first, next) = (first as u64, next as u64);
        if first == next {
            return Ok(Found::Empty { next });
        }
        let newest = self.newest_head(&look, first, next)?;
        let (at, head) = newest.ok_or_else(|| {
            self.cluster.damaged(&format!(
                "topic {} holds no log: it was deleted while a bridge wrote into it, or is another program's",
                self.topic
            ))
        })?;
        let seen = Seen { head, at, next };
        let extent = self.extent_of(&look, session, first, &seen)?;
        self.published.send_if_modified(|known| {
            let is_news = *known != extent;
            *known = extent;
            is_news
        });
        Ok(Found::Log(Box::new(seen)))
    }

    fn newest_head(&self, look: &Look, first: u64, next: u64) -> Result<Option<(u64, Head)>, LogError> {
        let (mut until, mut step) = (next, 16);
        while until > first {
            let from = until.saturating_sub(step).max(first);
            let mut newest = None;
            look.each(&self.topic, (from, until), |message| {
                let is_head = record::kind(message.key(), message.offset()) == Some(Kind::Head);
                if let Some(payload) = message.payload().filter(|_| is_head) {
                    newest = Some((message.offset() as u64, payload.to_vec()));
                }
                Ok(())
            })?;
            if let Some((at, payload)) = newest {
                return Ok(Some((at, self.head(at, &payload)?)));
            }
            (until, step) = (from, (step * 2).min(STEP_MAX));
        }
        Ok(None)
    }

    fn head(&self, at: u64, payload: &[u8]) -> Result<Head, LogError> {
        Head::read(at, payload).map_err(|why| self.cluster.damaged(&why))
    }

    /// How far the log is: what the newest head says, and the promises behind it.
    fn extent_of(
        &self,
        look: &Look,
        session: &mut Session,
        first: u64,
        seen: &Seen,
    ) -> Result<Extent, LogError> {
        let (head, at) = (&seen.head, seen.at);
        let mut extent = Extent { log: head.log.clone(), base: at, ..Extent::new(at + 1) };
        if let Some(Last { progress, promised, base }) = head.last.clone() {
            (extent.last, extent.promised, extent.base) = (Some(progress), promised, base);
        }
        session.written = head.written;
        look.each(&self.topic, (at + 1, seen.next), |message| {
            if record::kind(message.key(), message.offset()) != Some(Kind::Value) {
                return Ok(());
            }
            let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
            session.written += bytes.len() as u64;
            let value =
                Value::open(bytes).map_err(|malformed| self.cluster.damaged(&malformed.to_string()))?;
            if let Some(progress) = value.progress {
                (extent.promised, extent.base) = (message.offset() as u64 + 1, at);
                extent.last = Some(progress);
            }
            Ok(())
        })?;
        // A trim leaves a head in the first place. Where someone else took records away, more is kept than is counted.
        extent.first = first;
        let mut first_written = head.written;
        look.each(&self.topic, (first, first + 1), |message| {
            if record::kind(message.key(), message.offset()) == Some(Kind::Head) {
                first_written = self.head(first, message.payload().unwrap_or_default())?.written;
            }
            Ok(())
        })?;
        extent.bytes = session.written.saturating_sub(first_written);
        Ok(extent)
    }
}

impl Live {
    /// Takes the addition's shapes up; whether a head must come before its values.
    fn needs_head(&mut self, addition: &Addition) -> bool {
        let mut is_news = false;
        for shape in &addition.shapes {
            let relation = shape.relation.as_ref().clone();
            is_news |= self.relations.insert(record::shape(shape.hash), relation).is_none();
        }
        is_news || self.until_head == 0
    }
}

/// Waits for what the client library does beside us. The thread may block.
fn block<T>(run: impl AsyncFnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
    tokio::runtime::Handle::current().block_on(run())
}

fn last(extent: &Extent) -> Option<Last> {
    let progress = extent.last.clone()?;
    Some(Last { progress, promised: extent.promised, base: extent.base })
}
