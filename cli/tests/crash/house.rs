//! A whole house with its own databases: the finished `strangler` with its three processes, in a folder of its own.
//!
//! It is used as a user uses it, by verbs; only process ids and logs are looked up in `.strangler/`.

use lab::Cluster;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that mends itself; a loaded machine and a broker that replays its log need it.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The monolith's tables. `tallies` says of each writer how far it is and what it has, so that a state which is no
/// prefix of its transactions shows.
const SOURCE: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, writer int NOT NULL, hits int NOT NULL, note text);
    CREATE TABLE order_items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        qty int NOT NULL, PRIMARY KEY (order_id, line));
    CREATE TABLE stamps (writer int, seq bigint, PRIMARY KEY (writer, seq));
    CREATE TABLE tallies (writer int PRIMARY KEY, seq bigint NOT NULL, orders bigint NOT NULL, hits bigint NOT NULL);
    INSERT INTO orders SELECT g, 0, g % 10, repeat('old ', 20) || g FROM generate_series(1, 20000) g;
    INSERT INTO order_items SELECT g, 1, g % 7 FROM generate_series(1, 20000) g;";

/// The service's, with other names.
const SINK: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, writer int NOT NULL, hits int NOT NULL, remark text);
    CREATE TABLE items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        quantity int NOT NULL, PRIMARY KEY (order_id, line));
    CREATE TABLE stamps (writer int, seq bigint, PRIMARY KEY (writer, seq));
    CREATE TABLE tallies (writer int PRIMARY KEY, seq bigint NOT NULL, orders bigint NOT NULL, hits bigint NOT NULL);";

const SLICES: &str = "
slices:
  orders:
    service: orders
    routes:
      show: 'GET /orders/{id}'
      place: POST /orders
    tables:
      - { from: public.orders, rename: { note: remark } }
      - { from: public.order_items, to: public.items, rename: { qty: quantity } }
      - public.stamps
      - public.tallies
";

/// The same rows by the two sides' names.
const MAPPED: [(&str, &str); 4] = [
    (
        "SELECT id, writer, hits, note FROM orders ORDER BY id",
        "SELECT id, writer, hits, remark FROM orders ORDER BY id",
    ),
    (
        "SELECT order_id, line, qty FROM order_items ORDER BY 1, 2",
        "SELECT order_id, line, quantity FROM items ORDER BY 1, 2",
    ),
    ("SELECT * FROM stamps ORDER BY 1, 2", "SELECT * FROM stamps ORDER BY 1, 2"),
    ("SELECT * FROM tallies ORDER BY 1", "SELECT * FROM tallies ORDER BY 1"),
];

pub enum Log {
    Embedded,
    Kafka { brokers: String, prefix: String },
}

impl Log {
    /// Topics of its own on the broker that all tests share.
    pub fn shared_kafka() -> Self {
        let brokers = std::env::var("STRANGLER_TEST_KAFKA")
            .expect("STRANGLER_TEST_KAFKA=host:port names a broker; `cargo xtask test` starts one");
        Self::kafka(brokers)
    }

    pub fn kafka(brokers: String) -> Self {
        Self::Kafka { brokers, prefix: format!("crash{:016x}", rand::random::<u64>()) }
    }

    fn plan(&self) -> String {
        match self {
            Log::Embedded => String::new(),
            Log::Kafka { brokers, prefix } => {
                format!(
                    "log: {{ kafka: {{ brokers: '{brokers}', topic_prefix: {prefix}, partitions: 2 }} }}\n"
                )
            }
        }
    }
}

/// Two databases, a plan and whatever runs of it; all of it ends with the test.
pub struct House {
    pub source: Cluster,
    pub sink: Cluster,
    pub proxy: u16,
    folder: TempDir,
    /// The monolith's and the service's, for strangler's administrator.
    admin: [String; 2],
}

impl House {
    /// Tables on both sides, `install`ed; nothing of strangler runs yet.
    pub fn new(log: &Log) -> Self {
        Self::with_upstreams(log, 9, 9)
    }

