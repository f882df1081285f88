//! The state folder `.strangler/` next to the plan: token, records of processes, logs, and each part's own folder.
//!
//! `supervisor` decides what runs.

use crate::part::Part;
use crate::process::Process;
use migrations::code::Code;
use migrations::plan::Secret;
use migrations::problem::Problem;
use migrations::sql::Database;
use rand::Rng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FOLDER: &str = ".strangler";
/// A longer log is set aside. A part keeps at most one log that was set aside, so at most twice this size.
const LOG_BYTES_MAX: u64 = 32 << 20;
/// How much of a log's end is read for an error message.
const LOG_TAIL_BYTES: u64 = 8 << 10;

#[derive(Debug, Clone)]
pub(crate) struct House {
    dir: PathBuf,
}

/// Which copy of the plan: a part's restart must not meet an edit that nobody accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlanCopy {
    /// The plan that runs.
    Running,
    /// One that is being put in its place.
    Next,
}

/// Held by the one `up` of a folder while it runs.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

/// A running `up`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watch {
    #[serde(flatten)]
    pub(crate) process: Process,
    /// The URL of its controller, for example `http://127.0.0.1:7401`.
    pub(crate) controller: String,
    /// None while no slice is captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kept: Option<Kept>,
}

/// What stays in the databases while nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The replication slot that keeps WAL in the monolith's database.
    pub(crate) slot: String,
    /// The slices that need it.
    pub(crate) slices: Vec<String>,
    /// Slots in the databases of services, for the way back.
    #[serde(default)]
    pub(crate) service_slots: BTreeMap<Database, String>,
    /// The slices whose gate in the monolith's database is shut: their service owns them.
    #[serde(default)]
    pub(crate) shut: Vec<String>,
}

impl PlanCopy {
    fn name(self) -> &'static str {
        match self {
            PlanCopy::Running => "run/plan.yaml",
            PlanCopy::Next => "run/plan.next.yaml",
        }
    }
}

impl House {
    /// Creates nothing yet.
    pub(crate) fn beside(plan: &Path) -> Self {
        let folder = plan.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { dir: folder.join(FOLDER) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Creates the folders, for this user only.
    pub(crate) fn make(&self) -> Result<(), Problem> {
        for folder in [self.dir.clone(), self.dir.join("run"), self.dir.join("log")] {
            private_folder(&folder)?;
        }
        Ok(())
    }

    /// A part's own folder, created if it is missing.
    pub(crate) fn state_dir(&self, part: Part) -> Result<PathBuf, Problem> {
        self.make()?;
        let folder = self.dir.join(part.name());
        private_folder(&folder)?;
        Ok(folder)
    }

    pub(crate) fn token(&self) -> Result<Option<Secret>, Problem> {
        let path = self.dir.join("token");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()).map(Secret::new)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    /// The token, created now if there is none.
    pub(crate) fn token_or_new(&self) -> Result<Secret, Problem> {
        self.make()?;
        if let Some(token) = self.token()? {
            return Ok(token);
        }
        let mut bytes = [0u8; 32];
        rand::rng().fill_bytes(&mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.write("token", format!("{text}\n").as_bytes())?;
        Ok(Secret::new(text))
    }

    /// Locks the folder for one `up`. None if another `up` has it.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, Problem> {
        self.make()?;
        let path = self.dir.join("run/lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|error| unusable(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(unusable(&path, &error)),
        }
    }

    /// The process of a part, if it still runs. A stale record is removed.
    pub(crate) fn running(&self, part: Part) -> Option<Process> {
        self.living(part.name(), |record: &Process| record.is_alive())
    }

    /// The last process of a part, even if it has ended.
    pub(crate) fn noted(&self, part: Part) -> Option<Process> {
        serde_json::from_slice(&fs::read(self.note_path(part.name())).ok()?).ok()
    }

    /// How a part of this folder ended last, with its last words, if `up` starts it again and again.
    pub(crate) fn crash(&self, part: Part) -> Option<String> {
        let record = self.up().and_then(|_| self.noted(part)).filter(|record| record.restarts > 0)?;
        let ended = record.ended.unwrap_or_else(|| "ended".to_owned());
        let words = self.log_end(part.name(), 4).join("\n  ");
        Some(format!(
            "`up` has started the {} again {} times, and it last {ended}\n  {words}",
            part.name(),
            record.restarts
        ))
    }

    /// The `up` of this folder, if it still runs. A stale record is removed.
    pub(crate) fn up(&self) -> Option<Watch> {
        self.living("up", |watch: &Watch| watch.process.is_alive())
    }

    pub(crate) fn note(&self, part: Part, record: &Process) -> Result<(), Problem> {
        self.write_note(part.name(), record)
    }

    pub(crate) fn note_up(&self, watch: &Watch) -> Result<(), Problem> {
        self.write_note("up", watch)
    }

    pub(crate) fn plan_copy(&self, copy: PlanCopy) -> PathBuf {
        self.dir.join(copy.name())
    }

    pub(crate) fn keep_plan(&self, copy: PlanCopy, text: &str) -> Result<(), Problem> {
        self.write(copy.name(), text.as_bytes())
    }

    pub(crate) fn drop_plan(&self, copy: PlanCopy) {
        let _ = fs::remove_file(self.plan_copy(copy));
    }

    /// The next plan is the one that runs.
    pub(crate) fn adopt_plan(&self) -> Result<(), Problem> {
        let (next, running) = (self.plan_copy(PlanCopy::Next), self.plan_copy(PlanCopy::Running));
        fs::rename(next, &running).map_err(|error| unusable(&running, &error))
    }

    /// The process that has a part's place, by its own word.
    pub(crate) fn holder(&self, part: Part) -> Option<u32> {
        link::handover::holder(&self.dir.join(part.name()))
    }

    pub(crate) fn forget(&self, part: Part) {
        // A record that cannot be removed is stale, and is recognised as stale.
        let _ = fs::remove_file(self.note_path(part.name()));
    }

    pub(crate) fn forget_up(&self) {
        let _ = fs::remove_file(self.note_path("up"));
    }

    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    pub(crate) fn log(&self, name: &str) -> Result<File, Problem> {
        self.make()?;
        let path = self.log_path(name);
        let open = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        open.map_err(|error| unusable(&path, &error))
    }

    /// Sets a long log aside. The writer appends, so it continues at the start of the emptied file.
    pub(crate) fn trim_log(&self, name: &str) -> io::Result<()> {
        let path = self.log_path(name);
        if fs::metadata(&path)?.len() > LOG_BYTES_MAX {
            fs::copy(&path, path.with_extension("log.1"))?;
            OpenOptions::new().write(true).open(&path)?.set_len(0)?;
        }
        Ok(())
    }

    pub(crate) fn log_end(&self, name: &str, lines: usize) -> Vec<String> {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log_path(name))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }

    fn living<T: DeserializeOwned>(&self, name: &str, is_alive: impl Fn(&T) -> bool) -> Option<T> {
        let path = self.note_path(name);
        let bytes = fs::read(&path).ok()?;
        let record = serde_json::from_slice(&bytes).ok().filter(is_alive);
        if record.is_none() {
            let _ = fs::remove_file(&path);
        }
        record
    }

    fn write_note(&self, name: &str, record: &impl Serialize) -> Result<(), Problem> {
        let bytes = serde_json::to_vec(record).map_err(|error| {
            Problem::new(
                Code::CommandFailed,
                format!("could not write the record of `{name}`: {error}"),
                "run the command again with `-v`",
            )
        })?;
        self.write(&format!("run/{name}.json"), &bytes)
    }

    fn note_path(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(format!("{name}.json"))
    }

    /// Writes a file completely or not at all, for this user only.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Problem> {
        let path = self.dir.join(name);
        link::file::replace(&path, bytes).map_err(|error| unusable(&path, &error))
    }
}

