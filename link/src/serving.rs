//! The processes of one part that serve clients, also while the next one does already.
//!
//! Each holds a lock on a file of its own in the part's folder. So a later process knows that clients may still learn something
//! there which it cannot know, whoever of those between has ended. A process that dies says nothing more.

use rand::random;
use std::fs::{File, TryLockError, read_dir, remove_file, rename};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::sleep;

const PREFIX: &str = "serves.";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Clients may learn from this process until this is dropped.
#[derive(Debug)]
pub struct Serving {
    path: PathBuf,
    _lock: File,
}

/// The processes that served before this one, and may do so still.
#[derive(Debug)]
pub struct Earlier(Vec<PathBuf>);

impl Serving {
    /// # Errors
    /// The file system's, e.g. a full disk.
    pub fn begin(folder: &Path) -> io::Result<Serving> {
        let name = format!("{:016x}", random::<u64>());
        // It has its name only when it is locked: an unlocked one counts as left behind.
        let (fresh, path) = (folder.join(format!(".{name}")), folder.join(format!("{PREFIX}{name}")));
        let lock = File::create_new(&fresh)?;
        let begun = lock.lock().and_then(|()| rename(&fresh, &path));
        if begun.is_err() {
            let _ = remove_file(&fresh);
        }
        begun.map(|()| Serving { path, _lock: lock })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // One that stays is not locked any more.
        let _ = remove_file(&self.path);
    }
}

impl Earlier {
    /// Those that serve now. Asked for by a process that has the folder to itself, before it serves.
    pub fn of(folder: &Path) -> Earlier {
        let files = read_dir(folder).into_iter().flatten().flatten();
        let is_one = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        Earlier(files.filter(|file| is_one(&file.file_name())).map(|file| file.path()).collect())
    }

    /// Waits until no client can learn anything more from any of them.
    pub async fn quiet(self) {
        for path in self.0 {
            while serves(&path) {
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// Whether a process holds the file. One that is left behind is removed.
fn serves(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = remove_file(path);
            false
        }
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tokio::time::timeout;

    async fn is_quiet(folder: &Path) -> bool {
        timeout(LOOK_EVERY * 5, Earlier::of(folder).quiet()).await.is_ok()
    }

    #[tokio::test]
    async fn a_process_waits_for_all_before_it_however_those_between_ended() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_quiet(folder.path()).await, "nobody was here");
        let first = Serving::begin(folder.path()).unwrap();
        let earlier = Earlier::of(folder.path());
        let second = Serving::begin(folder.path()).unwrap();
        assert!(timeout(LOOK_EVERY * 5, earlier.quiet()).await.is_err(), "the first one serves");
        drop(second);
        assert!(!is_quiet(folder.path()).await, "the third waits for the first, too");
        let earlier = tokio::spawn(Earlier::of(folder.path()).quiet());
        let began = Instant::now();
        drop(first);
        earlier.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5) && is_quiet(folder.path()).await);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(format!("{PREFIX}1")), "").unwrap();
        std::fs::write(folder.path().join("desired.json"), "").unwrap();
        assert!(is_quiet(folder.path()).await);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the other file is left");
    }
}
