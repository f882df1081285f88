//! `cargo xtask conformance`: our records in Kafka beside those of Debezium's own connector.
//!
//! Both read one database, whose tables have every type. Every record is compared: key, value, schema, headers, partition
//! and order. What differs on purpose stands, with its reason, in one list; anything else is a failure.

mod arena;
mod pair;
mod random;
mod report;
mod sheet;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use lab::comparison::Explained;
use lab::{Dice, process};

use crate::prerequisites::Need;
use crate::{kept, terminal};
use arena::{Arena, Trail};
use report::Report;

/// The differences that we make on purpose. `docs/bridge.md` repeats them.
const EXPLAINED: &str = include_str!("../../cdc-bridge/rows/tests/conformance/explained.json");

#[derive(Args, Clone, Debug)]
pub struct Wish {
    /// Repeats the random tables and operations of another run.
    #[arg(long)]
    seed: Option<u64>,
    /// How many random tables there are.
    #[arg(long, default_value_t = 12)]
    tables: usize,
    /// Compare only the sheets whose names hold this word.
    #[arg(long, value_name = "SHEET")]
    only: Option<String>,
    /// Leave data and logs behind.
    #[arg(long)]
    pub keep: bool,
    /// Take the programs that the last build left.
    #[arg(long)]
    built: bool,
    /// Install missing Debian packages without asking.
    #[arg(long)]
    pub yes: bool,
}

impl Wish {
    pub fn need(&self) -> Need {
        Need { build: true, postgres: true, kafka: true, ..Need::default() }
    }
}

pub fn run(wish: &Wish) -> Result<ExitCode> {
    let program = built(wish)?;
    let seed = wish.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    terminal::heading(&format!("Debezium and the bridge on one database, seed {seed}"));
    let mut sheets = sheet::written()?;
    sheets.push(random::thrown(&mut Dice::new(seed), wish.tables));
    sheets.retain(|sheet| wish.only.as_ref().is_none_or(|word| sheet.name.contains(word.as_str())));
    let mut arena = Arena::build(&program, &mut sheets)?;
    if wish.keep {
        arena.keep();
    }
    terminal::note(&format!("playing {} sheets", sheets.len()));
    let trails = arena.play(&sheets)?;
    let report = compared(&arena, seed, &trails)?;
    conclude(report)
}

/// Compares what both makers wrote.
fn compared(arena: &Arena, seed: u64, trails: &[Trail]) -> Result<Report> {
    let explained = Explained::read(EXPLAINED).context("the list of explained differences is malformed")?;
    let types = arena.column_types()?;
    let mut report = Report::of(seed, trails.len());
    report.strange_topics = arena.strange_topics()?;
    for trail in trails {
        let outcome = pair::compare(trail).with_context(|| format!("records of {}", trail.table))?;
        report.pairs += outcome.pairs;
        for difference in &outcome.differences {
            let column = difference.column.as_ref();
            let of = column.and_then(|column| types.get(&(trail.table.clone(), column.clone())));
            report.take(&trail.table, of.map_or("", String::as_str), difference, &explained);
        }
    }
    Ok(report)
}

fn conclude(mut report: Report) -> Result<ExitCode> {
    let held = report.conclude();
    terminal::verdict(
        held,
        &format!(
            "{} records of {} tables compared; {} kinds of differences are unexplained (seed {})",
            report.pairs,
            report.tables,
            report.unexplained.len(),
            report.seed
        ),
    );
    let path = path();
    kept::write(&path, &report)?;
    println!("{}", path.display());
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The types of all columns, by table and column.
type ColumnTypes = HashMap<(String, String), String>;

fn path() -> PathBuf {
    lab::target().join("conformance").join("report.json")
}

/// Builds the program that a user has.
fn built(wish: &Wish) -> Result<PathBuf> {
    let program = lab::target().join("debug").join("strangler");
    if !wish.built {
        terminal::heading("building strangler");
        process::succeed(process::cargo().args(["build", "-p", "strangler-cli"]))?;
    }
    anyhow::ensure!(program.exists(), "{} is not built: leave out --built", program.display());
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explained_differences_can_be_read() {
        Explained::read(EXPLAINED).unwrap();
    }
}
