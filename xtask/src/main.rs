//! `cargo xtask`: what a person does with this repository beside building it.
//!
//! Each verb has its own file; this one reads the command line. It imports `lab` and no other crate of the workspace:
//! it drives the finished programs, as a user would, and builds on a machine that has nothing but Rust yet.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "xtask is a terminal program")]

mod bench;
mod chaos;
mod conformance;
mod consumers;
mod demo;
mod guard;
mod kafka;
mod kept;
mod lock;
mod prerequisites;
mod program;
mod simulate;
mod terminal;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::interrupt;

use prerequisites::Need;

/// What shells report for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
/// What a person does with this repository beside building it.
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
    /// The process id of the guard whose worker this is.
    #[arg(long, hide = true)]
    worker: Option<i32>,
}

#[derive(Subcommand)]
enum Verb {
    /// Tell the whole story on this machine: two Postgres clusters, a shop, the proxy, the bridge, traffic.
    Demo(demo::Wish),
    /// Kill and freeze parts at random while writes move forth and back, and prove that nothing is lost.
    ///
    /// Writes target/chaos/report.json, and exits with 0 only if everything held.
    Chaos(chaos::Wish),
    /// Run fmt, tidy, clippy, every test, the demo on both logs, and ten kills.
    Test {
        /// Install missing Debian packages without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Run one Kafka broker on this machine until Ctrl-C.
    Kafka {
        /// Where clients connect.
        #[arg(long)]
        port: Option<u16>,
        /// Keep the broker's data here.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Install missing Debian packages without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Check the rules of the repository that neither the compiler nor clippy checks.
    Tidy,
    /// Install what this machine lacks.
    Prerequisites {
        /// Install missing Debian packages without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Measure against PostgreSQL's own replication (cdc), against other proxies (proxy), and how long writes wait while
    /// they move (cutover).
    ///
    /// Writes target/bench/*.json.
    Bench(bench::Wish),
    /// Compare our records in Kafka with those that Debezium's own connector writes from the same database.
    ///
    /// Writes target/conformance/report.json, and exits with 0 only if every difference is explained.
    Conformance(conformance::Wish),
    /// Let programs of others read our topics, and compare what they make of them with Postgres: Flink, OpenSearch, kcat.
    ///
    /// Exits with 0 only if everything is equal.
    Consumers(consumers::Wish),
    /// Live worlds in which everything goes wrong that can: controllers, agents and databases in a time of their own.
    Simulate(simulate::Wish),
}

fn main() -> ExitCode {
    let CommandLine { verb, worker } = CommandLine::parse();
    let result = match worker {
        None => verb.begin(),
        Some(guard) => {
            let keep = verb.keeps();
            let result = guard::enter(guard).and_then(|()| verb.work());
            guard::leave(guard, keep);
            result
        }
    };
    match result {
        Ok(code) => code,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("\ninterrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("{} {error:#}", terminal::red("error:"));
            ExitCode::FAILURE
        }
    }
}

impl Verb {
    /// What needs a terminal to ask questions happens here, before there is a worker. What starts other programs
    /// happens in the worker.
    fn begin(self) -> Result<ExitCode> {
        match &self {
            Verb::Tidy => return tidy::run(&lab::root()),
            Verb::Prerequisites { yes } => {
                prerequisites::ensure(&Need::everything(), *yes)?;
                terminal::verdict(true, "nothing is missing");
                return Ok(ExitCode::SUCCESS);
            }
            Verb::Bench(wish) if wish.markdown => return bench::show(wish),
            Verb::Kafka { yes, .. } => prerequisites::ensure(&Need::kafka(), *yes)?,
            Verb::Demo(wish) => prerequisites::ensure(&wish.need(), wish.yes)?,
            Verb::Chaos(wish) => prerequisites::ensure(&wish.need(), wish.yes)?,
            Verb::Test { yes } => prerequisites::ensure(&Need::everything(), *yes)?,
            Verb::Bench(wish) => prerequisites::ensure(&wish.need(), wish.yes)?,
            Verb::Conformance(wish) => prerequisites::ensure(&wish.need(), wish.yes)?,
            Verb::Consumers(wish) => prerequisites::ensure(&wish.need(), wish.yes)?,
            Verb::Simulate(_) => {}
        }
        guard::over(self.keeps())
    }

    /// Leaves its temporary files behind.
    fn keeps(&self) -> bool {
        matches!(
            self,
            Verb::Demo(demo::Wish { keep: true, .. })
                | Verb::Conformance(conformance::Wish { keep: true, .. })
        )
    }

    fn work(self) -> Result<ExitCode> {
        match self {
            Verb::Tidy | Verb::Prerequisites { .. } => self.begin(),
            Verb::Kafka { port, dir, .. } => kafka::run(port, dir.as_deref()),
            Verb::Demo(wish) => demo::run(&wish),
            Verb::Chaos(wish) => chaos::run(&wish),
            Verb::Test { .. } => test::run(),
            Verb::Bench(wish) => bench::run(&wish),
            Verb::Conformance(wish) => conformance::run(&wish),
            Verb::Consumers(wish) => consumers::run(&wish),
            Verb::Simulate(wish) => simulate::run(&wish),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
