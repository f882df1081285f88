//! Two processes: a worker that does what the command line asks for, and a guard that outlives it.
//!
//! The guard is the process that the person started. It passes signals on to the worker. Whatever the worker started,
//! directly or through others, becomes the guard's child when its own parent ends: Linux calls that a child subreaper.
//! So when the worker is gone, in whatever way, the guard kills what is left, and removes the one folder in which all
//! of it keeps its temporary files. Nothing is left behind.
//!
//! If the guard itself is killed with -9, the worker takes that for a signal and does the guard's work, with one
//! difference: it becomes a subreaper only then. A process that lost its parent earlier was the guard's child, and
//! survives as a child of init. The worker is no subreaper from its start, because it would have to wait for all
//! orphans, and so take the exit codes that its other threads wait for. If both are killed at once, everything
//! survives.
//!
//! Other systems have no subreaper and do not report a parent's death. There the worker ends the process groups that it
//! started. What left its group survives, and so does everything when the worker is killed with -9.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::process::children;
use lab::{FOLDER_PREFIX, interrupt};
use nix::errno::Errno;
#[cfg(target_os = "linux")]
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The option that makes this program the worker. Its value is the guard's process id.
pub const WORKER: &str = "--worker";
/// From this many signals on the person means it: the worker is killed.
const IMPATIENT: usize = 3;
/// What shells add to a signal's number for the exit code of the program it ended.
const ENDED_BY_SIGNAL: i32 = 128;
/// What is killed is gone within moments, or hangs in the kernel.
const END_LIMIT: Duration = Duration::from_secs(20);
const END_PAUSE: Duration = Duration::from_millis(10);

/// By these a person or a system asks a program to end. They are handled and not blocked, because a program that is
/// started would inherit the block.
fn signals() -> Result<Signals> {
    Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")
}

/// Starts the worker for the same command line, guards it, and ends with its exit code. `keep` leaves the folder for
/// temporary files behind.
pub fn over(keep: bool) -> Result<ExitCode> {
    prctl::set_child_subreaper(true).context("cannot become the parent of orphans")?;
    let mut signals = signals()?;
    let mut folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir()?;
    folder.disable_cleanup(keep);
    // Root's clusters run as the user `postgres`, who must come through.
    set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let worker = Command::new(std::env::current_exe().context("this program does not find itself")?)
        .arg(format!("{WORKER}={}", getpid()))
        .args(std::env::args_os().skip(1))
        .env("TMPDIR", folder.path())
        .process_group(0)
        .spawn()
        .context("the worker process does not start")?;
    let worker = Pid::from_raw(worker.id().cast_signed());
    std::thread::spawn(move || {
        for (before, _) in signals.forever().enumerate() {
            let _ = if before + 1 < IMPATIENT {
                kill(worker, Signal::SIGTERM)
            } else {
                killpg(worker, Signal::SIGKILL)
            };
        }
    });
    let code = outcome(worker)?;
    end_children();
    Ok(ExitCode::from(code))
}

/// Waits for the worker's end, and meanwhile buries the orphans that end.
fn outcome(worker: Pid) -> Result<u8> {
    let code = loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == worker => break code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == worker => {
                break ENDED_BY_SIGNAL + signal as i32;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the worker"),
        }
    };
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Kills this process's children. The children of what is killed become its children and end, too.
fn end_children() {
    let end = Instant::now() + END_LIMIT;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < end => {
                // A process that left its group and lost its parent is in no list of ours, only in the kernel's.
                for child in children(getpid()) {
                    let _ = kill(child, Signal::SIGKILL);
                }
                std::thread::sleep(END_PAUSE);
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            _ => {}
        }
    }
}

/// What the worker does first: signals, and the guard's death, interrupt it from now on.
pub fn enter(guard: i32) -> Result<()> {
    let mut signals = signals()?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if is_orphan(guard) {
                let _ = prctl::set_child_subreaper(true);
            }
            interrupt::raise();
        }
    });
    prctl::set_pdeathsig(Signal::SIGTERM).context("cannot ask for word of the guard's death")?;
    if is_orphan(guard) {
        kill(getpid(), Signal::SIGTERM)?;
    }
    Ok(())
}

/// What the worker does last: it does the guard's work if the guard is gone.
pub fn leave(guard: i32, keep: bool) {
    if is_orphan(guard) {
        end_children();
        if !keep {
            remove_ours(&std::env::temp_dir());
        }
    }
}

/// Removes a folder with all that is in it. Its name must be one that the guard gives, because a person who starts a
/// worker by hand has another folder for temporary files.
fn remove_ours(folder: &Path) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with(FOLDER_PREFIX) {
        let _ = std::fs::remove_dir_all(folder);
    }
}

fn is_orphan(guard: i32) -> bool {
    getppid().as_raw() != guard
}

/// Only Linux can do this.
#[cfg(not(target_os = "linux"))]
mod prctl {
    use nix::sys::signal::Signal;

    pub fn set_child_subreaper(_: bool) -> nix::Result<()> {
        Ok(())
    }

    pub fn set_pdeathsig(_: Signal) -> nix::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use lab::process::output;

    const INNER: &str = "XTASK_TEST_GUARD";

    /// Runs itself in a process of its own, which plays the guard.
    #[test]
    fn what_left_its_parent_and_its_group_ends_with_the_guard() {
        if std::env::var_os(INNER).is_some() {
            return guard_that_leaves_nothing();
        }
        let mut inner = Command::new(std::env::current_exe().unwrap());
        inner.args(["--exact", "guard::tests::what_left_its_parent_and_its_group_ends_with_the_guard"]);
        let said = output(inner.arg("--nocapture").env(INNER, "1"), Duration::from_secs(60)).unwrap();
        let pids = said.lines().filter_map(|line| line.strip_prefix("pid ")?.parse().ok());
        let pids: Vec<i32> = pids.collect();
        assert_eq!(pids.len(), 2, "{said}");
        for pid in pids {
            assert_eq!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH));
        }
    }

    #[test]
    fn a_folder_is_removed_whole_but_only_if_its_name_is_ours() {
        for (prefix, stays) in [(FOLDER_PREFIX, false), ("another-", true)] {
            let folder = tempfile::Builder::new().prefix(prefix).tempdir().unwrap();
            std::fs::create_dir(folder.path().join("inner")).unwrap();
            std::fs::write(folder.path().join("inner").join("file"), "left behind").unwrap();
            remove_ours(folder.path());
            assert_eq!(folder.path().exists(), stays, "{prefix}");
        }
    }

    #[allow(clippy::zombie_processes, reason = "`outcome` and `end_children` wait")]
    fn guard_that_leaves_nothing() {
        prctl::set_child_subreaper(true).unwrap();
        let script = "setsid sh -c 'echo pid $$; sleep 300 & echo pid $!; wait' & sleep 1; kill -9 $$";
        let shell = Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
        let code = outcome(Pid::from_raw(shell.id().cast_signed())).unwrap();
        assert_eq!(code, 137, "as shells report it");
        assert_eq!(children(getpid()).len(), 1, "the one that left is ours now");
        end_children();
        assert_eq!(waitpid(None, None), Err(Errno::ECHILD));
    }
}
