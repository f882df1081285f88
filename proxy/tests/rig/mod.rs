//! The tests' rig: origins that do what a test says, a controller, a bridge, a proxy, a client. Everything is on
//! loopback, on free ports, with bounded waits.
// Each test file uses a part of the rig, and a failure here is a failed test.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic)]

mod apart;
mod bare;
mod browser;
mod controller;
mod origin;
mod running;
mod secure;
mod wire;

pub use apart::Apart;
pub use bare::{Bare, connect, read_past};
pub use browser::{Browser, ask, raw};
pub use controller::{Controller, Gate};
pub use origin::{Origin, Reply, text, websocket};
pub use running::{Running, settings};
pub use secure::{Certificates, Secure, ask_securely, client, come, come_as, shown_to};
pub use wire::{Asked, Got, read_answer};

use migrations::control::{Desired, Report, SliceTraffic, Table, TableRoute, VERSION};
use migrations::crossing::Moment;
use migrations::journal::{Generation, JournalId};
use migrations::names::SliceName;
use migrations::pattern::Access;
use migrations::plan::Sticky;
use migrations::stage::{Epoch, Hold};
use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Milliseconds; longer than any test takes.
pub const LONG: i64 = 600_000;
pub const SECRET: &str = "a-secret-for-testers-only";

/// A proxy in front of a monolith and a service.
pub struct Rig {
    pub monolith: Origin,
    pub service: Origin,
    pub controller: Controller,
    pub proxy: Running,
    pub state: tempfile::TempDir,
    pub generation: u64,
    yaml: String,
}

impl Rig {
    /// Origins that say who they are, and a proxy with these routes.
    pub fn new(routes: Vec<TableRoute>) -> Self {
        Self::with("", routes, |_| text(200, "monolith"), |_| text(200, "service"))
    }

    pub fn with(
        lines: &str,
        routes: Vec<TableRoute>,
        monolith: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        service: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::under(Controller::new(), lines, routes, monolith, service)
    }

    pub fn under(
        controller: Controller,
        lines: &str,
        routes: Vec<TableRoute>,
        monolith: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        service: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (monolith, service) = (Origin::new(monolith), Origin::new(service));
        let state = tempfile::tempdir().unwrap();
        let proxy = Running::start(settings(lines), &controller.origin.url(), state.path());
        let mut rig =
            Self { monolith, service, controller, proxy, state, generation: 0, yaml: lines.to_owned() };
        rig.publish(routes);
        rig
    }

    /// A proxy whose monolith is this server.
    pub fn before(lines: &str, bare: &Bare) -> Self {
        let mut rig = Self::with(lines, vec![], |_| text(200, ""), |_| text(200, "service"));
        rig.publish_with(vec![], |table| table.monolith = vec![bare.url()]);
        rig
    }

