//! What is recorded of a process, so that another command finds exactly this process again.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How often a process that was asked to end is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// RFC 3339, UTC.
    pub(crate) started: String,
    #[serde(default)]
    pub(crate) restarts: u32,
    /// How its predecessor ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<String>,
    /// The kernel's start time in clock ticks since boot, if known. Two processes with the same pid differ in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ticks: Option<u64>,
}

impl Process {
    /// The process must be running.
    pub(crate) fn of(pid: u32, restarts: u32) -> Self {
        let started = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self {
            pid,
            started: started.format(&Rfc3339).unwrap_or_default(),
            restarts,
            ended: None,
            ticks: stat(pid).map(|stat| stat.ticks),
        }
    }

    /// Whether this very process still runs: not a later one with the same pid, and not a zombie.
    pub(crate) fn is_alive(&self) -> bool {
        let Some(pid) = self.id() else { return false };
        if matches!(kill(pid, None), Err(Errno::ESRCH)) {
            return false;
        }
        match (stat(self.pid), self.ticks) {
            (Some(stat), Some(ticks)) => stat.ticks == ticks && !stat.is_zombie,
            (Some(stat), None) => !stat.is_zombie && is_ours(self.pid),
            // Without /proc the pid is all there is.
            (None, _) => !std::path::Path::new("/proc/self").exists(),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.id().filter(|_| self.is_alive()) {
            // If it ended meanwhile, there is nothing to do.
            let _ = kill(pid, signal);
        }
    }

    /// Waits until the process has ended. False if it still runs after `patience`.
    pub(crate) async fn wait(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Sends SIGTERM, once more after two thirds of `patience` (a proxy that drains ends at once then), and SIGKILL if the
    /// process still runs after `patience`. True if SIGTERM was enough.
    pub(crate) async fn end(&self, patience: Duration) -> bool {
        for part in [patience * 2 / 3, patience / 3] {
            self.signal(Signal::SIGTERM);
            if self.wait(part).await {
                return true;
            }
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
    is_zombie: bool,
}

/// Fields 3 and 22 of `/proc/PID/stat` (proc(5)). The name before them is in parentheses and may itself hold blanks and
/// parentheses.
fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    let ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { ticks, is_zombie: matches!(state, "Z" | "X") })
}

/// Compares the executables' names. A replaced executable has ` (deleted)` after its name.
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
    fn a_process_is_known_by_more_than_its_pid() {
        let me = Process::of(std::process::id(), 0);
        assert!(me.is_alive());
        assert!(Process { ticks: None, ..me.clone() }.is_alive(), "the same executable");
        assert!(!Process { ticks: me.ticks.map(|ticks| ticks + 1), ..me.clone() }.is_alive());
        assert!(!Process { pid: 1, ticks: None, ..me.clone() }.is_alive(), "never init");
        assert!(!Process { pid: u32::MAX, ..me }.is_alive());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let record = Process::of(child.id(), 0);
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
