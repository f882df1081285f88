//! `cargo xtask`: what a person does with this repository beside building it.
//!
//! Each verb lives in its own file; this one only reads the command line. It deliberately imports no crate of the
//! workspace: it drives the finished binaries, as a user would, and so stays quick to build on a fresh machine.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "xtask is a terminal program")]

mod bench;
mod demo;
mod guard;
mod interrupt;
mod kafka;
mod port;
mod postgres;
mod prerequisites;
mod process;
mod terminal;
mod test;
mod tidy;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

use prerequisites::Need;

const USAGE: &str = "\
cargo xtask demo  [--kafka|--embedded] [--once] [--yes] [--keep] [--built]
    the whole story on this machine: two Postgres clusters, a shop, the proxy, the bridge, traffic.
    --once ends by itself, exits 0 only if every claim held, writes target/demo/report.json
    --keep leaves the databases' and the broker's folders behind
    --built takes the programs that the last build left
cargo xtask test  [--yes]
    fmt, tidy, clippy, every test, and the demo on both logs
cargo xtask kafka [--port N] [--dir D] [--yes]
    one Kafka broker on this machine until Ctrl-C; --dir keeps its data
cargo xtask tidy
    the rules of the house that no compiler checks
cargo xtask prerequisites [--yes]
    what this machine lacks, and its installation
cargo xtask bench cdc|proxy [--profile release|dev] [--quick|--full] [--only CASE] [--built] [--markdown] [--yes]
    measurements against PostgreSQL's own replication and against other proxies; writes target/bench/*.json
    --quick is one short round, to see that it works; --full copies ten million rows to measure memory
    --only measures the cases whose names hold the word, and writes nothing
    --markdown measures nothing and prints the last run's table

--yes installs missing Debian packages without asking.";

/// Exit code for a command line that makes no sense, as in `strangler` itself.
const USAGE_ERROR: u8 = 2;
/// What shells report for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = if arguments.first().is_some_and(|first| first == guard::WORKER) {
        arguments.remove(0);
        guard::enter().and_then(|()| Job::read(arguments)?.work())
    } else {
        Job::read(arguments.clone()).and_then(|job| job.begin(&arguments))
    };
    match result {
        Ok(code) => code,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("\ninterrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("{} {error:#}", terminal::red("error:"));
            ExitCode::from(if error.is::<Misuse>() { USAGE_ERROR } else { 1 })
        }
    }
}

/// What the command line asks for.
enum Job {
    Help,
    Tidy,
    Prerequisites { yes: bool },
    Kafka { port: Option<u16>, folder: Option<PathBuf>, yes: bool },
    Demo(demo::Wish),
    Test { yes: bool },
    Bench(bench::Wish),
}

impl Job {
    fn read(mut arguments: Vec<String>) -> Result<Job> {
        if arguments.is_empty() {
            return Ok(Job::Help);
        }
        let verb = arguments.remove(0);
        let options =
            |flags: &[&str], values: &[&str], words| Options::read(arguments.clone(), flags, values, words);
        Ok(match verb.as_str() {
            "demo" => {
                let options = options(&["kafka", "embedded", "once", "yes", "keep", "built"], &[], 0)?;
                Job::Demo(demo::Wish::from_options(&options)?)
            }
            "test" => Job::Test { yes: options(&["yes"], &[], 0)?.has("yes") },
            "kafka" => {
                let options = options(&["yes"], &["port", "dir"], 0)?;
                let port = options.value("port").map(str::parse).transpose();
                let port = port.map_err(|_| Misuse("--port wants a number up to 65535".to_owned()))?;
                Job::Kafka { port, folder: options.value("dir").map(PathBuf::from), yes: options.has("yes") }
            }
            "tidy" => options(&[], &[], 0).map(|_| Job::Tidy)?,
            "prerequisites" => Job::Prerequisites { yes: options(&["yes"], &[], 0)?.has("yes") },
            "bench" => {
                let options = options(&bench::FLAGS, &["profile", "only"], 1)?;
                Job::Bench(bench::Wish::from_options(&options)?)
            }
            "help" | "--help" | "-h" => Job::Help,
            other => bail!(Misuse(format!("there is no `cargo xtask {other}`"))),
        })
    }

