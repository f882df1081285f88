//! A second process that outlives this one and ends what this one could not: if `cargo xtask` is killed with -9, its
//! databases, broker and daemons still go away.
//!
//! The guard reads one line per fact from a pipe; when the pipe closes, because we ended or died, it kills what was not
//! released and removes the folders. It knows process groups and folders, not what runs in them.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// The hidden verb under which this program starts itself as the guard.
pub const VERB: &str = "__guard";
/// Every folder the guard may remove has a name that begins so.
pub const FOLDER_PREFIX: &str = "strangler-";

static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

/// Posts the guard, and begins to listen for Ctrl-C.
///
/// # Errors
/// When this program cannot be started a second time.
pub fn post() -> Result<()> {
    crate::interrupt::listen()?;
    let myself = std::env::current_exe().context("this program does not find itself")?;
    let mut guard = Command::new(myself)
        .arg(VERB)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("the guard process does not start")?;
    if let Some(pipe) = guard.stdin.take() {
        let _ = PIPE.set(Mutex::new(pipe));
    }
    Ok(())
}

/// One fact for the guard; without a guard (in tests) nothing happens.
fn tell(word: &str, what: &dyn std::fmt::Display) {
    if let Some(pipe) = PIPE.get() {
        let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
        // A guard that is gone cannot be told; the owners' `Drop` still cleans up.
        let _ = writeln!(pipe, "{word} {what}");
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
    for pid in noted_pids(state) {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("strangler") {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The `pid` fields of `<state>/run/*.json`.
fn noted_pids(state: &Path) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir(state.join("run")) else { return Vec::new() };
    let texts = entries.flatten().filter_map(|entry| std::fs::read(entry.path()).ok());
    let values = texts.filter_map(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let pids = values.filter_map(|value| value.get("pid")?.as_i64()?.try_into().ok());
    pids.filter(|pid: &i32| *pid > 1).collect()
}

/// What the guard still has to end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Charges {
    groups: BTreeSet<i32>,
    folders: BTreeSet<PathBuf>,
    daemons: BTreeSet<PathBuf>,
}

impl Charges {
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

/// Removes a private folder, if it is one of ours.
pub fn remove(path: &Path) {
    if removable(path) {
        let _ = std::fs::remove_dir_all(path);
    }
}

/// The guard's own life: listen until the pipe closes, then end what is left.
pub fn stand() -> ExitCode {
    let mut charges = Charges::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        charges.take(&line);
    }
    for state in &charges.daemons {
        kill_daemons(state);
    }
    for group in &charges.groups {
        let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
    }
    if !charges.groups.is_empty() {
        // Postgres' backends notice their postmaster's death on their own; they still write until then.
        std::thread::sleep(Duration::from_secs(1));
    }
    for folder in &charges.folders {
        remove(folder);
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_released_is_no_charge_any_more() {
        let ours = std::env::temp_dir().join("strangler-x-1");
        let mut charges = Charges::default();
        charges.take("group 100");
        charges.take("group 200");
        charges.take("release 100");
        charges.take(&format!("folder {}", ours.display()));
        assert_eq!(charges.groups, BTreeSet::from([200]));
        assert_eq!(charges.folders, BTreeSet::from([ours.clone()]));
        charges.take(&format!("keep {}", ours.display()));
        assert!(charges.folders.is_empty());
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
