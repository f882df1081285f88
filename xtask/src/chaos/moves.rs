//! What is done to the slice meanwhile: moves forth and back, rehearsals, verifications, at random but legal, one after
//! another. A command that fails although nothing was broken is a fault of the run, and so is a state that leads nowhere.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab::interrupt;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use super::outage::now_ms;
use super::victim::Scene;
use crate::demo::strangler::{Strangler, Tried};

/// A command watches for so long, and says then that it has not seen the end.
const WATCHED: &str = "60s";
/// No command takes longer, its own patience with parts that are away included.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// A slice must come to rest so soon after all parts are back: a preparation may take 60 s.
const REST_LIMIT: Duration = Duration::from_secs(90);
/// However much is broken meanwhile.
const REST_LIMIT_MAX: Duration = Duration::from_secs(600);
/// A part that was broken so lately may be the reason for which a command was refused: what it held up is made up for.
const EXCUSE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(200);
const PAUSE_MS: std::ops::Range<u64> = 200..1_500;
/// Fewer moves would test little.
const MOVES_MIN: usize = 12;
/// Writes should have moved forth and back by then. A run in which they never did proves nothing, and fails.
const MOVES_MAX: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Cutover,
    /// Returns by itself after so many seconds.
    CutoverFor(u64),
    Rehearse,
    Rollback,
    Confirm,
    Verify,
    /// Shares the reads.
    Share(u8),
    /// Begins a crossing, and gives it up after so many milliseconds if it is not decided by then.
    GiveUp {
        rollback: bool,
        after_ms: u64,
    },
    /// Does nothing, and sees what was cut over for a time return.
    Wait,
}

/// Where the slice stands, as `strangler status` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub stage: String,
    pub owner: String,
    /// Whether it returns by itself.
    pub returns: bool,
    /// Whether a crossing is prepared, or writes are held.
    pub crosses: bool,
    /// Findings that no kill may lead to.
    pub alarms: Vec<String>,
}

impl Standing {
    fn read(status: &Value) -> Option<Standing> {
        let slice = status.pointer("/slices/orders")?;
        let text = |name: &str| slice.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_there = |name: &str| slice.get(name).is_some_and(|value| !value.is_null());
        let findings = status.get("findings").and_then(Value::as_array).into_iter().flatten();
        let alarms = findings.filter(|finding| {
            let code = finding.get("code").and_then(Value::as_str).unwrap_or_default();
            ALARMS.contains(&code)
        });
        Some(Standing {
            stage: text("stage"),
            owner: text("owner"),
            returns: is_there("returns_at"),
            crosses: is_there("preparing") || is_there("hold"),
            alarms: alarms.map(Value::to_string).collect(),
        })
    }

    fn is_at_rest(&self) -> bool {
        !self.crosses && ["following", "split"].contains(&self.stage.as_str())
    }
}

/// Codes of findings that mean lost or foreign rows, or a part that cannot go on by itself.
const ALARMS: [&str; 8] = [
    "slice.foreign-writes",
    "slice.lane-lost",
    "gate.ahead",
    "journal.rewound",
    "journal.damaged",
    "log.damaged",
    "log.order",
    "capture.foreign-slot",
];

pub struct Mover<'a> {
    strangler: &'a Strangler,
    scene: &'a Scene<'a>,
    dice: StdRng,
    pub made: usize,
    /// What went wrong, in words.
    pub faults: Vec<String>,
    /// The longest wait of a write, as the commands told it.
    pub held_ms_max: u64,
}

