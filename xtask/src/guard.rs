//! Two processes: a worker that does what the command line asks for, and a guard that outlives it.
//!
//! The guard is the process that the person started. It gets the signals, tells the worker of them, and when the worker
//! is gone, in whatever way, it kills what the worker had started and removes its folders. The worker in turn takes the
//! guard's death for an interruption. So nothing is left behind unless both are killed in the same instant. The guard
//! knows process groups and folders, not what they are for; what left its group is known by the folder it was given for
//! temporary files. (A signal handler would do with one process, but is unsafe code; and signals blocked in the
//! worker would stay blocked in every program it starts.)

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;

use crate::interrupt;

mod residents;

/// The hidden verb that makes this program the worker; the real command line follows it.
pub const WORKER: &str = "__worker";
/// Every folder the guard may remove has a name that begins so.
pub const FOLDER_PREFIX: &str = "strangler-";
/// By this variable a program knows its folder for temporary files, and hands it on to all that it starts.
pub const TEMPORARY: &str = "TMPDIR";
/// From this many signals on the person means it: the worker is killed.
const IMPATIENT: usize = 3;
/// How often daemons are looked for, 50 ms apart, until none is left.
const DAEMON_ROUNDS: u32 = 20;
/// What shells add to a signal's number for the exit code of the program it ended.
const ENDED_BY_SIGNAL: i32 = 128;
/// Postgres' backends notice their postmaster's death on their own; they still write until then.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// A worker that is asked again and again by its starter cannot be slower than this to notice.
const CHARGES_LIMIT: Duration = Duration::from_secs(2);

/// The worker's line to its guard.
static LINE: OnceLock<Mutex<UnixStream>> = OnceLock::new();

/// The signals by which a person or a system asks a program to end.
fn signals() -> SigSet {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals
}

/// Starts the worker for this command line, guards it, and ends with its exit code.
///
/// # Errors
/// When this program cannot be started a second time.
pub fn over(arguments: &[String]) -> Result<ExitCode> {
    let signals = signals();
    signals.thread_block().context("the signals cannot be blocked")?;
    let (ours, theirs) = UnixStream::pair().context("no line to the worker")?;
    let myself = std::env::current_exe().context("this program does not find itself")?;
    let mut worker = Command::new(myself)
        .arg(WORKER)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .process_group(0)
        .spawn()
        .context("the worker process does not start")?;
    forward(signals, ours.try_clone().context("no line to the worker")?, &worker);
    // Without this limit, a stray child that inherited the worker's end would keep us waiting.
    let (send, charges) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(Charges::listen(BufReader::new(ours))));
    let status = worker.wait().context("the worker cannot be awaited")?;
    charges.recv_timeout(CHARGES_LIMIT).unwrap_or_default().end();
    Ok(ExitCode::from(code(status)))
}

/// Tells the worker of every signal, and kills it when the person insists.
fn forward(signals: SigSet, mut line: UnixStream, worker: &Child) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let group = Pid::from_raw(worker.id().cast_signed());
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            if COUNT.fetch_add(1, Ordering::SeqCst) + 1 >= IMPATIENT {
                let _ = killpg(group, Signal::SIGKILL);
            }
            // A worker that is gone needs no word.
            let _ = line.write_all(b"!");
        }
    });
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| ENDED_BY_SIGNAL + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// What the worker does first: takes up its line, and lets its children be interruptible again.
///
/// # Errors
/// When this process was not started by a guard.
pub fn enter() -> Result<()> {
    signals().thread_unblock().context("the signals cannot be unblocked")?;
    let line = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
        .context("no line to the guard")?;
    let mut listening = line.try_clone().context("no line to the guard")?;
    let _ = LINE.set(Mutex::new(line));
    std::thread::spawn(move || {
        // The end of the line is the guard's death, and an interruption too.
        while matches!(listening.read(&mut [0]), Ok(1)) {
            interrupt::raise();
        }
        interrupt::raise();
    });
    Ok(())
}

/// One fact for the guard; without a guard (in tests) nothing happens.
fn tell(word: &str, what: &dyn std::fmt::Display) {
    if let Some(line) = LINE.get() {
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        // A guard that is gone cannot be told; the owners' `Drop` still cleans up.
        let _ = line.write_all(format!("{word} {what}\n").as_bytes());
    }
}

/// This process group must not outlive us.
pub fn watch(group: u32) {
    tell("group", &group);
}

/// This process group has ended.
pub fn release(group: u32) {
    tell("release", &group);
}

/// This folder is to be removed after us. Only folders in the system's temporary folder are.
pub fn folder(path: &Path) {
    tell("folder", &path.display());
}

/// This folder may stay.
pub fn keep(path: &Path) {
    tell("keep", &path.display());
}

/// The daemons whose pids stand in `<path>/run/*.json` must not outlive us.
pub fn daemons(path: &Path) {
    tell("daemons", &path.display());
}