    /// The same in front of a monolith and a service on these ports.
    pub fn with_upstreams(log: &Log, monolith: u16, service: u16) -> Self {
        let (source, sink) = std::thread::scope(|scope| {
            let source = scope.spawn(|| cluster("shop", SOURCE));
            let sink = cluster("orders", SINK);
            (source.join().unwrap(), sink)
        });
        let [proxy, admin, controller, bridge] = [(); 4].map(|()| lab::free_port().unwrap());
        let plan = format!(
            "version: 1
name: shop
monolith: {{ upstream: 'http://127.0.0.1:{monolith}', database: '{}' }}
services: {{ orders: {{ upstream: 'http://127.0.0.1:{service}', database: '{}' }} }}
proxy: {{ listen: '127.0.0.1:{proxy}', admin: '127.0.0.1:{admin}' }}
controller: {{ listen: '127.0.0.1:{controller}' }}
bridge: {{ listen: '127.0.0.1:{bridge}' }}
{}{SLICES}",
            source.url("strangler", "shop"),
            sink.url("strangler", "orders"),
            log.plan()
        );
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("strangler.yaml"), &plan).unwrap();
        let admin = [
            format!("monolith={}", source.url("postgres", "shop")),
            format!("orders={}", sink.url("postgres", "orders")),
        ];
        let house = Self { source, sink, proxy, folder, admin };
        house.ok(&["install", "--admin-url", &house.admin[0], "--admin-url", &house.admin[1]]);
        house
    }

    /// The whole house up, and the slice followed.
    pub fn following(log: &Log) -> Self {
        let house = Self::new(log);
        house.ok(&["up", "--detach"]);
        house.ok(&["sync", "start", "orders", "--timeout", "60"]);
        house
    }

    pub fn uninstall(&self) -> String {
        let [monolith, orders] = &self.admin;
        self.ok(&["uninstall", "--yes", "--admin-url", monolith, "--admin-url", orders])
    }

    /// Tries to uninstall with the plan as it is after `edit`; the exit code, and what was said.
    pub fn tried_uninstall(&self, edit: impl Fn(&str) -> String) -> (i32, String) {
        let [monolith, orders] = &self.admin;
        let arguments = ["uninstall", "--yes", "--admin-url", monolith, "--admin-url", orders];
        let output = self.command_elsewhere(&arguments, edit).output().unwrap();
        (output.status.code().unwrap_or(-1), said(&output))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strangler"));
        command.args(arguments).current_dir(self.folder.path());
        for name in ["STRANGLER_PLAN", "STRANGLER_TOKEN", "STRANGLER_CONTROLLER"] {
            command.env_remove(name);
        }
        command
    }

    /// The same command in another folder beside this one, with the plan changed by `edit`, and with this token.
    pub fn command_elsewhere(&self, arguments: &[&str], edit: impl Fn(&str) -> String) -> Command {
        let elsewhere = self.folder.path().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        let plan = fs::read_to_string(self.folder.path().join("strangler.yaml")).unwrap();
        fs::write(elsewhere.join("strangler.yaml"), edit(&plan)).unwrap();
        let token = fs::read_to_string(self.state().join("token")).unwrap();
        let mut command = self.command(arguments);
        command.current_dir(&elsewhere).env("STRANGLER_TOKEN", token.trim());
        command.args(["--plan", &elsewhere.join("strangler.yaml").display().to_string()]);
        command
    }

    /// Runs a verb that must succeed; what it said.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = said(&output);
        assert!(output.status.success(), "{arguments:?} {}\n{said}\n{}", output.status, self.logs());
        said
    }

    /// The exit code of a verb, and what it said.
    pub fn tried(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.command(arguments).output().unwrap();
        (output.status.code().unwrap_or(-1), said(&output))
    }

    /// How things stand, or null while no controller answers.
    pub fn status(&self) -> Value {
        let output = self.command(&["status", "--output", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join(".strangler")
    }

    /// Kills a part with -9 and waits until `up` has put another in its place.
    pub fn kill(&self, part: &str) {
        let killed = self.pid(part).unwrap();
        kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
        self.eventually(&format!("a new {part}"), || self.pid(part).is_some_and(|pid| pid != killed));
    }

    pub fn pid(&self, part: &str) -> Option<i32> {
        let text = fs::read(self.state().join(format!("run/{part}.json"))).ok()?;
        let note: Value = serde_json::from_slice(&text).ok()?;
        i32::try_from(note["pid"].as_i64()?).ok()
    }

    pub fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "waited in vain for {what}\n{}\n{}", self.status(), self.logs());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub fn assert_equal(&self) {
        for (at_source, at_sink) in MAPPED {
            let (left, right) = (self.source.sql("shop", at_source), self.sink.sql("orders", at_sink));
            if left != right {
                let pairs = left.lines().zip(right.lines());
                let differ: Vec<_> = pairs.filter(|(left, right)| left != right).take(5).collect();
                let counts = (left.lines().count(), right.lines().count());
                panic!("{at_source}: {counts:?} rows, differences {differ:#?}\n{}", self.logs());
            }
        }
    }

    pub fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["up", "controller", "bridge", "proxy"] {
            let log = fs::read_to_string(self.state().join(format!("log/{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(15)..].join("\n");
            text.push_str(&format!("--- {name}\n{end}\n"));
        }
        text
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for pid in processes(self.folder.path()) {
            // It may have ended by itself just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A cluster with one database whose tables belong to the application's role.
fn cluster(name: &str, ddl: &str) -> Cluster {
    let cluster = Cluster::start();
    cluster.database(name);
    cluster.sql("postgres", "CREATE ROLE app LOGIN");
    cluster.sql(name, &format!("GRANT ALL ON SCHEMA public TO app; SET ROLE app; {ddl}"));
    cluster
}

/// Processes whose command line names this folder.
fn processes(folder: &Path) -> Vec<i32> {
    let folder = folder.canonicalize().unwrap_or_default().display().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&folder)
    })
    .collect()
}
