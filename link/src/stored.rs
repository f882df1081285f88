//! The last `desired` on disk: what an agent goes on with while its controller is away.

use crate::{Link, file};
use migrations::control::{Desired, VERSION};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

const FILE: &str = "desired.json";

#[derive(Debug, Clone)]
pub struct Stored {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error("cannot read {path}")]
    Disk {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no `desired` of this release")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Stored {
    pub(crate) fn of(link: &Link) -> Stored {
        Stored { path: link.state_dir.join(FILE) }
    }

    /// What was kept last. None if nothing was, or if it is of another version of the words.
    ///
    /// # Errors
    /// If there is a file that cannot be read.
    pub fn read(&self) -> Result<Option<Desired>, StoredError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoredError::Disk { path: self.path.clone(), source }),
        };
        let stored =
            read(&text).map_err(|source| StoredError::Unreadable { path: self.path.clone(), source })?;
        if stored.is_none() {
            tracing::warn!(
                "{} was written by another version of strangler and is not used",
                self.path.display()
            );
        }
        Ok(stored)
    }

    /// Keeps `desired` for the next start; blocks on the disk. A disk that refuses does not stop the agent: it only
    /// remembers less.
    pub fn write(&self, desired: &Desired) {
        let written = serde_json::to_vec(desired)
            .map_err(io::Error::from)
            .and_then(|text| file::replace(&self.path, &text));
        if let Err(why) = written {
            tracing::warn!(
                "cannot write {}: {why}; a restart would go on with an older one",
                self.path.display()
            );
        }
    }
}

/// Reads the version before the rest, because another version's words need not have our shape.
pub(crate) fn read(text: &[u8]) -> Result<Option<Desired>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    match serde_json::from_slice::<Versioned>(text)?.version {
        VERSION => serde_json::from_slice(text).map(Some),
        _ => Ok(None),
    }
}
