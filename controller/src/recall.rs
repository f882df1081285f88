//! Requests that were taken back to the monolith while the journal could not be written: an emergency.
//!
//! Proxies hear of it in the answers to their reports, as they hear of copies that are too old. It is kept in a file until the
//! journal has it. [`crate::emergency`] takes them back and tells the journal.

use migrations::code::Code;
use migrations::finding::Finding;
use migrations::names::Requests;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Recalls {
    /// None in a simulation.
    path: Option<PathBuf>,
    held: Mutex<BTreeMap<Requests, Recall>>,
}

/// Who took them back, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recall {
    pub(crate) actor: String,
    pub(crate) reason: String,
}

impl Recalls {
    /// What an earlier controller of this folder kept.
    pub(crate) fn read(path: PathBuf) -> Self {
        let held =
            std::fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from));
        let held = held.unwrap_or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                let path = path.display();
                tracing::error!(%error, %path, "what was taken back in an emergency cannot be read; ask for it again");
            }
            BTreeMap::new()
        });
        Self { path: Some(path), held: Mutex::new(held) }
    }

    pub(crate) fn held(&self) -> BTreeMap<Requests, Recall> {
        self.lock().clone()
    }

    pub(crate) fn requests(&self) -> BTreeSet<Requests> {
        self.lock().keys().cloned().collect()
    }

    pub(crate) fn findings(&self) -> Vec<Finding> {
        let finding = |(requests, recall): (&Requests, &Recall)| {
            let message = format!(
                "the monolith answers {requests} for now: {} took it back while the journal could not be written",
                recall.actor
            );
            let remedy = "bring the monolith's database back; the journal learns of it within a second, and the shares stay at the monolith";
            Finding::warning(Code::ReadsRecalled, message, remedy)
        };
        self.lock().iter().map(finding).collect()
    }

    pub(crate) fn note(&self, requests: &Requests, recall: Recall) -> io::Result<()> {
        let mut held = self.lock();
        let mut next = held.clone();
        next.insert(requests.clone(), recall);
        // The file comes first: what is not kept is not promised.
        self.keep(&next)?;
        *held = next;
        Ok(())
    }

    /// The journal has it. It is not told again by this process, even if the file cannot be written.
    pub(crate) fn forget(&self, requests: &Requests) -> io::Result<()> {
        let mut held = self.lock();
        held.remove(requests);
        self.keep(&held)
    }

    fn keep(&self, held: &BTreeMap<Requests, Recall>) -> io::Result<()> {
        match &self.path {
            Some(path) => link::file::replace(path, &serde_json::to_vec(held)?),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Requests, Recall>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_outlives_the_controller() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recalled.json");
        let orders: Requests = "orders.list".parse().unwrap();
        let recall = Recall { actor: "ann".to_owned(), reason: "the disk burns".to_owned() };
        Recalls::read(path.clone()).note(&orders, recall).unwrap();
        let again = Recalls::read(path.clone());
        assert_eq!(again.requests(), [orders.clone()].into());
        assert!(again.findings()[0].message.contains("ann took it back"));
        again.forget(&orders).unwrap();
        assert_eq!(Recalls::read(path.clone()).requests(), [].into());
        std::fs::write(&path, "half a").unwrap();
        assert_eq!(Recalls::read(path).requests(), [].into(), "a broken file is said, and hinders nothing");
    }

    #[test]
    fn what_cannot_be_kept_is_not_promised() {
        let recalls = Recalls::read(PathBuf::from("/nowhere/recalled.json"));
        let recall = Recall { actor: String::new(), reason: String::new() };
        assert!(recalls.note(&"orders".parse().unwrap(), recall).is_err());
        assert_eq!(recalls.requests(), [].into());
    }
}
