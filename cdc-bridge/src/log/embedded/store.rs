//! The store on disk: one redb file with the values of all flushes, the relations they use, and one record about
//! the log itself. It appends, reads, drops and opens itself again after a failure; it knows nothing of changes.
//!
//! Everything here blocks: callers are on threads that may.

use super::file::{FLUSHES, Failure, HINT_DISK, Open, RELATIONS, open, put_state, said, unavailable};
use crate::log::contract::LogError;
use crate::log::extent::Extent;
use crate::log::values::{Addition, Found, Shape, Visit};
use bytes::Bytes;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use rows::progress::Point;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::watch;

/// Values dropped in one transaction, so that an append never waits long for a trim.
const TRIM_VALUES_MAX: usize = 256;
/// From this size on every commit also writes what redb needs to open the file after a crash. Otherwise redb then reads all
/// of it. Such a commit costs a second sync (measured: 7.3 ms instead of 3.7), so a log that is read to its end, which is
/// small, does without. (Measured with an empty page cache: 5 GiB take 9.9 s to open without it, 1.8 s with it; 256 MiB
/// take 0.5 s without it.)
const QUICK_REPAIR_BYTES_MIN: u64 = 256 << 20;
/// A page of redb, and what it adds to a value in a page of its own (measured with its statistics, rounded up).
const PAGE_BYTES: u64 = 4096;
const PAGE_OVERHEAD: u64 = 64;

/// The store, shared by everyone in this process.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    bytes_max: u64,
    names: (String, String),
    slot: RwLock<Option<Open>>,
    /// Held during a change of the store. The session's number tells writers from each other.
    session: Mutex<u64>,
    published: watch::Sender<Extent>,
}

