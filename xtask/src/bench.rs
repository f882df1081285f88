//! `cargo xtask bench`: measures the bridge beside PostgreSQL's own replication, the proxy beside other proxies, and how
//! long writes wait while they move.
//!
//! Ours and its peers take turns in one run, and the medians of their rounds are compared. This file builds and keeps
//! the figures. What is measured, and how, stands in `bench/`. Moving writes has no peer, only an aim.

mod account;
mod cdc;
mod cutover;
mod figure;
pub mod house;
mod proxy;
pub mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use clap::{Args, ValueEnum};
use lab::process;

use crate::prerequisites::Need;
use crate::{kept, terminal};
use figure::Figure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    Cdc,
    Proxy,
    Cutover,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Cdc => "cdc",
            Subject::Proxy => "proxy",
            Subject::Cutover => "cutover",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Profile {
    Release,
    Dev,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One short round: to see that it works, not to quote.
    Quick,
    /// Three rounds, the figures of the documentation.
    Usual,
    /// As usual, and ten million rows for the memory.
    Full,
}

impl Extent {
    pub fn rounds(self) -> usize {
        if self == Extent::Quick { 1 } else { 3 }
    }
}

#[derive(Args, Clone, Debug)]
pub struct Wish {
    subject: Subject,
    /// One short round, to see that it works.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Also copy ten million rows, to measure memory.
    #[arg(long)]
    full: bool,
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// Measure the cases whose names hold this word, and write nothing. `cutover` is one case.
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// `cutover` only: send changes through Kafka instead of the embedded log.
    #[arg(long)]
    kafka: bool,
    /// `cdc` only: also measure Debezium's connector with its JDBC sink, on the same Kafka.
    #[arg(long)]
    debezium: bool,
    /// Take the programs that the last build left.
    #[arg(long)]
    built: bool,
    /// Measure nothing; print the last run's table.
    #[arg(long)]
    pub markdown: bool,
    /// Install missing Debian packages without asking.
    #[arg(long)]
    pub yes: bool,
}

impl Wish {
    fn extent(&self) -> Extent {
        match (self.quick, self.full) {
            (true, _) => Extent::Quick,
            (false, true) => Extent::Full,
            (false, false) => Extent::Usual,
        }
    }

    /// What the machine must have for it. Kafka is measured where it is found.
    pub fn need(&self) -> Need {
        let need = Need { build: true, ..Need::default() };
        match self.subject {
            Subject::Cdc => Need { postgres: true, kafka: self.debezium, ..need },
            Subject::Proxy => Need { rivals: true, ..need },
            Subject::Cutover => Need { postgres: true, kafka: self.kafka, ..need },
        }
    }

    fn path(&self) -> PathBuf {
        folder().join(format!("{}.json", self.subject.name()))
    }

    fn program(&self, name: &str) -> PathBuf {
        let folder = match self.profile {
            Profile::Release => "release",
            Profile::Dev => "debug",
        };
        lab::target().join(folder).join(name)
    }

    /// The packages with the programs that are measured, or that measure.
    fn packages(&self) -> &'static [&'static str] {
        match self.subject {
            Subject::Cdc | Subject::Proxy => &["strangler-cli"],
            Subject::Cutover => &["strangler-cli", "monolith-demo"],
        }
    }
}

/// Where figures are kept, and what measuring needs beside Debian's packages.
fn folder() -> PathBuf {
    lab::target().join("bench")
}

#[derive(Debug)]
pub struct Course {
    pub extent: Extent,
    pub program: PathBuf,
    /// Debezium is measured, too.
    pub debezium: bool,
    only: Option<String>,
    figures: Vec<Figure>,
}

impl Course {
    pub fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|word| case.contains(word.as_str()))
    }

    pub fn take(&mut self, figure: Option<Figure>) {
        if let Some(figure) = figure {
            println!("{}", figure.line());
            self.figures.push(figure);
        }
    }
}

pub fn run(wish: &Wish) -> Result<ExitCode> {
    let is_cutover = wish.subject == Subject::Cutover;
    anyhow::ensure!(
        is_cutover || !wish.kafka,
        "--kafka is for `bench cutover`: the others find Kafka themselves"
    );
    anyhow::ensure!(wish.subject == Subject::Cdc || !wish.debezium, "--debezium is for `bench cdc`");
    anyhow::ensure!(!is_cutover || wish.only.is_none(), "`bench cutover` is one case: leave out --only");
    let program = wish.program("strangler");
    build(wish)?;
    anyhow::ensure!(program.exists(), "{} is not built: leave out --built", program.display());
    if wish.profile == Profile::Dev {
        terminal::note("the dev profile is not optimised: these figures show that it works, no more");
    }
    if is_cutover {
        return cutover::run(wish);
    }
    let mut course = Course {
        extent: wish.extent(),
        program,
        debezium: wish.debezium,
        only: wish.only.clone(),
        figures: Vec::new(),
    };
    match wish.subject {
        Subject::Cdc => cdc::measure(&mut course)?,
        Subject::Proxy => proxy::measure(&mut course)?,
        Subject::Cutover => {}
    }
    if course.figures.is_empty() {
        bail!("no case of `bench {}` was measured: --only names none", wish.subject.name());
    }
    println!("\n{}", figure::markdown(&course.figures));
    if wish.only.is_none() {
        kept::write(&wish.path(), &course.figures)?;
        println!("{}", wish.path().display());
    }
    Ok(ExitCode::SUCCESS)
}

fn build(wish: &Wish) -> Result<()> {
    if wish.built {
        return Ok(());
    }
    let profile = match wish.profile {
        Profile::Release => "release",
        Profile::Dev => "dev",
    };
    terminal::heading(&format!("building {}, profile {profile}", wish.packages().join(" and ")));
    let mut cargo = process::cargo();
    cargo.args(["build", "--profile", profile]);
    cargo.args(wish.packages().iter().flat_map(|package| ["-p", package]));
    process::succeed(&mut cargo)
}

pub fn show(wish: &Wish) -> Result<ExitCode> {
    let hint = || format!("`cargo xtask bench {}` measures", wish.subject.name());
    let path = wish.path();
    let table = match wish.subject {
        Subject::Cutover => kept::read::<cutover::Outcome>(&path).with_context(hint)?.markdown(),
        Subject::Cdc | Subject::Proxy => {
            figure::markdown(&kept::read::<Vec<Figure>>(&path).with_context(hint)?)
        }
    };
    print!("{table}");
    Ok(ExitCode::SUCCESS)
}
