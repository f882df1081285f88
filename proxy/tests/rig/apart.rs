//! A proxy in a process of its own, whose memory and descriptors are its own.
//!
//! The process is this test's program again, which runs [`Apart::serve`] in one of its tests.

use super::bare::Bare;
use super::controller::Controller;
use super::running::settings;
use super::{ask, free_address, journal, wait_until};
use link::Link;
use migrations::control::{Desired, Table, VERSION};
use migrations::journal::Generation;
use migrations::plan::Secret;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// Its lines under `proxy:`, where it listens, its admin port, its controller, its state folder, one a line.
const ORDERS: &str = "STRANGLER_TEST_PROXY";

pub struct Apart {
    pub address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    _controller: Controller,
    _state: tempfile::TempDir,
}

impl Apart {
    /// A proxy before this server, with a limit of open files. `test` is the name of the test that serves.
    pub fn before(bare: &Bare, lines: &str, open_files: u32, test: &str) -> Self {
        let (controller, state) = (Controller::new(), tempfile::tempdir().unwrap());
        let (address, admin) = (free_address(), free_address());
        let folder = state.path().to_str().unwrap();
        let orders =
            [lines.trim(), &address.to_string(), &admin.to_string(), &controller.origin.url(), folder];
        let child = Command::new("sh")
            .args(["-c", "ulimit -n $1; exec $2 --exact $3 --nocapture", "sh"])
            .arg(open_files.to_string())
            .arg(std::env::current_exe().unwrap())
            .arg(test)
            .env(ORDERS, orders.join("\n"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        controller.publish(Desired {
            version: VERSION,
            journal: journal(1),
            generation: Generation(1),
            plan: "plan".to_owned(),
            table: Table {
                monolith: vec![bare.url()],
                services: BTreeMap::new(),
                routes: vec![],
                holds: BTreeMap::new(),
            },
            lanes: BTreeMap::new(),
            bridge: None,
        });
        let apart = Self { address, admin, child, _controller: controller, _state: state };
        wait_until("it listens", || TcpStream::connect(apart.admin).is_ok());
        wait_until("it has a table", || ask(apart.admin, "GET", "/readyz", &[], b"").status == 200);
        apart
    }

    /// Whether this process is to be a proxy.
    pub fn is_this() -> bool {
        std::env::var_os(ORDERS).is_some()
    }

    /// What the process of its own does. Returns when it is killed.
    pub fn serve() {
        let orders = std::env::var(ORDERS).unwrap();
        let [lines, listen, admin, controller, folder] =
            orders.split('\n').collect::<Vec<_>>().try_into().unwrap();
        let mut settings = settings(&format!("  {lines}\n"));
        (settings.listen, settings.admin) = (listen.to_owned(), admin.to_owned());
        let link = Link {
            controller: controller.to_owned(),
            token: Secret::new("token".to_owned()),
            state_dir: folder.into(),
        };
        let shutdown = proxy::Shutdown::by_signal();
        proxy::run_logging_to(&settings, link, shutdown, Box::new(std::io::sink())).unwrap();
    }

    /// KiB.
    pub fn resident_memory(&self) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Changes how many files it may have open, while it runs.
    pub fn limit_open_files(&self, count: u32) {
        let limit = format!("--nofile={count}:");
        let pid = self.child.id().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    }

    /// The first value of a metric whose line begins so.
    pub fn metric(&self, line: &str) -> f64 {
        let text = ask(self.admin, "GET", "/metrics", &[], b"").text();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