impl<'a> Mover<'a> {
    pub fn new(strangler: &'a Strangler, scene: &'a Scene<'a>, seed: u64) -> Mover<'a> {
        // Another stream of dice than the blows', so that more kills do not change the moves.
        let dice = StdRng::seed_from_u64(seed ^ 0x006d_6f76_6573);
        Mover { strangler, scene, dice, made: 0, faults: Vec::new(), held_ms_max: 0 }
    }

    /// Makes moves until `is_done` and there were enough; the slice is at rest then.
    pub fn run(&mut self, is_done: impl Fn() -> bool) -> Result<()> {
        let (mut was_split, mut came_back) = (false, false);
        while !self.scene.is_over()
            && (self.made < MOVES_MIN || !is_done() || (!came_back && self.made < MOVES_MAX))
        {
            let standing = self.rest()?;
            came_back |= was_split && standing.stage == "following";
            was_split |= standing.stage == "split";
            let next = self.choose(&standing);
            self.made += 1;
            self.scene.moves.fetch_add(1, Ordering::Relaxed);
            self.make(next, &standing)?;
            let pause = self.dice.random_range(PAUSE_MS);
            interrupt::sleep(Duration::from_millis(pause))?;
        }
        // What would return by itself could do so while it is looked at.
        let standing = self.rest()?;
        if standing.returns {
            self.command("confirm orders", &standing)?;
        }
        self.rest().map(drop)
    }

    fn choose(&mut self, standing: &Standing) -> Move {
        let choice = self.dice.random_range(0..100);
        let (seconds, after_ms) = (self.dice.random_range(2..9), self.dice.random_range(0..900));
        let percent = [0, 30, 60, 100][self.dice.random_range(0..4)];
        match (standing.stage.as_str(), standing.returns, choice) {
            ("following", _, 0..35) => Move::Cutover,
            ("following", _, 35..55) => Move::CutoverFor(seconds),
            ("following", _, 55..70) => Move::Rehearse,
            ("following", _, 70..79) => Move::GiveUp { rollback: false, after_ms },
            ("following", _, 79..92) => Move::Share(percent),
            (_, true, 0..25) => Move::Confirm,
            (_, true, 25..50) => Move::Rollback,
            (_, true, 50..90) => Move::Wait,
            ("split", false, 0..70) => Move::Rollback,
            ("split", false, 70..82) => Move::GiveUp { rollback: true, after_ms },
            _ => Move::Verify,
        }
    }

    fn make(&mut self, next: Move, standing: &Standing) -> Result<()> {
        match next {
            Move::Cutover => self.cross("cutover orders", standing),
            Move::CutoverFor(seconds) => self.cross(&format!("cutover orders --for {seconds}s"), standing),
            Move::Rehearse => self.cross("rehearse orders", standing),
            Move::Rollback => self.cross("rollback orders", standing),
            Move::Confirm => self.command("confirm orders", standing),
            Move::Verify => self.command("verify orders --full-speed", standing),
            Move::Share(percent) => self.command(&format!("route set orders {percent}%"), standing),
            Move::GiveUp { rollback, after_ms } => self.give_up(rollback, after_ms),
            Move::Wait => self.wait_for_return(),
        }
    }

    fn cross(&mut self, line: &str, standing: &Standing) -> Result<()> {
        self.command(&format!("{line} --timeout {WATCHED}"), standing)
    }

    /// Runs one command, and notes what it says that it should not.
    fn command(&mut self, line: &str, standing: &Standing) -> Result<()> {
        let (began, began_ms) = (Instant::now(), now_ms());
        let tried = self.strangler.tried(line, COMMAND_LIMIT)?;
        self.judge(line, &tried, (began, began_ms), standing.returns);
        Ok(())
    }

    fn give_up(&mut self, rollback: bool, after_ms: u64) -> Result<()> {
        let line = format!("{} orders --timeout {WATCHED}", if rollback { "rollback" } else { "cutover" });
        let (began, began_ms) = (Instant::now(), now_ms());
        let strangler = self.strangler;
        let (crossed, aborted) = std::thread::scope(|scope| {
            let crossing = scope.spawn(|| strangler.tried(&line, COMMAND_LIMIT));
            std::thread::sleep(Duration::from_millis(after_ms));
            let aborted = strangler.tried("abort orders", COMMAND_LIMIT);
            (crossing.join(), aborted)
        });
        let Ok(crossed) = crossed else { bail!("the thread of `strangler {line}` broke") };
        // A person stands in the way, so an abort and a conflict are in order.
        self.judge(&line, &crossed?, (began, began_ms), true);
        self.judge("abort orders", &aborted?, (began, began_ms), true);
        Ok(())
    }

    fn wait_for_return(&mut self) -> Result<()> {
        self.scene.screen.line("  waits for the return");
        let began = Instant::now();
        while !self.scene.is_over() && self.look()?.is_some_and(|standing| standing.returns) {
            self.must_go_on(began, "to return by itself")?;
            interrupt::sleep(LOOK)?;
        }
        Ok(())
    }

    /// `is_contested`: someone else may decide meanwhile.
    fn judge(&mut self, line: &str, tried: &Tried, (began, began_ms): (Instant, u64), is_contested: bool) {
        let told = |name: &str| tried.last().get(name).and_then(Value::as_u64);
        let text = |name: &str| tried.last().get(name).and_then(Value::as_str).unwrap_or_default();
        let held = told("hold_ms").map_or(String::new(), |ms| format!(", writes held for {ms} ms"));
        self.held_ms_max = self.held_ms_max.max(told("held_ms_max").unwrap_or_default());
        let why = [text("code"), text("message")].join(" ");
        let took = began.elapsed().as_millis();
        let said = format!("  strangler {line}: exit {} after {took} ms{held} {}", tried.exit, why.trim());
        self.scene.screen.line(said.trim_end());
        let was_broken = self.scene.outages.since(began_ms, EXCUSE).is_some();
        if !is_in_order(tried.exit, was_broken, is_contested) {
            let reason = if was_broken { "" } else { " although nothing was broken" };
            self.fault(format!(
                "`strangler {line}` ended with {}{reason}: {} {}",
                tried.exit,
                why,
                tried.last()
            ));
        }
    }

    fn fault(&mut self, what: String) {
        self.scene.screen.line(&format!("! {what}"));
        self.faults.push(what);
    }

    /// Waits until nothing is under way. Waiting alone must lead there.
    pub fn rest(&mut self) -> Result<Standing> {
        let began = Instant::now();
        loop {
            let standing = self.look()?;
            match standing {
                Some(standing) if standing.is_at_rest() => return Ok(standing),
                Some(standing) if standing.stage == "copying" => {
                    bail!("the slice is copied again, so its copy was lost: see the journal")
                }
                _ => self.must_go_on(began, "to come to rest")?,
            }
            interrupt::sleep(LOOK)?;
        }
    }

    fn must_go_on(&self, began: Instant, what: &str) -> Result<()> {
        let waited = began.elapsed();
        let calm = self.scene.outages.calm().unwrap_or_default();
        if waited.min(calm) > REST_LIMIT || waited > REST_LIMIT_MAX {
            let status = self.strangler.tried("status", COMMAND_LIMIT)?;
            bail!(
                "the slice took too long {what}: {} s, {} s of them with every part well: {}",
                waited.as_secs(),
                waited.min(calm).as_secs(),
                status.last()
            );
        }
        Ok(())
    }

    /// None while no controller answers.
    fn look(&mut self) -> Result<Option<Standing>> {
        let status = self.strangler.tried("status", COMMAND_LIMIT)?;
        let standing = Standing::read(status.first());
        for alarm in standing.iter().flat_map(|standing| standing.alarms.clone()) {
            if !self.faults.contains(&alarm) {
                self.fault(alarm);
            }
        }
        Ok(standing)
    }
}

/// Whether an exit code may come (docs/operations.md). `was_broken`: a part was, so lately that it may be the reason.
/// `is_contested`: someone else decides at the same time.
///
/// * 1, 3, 6 and 8 tell of a part that is away, or of what it left undone.
/// * 5 is a crossing that was given up: something took too long, or a person wanted it.
/// * 4 tells that someone else was faster. With a part broken, this may be the own wish, whose answer got lost.
/// * 2 would be our own mistake, and 7 rows that differ: nothing excuses those.
fn is_in_order(exit: i32, was_broken: bool, is_contested: bool) -> bool {
    match exit {
        0 => true,
        1 | 3 | 6 | 8 => was_broken,
        4 | 5 => was_broken || is_contested,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_that_differ_and_a_wrong_usage_are_never_in_order() {
        for exit in [2, 7, 101, -1] {
            assert!(!is_in_order(exit, true, true), "{exit}");
        }
        assert!(is_in_order(0, false, false));
        for exit in [1, 3, 4, 5, 6, 8] {
            assert!(is_in_order(exit, true, false) && !is_in_order(exit, false, false), "{exit}");
        }
        assert!(is_in_order(4, false, true) && !is_in_order(3, false, true));
    }

    #[test]
    fn a_slice_rests_when_nothing_is_under_way() {
        let standing = |slice: Value| {
            let status = json!({ "slices": { "orders": slice }, "findings": [{ "code": "gate.ahead" }, { "code": "x" }] });
            Standing::read(&status).unwrap()
        };
        let split = standing(json!({ "stage": "split", "owner": "service", "returns_at": 5 }));
        assert!(split.is_at_rest() && split.returns);
        assert_eq!(split.alarms.len(), 1);
        assert!(!standing(json!({ "stage": "split", "hold": { "epoch": 3 } })).is_at_rest());
        assert!(!standing(json!({ "stage": "following", "preparing": {} })).is_at_rest());
        assert!(!standing(json!({ "stage": "cutting" })).is_at_rest());
        assert_eq!(Standing::read(&json!({ "exit": 1 })), None);
    }
}