impl Store {
    /// Opens or makes the file.
    pub(crate) fn open(path: &Path, plan: &str, database: &str, bytes_max: u64) -> Result<Store, LogError> {
        let names = (plan.to_owned(), database.to_owned());
        let (open, state) = open(path, &names)?;
        let published = watch::Sender::new(state);
        let slot = RwLock::new(Some(open));
        Ok(Store { path: path.to_owned(), bytes_max, names, slot, session: Mutex::new(0), published })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is durable now, and a way to wait for more.
    pub(crate) fn extent(&self) -> watch::Receiver<Extent> {
        self.published.subscribe()
    }

    /// Begins a writer's session: the values of a transaction that was never finished go, and every earlier
    /// session is over.
    pub(crate) fn begin_session(&self) -> Result<(u64, Extent), LogError> {
        let mut session = self.lock();
        self.change(|transaction, state| {
            let mut flushes = transaction.open_table(FLUSHES)?;
            let tail: Vec<u64> = flushes.range(state.promised..)?.map(key_of).collect::<Result<_, _>>()?;
            for key in tail {
                state.bytes -= removed(&mut flushes, key)?.min(state.bytes);
            }
            Ok(())
        })?;
        *session += 1;
        Ok((*session, self.published.borrow().clone()))
    }

    /// Appends, durably. Nothing of it is kept on an error, or all of it is.
    pub(crate) fn append(&self, session: u64, addition: &Addition) -> Result<(), LogError> {
        let current = self.lock();
        if *current != session {
            return Err(self.unavailable("another writer has begun", "end this one; there is one at a time"));
        }
        let added: u64 = addition.values.iter().map(|value| space(value.len())).sum();
        let bytes_max = self.bytes_max;
        self.change(|transaction, state| {
            if state.bytes + added > bytes_max {
                return Err(Failure::Said(LogError::Full { bytes: state.bytes }));
            }
            let mut relations = transaction.open_table(RELATIONS)?;
            for Shape { hash, json, .. } in &addition.shapes {
                relations.insert(hash, json.as_slice())?;
            }
            let mut flushes = transaction.open_table(FLUSHES)?;
            let mut key = next_key(&flushes, state)?;
            for value in &addition.values {
                flushes.insert(key, value.as_ref())?;
                key += 1;
            }
            state.bytes += added;
            if let Some(progress) = &addition.progress {
                state.promised = key;
                state.last = Some(progress.clone());
            }
            Ok(())
        })
    }

    /// Drops the promised values before a key, whose point this is.
    pub(crate) fn trim(&self, before: u64, point: Option<&Point>) -> Result<(), LogError> {
        loop {
            let _changing = self.lock();
            if self.published.borrow().first >= before {
                return Ok(());
            }
            self.change(|transaction, state| {
                let mut flushes = transaction.open_table(FLUSHES)?;
                let keys = flushes.range(state.first..before)?.take(TRIM_VALUES_MAX).map(key_of);
                let keys: Vec<u64> = keys.collect::<Result<_, _>>()?;
                let all = keys.len() < TRIM_VALUES_MAX;
                for key in keys {
                    state.bytes -= removed(&mut flushes, key)?.min(state.bytes);
                    state.first = key + 1;
                }
                state.before = point.filter(|_| all).cloned();
                state.first = if all { before } else { state.first };
                Ok(())
            })?;
        }
    }

    /// Deletes the file, with everything that it ever held, and makes another one. It is another log, and every writer's
    /// session is over.
    pub(crate) fn destroy(&self) -> Result<(), LogError> {
        let mut session = self.lock();
        self.with(|open| self.check_file(open))?;
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        let removed = std::fs::remove_file(&self.path);
        removed.map_err(|error| self.unavailable(&error.to_string(), HINT_DISK))?;
        let (open, state) = open(&self.path, &self.names)?;
        *slot = Some(open);
        drop(slot);
        self.published.send_replace(state);
        *session += 1;
        Ok(())
    }

    /// Hands the values from `from` up to, not including, `to` to `visit`, in order, until it has enough.
    /// [`LogError::Trimmed`] where the first is no longer kept.
    pub(crate) fn read(&self, from: u64, to: u64, visit: Visit<'_>) -> Result<(), LogError> {
        self.with(|open| {
            let transaction = open.database.begin_read()?;
            let flushes = transaction.open_table(FLUSHES)?;
            let relations = transaction.open_table(RELATIONS)?;
            let relation = |hash: u64| match relations.get(hash) {
                Ok(Some(json)) => {
                    serde_json::from_slice(json.value()).map_err(|error| self.damaged(&error.to_string()))
                }
                Ok(None) => Err(self.damaged("it lacks a table's shape")),
                Err(error) => Err(self.damaged(&error.to_string())),
            };
            let mut expected = from;
            for entry in flushes.range(from..to)? {
                let (key, value) = entry?;
                if key.value() != expected {
                    return Err(Failure::Said(LogError::Trimmed));
                }
                expected += 1;
                let bytes = Bytes::copy_from_slice(value.value());
                let found =
                    Found { key: key.value(), base: expected, is_first: false, bytes, relation: &relation };
                if visit(found).map_err(Failure::Said)?.is_break() {
                    return Ok(());
                }
            }
            if expected < to { Err(Failure::Said(LogError::Trimmed)) } else { Ok(()) }
        })
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A panicking holder leaves a number that is right either way.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write transaction over the store and its state; the new state is published once it is durable. The
    /// caller holds the session's lock.
    fn change(
        &self,
        change: impl FnOnce(&WriteTransaction, &mut Extent) -> Result<(), Failure>,
    ) -> Result<(), LogError> {
        let state = self.with(|open| {
            self.check_file(open)?;
            let mut state = self.published.borrow().clone();
            let mut transaction = open.database.begin_write()?;
            change(&transaction, &mut state)?;
            // Shapes are not among the values: nothing before a key is needed to read on from it.
            state.base = state.promised;
            transaction.set_quick_repair(state.bytes >= QUICK_REPAIR_BYTES_MIN);
            let state = put_state(&transaction, &self.names, state)?;
            transaction.commit()?;
            Ok(state.extent)
        });
        let state =
            state.inspect_err(|error| tracing::debug!(%error, "the embedded log did not take a change"))?;
        self.published.send_replace(state);
        Ok(())
    }

    /// What is written into a deleted file is lost after a restart.
    fn check_file(&self, open: &Open) -> Result<(), Failure> {
        match std::fs::metadata(&self.path) {
            Ok(found) if found.ino() == open.inode => Ok(()),
            _ => {
                let why = "its file was deleted or replaced while the bridge was running";
                Err(Failure::Said(self.unavailable(why, "restart the bridge, then copy its slices again")))
            }
        }
    }

    /// Runs with the open database. After a failure of the disk redb wants to be opened again: the next call does.
    fn with<T>(&self, run: impl FnOnce(&Open) -> Result<T, Failure>) -> Result<T, LogError> {
        let guard = self.opened()?;
        // `opened` answers with an open database or an error.
        let Some(open) = guard.as_ref() else { return Err(self.unavailable("it is closed", HINT_DISK)) };
        match run(open) {
            Ok(value) => Ok(value),
            Err(Failure::Said(error)) => Err(error),
            Err(Failure::Redb(error)) => {
                drop(guard);
                *self.slot.write().unwrap_or_else(PoisonError::into_inner) = None;
                Err(said(&self.path, &error))
            }
        }
    }

    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Open>>, LogError> {
        let guard = self.slot.read().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some() {
            return Ok(guard);
        }
        drop(guard);
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            let (open, state) = open(&self.path, &self.names)?;
            if state.log != self.published.borrow().log {
                return Err(self.unavailable(
                    "its file was deleted or replaced while the bridge was running",
                    "restart the bridge, then copy its slices again",
                ));
            }
            *slot = Some(open);
            // A commit that failed to our face may have reached the disk all the same.
            self.published.send_replace(state);
        }
        drop(slot);
        Ok(self.slot.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn damaged(&self, why: &str) -> LogError {
        LogError::Damaged { place: self.path.display().to_string(), why: why.to_owned() }
    }

    fn unavailable(&self, why: &str, hint: &str) -> LogError {
        unavailable(&self.path, why, hint)
    }
}

fn next_key(flushes: &impl ReadableTable<u64, &'static [u8]>, state: &Extent) -> Result<u64, Failure> {
    let last = flushes.last()?.map(|(key, _)| key.value() + 1);
    Ok(last.unwrap_or(state.promised).max(state.promised))
}

type Entry<'a> =
    Result<(redb::AccessGuard<'a, u64>, redb::AccessGuard<'a, &'static [u8]>), redb::StorageError>;

fn key_of(entry: Entry<'_>) -> Result<u64, redb::StorageError> {
    entry.map(|(key, _)| key.value())
}

/// Removes a value and returns how much space it took.
fn removed(flushes: &mut redb::Table<'_, u64, &'static [u8]>, key: u64) -> Result<u64, Failure> {
    Ok(flushes.remove(key)?.map_or(0, |value| space(value.value().len())))
}

/// The space that a value takes in the file. redb gives large values a run of pages that is a power of two; small
/// ones share pages, half filled where keys rise.
fn space(len: usize) -> u64 {
    let len = len as u64 + PAGE_OVERHEAD;
    if len > PAGE_BYTES { len.next_power_of_two() } else { 2 * len }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether redb reads all of the file to open it as a crash would leave it.
    fn is_read_whole(store: &Store, copy: &Path) -> bool {
        std::fs::copy(store.path(), copy).unwrap();
        let is_whole = Arc::new(AtomicBool::new(false));
        let seen = is_whole.clone();
        let opened = redb::Builder::new()
            .set_repair_callback(move |_| seen.store(true, Ordering::SeqCst))
            .open(copy)
            .unwrap();
        assert!(opened.begin_read().unwrap().open_table(FLUSHES).unwrap().last().unwrap().is_some());
        is_whole.load(Ordering::SeqCst)
    }

    #[test]
    fn after_a_crash_a_large_log_is_opened_without_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("log.redb"), folder.path().join("copy.redb"));
        let store = Store::open(&path, "shop", "monolith", 1 << 40).unwrap();
        let (session, _) = store.begin_session().unwrap();
        let value = Bytes::from(vec![7; 1 << 19]);
        let append = |values| {
            let last = store.published.borrow().last.clone();
            let addition =
                Addition { values: vec![value.clone(); values], progress: last, ..Addition::default() };
            store.append(session, &addition).unwrap();
        };
        append(1);
        assert!(is_read_whole(&store, &copy), "a small one is read: the test sees it");
        append(256);
        assert!(!is_read_whole(&store, &copy));
        let next = store.published.borrow().first + 200;
        store.trim(next, None).unwrap();
        append(1);
        assert!(is_read_whole(&store, &copy), "once its readers have caught up, commits are quick again");
    }
}
