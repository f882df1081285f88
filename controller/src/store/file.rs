//! The journal in a file, for plans without a database: a line of JSON for its id, then one for each entry. A lock on
//! the file makes the compare-and-swap between processes of one machine.

mod lines;

use super::{Draft, Loaded, StoreError};
use lines::Lines;
use migrations::crossing::Moment;
use migrations::journal::{Entry, Generation, JournalId};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// How long another process may hold the file. An append takes a few milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// A journal grows by a few entries a day; one beyond this is none of ours.
const BYTES_MAX: u64 = 64 << 20;

/// What lies beside the file once the journal is in the monolith's database, so that no other is begun here when the
/// plan loses that database.
const WORD: &str = "journal.elsewhere";
const WORD_TEXT: &str =
    "The journal is in the monolith's database. While this file is here, none is begun in this folder.\n";

#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    has_given_way: AtomicBool,
}

impl JournalFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, has_given_way: AtomicBool::new(false) }
    }

    /// What a table that is still empty takes over; none where the file is missing or empty, or where the journal was in
    /// a database before.
    pub(crate) async fn before_the_table(&self) -> Result<Option<Loaded>, StoreError> {
        if !self.path.exists() || self.path.with_file_name(WORD).exists() {
            return Ok(None);
        }
        let before = self.load(Generation(0)).await?;
        Ok(Some(before).filter(|before| before.length > Generation(0)))
    }

    /// Leaves word that the journal is in a database now, and puts the file aside. Once in a process; where it fails, the
    /// next one tries again, and until then all that is missing is a guard.
    pub(crate) async fn give_way(&self) {
        if self.has_given_way.swap(true, Ordering::Relaxed) {
            return;
        }
        let path = self.path.clone();
        let given =
            blocking(&self.path, move || give_way(&path).map_err(|error| refused(&path, &error))).await;
        if let Err(error) = given {
            tracing::warn!(%error, "could not write the marker file that says the journal moved to the database");
        }
    }

    pub(crate) async fn load(&self, after: Generation) -> Result<Loaded, StoreError> {
        let path = self.path.clone();
        blocking(&self.path, move || {
            let (_, _, lines) = open(&path)?;
            let length = lines.length();
            let entries = lines.entries.into_iter().filter(|entry| entry.generation > after).collect();
            Ok(Loaded { journal: lines.journal, length, entries })
        })
        .await
    }

    pub(crate) async fn append(&self, expected: Generation, draft: &Draft) -> Result<Entry, StoreError> {
        let (path, draft) = (self.path.clone(), draft.clone());
        blocking(&self.path, move || append(&path, expected, draft)).await
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let lost = |error: tokio::task::JoinError| refused(path, &error);
    tokio::task::spawn_blocking(work).await.map_err(lost)?
}

/// After an uninstall no journal is in a database any more: a plan without one may begin anew here. Where the word cannot
/// be taken away, the controller's finding names it.
pub fn forget_elsewhere(state_dir: &Path) {
    let _ = std::fs::remove_file(state_dir.join(WORD));
}

/// A plan without a database has no other clock.
pub(super) fn now() -> Moment {
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Moment(u64::try_from(now).unwrap_or_default())
}

fn give_way(path: &Path) -> std::io::Result<()> {
    let word = path.with_file_name(WORD);
    if !word.exists() {
        std::fs::create_dir_all(word.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(&word, WORD_TEXT)?;
    }
    if path.exists() {
        std::fs::rename(path, path.with_extension("jsonl.moved"))?;
    }
    Ok(())
}

fn append(path: &Path, expected: Generation, draft: Draft) -> Result<Entry, StoreError> {
    let (mut file, kept, lines) = open(path)?;
    if lines.length() != expected {
        return Err(StoreError::Conflict(expected));
    }
    let entry = Entry {
        generation: expected.next(),
        at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        actor: draft.actor,
        reason: draft.reason,
        slice: draft.decided.slice,
        event: draft.decided.event,
    };
    let line = lines::line(&entry).map_err(|error| refused(path, &error))?;
    // What a crash left half written behind the last whole line makes room.
    let written = file
        .set_len(kept)
        .and_then(|()| file.seek(SeekFrom::Start(kept)))
        .and_then(|_| file.write_all(line.as_bytes()))
        .and_then(|()| file.sync_all());
    match written {
        Ok(()) => Ok(entry),
        Err(error) => {
            // Whatever reached the disk must not be taken for an entry. If even this fails, the torn line is
            // passed over by the next reader.
            let _ = file.set_len(kept);
            Err(refused(path, &error))
        }
    }
}

/// Opens, locks and reads the file, and begins it where it is missing or empty. The lock ends with the file.
fn open(path: &Path) -> Result<(File, u64, Lines), StoreError> {
    let failed = |error: std::io::Error| refused(path, &error);
    let folder = path.parent().unwrap_or(Path::new("."));
    let word = path.with_file_name(WORD);
    if word.exists() {
        let remedy = format!(
            "put `database` of the monolith back into the plan; or, to begin a journal in which every route is at the monolith, remove {}",
            word.display()
        );
        return Err(StoreError::Elsewhere { remedy });
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
    lock(&file, path)?;
    if file.metadata().map_err(failed)?.len() > BYTES_MAX {
        return Err(StoreError::Refused {
            why: format!("{} is larger than any journal", path.display()),
            remedy: "restore it from a backup, or move it away to begin a new journal".to_owned(),
        });
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    if let Some((kept, lines)) = lines::read(&text)? {
        return Ok((file, kept, lines));
    }
    let journal = JournalId(Uuid::new_v4());
    let first = lines::first_line(journal).map_err(|error| refused(path, &error))?;
    file.set_len(0).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.write_all(first.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok((file, first.len() as u64, Lines { journal, entries: Vec::new() }))
}

fn lock(file: &File, path: &Path) -> Result<(), StoreError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Refused {
                    why: format!("another process holds {}", path.display()),
                    remedy: "stop the other controller".to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(refused(path, &error)),
        }
    }
}

fn refused(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Refused {
        why: format!("{}: {error}", path.display()),
        remedy: "make the folder writable and see that its disk has room".to_owned(),
    }
}
