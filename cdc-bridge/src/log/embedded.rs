//! The log on this machine's disk: compact binary values in one redb file, synced at every append.
//!
//! Each change is in it exactly once: the writer passes over what a source repeats, and the values of a transaction
//! that was never finished go when the next writer begins. Debezium's JSON is made only where someone looks.

mod bookmark;
mod file;
mod reader;
mod store;

pub(crate) use reader::EmbeddedReader;

use super::contract::{Cursor, Event, Flush, LogError, other_history};
use super::floor::Floor;
use bookmark::Bookmark;
use migrations::lsn::{Durable, EndLsn};
use migrations::names::{PlanName, TableName};
use reader::Shapes;
use rows::binary::{Encoder, Malformed, Value, relation_hash};
use rows::change::{Change, Relation};
use rows::envelope::{self, Context, Encoded};
use rows::progress::{LogId, Point, Progress};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use store::{Addition, Store};

/// A value is ended before it grows beyond this. With what redb adds it fits a run of pages of 1 MiB.
const VALUE_BYTES_MAX: usize = (1 << 20) - (8 << 10);
/// Relations that a writer remembers as stored; beyond it forgets all and stores them again.
const RELATIONS_MAX: usize = 4096;
/// `recent` looks no further back than this many bytes of values.
const RECENT_BYTES_MAX: usize = 64 << 20;

/// The embedded log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EmbeddedLog {
    store: Arc<Store>,
    context: Context,
}

impl EmbeddedLog {
    /// Opens or makes the file. A second process that opens it is refused.
    pub(crate) async fn open(
        path: &Path,
        plan: &PlanName,
        context: Context,
        bytes_max: u64,
    ) -> Result<Self, LogError> {
        let (path, plan) = (path.to_owned(), plan.clone());
        let place = path.display().to_string();
        let open = move || {
            let store = Store::open(&path, plan.as_str(), &context.database, bytes_max)?;
            Ok(Self { store: Arc::new(store), context })
        };
        tokio::task::spawn_blocking(open).await.map_err(|error| LogError::Unavailable {
            place,
            why: error.to_string(),
            hint: "restart the bridge".into(),
        })?
    }

    pub(crate) fn id(&self) -> LogId {
        self.store.state().borrow().log.clone()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn describe(&self) -> String {
        format!("embedded log {}", self.store.path().display())
    }

    /// The last durable progress record.
    pub(crate) async fn end(&self) -> Result<Option<Progress>, LogError> {
        Ok(self.store.state().borrow().last.clone())
    }

    /// Nothing is to be made ready.
    pub(crate) async fn prepare(
        &self,
        _tables: &BTreeSet<TableName>,
        _row_bytes_max: u64,
    ) -> Result<(), LogError> {
        Ok(())
    }

    pub(crate) async fn writer(&self) -> Result<EmbeddedWriter, LogError> {
        let (session, state) = self.blocking(Store::begin_session).await?;
        let floor = Floor::new(state.log, state.last.as_ref());
        let work = Work { session, floor, relations: HashMap::new(), encoder: Encoder::default() };
        Ok(EmbeddedWriter { store: self.store.clone(), work: Some(Box::new(work)) })
    }

    /// Behind the last progress record.
    pub(crate) async fn end_cursor(&self) -> Result<Cursor, LogError> {
        let state = self.store.state();
        let state = state.borrow();
        let point = state.last.as_ref().map(Progress::point);
        Ok(Bookmark { log: state.log.clone(), key: state.promised, point }.cursor())
    }

    pub(crate) async fn reader(
        &self,
        tables: BTreeSet<TableName>,
        from: &Cursor,
    ) -> Result<EmbeddedReader, LogError> {
        let Bookmark { log, key, point } = self.find(from)?;
        if let Some(point) = point {
            self.blocking(move |store| must_be_at(store, key, &point)).await?;
        }
        Ok(EmbeddedReader::new(self.store.clone(), log, tables, key))
    }

    /// The newest change events, as Debezium would write them.
    pub(crate) async fn recent(
        &self,
        tables: &BTreeSet<TableName>,
        n: usize,
    ) -> Result<Vec<Event>, LogError> {
        let tables = tables.clone();
        let context = self.context.clone();
        self.blocking(move |store| Ok(events(context, recent(store, tables, n)?, n))).await
    }

    pub(crate) async fn trim(&self, before: &Cursor) -> Result<(), LogError> {
        let Bookmark { key, point, .. } = match self.find(before) {
            Ok(found) => found,
            // It was trimmed that far already.
            Err(LogError::Trimmed) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.blocking(move |store| store.trim(key, point.as_ref())).await
    }

    /// Empties the store; it is another log afterwards.
    pub(crate) async fn destroy(&self) -> Result<(), LogError> {
        self.blocking(Store::destroy).await
    }

    pub(crate) async fn bytes(&self) -> Result<u64, LogError> {
        Ok(self.store.state().borrow().bytes)
    }

    /// What a cursor says, if what comes after it is still kept.
    fn find(&self, cursor: &Cursor) -> Result<Bookmark, LogError> {
        let state = self.store.state();
        let state = state.borrow();
        let found =
            Bookmark::read(cursor).ok_or_else(|| self.store.damaged("a cursor is not one of ours"))?;
        // Another log: the file was deleted, and with it what the cursor stood at.
        if found.log != state.log || found.key < state.first {
            return Err(LogError::Trimmed);
        }
        if found.key > state.promised {
            return Err(other_history(&self.store.path().display().to_string()));
        }
        Ok(found)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Store) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let store = self.store.clone();
        let run = tokio::task::spawn_blocking(move || run(&store)).await;
        run.map_err(|error| self.store.damaged(&error.to_string()))?
    }
}

#[derive(Debug)]
pub struct EmbeddedWriter {
    store: Arc<Store>,
    /// Taken while an append runs, and not put back after an error: then the session is over.
    work: Option<Box<Work>>,
}

#[derive(Debug)]
struct Work {
    session: u64,
    floor: Floor,
    /// The hash of every relation that this session has stored, by the address of what it keeps alive.
    relations: HashMap<usize, (Arc<Relation>, u64)>,
    encoder: Encoder,
}

impl EmbeddedWriter {
    /// Appends a flush; durable when it returns.
    pub(crate) async fn append(&mut self, flush: Flush) -> Result<Option<Durable<EndLsn>>, LogError> {
        let ended = || LogError::Unavailable {
            place: self.store.path().display().to_string(),
            why: "the writer's session has ended with an error".into(),
            hint: "the bridge begins a new one by itself".into(),
        };
        let mut work = self.work.take().ok_or_else(ended)?;
        let store = self.store.clone();
        let append = tokio::task::spawn_blocking(move || {
            let end = work.append(&store, flush)?;
            Ok::<_, LogError>((work, end))
        });
        let (work, end) = append.await.map_err(|error| self.store.damaged(&error.to_string()))??;
        self.work = Some(work);
        Ok(end.map(Durable::attest))
    }
}

impl Work {
    fn append(&mut self, store: &Store, flush: Flush) -> Result<Option<EndLsn>, LogError> {
        let admitted = self.floor.admit(flush)?;
        let Flush { changes, progress } = admitted.flush;
        if !changes.is_empty() || progress.is_some() {
            let mut addition = Addition::default();
            for change in &changes {
                if self.encoder.is_full()
                    || (!self.encoder.is_empty() && self.encoder.len() + tuples(change) > VALUE_BYTES_MAX)
                {
                    addition.values.push(self.encoder.finish(None));
                }
                let hash = self.hash(&change.relation, &mut addition)?;
                self.encoder.push(change, hash);
            }
            if !self.encoder.is_empty() || progress.is_some() {
                addition.values.push(self.encoder.finish(progress.as_ref()));
            }
            addition.progress = progress;
            store.append(self.session, &addition)?;
        }
        Ok(admitted.end)
    }

