//! `cargo xtask chaos`: customers who never stop ordering, writes that move forth and back over and over, and parts that
//! are killed with -9 or frozen meanwhile, as a seed says. In the end both sides are compared row by row, and every
//! promise is proven.
//!
//! This file lets it happen, from the first order to the last look. Postgres and Kafka run as they do in production (`fsync` and
//! `synchronous_commit` are on), but what is killed is a process, not the machine.

mod account;
mod history;
mod moves;
mod outage;
mod report;
mod schedule;
mod screen;
mod stage;
mod traces;
mod victim;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use lab::interrupt;

use crate::demo::{self, leftovers};
use crate::prerequisites::Need;
use crate::{kept, lock, terminal};
use moves::Mover;
use outage::Outages;
use report::Report;
use schedule::{Blow, Part, blows};
use screen::Screen;
use stage::Stage;
use victim::Scene;

/// How long customers order before anything happens, and after everything has.
const CALM: Duration = Duration::from_secs(4);
const END_LIMIT: Duration = Duration::from_secs(10);
const COMMAND_LIMIT: Duration = Duration::from_secs(180);
/// `proxy.hold.max_wait` of the plan, 10 s unless it says otherwise: no write waits longer.
const HELD_MS_MAX: u64 = 10_500;
const SHOWN_MAX: usize = 40;

#[derive(Args, Clone, Copy, Debug)]
pub struct Wish {
    /// How many times a part is killed with -9 or frozen.
    #[arg(long, default_value_t = 10)]
    kills: u64,
    /// Of the schedule of kills and moves, and of the customers' choices [default: a random one].
    #[arg(long)]
    seed: Option<u64>,
    /// Use the bridge's own store on disk, and no broker.
    #[arg(long)]
    embedded: bool,
    /// Take the programs that the last build left.
    #[arg(long)]
    built: bool,
    /// Install missing Debian packages without asking.
    #[arg(long)]
    pub yes: bool,
}

impl Wish {
    pub fn need(&self) -> Need {
        Need { build: true, postgres: true, kafka: !self.embedded, ..Need::default() }
    }

    fn log(&self) -> demo::Log {
        if self.embedded { demo::Log::Embedded } else { demo::Log::Kafka }
    }
}

pub fn run(wish: &Wish) -> Result<ExitCode> {
    let seed = wish.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("seed {seed}: `cargo xtask chaos --kills {} --seed {seed}` repeats this schedule", wish.kills);
    let _lock = lock::take(&folder())?;
    if !wish.built {
        demo::build()?;
    }
    let mut report = Report { seed, log: wish.log().name(), ..Report::default() };
    let screen = Screen::open(&folder().join("chaos.log"))?;
    let happened = Stage::set(wish, seed, &screen).and_then(|mut stage| {
        let happened = stage.happen(wish, &mut report, &screen);
        stage.keep_logs();
        happened
    });
    if let Err(error) = happened {
        if error.is::<interrupt::Interrupted>() {
            return Err(error);
        }
        report.faults.push(format!("{error:#}"));
    }
    conclude(&report, &screen)
}

fn conclude(report: &Report, screen: &Screen) -> Result<ExitCode> {
    let path = folder().join("report.json");
    kept::write(&path, report)?;
    terminal::heading("account");
    println!("{}", fs::read_to_string(&path)?.trim_end());
    for fault in report.faults.iter().take(SHOWN_MAX) {
        println!("  {} {fault}", terminal::red("✗"));
    }
    report.faults.iter().for_each(|fault| screen.keep(&format!("✗ {fault}")));
    let logs = folder().join("log");
    if report.holds() {
        println!("{}", terminal::green("nothing is lost, nothing is doubled, both sides are equal"));
        return Ok(ExitCode::SUCCESS);
    }
    let more = report.faults.len().saturating_sub(SHOWN_MAX);
    println!(
        "{} ({more} more faults in chaos.log; the parts' logs: {})",
        terminal::red("something is wrong"),
        logs.display()
    );
    Ok(ExitCode::FAILURE)
}

fn folder() -> PathBuf {
    lab::target().join("chaos")
}