fn private_folder(folder: &Path) -> Result<(), Problem> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| unusable(folder, &error))
}

fn unusable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        Code::CommandFailed,
        format!("could not use {}: {error}", path.display()),
        format!("give this user ownership of {}", path.parent().unwrap_or(path).display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn house() -> (tempfile::TempDir, House) {
        let folder = tempfile::tempdir().unwrap();
        let house = House::beside(&folder.path().join("strangler.yaml"));
        (folder, house)
    }

    #[test]
    fn the_token_is_made_once_and_only_its_user_can_read_it() {
        let (_folder, house) = house();
        assert!(house.token().unwrap().is_none());
        let made = house.token_or_new().unwrap();
        assert_eq!(house.token_or_new().unwrap().expose(), made.expose());
        assert_eq!(made.expose().len(), 64);
        let mode = fs::metadata(house.dir().join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_folder_is_locked_once() {
        let (_folder, house) = house();
        let lock = house.lock().unwrap();
        assert!(lock.is_some());
        assert!(house.lock().unwrap().is_none());
        drop(lock);
        assert!(house.lock().unwrap().is_some());
    }

    #[test]
    fn the_record_of_an_ended_process_is_removed() {
        let (_folder, house) = house();
        house.make().unwrap();
        house.note(Part::Proxy, &Process::of(std::process::id(), 0)).unwrap();
        assert!(house.running(Part::Proxy).is_some());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = Process::of(child.id(), 0);
        child.wait().unwrap();
        house.note(Part::Proxy, &gone).unwrap();
        assert!(house.running(Part::Proxy).is_none());
        assert!(!house.dir().join("run/proxy.json").exists());
    }

    #[test]
    fn a_log_that_is_too_long_is_set_aside() {
        let (_folder, house) = house();
        let mut log = house.log("proxy").unwrap();
        log.set_len(LOG_BYTES_MAX + 1).unwrap();
        house.trim_log("proxy").unwrap();
        log.write_all(b"one\n\ntwo\n").unwrap();
        assert_eq!(house.log_end("proxy", 5), ["one", "two"]);
        assert_eq!(fs::metadata(house.log_path("proxy")).unwrap().len(), 9);
    }
}
