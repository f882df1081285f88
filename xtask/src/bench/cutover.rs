//! How long writes wait while they move to a service and back, under a steady load.
//!
//! Visitors of a guestbook come at a fixed rate while its tables cross over again and again, by the commands that a user
//! types. A write's time counts from when it was due. Its *added* wait is what lies above the median of quiet time. In the
//! end a ledger of everything that was acknowledged is compared with both databases.

mod arena;
mod visits;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figure::{median, quantiles, shown};
use super::{Extent, Wish};
use crate::{kept, terminal};
use arena::Arena;
use lab::interrupt;
use visits::{Broken, Found, Promises, Span, Times, Visit};

/// The longest added wait that is aimed at, in ms.
const AIM_MS: f64 = 250.0;
/// The load runs for so long before the first crossing. What is slow in the beginning is not measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// Quiet time between two crossings.
const PAUSE: Duration = Duration::from_secs(2);
/// What was under way when a crossing ended has settled after this.
const SETTLED_US: u64 = 500_000;
/// More crossings than this that are given up make the run fail.
const ABORTED_MAX: u32 = 10;
/// Until the copy has what was written last.
const EQUAL_LIMIT: Duration = Duration::from_secs(60);

/// `target/bench/cutover.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    log: String,
    pub cutovers: u32,
    pub rollbacks: u32,
    /// Crossings that were given up, and tried again.
    pub aborted: u32,
    /// How long proxies held writes, by the coordinator.
    hold_ms_p50: f64,
    hold_ms_max: f64,
    /// The longest added wait of each crossing: the median crossing, and the worst.
    added_wait_ms_p50: f64,
    /// … and each, in their order.
    added_wait_ms: Vec<f64>,
    added_wait_ms_max: f64,
    /// Writes in quiet time.
    quiet_ms_p50: f64,
    quiet_ms_p99: f64,
    quiet_ms_max: f64,
    /// Reads while the slice crossed over.
    read_ms_p99: f64,
    /// When each part of a crossing was over, in ms since writes were held; the median.
    phases_ms_p50: BTreeMap<String, f64>,
    writes: u64,
    reads: u64,
    pub failed: u64,
    pub lost: u64,
    pub doubled: u64,
    differences: u64,
}

/// What the crossings said of themselves.
#[derive(Debug, Default)]
struct Crossings {
    aborted: u32,
    holds_ms: Vec<f64>,
    phases_ms: BTreeMap<String, Vec<f64>>,
    spans: Vec<Span>,
}

pub fn run(wish: &Wish) -> Result<ExitCode> {
    let log = if wish.kafka { "kafka" } else { "embedded" };
    terminal::heading(&format!("a guestbook, its visitors, and the log {log}"));
    let rounds = if wish.extent() == Extent::Quick { 2 } else { 20 };
    let mut arena = Arena::open(wish)?;
    let crossings = match cross(&mut arena, rounds) {
        Err(error) if !error.is::<interrupt::Interrupted>() => return Err(error.context(arena.words())),
        other => other?,
    };
    let visits = arena.dismiss()?;
    let [monolith, service] = equal_sides(&arena)?;
    let mut outcome = Outcome::of(&visits, &crossings, [&monolith, &service])?;
    (outcome.log, outcome.cutovers, outcome.rollbacks) = (log.to_owned(), rounds, rounds);
    println!("\n{}", outcome.markdown());
    kept::write(&wish.path(), &outcome)?;
    println!("{}", wish.path().display());
    Ok(outcome.judge())
}

/// Moves the writes to the service and back, so often.
fn cross(arena: &mut Arena, rounds: u32) -> Result<Crossings> {
    interrupt::sleep(WARM_UP)?;
    let mut crossings = Crossings::default();
    for round in 1..=rounds {
        for verb in ["cutover", "rollback"] {
            while !crossings.take(arena, verb)? {
                anyhow::ensure!(
                    crossings.aborted <= ABORTED_MAX,
                    "{} crossings were given up",
                    crossings.aborted
                );
            }
        }
        let held: Vec<f64> = crossings.holds_ms.iter().rev().take(2).rev().copied().collect();
        terminal::note(&format!("{round} of {rounds}: writes were held for {held:?} ms"));
    }
    interrupt::sleep(PAUSE)?;
    arena.must_run()?;
    Ok(crossings)
}

