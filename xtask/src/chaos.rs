//! `cargo xtask chaos`: customers who never stop ordering, writes that move forth and back over and over, and parts that
//! are killed with -9 or frozen meanwhile, as a seed says. In the end both sides are compared row by row, and every
//! promise is proven.
//!
//! This file sets up, lets it happen, and accounts for it. Postgres and Kafka run as they do in production (`fsync` and
//! `synchronous_commit` are on), but what is killed is a process, not the machine.

mod history;
mod moves;
mod outage;
mod report;
mod schedule;
mod screen;
mod traces;
mod victim;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use lab::{Broker, free_port, interrupt};

use crate::demo::shop::Shop;
use crate::demo::strangler::Strangler;
use crate::demo::traffic::{Proof, Traffic};
use crate::demo::{self, leftovers};
use crate::prerequisites::Need;
use crate::program::Program;
use crate::{lock, terminal};
use history::History;
use moves::Mover;
use outage::{Incident, Kind, Outages, explain};
use report::Report;
use schedule::{Blow, Part, blows};
use screen::Screen;
use victim::{Database, Fate, Log, Scene, Victim};

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

/// All that runs. Its fields end in this order: first what uses the others.
struct Stage {
    traffic: Traffic,
    proxies: [Program; 2],
    bridge: Program,
    controller: Program,
    strangler: Strangler,
    shop: Shop,
    broker: Option<Broker>,
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
    conclude(&report)
}

