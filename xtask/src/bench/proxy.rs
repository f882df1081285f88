//! The proxy beside nginx, HAProxy and Envoy: CPU time a request costs, and the slowest requests.
//!
//! All servers run on one CPU, the origin and the load on another, and one server is measured at a time. CPU
//! time is the main figure: other work on the machine changes how long a request takes, but hardly what it costs.

mod crowd;
mod load;
mod rivals;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::figure::{Better, Figure};
use super::house::{self, House, await_listening, end};
use super::{Course, Extent, account};
use crate::terminal;
use lab::process::Background;
use lab::{FOLDER_PREFIX, free_port};
use load::Load;
use rivals::Server;
use tempfile::TempDir;

const WARM_UP: Duration = Duration::from_secs(1);
/// The CPU that the measured servers share.
const SERVER_CPU: usize = 0;
/// Requests that no route matches.
const PLAIN: &str = "pass-through";
/// Requests of a route whose reads are at the service.
const READS: &str = "reads at the service";
/// Connections that do nothing.
const CROWD: &str = "memory of a connection";
const ROUTES: &str = "10 000 routes";
const FEW: usize = 10;
const MANY: usize = 10_000;
const SHORT_ROUND: Duration = Duration::from_secs(2);
/// How many short rounds take the place of one.
const SHORT_ROUNDS: usize = 8;

#[derive(Debug, Default)]
struct Rounds(BTreeMap<(String, &'static str), Vec<f64>>);

impl Rounds {
    fn of(&self, server: &str, what: &'static str) -> &[f64] {
        self.0.get(&(server.to_owned(), what)).map_or(&[], Vec::as_slice)
    }

    /// Sends requests to a server for a while, and notes what they cost.
    fn ask(&mut self, name: &str, process: &mut Background, port: u16, load: &Load) -> Result<()> {
        process.must_run()?;
        if let Some(warm_up) = load.warm_up {
            load.on(port, warm_up)?;
        }
        let before = account::cpu_seconds(process.pid())?;
        let outcome = load.on(port, load.time)?;
        let used = account::cpu_seconds(process.pid())? - before;
        process.must_run()?;
        let mut book = |what, value| self.0.entry((name.to_owned(), what)).or_default().push(value);
        book("cpu", used * 1e6 / outcome.requests);
        book("p99", outcome.p99_ms);
        Ok(())
    }
}

pub fn measure(course: &mut Course) -> Result<()> {
    let folder = tempfile::Builder::new().prefix(&format!("{FOLDER_PREFIX}bench-proxy-")).tempdir()?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    // With two CPUs, load and origin share the second. Which is the bottleneck does not change what a request costs.
    let origin = rivals::origin(folder.path(), 1 % cpus)?;
    await_listening(origin.port)?;
    let time = Duration::from_secs(if course.extent == Extent::Quick { 2 } else { 5 });
    let load = |name: &str, paths: &[String]| -> Result<Load> {
        let script = folder.path().join(format!("{name}.lua"));
        fs::write(&script, load::script(paths))?;
        Ok(Load { script, warm_up: Some(WARM_UP), time, cpu: cpus - 1 })
    };
    if course.wants(PLAIN) || course.wants(READS) || course.wants(CROWD) {
        let plain = load("plain", &["/plain/7".to_owned()])?;
        let reads = load("reads", &["/items/7".to_owned()])?;
        against_rivals(course, &folder, &origin, &plain, &reads)?;
    }
    if course.wants(ROUTES) {
        // Both lists are of one length: a longer one takes memory and time of the load itself.
        let few = load("few", &paths(FEW).into_iter().cycle().take(MANY).collect::<Vec<_>>())?;
        let many = load("many", &paths(MANY))?;
        against_itself(course, &origin, &few, &many)?;
    }
    Ok(())
}

fn against_rivals(
    course: &mut Course,
    folder: &TempDir,
    origin: &Server,
    plain: &Load,
    reads: &Load,
) -> Result<()> {
    terminal::heading("the proxy beside others");
    let mut rivals = rivals::all(folder.path(), origin.port, SERVER_CPU)?;
    for rival in &mut rivals {
        await_listening(rival.port).with_context(|| rival.process.log_end())?;
    }
    let mut ours = Ours::start(course, "one", &["  show: GET /items/{id}".to_owned()], origin.port)?;
    let mut rounds = Rounds::default();
    for round in 0..course.extent.rounds() {
        // Ours goes first in one round and last in the next, and the others turn round with it.
        if round % 2 == 0 {
            ours.ask(&mut rounds, PLAIN, plain)?;
            ours.ask(&mut rounds, READS, reads)?;
        }
        for rival in &mut rivals {
            rounds.ask(rival.name, &mut rival.process, rival.port, plain)?;
        }
        if round % 2 == 1 {
            ours.ask(&mut rounds, READS, reads)?;
            ours.ask(&mut rounds, PLAIN, plain)?;
        }
        rivals.reverse();
        terminal::note(&format!("round {} of {}", round + 1, course.extent.rounds()));
    }
    for case in [PLAIN, READS] {
        for (what, title, unit) in
            [("cpu", "CPU per request", "µs"), ("p99", "p99 latency, 32 clients", "ms")]
        {
            let peers: Vec<(&str, &[f64])> =
                rivals.iter().map(|rival| (rival.name, rounds.of(rival.name, what))).collect();
            let title = format!("{case}: {title}");
            course.take(Figure::of(&title, unit, Better::Less, rounds.of(case, what), &peers));
        }
    }
    if course.wants(CROWD) {
        crowds(course, &mut ours, &rivals)?;
    }
    ours.end()
}

/// Memory is measured once, after the load, when each server has what it needs for its work.
fn crowds(course: &mut Course, ours: &mut Ours, rivals: &[Server]) -> Result<()> {
    let mine = crowd::costs(&ours.proxy, ours.port)?;
    ours.proxy.must_run()?;
    let mut theirs = Vec::new();
    for rival in rivals.iter().filter(|rival| matches!(rival.name, "nginx" | "haproxy")) {
        theirs.push((rival.name, crowd::costs(&rival.process, rival.port)?));
    }
    let cases = ["idle after an answer", "idle for 7 s", "a head of 1 MiB without an end"];
    for (at, what) in cases.iter().enumerate() {
        let peers: Vec<(&str, &[f64])> =
            theirs.iter().map(|(name, costs)| (*name, &costs[at..=at])).collect();
        course.take(Figure::of(&format!("{CROWD}: {what}"), "KiB", Better::Less, &mine[at..=at], &peers));
    }
    Ok(())
}

fn against_itself(course: &mut Course, origin: &Server, few: &Load, many: &Load) -> Result<()> {
    terminal::heading("the proxy with many routes beside itself with few");
    let mut small = Ours::start(course, "few", &routes(FEW), origin.port)?;
    let mut large = Ours::start(course, "many", &routes(MANY), origin.port)?;
    let mut rounds = Rounds::default();
    few.on(small.port, few.time)?;
    many.on(large.port, many.time)?;
    // The difference to find is two percent, and one run varies by five. So there are many short rounds, and the two
    // swap places to share what drifts.
    let short = |load: &Load| Load { warm_up: None, time: load.time.min(SHORT_ROUND), ..load.clone() };
    let (few, many) = (&short(few), &short(many));
    for round in 0..course.extent.rounds() * SHORT_ROUNDS {
        if round % 2 == 0 {
            small.ask(&mut rounds, "few", few)?;
            large.ask(&mut rounds, "many", many)?;
        } else {
            large.ask(&mut rounds, "many", many)?;
            small.ask(&mut rounds, "few", few)?;
        }
    }
    for (what, title, unit) in [("cpu", "CPU per request", "µs"), ("p99", "p99 latency, 32 clients", "ms")] {
        let title = format!("{ROUTES}: {title}");
        let peers = [("itself with 10", rounds.of("few", what))];
        course.take(Figure::of(&title, unit, Better::Less, rounds.of("many", what), &peers));
    }
    small.end()?;
    large.end()
}

/// Routes with a literal of their own each, all of one length.
fn routes(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("  r{at:05}: GET /area{:02}/thing{at:05}/{{id}}", at % 50)).collect()
}

fn paths(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("/area{:02}/thing{at:05}/7", at % 50)).collect()
}

