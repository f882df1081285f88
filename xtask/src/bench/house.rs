//! The tool under measurement: a plan in a private folder, and its parts as programs of ours, each with a known id.
//!
//! `up` is not used, because it restarts parts: a bench stops them, pins them to a CPU and measures them.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use lab::process::{self, Background};
use lab::{Cluster, FOLDER_PREFIX, free_port, interrupt};
use tempfile::TempDir;

/// A part is up within this, or has failed.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Strangler's own role, which `strangler install` makes.
const STRANGLER: &str = "strangler";
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The longest verb is a first copy of ten million rows.
const VERB_LIMIT: Duration = Duration::from_secs(1800);

/// A plan with its state, and its controller if that was started.
#[derive(Debug)]
pub struct House {
    controller: Option<Background>,
    program: PathBuf,
    environment: Vec<(String, String)>,
    folder: TempDir,
}

impl House {
    /// Puts `plan` into a folder of its own; nothing runs yet.
    pub fn with_plan(
        program: &Path,
        name: &str,
        plan: &str,
        environment: Vec<(String, String)>,
    ) -> Result<House> {
        let folder = tempfile::Builder::new().prefix(&format!("{FOLDER_PREFIX}{name}-")).tempdir()?;
        fs::write(folder.path().join("strangler.yaml"), plan)?;
        Ok(House { controller: None, program: program.to_owned(), environment, folder })
    }

    /// As [`House::with_plan`], with a database on each side, both `install`ed, and the controller open.
    pub fn between(program: &Path, name: &str, plan: &str, sides: [(&Cluster, &str); 2]) -> Result<House> {
        let [monolith, side] = sides;
        let url = |(cluster, database): (&Cluster, &str)| cluster.url(STRANGLER, database);
        let admin = |(cluster, database): (&Cluster, &str)| cluster.admin_url(database);
        let environment = vec![
            ("MONOLITH_DATABASE_URL".to_owned(), url(monolith)),
            ("SIDE_DATABASE_URL".to_owned(), url(side)),
        ];
        let mut house = House::with_plan(program, name, plan, environment)?;
        let admins = [format!("monolith={}", admin(monolith)), format!("side={}", admin(side))];
        house.verb(&["install", "--admin-url", &admins[0], "--admin-url", &admins[1]])?;
        house.open()?;
        Ok(house)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn open(&mut self) -> Result<()> {
        let mut controller = self.part("controller", None)?;
        interrupt::await_until("an answer of the controller", START_LIMIT, interrupt::LOOK_EVERY, || {
            controller.must_run()?;
            let (status, _, _) =
                process::answer(&mut self.command(&["status", "--output", "json"]), START_LIMIT)?;
            Ok(status.success().then_some(()))
        })?;
        self.controller = Some(controller);
        Ok(())
    }

    /// Starts a part, on one CPU if `cpu` names one.
    pub fn part(&self, name: &str, cpu: Option<usize>) -> Result<Background> {
        let mut command = match cpu {
            Some(cpu) => pinned(cpu, &self.program),
            None => Command::new(&self.program),
        };
        command.arg(name);
        self.at_home(&mut command);
        Background::start(&format!("the {name}"), &mut command, &self.log(name))
    }

    pub fn log(&self, part: &str) -> PathBuf {
        self.folder().join(format!("{part}.log"))
    }

    /// Runs one verb to its end; gives its output.
    pub fn verb(&self, arguments: &[&str]) -> Result<String> {
        process::output(&mut self.command(arguments), VERB_LIMIT)
    }

    /// Runs one verb that may fail; gives its JSON document, which a failure has too.
    pub fn document(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(arguments);
        command.args(["--output", "json"]);
        let (status, out, err) = process::answer(&mut command, VERB_LIMIT)?;
        let words = || format!("`{}` ({status}) said no JSON: {out}{err}", process::shown(&command));
        serde_json::from_str(&out).with_context(words)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        self.at_home(&mut command);
        command
    }

    fn at_home(&self, command: &mut Command) {
        command.current_dir(self.folder());
        command.envs(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            let _ = controller.stop(Signal::SIGTERM, STOP_LIMIT);
        }
    }
}

/// A plan with a service `side`, whose proxy listens at `listen`. The rest of it is its slices.
pub fn plan(
    [monolith, side]: [&str; 2],
    has_databases: bool,
    listen: &str,
    kafka: Option<&str>,
    slices: &str,
) -> Result<String> {
    let [admin, controller, bridge] = [free_port()?, free_port()?, free_port()?];
    let database = |name: &str| match has_databases {
        true => format!(", database: \"${{{name}_DATABASE_URL}}\""),
        false => String::new(),
    };
    let log =
        kafka.map(|brokers| format!("log: {{ kafka: {{ brokers: \"{brokers}\", topic_prefix: bench }} }}\n"));
    Ok(format!(
        "version: 1
name: bench
monolith: {{ upstream: \"http://{monolith}\"{} }}
services: {{ side: {{ upstream: \"http://{side}\"{} }} }}
proxy: {{ listen: \"{listen}\", admin: \"127.0.0.1:{admin}\" }}
controller: {{ listen: \"127.0.0.1:{controller}\" }}
bridge: {{ listen: \"127.0.0.1:{bridge}\" }}
{}slices:
{slices}",
        database("MONOLITH"),
        database("SIDE"),
        log.unwrap_or_default()
    ))
}

/// Waits until a server answers at this port of loopback.
pub fn await_listening(port: u16) -> Result<()> {
    interrupt::await_until("a server's start", START_LIMIT, interrupt::LOOK_EVERY, || {
        Ok(TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
    })
}

pub fn end(part: &mut Background) -> Result<()> {
    part.stop(Signal::SIGTERM, STOP_LIMIT)
}

/// A program that runs on one CPU only, where the system can pin.
pub fn pinned(cpu: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &cpu.to_string()]).arg(program);
    command
}
