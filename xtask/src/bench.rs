//! `cargo xtask bench`: measures the bridge beside PostgreSQL's own replication, and the proxy beside other proxies.
//!
//! Ours and its peers take turns in one run, and the medians of their rounds are compared. This file builds and keeps
//! the figures. What is measured, and how, stands in `bench/`.

mod account;
mod cdc;
mod figure;
mod house;
mod proxy;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use clap::{Args, ValueEnum};
use lab::process;

use crate::prerequisites::Need;
use crate::terminal;
use figure::Figure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    Cdc,
    Proxy,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Subject::Cdc => "cdc",
            Subject::Proxy => "proxy",
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
    /// Measure the cases whose names hold this word, and write nothing.
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
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
            Subject::Cdc => Need { postgres: true, ..need },
            Subject::Proxy => Need { rivals: true, ..need },
        }
    }

    fn path(&self) -> PathBuf {
        folder().join(format!("{}.json", self.subject.name()))
    }

    fn program(&self) -> PathBuf {
        let folder = match self.profile {
            Profile::Release => "release",
            Profile::Dev => "debug",
        };
        lab::target().join(folder).join("strangler")
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
    let program = wish.program();
    build(wish)?;
    anyhow::ensure!(program.exists(), "{} is not built: leave out --built", program.display());
    if wish.profile == Profile::Dev {
        terminal::note("the dev profile is not optimised: these figures show that it works, no more");
    }
    let mut course = Course { extent: wish.extent(), program, only: wish.only.clone(), figures: Vec::new() };
    match wish.subject {
        Subject::Cdc => cdc::measure(&mut course)?,
        Subject::Proxy => proxy::measure(&mut course)?,
    }
    if course.figures.is_empty() {
        bail!("no case of `bench {}` was measured: --only names none", wish.subject.name());
    }
    println!("\n{}", figure::markdown(&course.figures));
    if wish.only.is_none() {
        figure::write(&wish.path(), &course.figures)?;
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
    terminal::heading(&format!("building strangler, profile {profile}"));
    let mut cargo = process::cargo();
    cargo.args(["build", "-p", "strangler-cli", "--profile", profile]);
    process::succeed(&mut cargo)
}

pub fn show(wish: &Wish) -> Result<ExitCode> {
    let hint = || format!("`cargo xtask bench {}` measures", wish.subject.name());
    print!("{}", figure::markdown(&figure::read(&wish.path()).with_context(hint)?));
    Ok(ExitCode::SUCCESS)
}