    fn hash(&mut self, relation: &Arc<Relation>, addition: &mut Addition) -> Result<u64, LogError> {
        let address = Arc::as_ptr(relation) as usize;
        if let Some((_, hash)) = self.relations.get(&address) {
            return Ok(*hash);
        }
        let json = serde_json::to_vec(relation.as_ref()).map_err(|error| LogError::Damaged {
            place: relation.table.to_string(),
            why: error.to_string(),
        })?;
        let hash = relation_hash(&json);
        addition.relations.push((hash, json));
        if self.relations.len() >= RELATIONS_MAX {
            self.relations.clear();
        }
        self.relations.insert(address, (relation.clone(), hash));
        Ok(hash)
    }
}

/// Refuses a reader that read something else up to `key` than what lies before it.
fn must_be_at(store: &Store, key: u64, point: &Point) -> Result<(), LogError> {
    let state = store.state().borrow().clone();
    let mut is_there = true;
    if key <= state.first {
        is_there = state.before.is_none_or(|before| before == *point);
    } else {
        store.read(key - 1, key, |_, bytes, _| {
            let value = Value::open(bytes).map_err(|malformed| store.damaged(&malformed.to_string()))?;
            is_there = value.progress.is_some_and(|progress| progress.point() == *point);
            Ok(ControlFlow::Break(()))
        })?;
    }
    if is_there { Ok(()) } else { Err(other_history(&store.path().display().to_string())) }
}

/// Roughly what a change adds to a value.
fn tuples(change: &Change) -> usize {
    change.size().saturating_sub(std::mem::size_of::<Change>()) + 64
}

/// The newest events of some changes, without their tombstones.
fn events(context: Context, changes: VecDeque<Change>, n: usize) -> Vec<Event> {
    let mut encoder = envelope::Encoder::new(context);
    let mut encoded = Encoded::new();
    let json = |bytes: Option<&[u8]>| serde_json::from_slice(bytes.unwrap_or(b"null")).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut events = VecDeque::new();
    for change in &changes {
        // Nothing is processed here: the time of commit is the only one there is.
        encoder.encode(change, change.transaction.committed_us, &mut encoded);
        for record in encoded.records().filter(|record| record.value.is_some()) {
            events.push_back(Event {
                topic: encoder.topic(&change.relation.table),
                key: json(record.key),
                value: json(record.value),
                headers: record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect(),
            });
        }
    }
    events.drain(..events.len().saturating_sub(n));
    events.into()
}

/// The newest changes of some tables, oldest first.
fn recent(store: &Store, tables: BTreeSet<TableName>, n: usize) -> Result<VecDeque<Change>, LogError> {
    let (first, mut key) = {
        let state = store.state();
        let state = state.borrow();
        (state.first, state.promised)
    };
    let mut shapes = Shapes::of(tables);
    let mut newest = VecDeque::new();
    let mut looked = 0;
    while key > first && newest.len() < n && looked < RECENT_BYTES_MAX {
        key -= 1;
        let mut found = Vec::new();
        store.read(key, key + 1, |_, bytes, relation| {
            looked += bytes.len();
            let malformed = |malformed: Malformed| store.damaged(&malformed.to_string());
            let value = Value::open(bytes).map_err(malformed)?;
            let relations = shapes.of_value(&value, relation, store)?;
            found = value.changes(relations).collect::<Result<_, _>>().map_err(malformed)?;
            Ok(ControlFlow::Break(()))
        })?;
        let missing = n - newest.len();
        for change in found.into_iter().rev().take(missing) {
            newest.push_front(change);
        }
    }
    Ok(newest)
}
