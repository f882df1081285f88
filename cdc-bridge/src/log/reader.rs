//! Reads a store: values back into changes, batch by batch, up to what is promised.

use super::bookmark::Bookmark;
use super::contract::{BATCH_BYTES_MAX, Batch, LogError};
use super::extent::Extent;
use super::store::{Store, Tap};
use super::values::Found;
use migrations::lsn::Position;
use migrations::names::TableName;
use rows::binary::{Changes, Malformed, Value};
use rows::change::Relation;
use rows::progress::{LogId, Progress};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Values of other tables that are passed over before a batch ends all the same, so that a read is short.
const PASSED_BYTES_MAX: usize = 8 << 20;
/// Shapes of tables that a reader remembers; beyond it forgets all and looks them up again.
const SHAPES_MAX: usize = 4096;
/// What another process writes is looked for so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Reader {
    store: Store,
    tap: Arc<Mutex<Tap>>,
    extent: watch::Receiver<Extent>,
    log: LogId,
    place: Place,
}

/// Where a reader is. It is replaced as a whole, so that a read that was cancelled has not happened.
#[derive(Debug, Clone)]
struct Place {
    /// The value to read next, or the one being read.
    key: u64,
    /// What is needed to read it is kept from this key on.
    base: u64,
    /// What is left of it, and the record that ends it.
    partly: Option<Box<(Changes, Option<Progress>)>>,
    /// The last change that was delivered.
    delivered: Position,
    shapes: Shapes,
}

/// The relations that a reader has met; `None` for those of other tables.
#[derive(Debug, Clone)]
pub(super) struct Shapes {
    wanted: Wanted,
    known: Arc<HashMap<u64, Option<Arc<Relation>>>>,
}

/// Whose changes are read.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    Every,
    Of(Arc<BTreeSet<TableName>>),
}

impl Reader {
    /// Begins behind a bookmark; [`LogError::Trimmed`] where what follows is no longer kept.
    pub(super) fn begin(store: &Store, wanted: Wanted, from: Bookmark) -> Result<Reader, LogError> {
        let mut extent = store.extent();
        // Where there is no log, what the bookmark stood at is gone.
        let gone = |error| if matches!(error, LogError::Missing) { LogError::Trimmed } else { error };
        let mut known = store.known().map_err(gone)?;
        if from.log == known.log && from.key > known.promised {
            // Another process may have written meanwhile.
            known = store.look().map_err(gone)?;
        }
        extent.mark_unchanged();
        store.check(&from, &known)?;
        let Bookmark { log, key, base, .. } = from;
        let (partly, delivered, shapes) = (None, Position::default(), Shapes::of(wanted));
        let place = Place { key, base, partly, delivered, shapes };
        let tap = Arc::new(Mutex::new(store.tap()?));
        Ok(Self { store: store.clone(), tap, extent, log, place })
    }

    /// Waits for the next batch. It may be cancelled: nothing is lost. After [`LogError::Unavailable`] it may be
    /// asked again.
    ///
    /// A batch either ends at its progress record or has none: then it is a part of a large transaction whose
    /// rest, up to the record, is durable already.
    pub async fn next(&mut self) -> Result<Batch, LogError> {
        loop {
            let promised = {
                let extent = self.extent.borrow_and_update();
                if extent.log != self.log {
                    return Err(LogError::Trimmed);
                }
                extent.promised
            };
            if self.place.key < promised {
                let (tap, place, log) = (self.tap.clone(), self.place.clone(), self.log.clone());
                let read = move |store: &Store| {
                    // What a panicking holder left is begun anew at the place.
                    let mut tap = tap.lock().unwrap_or_else(PoisonError::into_inner);
                    place.read(store, &mut tap, promised, &log)
                };
                let (place, batch) = self.store.blocking(read).await?;
                self.place = place;
                if !batch.changes.is_empty() || batch.progress.is_some() {
                    return Ok(batch);
                }
                continue;
            }
            match tokio::time::timeout(LOOK_INTERVAL, self.extent.changed()).await {
                Ok(Ok(())) => {}
                // The store is held by us: its sender cannot be gone.
                Ok(Err(_)) => return Err(self.store.damaged("it was closed")),
                Err(_) => self.store.blocking(Store::look_again).await?,
            }
        }
    }
}

struct Growing {
    batch: Batch,
    size: usize,
    passed: usize,
    /// How many of its changes are promised, or were when it began, and the last change before the others.
    settled: (usize, Position),
}

impl Growing {
    /// A batch behind what was handed out before.
    fn behind(delivered: Position) -> Self {
        Self { batch: Batch::default(), size: 0, passed: 0, settled: (0, delivered) }
    }

