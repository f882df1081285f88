//! What the clients were promised: the newest acknowledged state of every order, in memory and in a file of JSON lines.
//! Reading the file gives the same ledger.
//!
//! Knows no database and no network. [`super::proof`] compares the ledger with the databases.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::promise::{Facts, Promise, Removal};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    Place,
    Change,
    Pay,
    Cancel,
    Remove,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum Entry {
    /// A write is about to be sent. Without a later line about it, its outcome is unknown.
    Begun {
        client: u32,
        deed: Deed,
        /// To which order; none for a new one.
        order: Option<i64>,
        /// The client's own reference. It must be in the database at most once.
        reference: Option<String>,
    },
    /// A write was acknowledged with these facts.
    Kept {
        client: u32,
        deed: Deed,
        facts: Facts,
        /// Which side acknowledged it.
        #[serde(default)]
        served_by: Option<String>,
    },
    /// A read returned a newer version than the ledger knew. That is a promise, too.
    Seen { facts: Facts },
    Removed {
        client: u32,
        order: i64,
        #[serde(default)]
        served_by: Option<String>,
    },
    /// A write failed and may or may not have been done.
    Unknown {
        client: u32,
        deed: Deed,
        /// To which order; none for a new one.
        order: Option<i64>,
        reference: Option<String>,
        why: String,
    },
}

/// The promises of one run, and the file they are written to.
#[derive(Debug, Default)]
pub struct Ledger {
    orders: BTreeMap<i64, Promise>,
    unknown: u64,
    owner: Option<String>,
    file: Option<File>,
}

impl Ledger {
    pub fn append_to(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(|| {
            format!("could not write the ledger {}: choose another file with --ledger", path.display())
        })?;
        Ok(Self { file: Some(file), ..Self::default() })
    }

