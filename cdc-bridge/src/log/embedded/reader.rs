//! Reads the embedded log: promised values, in order, as batches of bounded size.

use super::bookmark::Bookmark;
use super::file::State;
use super::store::Store;
use crate::log::contract::{BATCH_BYTES_MAX, Batch, LogError};
use migrations::names::TableName;
use rows::binary::{Changes, Malformed, Value};
use rows::change::Relation;
use rows::progress::{LogId, Progress};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::watch;

/// Values of other tables that are passed over before a batch ends all the same, so that a read transaction is short.
const PASSED_BYTES_MAX: usize = 8 << 20;
/// Shapes of tables that a reader remembers; beyond it forgets all and looks them up again.
const SHAPES_MAX: usize = 4096;

#[derive(Debug)]
pub struct EmbeddedReader {
    store: Arc<Store>,
    state: watch::Receiver<State>,
    log: LogId,
    place: Place,
}

/// Where a reader is. It is replaced as a whole, so that a read that was cancelled has not happened.
#[derive(Debug, Clone)]
struct Place {
    /// The value to read next, or the one being read.
    key: u64,
    /// What is left of it, and the record that ends it.
    partly: Option<Box<(Changes, Option<Progress>)>>,
    shapes: Shapes,
}

/// The relations that a reader has met; `None` for those of other tables.
#[derive(Debug, Clone)]
pub(crate) struct Shapes {
    tables: Arc<BTreeSet<TableName>>,
    known: Arc<HashMap<u64, Option<Arc<Relation>>>>,
}

impl EmbeddedReader {
    pub(crate) fn new(store: Arc<Store>, log: LogId, tables: BTreeSet<TableName>, key: u64) -> Self {
        let state = store.state();
        let place = Place { key, partly: None, shapes: Shapes::of(tables) };
        Self { store, state, log, place }
    }

    pub(crate) async fn next(&mut self) -> Result<Batch, LogError> {
        loop {
            let promised = {
                let state = self.state.borrow_and_update();
                if state.log != self.log {
                    return Err(LogError::Trimmed);
                }
                state.promised
            };
            if self.place.key < promised {
                let (store, place, log) = (self.store.clone(), self.place.clone(), self.log.clone());
                let read = tokio::task::spawn_blocking(move || place.read(&store, promised, &log));
                let (place, batch) = read.await.map_err(|error| self.store.damaged(&error.to_string()))??;
                self.place = place;
                if !batch.changes.is_empty() || batch.progress.is_some() {
                    return Ok(batch);
                }
            } else if self.state.changed().await.is_err() {
                // The store is held by us: its sender cannot be gone.
                return Err(self.store.damaged("it was closed"));
            }
        }
    }
}

#[derive(Default)]
struct Growing {
    batch: Batch,
    size: usize,
    passed: usize,
}

impl Growing {
    /// Takes changes until the batch is full; true when all were taken.
    fn take(&mut self, changes: &mut Changes) -> Result<bool, Malformed> {
        while self.size < BATCH_BYTES_MAX {
            let Some(change) = changes.next().transpose()? else { return Ok(true) };
            self.size += change.size();
            self.batch.changes.push(change);
        }
        Ok(false)
    }

    /// Everything up to this record is in the batch; the cursor begins at `key`.
    fn end(&mut self, mut progress: Progress, log: &LogId, key: u64) {
        let cursor = Bookmark { log: log.clone(), key, point: Some(progress.point()) }.cursor();
        if let Some((before, _)) = self.batch.progress.take() {
            progress.messages.splice(0..0, before.messages);
        }
        self.batch.progress = Some((progress, cursor));
    }

    /// Whether a value may still be added: once a record ended the batch, only one that is whole, fits, and speaks of the
    /// same tables.
    fn has_room(&self, value: &Value) -> bool {
        let goes_with = |record: &Progress| {
            let fits = self.size + value.size() <= BATCH_BYTES_MAX;
            fits && value.progress.as_ref().is_some_and(|next| next.captured == record.captured)
        };
        self.passed < PASSED_BYTES_MAX
            && self.batch.progress.as_ref().is_none_or(|(record, _)| goes_with(record))
    }
}

impl Place {
    fn read(mut self, store: &Store, promised: u64, log: &LogId) -> Result<(Place, Batch), LogError> {
        let mut growing = Growing::default();
        let malformed = |malformed: Malformed| store.damaged(&malformed.to_string());
        if let Some(mut partly) = self.partly.take() {
            if !growing.take(&mut partly.0).map_err(malformed)? {
                self.partly = Some(partly);
                return Ok((self, growing.batch));
            }
            if !self.pass(&mut growing, partly.1, log) {
                return Ok((self, growing.batch));
            }
        }
        let (from, mut place) = (self.key, self);
        store.read(from, promised, |_, bytes, relation| {
            let len = bytes.len();
            let value = Value::open(bytes).map_err(malformed)?;
            if !growing.has_room(&value) {
                return Ok(ControlFlow::Break(()));
            }
            growing.passed += len;
            let relations = place.shapes.of_value(&value, relation, store)?;
            let mut changes = value.changes(relations);
            if !growing.take(&mut changes).map_err(malformed)? {
                place.partly = Some(Box::new((changes, value.progress)));
                return Ok(ControlFlow::Break(()));
            }
            let goes_on = place.pass(&mut growing, value.progress, log);
            Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok((place, growing.batch))
    }

    /// The value at `key` is read to its end; true when the batch may go on.
    fn pass(&mut self, growing: &mut Growing, progress: Option<Progress>, log: &LogId) -> bool {
        self.key += 1;
        if let Some(progress) = progress {
            growing.end(progress, log, self.key);
        }
        growing.size < BATCH_BYTES_MAX
    }
}

impl Shapes {
    pub(crate) fn of(tables: BTreeSet<TableName>) -> Self {
        Self { tables: Arc::new(tables), known: Arc::default() }
    }

    /// The relations of a value, in its order; those of other tables are left out.
    pub(crate) fn of_value(
        &mut self,
        value: &Value,
        relation: &dyn Fn(u64) -> Result<Vec<u8>, LogError>,
        store: &Store,
    ) -> Result<Vec<Option<Arc<Relation>>>, LogError> {
        value.relations.iter().map(|hash| self.one(*hash, relation, store)).collect()
    }

    fn one(
        &mut self,
        hash: u64,
        relation: &dyn Fn(u64) -> Result<Vec<u8>, LogError>,
        store: &Store,
    ) -> Result<Option<Arc<Relation>>, LogError> {
        if let Some(known) = self.known.get(&hash) {
            return Ok(known.clone());
        }
        let read: Relation =
            serde_json::from_slice(&relation(hash)?).map_err(|error| store.damaged(&error.to_string()))?;
        let wanted = self.tables.contains(&read.table).then(|| Arc::new(read));
        let known = Arc::make_mut(&mut self.known);
        if known.len() >= SHAPES_MAX {
            known.clear();
        }
        known.insert(hash, wanted.clone());
        Ok(wanted)
    }
}