impl Stage {
    fn happen(&mut self, wish: &Wish, report: &mut Report, screen: &Screen) -> Result<()> {
        self.strangler.show("sync start orders --timeout 120")?;
        self.strangler.show("route set orders 50%")?;
        self.traffic.start()?;
        interrupt::sleep(CALM)?;
        let parts: Vec<Part> =
            Part::ALL.into_iter().filter(|part| *part != Part::Kafka || self.broker.is_some()).collect();
        let outages = Outages::default();
        let blows = blows(report.seed, wish.kills, &parts);
        let wrought = self.wreak(&blows, report, (&outages, screen));
        report.kills = outages.all().len() as u64;
        wrought?;
        interrupt::sleep(CALM)?;
        self.traffic.must_run()?;
        screen.line("the customers stop, and prove what they were promised");
        let proof = self.traffic.finish()?;
        self.account(&proof, &outages.all(), report)?;
        self.prove_by_strangler(report)?;
        self.leave(report)
    }

    /// Breaks parts and moves writes until the schedule is over and the slice rests.
    fn wreak(
        &mut self,
        blows: &[Blow],
        report: &mut Report,
        (outages, screen): (&Outages, &Screen),
    ) -> Result<()> {
        let (count, seed, is_over) = (blows.len(), report.seed, AtomicBool::new(false));
        let scene =
            Scene { began: Instant::now(), outages, screen, is_over: &is_over, moves: AtomicUsize::new(0) };
        let (strangler, mut fates) = self.fates(blows);
        let done = AtomicUsize::new(0);
        let (scene, done) = (&scene, &done);
        let mut mover = Mover::new(strangler, scene, seed);
        let moved = std::thread::scope(|scope| {
            let threads: Vec<_> = fates
                .iter_mut()
                .map(|fate| {
                    scope.spawn(move || {
                        let lived = fate.run(scene, done);
                        if lived.is_err() {
                            scene.end();
                        }
                        lived
                    })
                })
                .collect();
            let is_done = || {
                let dealt = done.load(Ordering::Relaxed);
                screen.state(&format!("{dealt} of {count} kills, {} broken now", outages.open()));
                dealt == count
            };
            let moved = mover.run(is_done);
            scene.end();
            let lived = threads.into_iter().map(|thread| thread.join());
            let lived =
                lived.map(|lived| lived.unwrap_or_else(|_| bail!("a thread that breaks parts broke")));
            // What a part died of says more than that the moves did not go on.
            lived.collect::<Result<Vec<()>>>().and(moved)
        });
        report.faults.append(&mut mover.faults);
        if mover.held_ms_max > HELD_MS_MAX {
            report.faults.push(format!("a write waited {} ms in a hold", mover.held_ms_max));
        }
        moved
    }

    /// Strangler's own comparison must agree, and nothing may be left to mend.
    fn prove_by_strangler(&self, report: &mut Report) -> Result<()> {
        let verified = self.strangler.tried("verify orders --full-speed --restart", COMMAND_LIMIT)?;
        if verified.exit != 0 {
            report.faults.push(format!(
                "`strangler verify` ended with {}: {}",
                verified.exit,
                verified.last()
            ));
        }
        let reconciled = self.strangler.tried("reconcile orders", COMMAND_LIMIT)?;
        let did =
            reconciled.last().get("did").and_then(|did| did.as_array()).is_none_or(|did| !did.is_empty());
        if reconciled.exit != 0 || did {
            let said = reconciled.last();
            report.faults.push(format!("`strangler reconcile` ended with {}: {said}", reconciled.exit));
        }
        Ok(())
    }

    /// Ends the slice's life and looks what stays.
    fn leave(&mut self, report: &mut Report) -> Result<()> {
        let status = self.strangler.ask("status")?;
        let owner =
            status.pointer("/slices/orders/owner").and_then(|owner| owner.as_str()).unwrap_or_default();
        let mut left = traces::find(&self.shop, owner)?;
        if owner == "service" {
            self.strangler.show("rollback orders")?;
            left.extend(traces::find(&self.shop, "monolith")?);
        }
        self.strangler.show("route set orders monolith")?;
        self.strangler.show("sync drop orders --yes")?;
        let [first, second] = &mut self.proxies;
        for (name, program) in [
            ("the controller", &mut self.controller),
            ("the bridge", &mut self.bridge),
            ("the first proxy", first),
            ("the second proxy", second),
        ] {
            if !program.end(END_LIMIT)? {
                left.push(format!("{name} did not end within {} s", END_LIMIT.as_secs()));
            }
        }
        self.strangler.show_as_admin("uninstall --yes")?;
        left.extend(leftovers::find(&self.shop, self.broker.as_ref())?);
        report.leftovers = Some(left.len() as u64);
        report.faults.extend(left.into_iter().map(|one| format!("left behind: {one}")));
        Ok(())
    }
}
