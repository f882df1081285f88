//! Who may serve with a folder: one process at a time.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The right to serve with a folder. It is a lock (flock(2)) on the folder itself, so nothing needs to be written for it. It
/// passes on to the next process without being free in between, and ends with the last process that has it.
#[derive(Debug)]
pub struct Tenure {
    folder: PathBuf,
    lock: Option<File>,
}

impl Tenure {
    /// `None` if another process has it.
    ///
    /// # Errors
    /// If the folder cannot be opened.
    pub(super) fn of(folder: &Path) -> io::Result<Option<Self>> {
        let lock = File::open(folder)?;
        let lock = match lock.try_lock() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    %error,
                    remedy = "start one process for each state folder",
                    "the state folder's file system has no locks"
                );
                None
            }
        };
        Ok(Some(Self { folder: folder.to_path_buf(), lock }))
    }

    /// As another process passed it on.
    pub(super) fn passed(folder: PathBuf, lock: Option<OwnedFd>) -> Self {
        Self { folder, lock: lock.map(File::from) }
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