fn conclude(report: &Report) -> Result<ExitCode> {
    let path = folder().join("report.json");
    report.write(&path)?;
    terminal::heading("account");
    println!("{}", fs::read_to_string(&path)?.trim_end());
    for fault in report.faults.iter().take(SHOWN_MAX) {
        println!("  {} {fault}", terminal::red("✗"));
    }
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
    fn set(wish: &Wish, seed: u64, screen: &Screen) -> Result<Stage> {
        let logs = folder().join("log");
        if logs.exists() {
            fs::remove_dir_all(&logs)?;
        }
        fs::create_dir_all(&logs)?;
        screen.line(&format!("log: {}; starting databases, shop and strangler", wish.log().name()));
        let broker = if wish.embedded { None } else { Some(Broker::start(None)?) };
        let shop = Shop::open()?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let kafka = broker.as_ref().map(Broker::address);
        let mut strangler = Strangler::unpack(&folder(), &shop, &listen, kafka.as_deref())?;
        // Each part is started by itself, and the second proxy has no folder with a token.
        strangler.set("STRANGLER_TOKEN", &format!("chaos-{}", rand::random::<u64>()));
        let second = strangler.beside(&folder().join("second-proxy"))?;
        strangler.show_as_admin("install")?;
        let start = |name: &str, strangler: &Strangler, verb: &str, port: u16, path: &'static str| {
            let log = logs.join(format!("{}.log", name.replace(' ', "-")));
            let health = format!("127.0.0.1:{port}");
            Program::start(name, strangler.command(&[verb]), (&health, path), &log)
        };
        let ports = strangler.ports;
        let controller = start("controller", &strangler, "controller", ports.controller, "/healthz")?;
        let bridge = start("bridge", &strangler, "bridge", ports.bridge, "/healthz")?;
        let proxies = [
            start("first proxy", &strangler, "proxy", ports.admin, "/readyz")?,
            start("second proxy", &second, "proxy", second.ports.admin, "/readyz")?,
        ];
        let mut traffic = Traffic::prepared(&shop, &[&strangler.proxy, &second.proxy], &folder());
        traffic.seed = seed;
        Ok(Stage { traffic, proxies, bridge, controller, strangler, shop, broker })
    }

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
        self.account(&proof, &outages, report)?;
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

    /// Each part with its blows.
    fn fates(&mut self, blows: &[Blow]) -> (&Strangler, Vec<Fate<'_>>) {
        let logs = folder().join("log");
        let Stage { proxies, bridge, controller, strangler, shop, broker, .. } = self;
        let [first, second] = proxies;
        let Shop { orders, monolith_cluster, orders_cluster, .. } = shop;
        let monolith =
            Database { cluster: monolith_cluster, name: "shop", log: logs.join("monolith-database.log") };
        let service =
            Database { cluster: orders_cluster, name: "orders", log: logs.join("service-database.log") };
        let mut victims: Vec<(Part, Box<dyn Victim + '_>)> = vec![
            (Part::Controller, Box::new(controller)),
            (Part::Bridge, Box::new(bridge)),
            (Part::FirstProxy, Box::new(first)),
            (Part::SecondProxy, Box::new(second)),
            (Part::Service, Box::new(orders)),
            (Part::MonolithDatabase, Box::new(monolith)),
            (Part::ServiceDatabase, Box::new(service)),
        ];
        if let Some(broker) = broker {
            victims.push((Part::Kafka, Box::new(Log { broker, log: logs.join("kafka.log") })));
        }
        let own = |part| blows.iter().copied().filter(|blow| blow.part == part).collect();
        let fates =
            victims.into_iter().map(|(part, victim)| Fate { part, blows: own(part), victim }).collect();
        (strangler, fates)
    }

    /// Holds what the customers met against what was broken, and reads the journal.
    fn account(&self, proof: &Proof, outages: &Outages, report: &mut Report) -> Result<()> {
        let outages = outages.all();
        report.requests = Some(proof.requests);
        report.failed = Some(proof.failed + proof.deferred);
        report.failed_unexplained = Some(self.unexplained(&outages, report)?);
        report.lost = Some(proof.lost);
        report.doubled = Some(proof.doubled);
        report.differences = Some(proof.differences);
        for (count, what) in [
            (proof.lost, "promises are lost"),
            (proof.doubled, "writes were done twice"),
            (proof.differences, "rows differ"),
            (proof.credit_exceeded, "times a customer's credit was exceeded"),
            (proof.stock_negative, "times a stock was negative"),
            (proof.sagas_open, "sagas have not ended"),
            (proof.books_differ, "entries of the books do not fit the orders"),
        ] {
            if count > 0 {
                report.faults.push(format!("{count} {what}: {}", proof.proof_samples.join("; ")));
            }
        }
        let journal = self.strangler.tried("journal", COMMAND_LIMIT)?;
        ensure!(journal.exit == 0, "`strangler journal` ended with {}: {}", journal.exit, journal.last());
        let history = History::read(&journal.documents, &outages)?;
        report.cutovers = Some(history.cutovers);
        report.rollbacks = Some(history.rollbacks);
        report.aborted = Some(history.aborted);
        report.hold_ms_max = Some(history.hold_ms_max);
        report.faults.extend(history.faults);
        ensure!(history.cutovers > 0 && history.rollbacks > 0, "writes never moved forth and back");
        Ok(())
    }

    fn unexplained(&self, outages: &[outage::Outage], report: &mut Report) -> Result<u64> {
        let text =
            fs::read_to_string(self.traffic.incidents()).context("the customers wrote no incidents")?;
        let (first, mut count) = (format!("http://{}", self.strangler.proxy), 0);
        for line in text.lines() {
            let incident: Incident = serde_json::from_str(line).context("an incident cannot be read")?;
            let through = if incident.proxy == first { Part::FirstProxy } else { Part::SecondProxy };
            if explain(outages, &incident, through).is_none() {
                count += 1;
                let word = match incident.kind {
                    Kind::Failed => "a request failed",
                    Kind::PutOff => "a write was put off",
                    Kind::Wrong => "an answer was wrong",
                };
                let Incident { from_ms, until_ms, what, .. } = &incident;
                let near = near(outages, *from_ms);
                report
                    .faults
                    .push(format!("{word} through {through}, {from_ms} to {until_ms}: {what} ({near})"));
            }
        }
        Ok(count)
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

    /// The servers' own logs go with their folders.
    fn keep_logs(&self) {
        let logs = folder().join("log");
        let mut kept = vec![
            (self.shop.monolith_cluster.log(), "monolith-database.log"),
            (self.shop.orders_cluster.log(), "service-database.log"),
            (self.shop.monolith_cluster.folder().join("application.log"), "monolith.log"),
            (self.shop.orders_cluster.folder().join("application.log"), "service.log"),
        ];
        kept.extend(self.broker.iter().map(|broker| (broker.log(), "kafka.log")));
        for (from, name) in kept {
            if let Err(error) = victim::keep(&from, &logs.join(name)) {
                terminal::note(&format!("{name} is not kept: {error:#}"));
            }
        }
    }
}

/// The last outage that began before, for someone who looks for the reason.
fn near(outages: &[outage::Outage], at_ms: u64) -> String {
    let before = outages.iter().filter(|outage| outage.from_ms <= at_ms).max_by_key(|outage| outage.from_ms);
    before.map_or("nothing was broken before".to_owned(), |outage| {
        let end = outage.until_ms.map_or("still".to_owned(), |end| format!("until {end}"));
        format!("last, {} was {} from {} {end}", outage.part, outage.how.word(), outage.from_ms)
    })
}
