//! Where a log's values are kept: in order, each under a key that only rises. It knows nothing of changes.
//!
//! Everything here blocks, but for [`Store::blocking`].

use super::bookmark::Bookmark;
use super::contract::{LogError, Owner, other_history};
use super::extent::Extent;
use super::values::{Addition, Found, Visit};
use super::{embedded, kafka};
use migrations::lsn::Timeline;
use rows::binary::Value;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::watch;

/// Shared by everyone in this process. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Embedded(Arc<embedded::Store>),
    Kafka(Arc<kafka::Store>),
}

/// Values that are read at once from the end on backwards, where nothing else tells.
const STEP_BACK: u64 = 64;

/// Reads a store for one reader.
#[derive(Debug)]
pub(crate) enum Tap {
    Embedded(Arc<embedded::Store>),
    Kafka(Box<kafka::Tap>),
}

impl Store {
    /// Runs it on a thread that may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Store) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let store = self.clone();
        let run = tokio::task::spawn_blocking(move || run(&store)).await;
        run.map_err(|error| self.damaged(&error.to_string()))?
    }

    /// What is durable now, and a way to wait for more.
    pub(crate) fn extent(&self) -> watch::Receiver<Extent> {
        match self {
            Store::Embedded(store) => store.extent(),
            Store::Kafka(store) => store.extent(),
        }
    }

    /// Looks whether it is still there and how far it is: others may write where it is kept.
    pub(crate) fn look(&self) -> Result<Extent, LogError> {
        match self {
            Store::Embedded(store) => Ok(store.extent().borrow().clone()),
            Store::Kafka(store) => store.look(),
        }
    }

    /// Whether this process knows a log.
    pub(crate) fn is_known(&self) -> bool {
        match self {
            Store::Embedded(_) => true,
            Store::Kafka(store) => store.is_known(),
        }
    }

    /// The same, if this process cannot know it because it does not write.
    pub(crate) fn look_again(&self) -> Result<(), LogError> {
        match self {
            Store::Kafka(store) if !store.is_written_here() => store.look().map(drop),
            Store::Embedded(_) | Store::Kafka(_) => Ok(()),
        }
    }

    /// How far it is, as this process knows; [`LogError::Missing`] where there is none.
    pub(crate) fn known(&self) -> Result<Extent, LogError> {
        match self {
            Store::Embedded(store) => Ok(store.extent().borrow().clone()),
            Store::Kafka(store) => store.known(),
        }
    }

    pub(crate) fn prepare(&self, row_bytes_max: u64, server: &Timeline) -> Result<(), LogError> {
        match self {
            Store::Embedded(_) => Ok(()),
            Store::Kafka(store) => store.prepare(row_bytes_max, server),
        }
    }

    pub(crate) fn begin_session(&self) -> Result<(u64, Extent), LogError> {
        match self {
            Store::Embedded(store) => store.begin_session(),
            Store::Kafka(store) => store.begin_session(),
        }
    }

    /// Appends, durably. Nothing of it is kept on an error, or all of it is.
    pub(crate) fn append(&self, session: u64, addition: &Addition) -> Result<(), LogError> {
        match self {
            Store::Embedded(store) => store.append(session, addition),
            Store::Kafka(store) => store.append(session, addition),
        }
    }

    /// Drops what a reader from there does not need.
    pub(crate) fn trim(&self, before: &Bookmark) -> Result<(), LogError> {
        match self {
            Store::Embedded(store) => store.trim(before.base, before.point.as_ref()),
            Store::Kafka(store) => store.trim(before.base),
        }
    }

    pub(crate) fn destroy(&self) -> Result<(), LogError> {
        match self {
            Store::Embedded(store) => store.destroy(),
            Store::Kafka(store) => store.destroy(),
        }
    }

    pub(crate) fn owner(&self) -> Result<Option<Owner>, LogError> {
        match self {
            Store::Embedded(store) => Ok(store.extent().borrow().last.as_ref().map(|_| Owner::Us)),
            Store::Kafka(store) => store.owner(),
        }
    }

    pub(crate) fn tap(&self) -> Result<Tap, LogError> {
        Ok(match self {
            Store::Embedded(store) => Tap::Embedded(store.clone()),
            Store::Kafka(store) => Tap::Kafka(Box::new(store.tap()?)),
        })
    }

    /// Refuses a bookmark behind which something is not kept, or before which other things were read than are there.
    pub(crate) fn check(&self, bookmark: &Bookmark, extent: &Extent) -> Result<(), LogError> {
        // Another log: the one before was deleted, and with it what the cursor stood at.
        if bookmark.log != extent.log || bookmark.base < extent.first {
            return Err(LogError::Trimmed);
        }
        if bookmark.key > extent.promised {
            return Err(other_history(&self.place()));
        }
        let Some(point) = bookmark.point.as_ref() else { return Ok(()) };
        let mut is_there = false;
        if bookmark.key <= extent.first {
            is_there = extent.before.as_ref().is_none_or(|before| before == point);
        } else {
            let mut look = |found: Found<'_>| {
                let value =
                    Value::open(found.bytes).map_err(|malformed| self.damaged(&malformed.to_string()))?;
                is_there = value.progress.is_some_and(|progress| progress.point() == *point);
                Ok(ControlFlow::Break(()))
            };
            self.tap()?.read(bookmark.key - 1, bookmark.base, bookmark.key, &mut look)?;
        }
        if is_there { Ok(()) } else { Err(other_history(&self.place())) }
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        match self {
            Store::Embedded(store) => store.path().display().to_string(),
            Store::Kafka(store) => store.place(),
        }
    }

    pub(crate) fn damaged(&self, why: &str) -> LogError {
        LogError::Damaged { place: self.place(), why: why.to_owned() }
    }

    pub(crate) fn unavailable(&self, why: &str, hint: &str) -> LogError {
        LogError::Unavailable { place: self.place(), why: why.to_owned(), hint: hint.to_owned() }
    }
}

impl Tap {
    /// Hands the values from key `from` up to, not including, `to` to `visit`, in order. What
    /// they need is kept from `base` on. [`LogError::Trimmed`] where the first is no longer kept.
    pub(crate) fn read(&mut self, from: u64, base: u64, to: u64, visit: Visit<'_>) -> Result<(), LogError> {
        match self {
            Tap::Embedded(store) => store.read(from, to, visit),
            Tap::Kafka(tap) => tap.read(from, base, to, visit),
        }
    }

    /// A key before `until` that may be read from by itself, not far from it.
    pub(crate) fn back(&self, until: u64, extent: &Extent) -> Result<u64, LogError> {
        match self {
            Tap::Embedded(_) => Ok(until.saturating_sub(STEP_BACK).max(extent.first)),
            Tap::Kafka(_) if until > extent.base => Ok(extent.base),
            Tap::Kafka(tap) => Ok(tap.head(until)?.before.unwrap_or(extent.first).max(extent.first)),
        }
    }
}
