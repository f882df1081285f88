//! What is noted of a process, so that another command finds it again and never takes a stranger for it.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How often a process that was asked to end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub pid: u32,
    /// When it was started, RFC 3339, UTC.
    pub started: String,
    /// How often it was started again before.
    #[serde(default)]
    pub restarts: u32,
    /// How the one before it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// The kernel's own start time of it, in clock ticks since boot, where the kernel tells: two processes
    /// that had the same id differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticks: Option<u64>,
}

impl Record {
    /// What is to be noted of a process that runs now.
    pub fn of(pid: u32, restarts: u32) -> Self {
        let started = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self {
            pid,
            started: started.format(&Rfc3339).unwrap_or_default(),
            restarts,
            ended: None,
            ticks: stat(pid).map(|stat| stat.ticks),
        }
    }

    /// Whether this very process still runs: not a later one with its number, and not its corpse.
    pub fn is_alive(&self) -> bool {
        let Some(pid) = self.id() else { return false };
        if matches!(kill(pid, None), Err(Errno::ESRCH)) {
            return false;
        }
        match (stat(self.pid), self.ticks) {
            (Some(stat), Some(ticks)) => stat.ticks == ticks && !stat.is_corpse,
            (Some(stat), None) => !stat.is_corpse && is_ours(self.pid),
            // A system without /proc: the number is all there is.
            (None, _) => !std::path::Path::new("/proc/self").exists(),
        }
    }

    /// Sends a signal, if the process still runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.id().filter(|_| self.is_alive()) {
            // It may end between the look and the signal; then there is nothing to do.
            let _ = kill(pid, signal);
        }
    }

    /// Waits until the process is gone; false when it still runs after `patience`.
    pub async fn wait(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Asks the process to end, and kills it when it still runs after `patience`. True if it ended by itself.
    pub async fn end(&self, patience: Duration) -> bool {
        self.signal(Signal::SIGTERM);
        if self.wait(patience).await {
            return true;
        }
        self.signal(Signal::SIGKILL);
        self.wait(Duration::from_secs(2)).await;
        false
    }

    fn id(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
    }
}

struct Stat {
    ticks: u64,
    is_corpse: bool,
}

/// State and start time of a process: fields 3 and 22 of `/proc/PID/stat` (proc(5)). The name before them is in
/// parentheses and may hold blanks and parentheses itself.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    let ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { ticks, is_corpse: matches!(state, "Z" | "X") })
}

/// Whether a process runs our executable, by its name; a replaced executable has ` (deleted)` behind it.
fn is_ours(pid: u32) -> bool {
    let name = |path: std::path::PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.trim_end_matches(" (deleted)").to_owned()
    };
    let theirs = std::fs::read_link(format!("/proc/{pid}/exe")).map(name);
    let ours = std::env::current_exe().map(name);
    matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let me = Record::of(std::process::id(), 0);
        assert!(me.is_alive());
        assert!(Record { ticks: None, ..me.clone() }.is_alive(), "the same executable");
        assert!(!Record { ticks: me.ticks.map(|ticks| ticks + 1), ..me.clone() }.is_alive());
        assert!(!Record { pid: 1, ticks: None, ..me.clone() }.is_alive(), "never init");
        assert!(!Record { pid: u32::MAX, ..me }.is_alive());
    }

    #[test]
    fn a_corpse_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let record = Record::of(child.id(), 0);
        assert!(record.is_alive());
        child.kill().unwrap();
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !record.is_alive()
        });
        assert!(gone, "killed, and not yet waited for");
        child.wait().unwrap();
    }
}