    /// Asks on one connection until the proxy uses a connection to its monolith again.
    pub fn earn_trust(&self, bare: &Bare) {
        let mut stream = connect(self.proxy.address);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (deadline, mut before) = (Instant::now() + PATIENCE, usize::MAX);
        while bare.count() != before {
            assert!(Instant::now() < deadline, "no connection is used again");
            before = bare.count();
            stream.write_all(b"GET /trust HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert!(read_answer(&mut reader, "GET").is_some());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A proxy whose service is this server.
    pub fn beside(bare: &Bare, routes: Vec<TableRoute>) -> Self {
        let mut rig = Self::new(vec![]);
        rig.publish_with(routes, |table| {
            table.services = [("orders".parse().unwrap(), vec![bare.url()])].into();
        });
        rig
    }

    /// As [`Rig::publish`], with another table.
    pub fn publish_with(&mut self, routes: Vec<TableRoute>, change: impl FnOnce(&mut Table)) {
        self.generation += 1;
        let generation = self.generation;
        let mut desired = self.desired(generation, routes);
        change(&mut desired.table);
        self.controller.publish(desired);
        self.until_in_use();
    }

    pub fn desired(&self, generation: u64, routes: Vec<TableRoute>) -> Desired {
        let services = [("orders".parse().unwrap(), vec![self.service.url()])].into();
        Desired {
            version: VERSION,
            journal: journal(1),
            generation: Generation(generation),
            plan: "plan".to_owned(),
            table: Table { monolith: vec![self.monolith.url()], services, routes, holds: BTreeMap::new() },
            lanes: BTreeMap::new(),
            bridge: Some(self.controller.origin.url()),
        }
    }

    /// Publishes a table of the next generation and waits until the proxy acts on it.
    pub fn publish(&mut self, routes: Vec<TableRoute>) {
        self.publish_with(routes, |_| {});
    }

    fn until_in_use(&self) {
        let generation = self.generation;
        self.proxy.until("the table is in use", || {
            self.proxy.metric("strangler_proxy_generation ") == generation as f64 && self.proxy.is_ready()
        });
        // A restart must find it.
        let stored = || std::fs::read_to_string(self.state.path().join("desired.json")).unwrap_or_default();
        self.proxy
            .until("the table is stored", || stored().contains(&format!("\"generation\":{generation},")));
    }

    /// Publishes these routes with the slice `orders` held at this epoch, until so many milliseconds from now.
    pub fn hold(&mut self, routes: Vec<TableRoute>, epoch: u64, ms: i64) {
        let hold = self.hold_until(epoch, ms);
        self.publish_with(routes, |table| table.holds = [hold].into());
    }

    pub fn hold_until(&self, epoch: u64, ms: i64) -> (SliceName, Hold) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let hold = Hold { epoch: Epoch(epoch), until: Moment((now + ms) as u64) };
        ("orders".parse().unwrap(), hold)
    }

    /// The writes of the slice `orders`, as the proxy reported them last.
    pub fn reported(&self) -> SliceTraffic {
        let reports = self.controller.observed.lock().unwrap();
        match reports.last().map(|observed| &observed.report) {
            Some(Report::Proxy(report)) => {
                report.slices.get(&"orders".parse().unwrap()).copied().unwrap_or_default()
            }
            _ => SliceTraffic::default(),
        }
    }

    pub fn ask(&self, method: &str, target: &str) -> Got {
        ask(self.proxy.address, method, target, &[], b"")
    }

    /// Stops the proxy and starts another with the same state and this controller.
    pub fn restart(&mut self, controller: &str) {
        self.proxy.end();
        self.proxy = Running::start(settings(&self.yaml), controller, self.state.path());
    }
}

/// A route of slice `orders` that goes to service `orders`.
pub fn route(name: &str, pattern: &str, share: &str, follows: bool) -> TableRoute {
    let pattern: migrations::pattern::Pattern = pattern.parse().unwrap();
    TableRoute {
        slice: "orders".parse().unwrap(),
        route: name.parse().unwrap(),
        access: pattern.default_access(),
        pattern,
        service: "orders".parse().unwrap(),
        share: share.parse().unwrap(),
        sticky: Sticky::Own,
        follows,
        leads: false,
        pinned: false,
        falls_back: false,
    }
}

/// The slice `orders`, whose writes go to this side.
pub fn orders(side: &str) -> Vec<TableRoute> {
    let follows = side == "monolith";
    let patterns = ["GET /orders", "POST /orders", "PUT /orders/{id}", "DELETE /orders/{id}", "GET /socket"];
    let name = |number| format!("route-{number}");
    patterns.iter().enumerate().map(|(n, pattern)| route(&name(n), pattern, side, follows)).collect()
}

/// A read by POST.
pub fn search(share: &str, follows: bool) -> TableRoute {
    TableRoute { access: Access::Read, ..route("search", "POST /orders/search", share, follows) }
}

pub fn journal(n: u8) -> JournalId {
    serde_json::from_value(serde_json::json!(format!("00000000-0000-0000-0000-0000000000{n:02}"))).unwrap()
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it was never so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