/// Our proxy with its controller, all reads of its one slice at the service.
struct Ours {
    proxy: Background,
    house: House,
    port: u16,
}

impl Ours {
    fn start(course: &Course, name: &str, routes: &[String], origin: u16) -> Result<Ours> {
        let port = free_port()?;
        let routes = routes.iter().map(|route| format!("    {route}\n")).collect::<String>();
        let slices = format!("  items:\n    service: side\n    routes:\n{routes}");
        let (origin, listen) = (format!("127.0.0.1:{origin}"), format!("127.0.0.1:{port}"));
        let plan = house::plan([&origin, &origin], false, &listen, None, &slices)?;
        let mut house = House::with_plan(&course.program, &format!("bench-proxy-{name}"), &plan, Vec::new())?;
        house.open()?;
        let mut proxy = house.part("proxy", Some(SERVER_CPU))?;
        await_listening(port).with_context(|| proxy.log_end())?;
        // It is done only when the live proxy has it.
        house.verb(&["route", "set", "items", "100%"])?;
        proxy.must_run()?;
        Ok(Ours { proxy, house, port })
    }

    fn ask(&mut self, rounds: &mut Rounds, name: &str, load: &Load) -> Result<()> {
        rounds.ask(name, &mut self.proxy, self.port, load)?;
        // Its access log goes to its output: a gigabyte in a few rounds, which nobody reads.
        fs::File::options().write(true).truncate(true).open(self.house.log("proxy"))?;
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        end(&mut self.proxy)
    }
}