    /// Another writer begins: what the one before left unpromised, it repeats. What was handed out stays.
    fn forget_unpromised(&mut self, delivered: &mut Position) {
        let dropped = self.batch.changes.drain(self.settled.0..);
        self.size -= dropped.map(|change| change.size()).sum::<usize>();
        *delivered = self.settled.1;
    }

    /// Takes changes until the batch is full; true when all were taken. Those that were handed out before are left out.
    fn take(&mut self, changes: &mut Changes, delivered: &mut Position) -> Result<bool, Malformed> {
        while self.size < BATCH_BYTES_MAX {
            let Some(change) = changes.next().transpose()? else { return Ok(true) };
            if change.position > *delivered {
                *delivered = change.position;
                self.size += change.size();
                self.batch.changes.push(change);
            }
        }
        Ok(false)
    }

    /// Everything up to this record is in the batch, and nothing before the bookmark is needed any more.
    fn end(&mut self, mut progress: Progress, bookmark: &Bookmark, delivered: Position) {
        self.settled = (self.batch.changes.len(), delivered);
        if let Some((before, _)) = self.batch.progress.take() {
            progress.messages.splice(0..0, before.messages);
        }
        self.batch.progress = Some((progress, bookmark.cursor()));
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
    fn read(
        mut self,
        store: &Store,
        tap: &mut Tap,
        promised: u64,
        log: &LogId,
    ) -> Result<(Place, Batch), LogError> {
        let mut growing = Growing::behind(self.delivered);
        let malformed = |malformed: Malformed| store.damaged(&malformed.to_string());
        if let Some(mut partly) = self.partly.take() {
            if !growing.take(&mut partly.0, &mut self.delivered).map_err(malformed)? {
                self.partly = Some(partly);
                return Ok((self, growing.batch));
            }
            let (key, base) = (self.key, self.base);
            if !self.pass(&mut growing, partly.1, log, (key, base)) {
                return Ok((self, growing.batch));
            }
        }
        let (from, base, mut place) = (self.key, self.base, self);
        let mut visit = |found: Found<'_>| {
            let (key, base, len) = (found.key, found.base, found.bytes.len());
            let value = Value::open(found.bytes).map_err(malformed)?;
            if !growing.has_room(&value) {
                return Ok(ControlFlow::Break(()));
            }
            if found.is_first {
                growing.forget_unpromised(&mut place.delivered);
            }
            growing.passed += len;
            let relations = place.shapes.of_value(&value, found.relation)?;
            let mut changes = value.changes(relations);
            if !growing.take(&mut changes, &mut place.delivered).map_err(malformed)? {
                (place.key, place.base) = (key, base);
                place.partly = Some(Box::new((changes, value.progress)));
                return Ok(ControlFlow::Break(()));
            }
            let goes_on = place.pass(&mut growing, value.progress, log, (key, base));
            Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        };
        tap.read(from, base, promised, &mut visit)?;
        Ok((place, growing.batch))
    }

    /// The value at `key` is read to its end; true when the batch may go on.
    fn pass(
        &mut self,
        growing: &mut Growing,
        progress: Option<Progress>,
        log: &LogId,
        (key, base): (u64, u64),
    ) -> bool {
        (self.key, self.base) = (key + 1, base);
        if let Some(progress) = progress {
            let point = Some(progress.point());
            let bookmark = Bookmark { log: log.clone(), key: self.key, base, point };
            growing.end(progress, &bookmark, self.delivered);
        }
        growing.size < BATCH_BYTES_MAX
    }
}

impl Shapes {
    pub(super) fn of(wanted: Wanted) -> Self {
        Self { wanted, known: Arc::default() }
    }

    /// The relations of a value, in its order; those of other tables are left out.
    pub(super) fn of_value(
        &mut self,
        value: &Value,
        relation: &dyn Fn(u64) -> Result<Relation, LogError>,
    ) -> Result<Vec<Option<Arc<Relation>>>, LogError> {
        value.relations.iter().map(|hash| self.one(*hash, relation)).collect()
    }

    fn one(
        &mut self,
        hash: u64,
        relation: &dyn Fn(u64) -> Result<Relation, LogError>,
    ) -> Result<Option<Arc<Relation>>, LogError> {
        if let Some(known) = self.known.get(&hash) {
            return Ok(known.clone());
        }
        let read = relation(hash)?;
        let is_wanted = match &self.wanted {
            Wanted::Every => true,
            Wanted::Of(tables) => tables.contains(&read.table),
        };
        let wanted = is_wanted.then(|| Arc::new(read));
        let known = Arc::make_mut(&mut self.known);
        if known.len() >= SHAPES_MAX {
            known.clear();
        }
        known.insert(hash, wanted.clone());
        Ok(wanted)
    }
}
