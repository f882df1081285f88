//! How far a verification is, on the bridge's disk: one that was stopped or killed goes on there.

use super::table::Key;
use migrations::control::VERSION;
use migrations::journal::Generation;
use migrations::lane::LaneId;
use migrations::names::{SliceName, TableName};
use migrations::stage::Owner;
use migrations::verify::{Course, Difference, Listed, RowKey, Verification};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Differences and other rows that are listed; more are counted.
pub(crate) const LISTED_MAX: usize = 1000;

/// What a verification compared so far, and what it found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// [`VERSION`].
    version: u32,
    /// Names it among the verifications of this bridge.
    pub(crate) id: Uuid,
    pub(crate) slice: SliceName,
    pub(crate) owner: Owner,
    /// The slice's mapping hash. Under another one rows are compared in another way.
    mapping: String,
    /// The lanes that are verified, each with its copy.
    pub(crate) lanes: BTreeMap<LaneId, Generation>,
    pub(crate) tables: BTreeMap<TableName, Progress>,
    /// Rows that looked different, by table.
    pub(crate) suspects: BTreeMap<TableName, Vec<Suspect>>,
    pub(crate) differences: Listed<Difference>,
    pub(crate) changing: Listed<RowKey>,
    pub(crate) undecided: Listed<RowKey>,
    pub(crate) repaired: u64,
    pub(crate) unsearched: BTreeSet<TableName>,
    pub(crate) elapsed_ms: u64,
    pub(crate) is_done: bool,
}

/// How far one table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) rows: u64,
    pub(crate) rows_estimated: u64,
    pub(crate) place: Place,
}

/// Where in a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// The source's rows up to this key were compared.
    Rows(Option<Key>),
    /// All of them were. The sink's keys up to this one were found at the source.
    SinkKeys(Option<Key>),
    End,
}

/// A row that looked different and was not proven to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suspect {
    pub(crate) key: Key,
    /// How often it was looked at.
    pub(crate) looks: u32,
    /// Whether only an open transaction was in the way at the last look.
    pub(crate) is_undecided: bool,
}

impl Kept {
    pub(crate) fn new(
        slice: SliceName,
        owner: Owner,
        mapping: String,
        lanes: BTreeMap<LaneId, Generation>,
    ) -> Kept {
        Kept {
            version: VERSION,
            id: Uuid::new_v4(),
            slice,
            owner,
            mapping,
            lanes,
            tables: BTreeMap::new(),
            suspects: BTreeMap::new(),
            differences: Listed::default(),
            changing: Listed::default(),
            undecided: Listed::default(),
            repaired: 0,
            unsearched: BTreeSet::new(),
            elapsed_ms: 0,
            is_done: false,
        }
    }

    /// Whether another verification that begins now would do the rest of this one.
    pub(crate) fn goes_on(&self, fresh: &Kept) -> bool {
        !self.is_done && self.mapping == fresh.mapping && self.lanes == fresh.lanes
    }

    pub(crate) fn suspects(&self) -> usize {
        self.suspects.values().map(Vec::len).sum()
    }

    /// The report. What was found is listed once it has ended: it may be long, and is asked for often until then.
    pub(crate) fn report(&self, course: Course, is_watched: bool) -> Verification {
        let sum = |of: fn(&Progress) -> u64| self.tables.values().map(of).sum();
        let is_short = course.is_under_way();
        Verification {
            version: VERSION,
            slice: self.slice.clone(),
            course,
            owner: self.owner,
            rows: sum(|progress| progress.rows),
            rows_estimated: sum(|progress| progress.rows_estimated.max(progress.rows)),
            differences: listed(&self.differences, is_short),
            changing: listed(&self.changing, is_short),
            undecided: listed(&self.undecided, is_short),
            repaired: self.repaired,
            unsearched: self.unsearched.clone(),
            is_watched,
            elapsed_ms: self.elapsed_ms,
        }
    }
}

fn listed<T: Clone>(all: &Listed<T>, is_short: bool) -> Listed<T> {
    let listed = if is_short { Vec::new() } else { all.listed.clone() };
    Listed { total: all.total, listed }
}

/// Where the verification of a slice is kept.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    path: PathBuf,
}

impl Shelf {
    pub(crate) fn of(folder: &Path, slice: &SliceName) -> Shelf {
        Shelf { path: folder.join(format!("verify-{slice}.json")) }
    }

    /// What is kept; none if there is nothing that this release can read.
    pub(crate) fn read(&self) -> Option<Kept> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!("cannot read {}: {error}", self.path.display());
                }
                return None;
            }
        };
        let kept = serde_json::from_slice::<Kept>(&text).ok().filter(|kept| kept.version == VERSION);
        if kept.is_none() {
            tracing::warn!("{} is of another release; the slice is compared anew", self.path.display());
        }
        kept
    }

    /// Blocks on the disk. A disk that refuses does not stop the verification: it only could not go on after a restart.
    pub(crate) fn write(&self, kept: &Kept) {
        let text = serde_json::to_vec(kept).map_err(io::Error::from);
        if let Err(why) = text.and_then(|text| link::file::replace(&self.path, &text)) {
            tracing::warn!("cannot write {}: {why}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let slice: SliceName = "orders".parse().unwrap();
        let lanes = BTreeMap::from([(LaneId::forward(slice.clone()), Generation(3))]);
        let mut kept = Kept::new(slice, Owner::Monolith, "mapping".to_owned(), lanes);
        let after = Place::Rows(Some(vec!["7".to_owned()]));
        kept.tables
            .insert("public.orders".parse().unwrap(), Progress { rows: 7, rows_estimated: 5, place: after });
        kept
    }

    #[test]
    fn a_verification_goes_on_only_for_the_same_copies_and_mapping() {
        let (kept, fresh) = (kept(), kept());
        assert!(kept.goes_on(&fresh));
        assert!(!Kept { is_done: true, ..kept.clone() }.goes_on(&fresh));
        assert!(!Kept { mapping: "other".to_owned(), ..kept.clone() }.goes_on(&fresh));
        let again = kept.lanes.keys().map(|lane| (lane.clone(), Generation(4))).collect();
        assert!(!Kept { lanes: again, ..kept }.goes_on(&fresh));
    }

    #[test]
    fn what_is_kept_reads_back_and_what_is_damaged_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let kept = kept();
        let shelf = Shelf::of(folder.path(), &kept.slice);
        assert_eq!(shelf.read(), None);
        shelf.write(&kept);
        assert_eq!(shelf.read(), Some(kept));
        std::fs::write(&shelf.path, b"{ \"version\": ").unwrap();
        assert_eq!(shelf.read(), None);
    }

    #[test]
    fn an_estimate_is_never_less_than_what_was_compared() {
        let report = kept().report(Course::Running, false);
        assert_eq!((report.rows, report.rows_estimated), (7, 7));
    }
}
