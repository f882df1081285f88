//! A plan in a folder of its own, and the finished `strangler` with its processes there. It ends with the test.
//!
//! It is used as a user uses it, by verbs; only process ids and logs are looked up in `.strangler/`.

#![allow(dead_code, reason = "each test program uses only a part of it")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that mends itself; a loaded machine and a broker that replays its log need it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct Folder(TempDir);

impl Folder {
    pub fn with(plan: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.plan(), plan).unwrap();
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn plan(&self) -> PathBuf {
        self.path().join("strangler.yaml")
    }

    pub fn state(&self) -> PathBuf {
        self.path().join(".strangler")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strangler"));
        command.args(arguments).current_dir(self.path());
        for name in ["STRANGLER_PLAN", "STRANGLER_TOKEN", "STRANGLER_CONTROLLER"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a verb that must succeed; what it said.
    pub fn ok(&self, arguments: &[&str]) -> String {
        said(&self.succeeded(arguments))
    }

    /// As [`Folder::ok`], without what went to stderr.
    pub fn out(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.succeeded(arguments).stdout).into_owned()
    }

    fn succeeded(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        let said = said(&output);
        assert!(output.status.success(), "{arguments:?} {}\n{said}\n{}", output.status, self.logs());
        output
    }

    /// The exit code of a verb, and what it said.
    pub fn tried(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.code().unwrap_or(-1), said(&output))
    }

    /// How things stand, or null while no controller answers. What is wrong comes as a second document.
    pub fn status(&self) -> Value {
        let output = self.command(&["status", "--output", "json"]).output().unwrap();
        let first = serde_json::Deserializer::from_slice(&output.stdout).into_iter().next();
        first.and_then(Result::ok).unwrap_or_default()
    }

    /// Kills a part with -9 and waits until `up` has put another in its place.
    pub fn kill(&self, part: &str) {
        let killed = self.pid(part).unwrap();
        signal(killed, Signal::SIGKILL);
        self.eventually(&format!("a new {part}"), || self.pid(part).is_some_and(|pid| pid != killed));
    }

    pub fn pid(&self, part: &str) -> Option<i32> {
        let text = fs::read(self.state().join(format!("run/{part}.json"))).ok()?;
        let note: Value = serde_json::from_slice(&text).ok()?;
        i32::try_from(note["pid"].as_i64()?).ok()
    }

    pub fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "waited in vain for {what}\n{}\n{}", self.status(), self.logs());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub fn logs(&self) -> String {
        let end = |name: &str| {
            let log = fs::read_to_string(self.state().join(format!("log/{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        ["up", "controller", "bridge", "proxy"].map(end).concat()
    }

    /// Processes whose command line names this folder.
    pub fn processes(&self) -> Vec<i32> {
        let folder = self.path().canonicalize().unwrap_or_default().display().to_string();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&folder)
        })
        .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for pid in self.processes() {
            signal(pid, Signal::SIGKILL);
        }
    }
}

/// The process may have ended by itself just now.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
