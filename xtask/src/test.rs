//! `cargo xtask test`: everything that must hold before a change is taken, in the order in which it fails fastest.
//!
//! Nothing has to run before: it starts a Kafka broker, and the tests start their own Postgres. Nothing is skipped.

mod fuzz;
mod programs;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use lab::{Broker, interrupt, process};

use crate::{terminal, tidy};

/// Names a running broker to the tests, as `host:port`.
pub const KAFKA_VARIABLE: &str = "STRANGLER_TEST_KAFKA";

struct Course {
    total: usize,
    done: Vec<(&'static str, Duration)>,
}

impl Course {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        interrupt::check()?;
        let number = self.done.len() + 1;
        terminal::heading(&format!("{number}/{} {name}", self.total));
        let start = Instant::now();
        work().with_context(|| format!("step {number}, {name}, failed"))?;
        let time = start.elapsed();
        terminal::verdict(true, &format!("{name} ({:.1} s)", time.as_secs_f64()));
        self.done.push((name, time));
        Ok(())
    }
}

/// Runs all steps; stops at the first that fails.
pub fn run() -> Result<ExitCode> {
    let mut course = Course { total: 9, done: Vec::new() };
    let start = Instant::now();
    let result = steps(&mut course);
    if let Err(error) = &result
        && error.is::<interrupt::Interrupted>()
    {
        return result.map(|()| ExitCode::FAILURE);
    }
    terminal::heading("summary");
    for (name, time) in &course.done {
        println!("  {:>7.1} s  {name}", time.as_secs_f64());
    }
    println!("  {:>7.1} s  in all", start.elapsed().as_secs_f64());
    if let Err(error) = &result {
        println!("{} {error:#}", terminal::red("failed:"));
    }
    let failed = usize::from(result.is_err());
    println!("{} passed, {failed} failed", course.done.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn steps(course: &mut Course) -> Result<()> {
    let running = std::env::var(KAFKA_VARIABLE).ok().filter(|address| !address.is_empty());
    course.step("fmt", || cargo(&["fmt", "--all", "--check"]))?;
    course.step("tidy", || {
        let findings = tidy::findings(&lab::root())?;
        for finding in &findings {
            println!("{finding}");
        }
        anyhow::ensure!(findings.is_empty(), "{} findings", findings.len());
        Ok(())
    })?;
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    course.step("clippy", || cargo(&clippy))?;
    course.step("fuzz", fuzz::run)?;
    // Tests that drive the finished programs find them built, whatever their order.
    course.step("build", || cargo(&["build", "--locked", "--workspace", "--all-targets"]))?;
    course.step("tests", || tests(running))?;
    course.step("demo, embedded log", || xtask(&["demo", "--once", "--yes", "--built", "--embedded"]))?;
    // Demo and chaos always bring their own broker.
    course.step("demo, Kafka", || xtask(&["demo", "--once", "--yes", "--built", "--kafka"]))?;
    course.step("chaos, ten kills", || xtask(&["chaos", "--kills", "10", "--seed", "1", "--yes", "--built"]))
}

/// All tests, with the broker that runs already or with one of their own.
fn tests(running: Option<String>) -> Result<()> {
    // Some tests start and kill brokers of their own. So Kafka is fetched even if a running broker was named.
    lab::kafka::fetch()?;
    let broker = if running.is_none() { Some(Broker::start(None)?) } else { None };
    let address = running.or_else(|| broker.as_ref().map(Broker::address)).unwrap_or_default();
    terminal::note(&format!("{KAFKA_VARIABLE}={address}"));
    programs::run(&address)?;
    // Cargo runs the examples in the docs by a program of its own.
    process::succeed(process::cargo().args(["test", "--locked", "--workspace", "--doc", "--quiet"]))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    process::succeed(process::cargo().args(arguments))
}

/// A verb in a process of its own, as a user starts it, with the programs that were just built: building them apart from
/// the workspace would compile their dependencies again, with other features.
fn xtask(arguments: &[&str]) -> Result<()> {
    // The build may have replaced the program that runs; Linux then calls the running one deleted.
    let myself = std::env::current_exe()?;
    let myself = myself.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
    process::succeed(Command::new(myself).args(arguments).current_dir(lab::root()))
}