/// What both databases hold once the copy has everything, or after a while.
fn equal_sides(arena: &Arena) -> Result<[Found; 2]> {
    let look = || {
        let [monolith, service] = arena.found()?;
        Ok((monolith == service).then_some([monolith, service]))
    };
    let equal = interrupt::await_until("equal databases", EQUAL_LIMIT, Duration::from_millis(500), look);
    equal.or_else(|error| if error.is::<interrupt::Interrupted>() { Err(error) } else { arena.found() })
}

impl Crossings {
    /// Whether it was decided. Otherwise it was given up, and may be tried again.
    fn take(&mut self, arena: &mut Arena, verb: &str) -> Result<bool> {
        interrupt::sleep(PAUSE)?;
        arena.must_run()?;
        let from_us = now_us()?;
        let said = arena.cross(verb)?;
        self.spans.push(Span { from_us, to_us: now_us()? + SETTLED_US });
        if said["ended"] != "committed" {
            anyhow::ensure!(said["ended"] == "aborted", "`{verb}` ended otherwise than expected: {said}");
            terminal::note(&format!("`{verb}` was given up: {}", said["why"]));
            self.aborted += 1;
            return Ok(false);
        }
        self.holds_ms.push(said["hold_ms"].as_f64().with_context(|| format!("no hold in {said}"))?);
        for (phase, ms) in said["phases"].as_object().into_iter().flatten() {
            self.phases_ms.entry(format!("{verb}: {phase}")).or_default().extend(Value::as_f64(ms));
        }
        Ok(true)
    }
}

impl Outcome {
    fn of(visits: &[Visit], crossings: &Crossings, sides: [&Found; 2]) -> Result<Outcome> {
        // The first visits find cold caches and no connections.
        let begun = visits.iter().map(|visit| visit.due_us).min().context("nobody came")?;
        let warm = begun + u64::try_from(WARM_UP.as_micros())? / 2;
        let measured = |visit: &&Visit| visit.due_us >= warm;
        let writes =
            Times::of(visits.iter().filter(|visit| visit.is_write()).filter(measured), &crossings.spans);
        let reads =
            Times::of(visits.iter().filter(|visit| !visit.is_write()).filter(measured), &crossings.spans);
        let (quiet, quiet_parts) =
            quantiles(&writes.quiet, &[0.99, 1.0]).context("there was no quiet time")?;
        let added: Vec<f64> = writes.longest().iter().map(|longest| (longest - quiet).max(0.0)).collect();
        let promises = Promises::of(visits);
        let [monolith, service] = sides.map(|side| promises.against(side));
        let phases = crossings.phases_ms.iter();
        let longest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let count = |is_write| visits.iter().filter(|visit| visit.is_write() == is_write).count() as u64;
        let Broken { lost, doubled } =
            Broken { lost: monolith.lost.max(service.lost), doubled: monolith.doubled.max(service.doubled) };
        Ok(Outcome {
            aborted: crossings.aborted,
            hold_ms_p50: median(&crossings.holds_ms).context("nothing was held")?,
            hold_ms_max: longest(&crossings.holds_ms),
            added_wait_ms_p50: rounded(median(&added).context("no write fell into a crossing")?),
            added_wait_ms_max: rounded(longest(&added)),
            added_wait_ms: added.iter().copied().map(rounded).collect(),
            quiet_ms_p50: rounded(quiet),
            quiet_ms_p99: rounded(quiet_parts[0]),
            quiet_ms_max: rounded(quiet_parts[1]),
            read_ms_p99: rounded(p99(&reads.crossings.concat())),
            phases_ms_p50: phases.filter_map(|(phase, ms)| Some((phase.clone(), median(ms)?))).collect(),
            writes: count(true),
            reads: count(false),
            failed: visits.iter().filter(|visit| !visit.is_done()).count() as u64,
            lost,
            doubled,
            differences: sides[0].differences(sides[1]),
            ..Outcome::default()
        })
    }