    /// What needs a terminal to answer questions happens here, before there is a worker; what starts other programs
    /// happens there.
    fn begin(self, arguments: &[String]) -> Result<ExitCode> {
        match &self {
            Job::Help => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            Job::Tidy => return tidy::run(&root()),
            Job::Prerequisites { yes } => {
                prerequisites::ensure(&Need::everything(), *yes)?;
                terminal::verdict(true, "nothing is missing");
                return Ok(ExitCode::SUCCESS);
            }
            Job::Kafka { yes, .. } => prerequisites::ensure(&Need::kafka(), *yes)?,
            Job::Demo(wish) => prerequisites::ensure(&wish.need(), wish.yes)?,
            Job::Test { yes } => test::prepare(*yes)?,
            Job::Bench(wish) if wish.markdown => return bench::show(wish),
            Job::Bench(wish) => prerequisites::ensure(&wish.need(), wish.yes)?,
        }
        guard::over(arguments)
    }

    fn work(self) -> Result<ExitCode> {
        match self {
            Job::Help | Job::Tidy | Job::Prerequisites { .. } => bail!("this needs no worker"),
            Job::Kafka { port, folder, .. } => kafka::run(port, folder.as_deref()),
            Job::Demo(wish) => demo::run(&wish),
            Job::Test { .. } => test::run(),
            Job::Bench(wish) => bench::run(&wish),
        }
    }
}

/// A command line that makes no sense; ends in exit code 2 with the usage.
#[derive(Debug)]
pub struct Misuse(pub String);

impl std::fmt::Display for Misuse {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}\n\n{USAGE}", self.0)
    }
}

impl std::error::Error for Misuse {}

/// The options of one verb, as typed.
#[derive(Debug)]
pub struct Options {
    flags: Vec<String>,
    values: BTreeMap<String, String>,
    /// Words that are no options.
    pub words: Vec<String>,
}

impl Options {
    /// Reads `--flag`, `--name value` and `--name=value`; everything not named here is a misuse.
    fn read(arguments: Vec<String>, flags: &[&str], values: &[&str], max_words: usize) -> Result<Self> {
        let mut options = Options { flags: Vec::new(), values: BTreeMap::new(), words: Vec::new() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--") else {
                if options.words.len() == max_words {
                    bail!(Misuse(format!("`{argument}` is not expected here")));
                }
                options.words.push(argument);
                continue;
            };
            let (name, attached) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            if flags.contains(&name) && attached.is_none() {
                options.flags.push(name.to_owned());
            } else if values.contains(&name) {
                let value = attached.or_else(|| arguments.next());
                let value = value.ok_or_else(|| Misuse(format!("--{name} wants a value")))?;
                options.values.insert(name.to_owned(), value);
            } else {
                bail!(Misuse(format!("there is no option `{argument}` here")));
            }
        }
        Ok(options)
    }

    /// Whether the flag was given.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|given| given == flag)
    }

    /// The value of an option, if it was given.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

/// The root of the repository: the folder above this crate's.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, or `target` in the root.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_read_in_every_spelling() {
        let options =
            Options::read(words("--yes --port 9092 --dir=/x cdc"), &["yes"], &["port", "dir"], 1).unwrap();
        assert!(options.has("yes"));
        assert_eq!(options.value("port"), Some("9092"));
        assert_eq!(options.value("dir"), Some("/x"));
        assert_eq!(options.words, ["cdc"]);
    }

    #[test]
    fn what_is_not_named_is_a_misuse() {
        for wrong in ["--yess", "word", "--port", "--yes=1"] {
            let error = Options::read(words(wrong), &["yes"], &["port"], 0).unwrap_err();
            assert!(error.is::<Misuse>(), "{wrong}");
        }
    }
}