    /// Reads a ledger. An incomplete last line, as a killed run leaves it, is ignored.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| {
            format!("could not read the ledger {}: name it with --ledger", path.display())
        })?;
        let mut ledger = Self::default();
        let mut torn: Option<(usize, serde_json::Error)> = None;
        for (index, line) in BufReader::new(file).lines().enumerate() {
            if let Some((number, error)) = torn.take() {
                return Err(error).with_context(|| format!("{}, line {number}", path.display()));
            }
            match serde_json::from_str::<Entry>(&line?) {
                Ok(entry) => {
                    ledger.fold(&entry);
                }
                Err(error) => torn = Some((index + 1, error)),
            }
        }
        Ok(ledger)
    }

    /// Applies an entry and writes it to the file. Returns a text if it contradicts an earlier entry.
    pub fn enter(&mut self, entry: &Entry) -> anyhow::Result<Option<String>> {
        let contradiction = self.fold(entry);
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(entry)?;
            line.push(b'\n');
            // One write for the whole line, so that a killed run can leave only its last line incomplete.
            file.write_all(&line).context("could not write the ledger: is the disk full?")?;
        }
        Ok(contradiction)
    }

    /// Whether this read says something new, or contradicts the ledger.
    #[must_use]
    pub fn is_news(&self, facts: &Facts) -> bool {
        match self.orders.get(&facts.order).and_then(|promise| promise.facts.as_ref()) {
            Some(known) => {
                facts.version > known.version || (facts.version == known.version && facts != known)
            }
            None => true,
        }
    }

    #[must_use]
    pub fn removal(&self, order: i64) -> Removal {
        self.orders.get(&order).map_or(Removal::None, |promise| promise.removal)
    }

    /// All promises, by number of the order.
    #[must_use]
    pub fn promises(&self) -> &BTreeMap<i64, Promise> {
        &self.orders
    }

    /// How many writes may or may not have been done.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The side that acknowledged the last write: it owns the orders.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The only place where entries change promises, during a run and when a file is read.
    fn fold(&mut self, entry: &Entry) -> Option<String> {
        match entry {
            Entry::Begun { deed: Deed::Remove, order: Some(order), .. } => {
                let promise = self.orders.entry(*order).or_default();
                promise.removal = match promise.removal {
                    Removal::None => Removal::Begun,
                    known => known,
                };
                None
            }
            Entry::Begun { .. } => None,
            Entry::Kept { facts, served_by, .. } => {
                self.owner = served_by.clone().or(self.owner.take());
                self.remember(facts)
            }
            Entry::Seen { facts } => self.remember(facts),
            Entry::Removed { order, served_by, .. } => {
                self.owner = served_by.clone().or(self.owner.take());
                self.orders.entry(*order).or_default().removal = Removal::Done;
                None
            }
            Entry::Unknown { .. } => {
                self.unknown += 1;
                None
            }
        }
    }

    fn remember(&mut self, facts: &Facts) -> Option<String> {
        let promise = self.orders.entry(facts.order).or_default();
        match &promise.facts {
            Some(known) if known.version > facts.version => None,
            Some(known) if known.version == facts.version => (known != facts)
                .then(|| format!("two answers for one version disagree: {known:?} and {facts:?}")),
            _ => {
                promise.facts = Some(facts.clone());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::money::Cents;
    use crate::shop::order::Status;

    fn facts(order: i64, version: i32) -> Facts {
        Facts {
            order,
            version,
            status: Status::Placed,
            note: Some(format!("v{version}")),
            total: Cents(1000),
            paid: Cents(0),
            items: 1,
            payments: vec![],
        }
    }

    fn kept(order: i64, version: i32) -> Entry {
        Entry::Kept { client: 1, deed: Deed::Change, facts: facts(order, version), served_by: None }
    }

    fn begun(order: i64) -> Entry {
        Entry::Begun { client: 1, deed: Deed::Remove, order: Some(order), reference: None }
    }

    fn removed(order: i64, side: Option<&str>) -> Entry {
        Entry::Removed { client: 1, order, served_by: side.map(str::to_owned) }
    }

    fn promise(entries: &[Entry]) -> Promise {
        let mut ledger = Ledger::default();
        for entry in entries {
            ledger.enter(entry).unwrap();
        }
        ledger.promises()[&7].clone()
    }

    #[test]
    fn the_newest_acknowledged_version_is_the_promise() {
        let promise = promise(&[kept(7, 2), kept(7, 4), kept(7, 3)]);
        assert_eq!(promise.facts, Some(facts(7, 4)));
        assert_eq!(promise.broken_by(Some(&facts(7, 4))), None);
        assert_eq!(promise.broken_by(Some(&facts(7, 5))), None);
        assert!(promise.broken_by(Some(&facts(7, 3))).is_some());
        assert!(promise.broken_by(None).is_some());
    }

    #[test]
    fn the_same_version_with_other_contents_is_a_broken_promise() {
        let promise = promise(&[kept(7, 2)]);
        assert!(promise.broken_by(Some(&Facts { note: None, ..facts(7, 2) })).is_some());
    }

    #[test]
    fn an_acknowledged_payment_outlives_later_versions() {
        let paid = Facts { payments: vec![11], paid: Cents(5), ..facts(7, 2) };
        let promise = promise(&[Entry::Kept { client: 1, deed: Deed::Pay, facts: paid, served_by: None }]);
        assert!(promise.broken_by(Some(&facts(7, 3))).is_some());
        assert_eq!(promise.broken_by(Some(&Facts { payments: vec![11, 12], ..facts(7, 3) })), None);
    }

    #[test]
    fn a_started_deletion_allows_absence_and_an_acknowledged_one_requires_it() {
        let tried = promise(&[kept(7, 2), begun(7)]);
        assert_eq!(tried.broken_by(None), None);
        assert_eq!(tried.broken_by(Some(&facts(7, 2))), None);
        let done = promise(&[kept(7, 2), begun(7), removed(7, None), begun(7)]);
        assert_eq!(done.broken_by(None), None);
        assert!(done.broken_by(Some(&facts(7, 2))).is_some());
    }

    #[test]
    fn two_answers_for_one_version_must_agree() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.enter(&kept(7, 2)).unwrap(), None);
        let other = Facts { total: Cents(1), ..facts(7, 2) };
        assert!(ledger.is_news(&other));
        assert!(ledger.enter(&Entry::Seen { facts: other }).unwrap().is_some());
        assert!(!ledger.is_news(&facts(7, 1)));
    }

    #[test]
    fn a_ledger_reads_back_the_same_even_if_its_last_line_is_incomplete() {
        let path = std::env::temp_dir().join(format!("ledger-{}.jsonl", uuid::Uuid::new_v4()));
        let mut written = Ledger::append_to(&path).unwrap();
        let unknown = Entry::Unknown {
            client: 2,
            deed: Deed::Place,
            order: None,
            reference: Some("r".into()),
            why: "timeout".into(),
        };
        for entry in [kept(7, 2), begun(8), unknown, removed(8, Some("orders"))] {
            written.enter(&entry).unwrap();
        }
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"entry\":\"ke").unwrap();
        let read = Ledger::read(&path).unwrap();
        assert_eq!(read.promises(), written.promises());
        assert_eq!((read.unknown(), read.owner()), (1, Some("orders")));
        file.write_all(b"\n{}\n").unwrap();
        assert!(Ledger::read(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
