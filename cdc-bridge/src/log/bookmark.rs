//! What a cursor says: where a reader begins again, and what it had read by then. Pure.

use rows::progress::{LogId, Point};
use serde::{Deserialize, Serialize};

/// Where a reader can begin again; opaque to everyone but the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

impl Cursor {
    /// The key that is read next; 0 for a cursor that is not ours.
    pub(crate) fn key(&self) -> u64 {
        Bookmark::read(self).map_or(0, |bookmark| bookmark.key)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bookmark {
    pub(crate) log: LogId,
    /// Everything before this key was read.
    pub(crate) key: u64,
    /// From this key on is kept what a reader that begins there needs: shapes of tables may lie before the changes.
    pub(crate) base: u64,
    /// Where the log was there. Keys come again in a log that was set back, and mean other values.
    pub(crate) point: Option<Point>,
}

impl Bookmark {
    /// Reads a cursor; none for one that is not ours.
    pub(crate) fn read(cursor: &Cursor) -> Option<Bookmark> {
        let mut parts = cursor.0.splitn(4, '@');
        let log = LogId(parts.next()?.to_owned());
        let key = parts.next()?.parse().ok()?;
        let base = parts.next()?.parse().ok()?;
        Some(Bookmark { log, key, base, point: parts.next().map(|point| Point(point.to_owned())) })
    }

    pub(crate) fn cursor(&self) -> Cursor {
        let point = self.point.as_ref().map(|point| format!("@{}", point.0)).unwrap_or_default();
        Cursor(format!("{}@{}@{}{point}", self.log.0, self.key, self.base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_says_what_its_bookmark_does() {
        for point in [None, Some(Point("0/5 ab".to_owned()))] {
            let bookmark = Bookmark { log: LogId("log".to_owned()), key: 7, base: 3, point };
            assert_eq!(Bookmark::read(&bookmark.cursor()), Some(bookmark));
        }
        for other in ["", "log", "log@", "log@x", "log@7", "log@7@x", "{}"] {
            assert_eq!(Bookmark::read(&Cursor(other.to_owned())), None, "{other}");
        }
    }
}
