//! A whole house with its own databases: the finished `strangler` with its three processes.

use crate::folder::{Folder, said};
use lab::Cluster;
use std::fs;
use std::ops::Deref;
use std::process::Command;

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
    /// Its processes end before their databases.
    folder: Folder,
    pub source: Cluster,
    pub sink: Cluster,
    pub proxy: u16,
    pub controller: u16,
    /// The monolith's and the service's, for strangler's administrator.
    admin: [String; 2],
}

impl Deref for House {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
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
        let folder = Folder::with(&plan);
        let admin = [
            format!("monolith={}", source.url("postgres", "shop")),
            format!("orders={}", sink.url("postgres", "orders")),
        ];
        let house = Self { source, sink, proxy, controller, folder, admin };
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

    /// The same command in another folder beside this one, with the plan changed by `edit`, and with this token.
    pub fn command_elsewhere(&self, arguments: &[&str], edit: impl Fn(&str) -> String) -> Command {
        self.command_in("elsewhere", arguments, edit)
    }

    /// As [`House::command_elsewhere`], in a folder of this name.
    pub fn command_in(&self, folder: &str, arguments: &[&str], edit: impl Fn(&str) -> String) -> Command {
        let elsewhere = self.path().join(folder);
        fs::create_dir_all(&elsewhere).unwrap();
        let plan = fs::read_to_string(self.plan()).unwrap();
        fs::write(elsewhere.join("strangler.yaml"), edit(&plan)).unwrap();
        let token = fs::read_to_string(self.state().join("token")).unwrap();
        let mut command = self.command(arguments);
        command.current_dir(&elsewhere).env("STRANGLER_TOKEN", token.trim());
        command.args(["--plan", &elsewhere.join("strangler.yaml").display().to_string()]);
        command
    }

    /// Runs SQL at the monolith as the superuser.
    pub fn at_source(&self, sql: &str) -> String {
        self.source.sql("shop", sql)
    }

    /// Runs SQL at the service as the superuser.
    pub fn at_sink(&self, sql: &str) -> String {
        self.sink.sql("orders", sql)
    }

    pub fn assert_equal(&self) {
        for (at_source, at_sink) in MAPPED {
            let (left, right) = (self.at_source(at_source), self.at_sink(at_sink));
            if left != right {
                let pairs = left.lines().zip(right.lines());
                let differ: Vec<_> = pairs.filter(|(left, right)| left != right).take(5).collect();
                let counts = (left.lines().count(), right.lines().count());
                panic!("{at_source}: {counts:?} rows, differences {differ:#?}\n{}", self.logs());
            }
        }
    }
}

/// A cluster with one database whose tables belong to the application's role.
fn cluster(name: &str, ddl: &str) -> Cluster {
    let cluster = Cluster::start();
    cluster.database(name);
    cluster.sql("postgres", "CREATE ROLE app LOGIN");
    cluster.sql(name, &format!("GRANT ALL ON SCHEMA public TO app; SET ROLE app; {ddl}"));
    cluster
}