/// Kills the daemons that noted their pids in `<state>/run/*.json`. A pid whose program is not `strangler` is left
/// alone: the number has been given to someone else.
pub fn kill_daemons(state: &Path) {
    // One of them restarts the others until it is dead itself.
    for _ in 0..DAEMON_ROUNDS {
        let mut found = false;
        for pid in noted_pids(state) {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let name =
                program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("strangler") {
                found = true;
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if !found {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The pids in `<state>/run/*.json`.
fn noted_pids(state: &Path) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(state.join("run")) else { return Vec::new() };
    let texts = entries.flatten().filter_map(|entry| std::fs::read(entry.path()).ok());
    let values = texts.filter_map(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    values.filter_map(|value| pid_in(&value)).collect()
}

/// The `pid` of a note, or of the `process` in it.
pub fn pid_in(note: &serde_json::Value) -> Option<i32> {
    let pid = note.get("pid").or_else(|| note.pointer("/process/pid"))?;
    pid.as_i64()?.try_into().ok().filter(|pid| *pid > 1)
}

/// What the guard still has to end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Charges {
    groups: BTreeSet<i32>,
    folders: BTreeSet<PathBuf>,
    daemons: BTreeSet<PathBuf>,
}

impl Charges {
    /// Takes in lines until the worker is gone.
    fn listen(lines: impl BufRead) -> Charges {
        let mut charges = Charges::default();
        for line in lines.lines().map_while(Result::ok) {
            charges.take(&line);
        }
        charges
    }

    /// Ends what is left.
    fn end(&self) {
        for state in &self.daemons {
            kill_daemons(state);
        }
        for group in &self.groups {
            let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
        }
        if !self.groups.is_empty() {
            std::thread::sleep(LAST_WRITES);
        }
        for folder in &self.folders {
            clear(folder);
        }
    }

    /// Takes in one line; an unreadable one changes nothing.
    fn take(&mut self, line: &str) {
        let Some((word, what)) = line.split_once(' ') else { return };
        match (word, what.parse::<i32>()) {
            ("group", Ok(group)) if group > 1 => {
                self.groups.insert(group);
            }
            ("release", Ok(group)) => {
                self.groups.remove(&group);
            }
            ("folder", _) if removable(Path::new(what)) => {
                self.folders.insert(PathBuf::from(what));
            }
            ("keep", _) => {
                self.folders.remove(Path::new(what));
            }
            ("daemons", _) => {
                self.daemons.insert(PathBuf::from(what));
            }
            _ => {}
        }
    }
}

/// A folder directly in the temporary folder, with our prefix: nothing else is ever removed.
fn removable(path: &Path) -> bool {
    let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER_PREFIX));
    ours && path.parent() == Some(std::env::temp_dir().as_path())
}

/// A private folder in the system's temporary folder. It goes when this goes, and with it whatever was given it for
/// temporary files.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(name: &str) -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("{FOLDER_PREFIX}{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        folder(&path);
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

/// Kills what was given a private folder for temporary files, and removes the folder.
fn clear(folder: &Path) {
    if removable(folder) && residents::kill_all(folder) {
        std::thread::sleep(LAST_WRITES);
    }
    remove(folder);
}

/// Removes a private folder, if it is one of ours.
pub fn remove(path: &Path) {
    if removable(path) {
        let _ = std::fs::remove_dir_all(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_released_is_no_charge_any_more() {
        let ours = std::env::temp_dir().join("strangler-x-1");
        let lines = format!("group 100\ngroup 200\nrelease 100\nfolder {}\n", ours.display());
        let mut charges = Charges::listen(lines.as_bytes());
        assert_eq!(charges.groups, BTreeSet::from([200]));
        assert_eq!(charges.folders, BTreeSet::from([ours.clone()]));
        charges.take(&format!("keep {}", ours.display()));
        assert!(charges.folders.is_empty());
    }

    #[test]
    fn a_pid_is_found_where_notes_keep_it() {
        assert_eq!(pid_in(&serde_json::json!({ "pid": 7 })), Some(7));
        assert_eq!(pid_in(&serde_json::json!({ "process": { "pid": 8 }, "address": "x" })), Some(8));
        for wrong in
            [serde_json::json!({ "pid": 1 }), serde_json::json!({ "pid": -5 }), serde_json::json!([7])]
        {
            assert_eq!(pid_in(&wrong), None);
        }
    }

    #[test]
    fn nothing_dangerous_is_ever_taken_in_charge() {
        let mut charges = Charges::default();
        for line in ["group 1", "group 0", "group -1", "folder /", "folder /home/strangler-x", "nonsense", ""]
        {
            charges.take(line);
        }
        charges.take(&format!("folder {}", std::env::temp_dir().display()));
        charges.take(&format!("folder {}", std::env::temp_dir().join("strangler-x/../..").display()));
        assert_eq!(charges, Charges::default());
    }
}