    pub fn markdown(&self) -> String {
        let rows = [
            ("longest added wait of a write", "ms", self.added_wait_ms_max, format!("≤ {AIM_MS}")),
            ("longest added wait, median crossing", "ms", self.added_wait_ms_p50, String::new()),
            ("hold, longest", "ms", self.hold_ms_max, String::new()),
            ("hold, p50", "ms", self.hold_ms_p50, String::new()),
            ("write in quiet time: p50", "ms", self.quiet_ms_p50, String::new()),
            ("write in quiet time: p99", "ms", self.quiet_ms_p99, String::new()),
            ("write in quiet time: longest", "ms", self.quiet_ms_max, String::new()),
            ("read during a crossing: p99", "ms", self.read_ms_p99, String::new()),
            ("requests that failed", "", self.failed as f64, "0".to_owned()),
            ("writes lost", "", self.lost as f64, "0".to_owned()),
            ("writes doubled", "", self.doubled as f64, "0".to_owned()),
            ("crossings given up", "", f64::from(self.aborted), "0".to_owned()),
        ];
        let Outcome { cutovers, rollbacks, writes, reads, log, .. } = self;
        let mut text = format!(
            "| {log} log, {cutovers} cutovers and {rollbacks} rollbacks, {writes} writes and {reads} reads | unit | measured | aim |\n|---|---|--:|--:|\n"
        );
        for (case, unit, value, aim) in rows {
            let value = if unit.is_empty() { format!("{value:.0}") } else { shown(value) };
            text += &format!("| {case} | {unit} | {value} | {aim} |\n");
        }
        text
    }

    /// Says whether the aim is reached. A write that was lost or doubled, or a request that failed, is an error on any
    /// machine; a long wait may be the machine's.
    fn judge(&self) -> ExitCode {
        let is_safe = self.failed + self.lost + self.doubled + self.differences == 0;
        terminal::verdict(is_safe, "no request failed, and no write was lost or doubled");
        let is_short = self.added_wait_ms_max <= AIM_MS;
        terminal::verdict(is_short, &format!("no write waited more than {AIM_MS} ms longer than usual"));
        if is_safe { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn now_us() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

fn p99(values: &[f64]) -> f64 {
    quantiles(values, &[0.99]).and_then(|(_, parts)| parts.first().copied()).unwrap_or_default()
}

/// A hundredth of a millisecond is below what is measured.
fn rounded(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: u64 = 1_000_000_000;

    fn visit(at_ms: u64, took_ms: u64, mark: u64) -> Visit {
        let due = BEGUN + at_ms * 1000;
        Visit::read(&format!("{due} {} 201 entry {mark}", took_ms * 1000)).unwrap()
    }

    fn outcome(visits: &[Visit], holds: &[f64]) -> Result<Outcome> {
        let spans = vec![Span { from_us: BEGUN + 8_000_000, to_us: BEGUN + 9_000_000 }];
        let crossings = Crossings { holds_ms: holds.to_vec(), spans, ..Crossings::default() };
        let both = Found { entries: [(1, 1), (2, 1), (3, 1)].into(), ..Found::default() };
        Outcome::of(visits, &crossings, [&both, &both])
    }

    #[test]
    fn the_added_wait_is_what_lies_above_the_median_of_quiet_time() {
        let visits = [visit(0, 900, 1), visit(6000, 4, 2), visit(8100, 104, 3)];
        let outcome = outcome(&visits, &[90.0]).unwrap();
        assert_eq!((outcome.quiet_ms_p50, outcome.added_wait_ms_max), (4.0, 100.0));
        assert_eq!((outcome.failed, outcome.lost, outcome.doubled, outcome.differences), (0, 0, 0, 0));
        assert!(outcome.markdown().contains("| longest added wait of a write | ms | 100 | ≤ 250 |"));
    }

    #[test]
    fn a_run_without_a_hold_or_without_quiet_time_has_no_figures() {
        let visits = [visit(0, 900, 1), visit(6000, 4, 2), visit(8100, 104, 3)];
        assert!(outcome(&visits, &[]).is_err(), "nothing was held");
        assert!(outcome(&[visits[0], visits[2]], &[1.0]).is_err(), "there was no quiet time");
        assert!(outcome(&visits[..2], &[1.0]).is_err(), "no write fell into the crossing");
    }

    #[test]
    fn the_outcome_survives_its_file() {
        let visits = [visit(0, 900, 1), visit(6000, 4, 2), visit(8100, 104, 4)];
        let outcome = outcome(&visits, &[90.0]).unwrap();
        assert_eq!(
            (outcome.lost, outcome.doubled),
            (1, 1),
            "one promise is not kept, and one row nobody asked for"
        );
        let path = std::env::temp_dir().join(format!("strangler-cutover-{}.json", std::process::id()));
        kept::write(&path, &outcome).unwrap();
        assert_eq!(kept::read::<Outcome>(&path).unwrap(), outcome);
        std::fs::remove_file(path).unwrap();
    }
}
