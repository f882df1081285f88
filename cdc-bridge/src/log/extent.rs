//! How far a log is, as its store publishes it whenever that changes. Pure.

use super::bookmark::{Bookmark, Cursor};
use rows::progress::{LogId, Point, Progress};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) log: LogId,
    /// The first key that is kept.
    pub(crate) first: u64,
    /// Where the log was before that key; none if it holds everything from its beginning on, or does not know.
    #[serde(default)]
    pub(crate) before: Option<Point>,
    /// Values before this key are promised by a progress record.
    pub(crate) promised: u64,
    /// What a reader that begins there needs is kept from this key on.
    #[serde(default)]
    pub(crate) base: u64,
    /// Space that the kept values take.
    pub(crate) bytes: u64,
    pub(crate) last: Option<Progress>,
}

impl Extent {
    /// A new log's, whose first key this is.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            log: LogId(uuid::Uuid::new_v4().to_string()),
            first,
            before: None,
            promised: first,
            base: first,
            bytes: 0,
            last: None,
        }
    }

    /// Where a reader begins that has nothing.
    pub(crate) fn start(&self) -> Cursor {
        let point = self.before.clone();
        Bookmark { log: self.log.clone(), key: self.first, base: self.first, point }.cursor()
    }

    /// Where a reader begins that has all that is promised.
    pub(crate) fn end(&self) -> Cursor {
        let point = self.last.as_ref().map(Progress::point);
        Bookmark { log: self.log.clone(), key: self.promised, base: self.base, point }.cursor()
    }
}
