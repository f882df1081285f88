//! A monolith, a service, a broker and strangler between them, for one plan.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Broker, Cluster, free_port, interrupt, process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::terminal;

const COMMAND_LIMIT: Duration = Duration::from_secs(180);
const DOWN_LIMIT: Duration = Duration::from_secs(20);
/// A Java program on a busy machine needs its time.
pub const ARRIVAL_LIMIT: Duration = Duration::from_secs(180);
pub const LOOK: Duration = Duration::from_millis(500);
const ROLE: &str = "shop";
const SETTINGS: &str = "-c max_slot_wal_keep_size=4GB";

/// What is dropped first stands first.
pub struct House {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    admin_urls: [String; 2],
    pub monolith: Cluster,
    /// Runs as long as this value.
    _service: Cluster,
    pub broker: Broker,
}

/// Where plans, state and logs are.
pub fn folder() -> PathBuf {
    lab::target().join("consumers")
}

impl House {
    /// Two databases with these tables and a running strangler whose slice `orders` follows. The plan says where it gets
    /// its addresses from.
    pub fn open(name: &str, plan: &str, monolith_sql: &str, service_sql: &str) -> Result<House> {
        let broker = terminal::during("starting Kafka", || Broker::start(None))?;
        let monolith = Cluster::of_application("monolith", "shop", ROLE, SETTINGS)?;
        let service = Cluster::of_application("service", "orders", ROLE, SETTINGS)?;
        for (cluster, database, sql) in [(&monolith, "shop", monolith_sql), (&service, "orders", service_sql)]
        {
            cluster.psql(database, &format!("SET ROLE {ROLE}; {sql}"))?;
        }
        let listen = || free_port().map(|port| format!("127.0.0.1:{port}"));
        let environment = vec![
            ("MONOLITH_DATABASE_URL", monolith.url("strangler", "shop")),
            ("ORDERS_DATABASE_URL", service.url("strangler", "orders")),
            ("BROKERS", broker.address()),
            ("UPSTREAM", answering()?),
            ("PROXY_LISTEN", listen()?),
            ("PROXY_ADMIN", listen()?),
            ("CONTROLLER_LISTEN", listen()?),
            ("BRIDGE_LISTEN", listen()?),
        ];
        let admin_urls = [
            format!("monolith={}", monolith.admin_url("shop")),
            format!("orders={}", service.admin_url("orders")),
        ];
        let folder = folder().join(name);
        let house = House { folder, environment, admin_urls, monolith, _service: service, broker };
        house.down();
        if house.folder.exists() {
            fs::remove_dir_all(&house.folder)?;
        }
        fs::create_dir_all(&house.folder)?;
        fs::write(house.folder.join("strangler.yaml"), plan)?;
        let [monolith, orders] = &house.admin_urls;
        house.strangler(&["install", "--admin-url", monolith, "--admin-url", orders])?;
        house.strangler(&["up", "--detach"])?;
        house.strangler(&["sync", "start", "orders"])?;
        Ok(house)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs SQL in the monolith.
    pub fn change(&self, sql: &str) -> Result<()> {
        self.monolith.psql("shop", sql).map(drop)
    }

    /// What a person types in another terminal to change rows.
    pub fn monolith_url(&self) -> String {
        self.monolith.url(ROLE, "shop")
    }

    /// Kills the bridge with -9. It is started again by itself.
    pub fn kill_bridge(&self) -> Result<()> {
        let note = self.folder.join(".strangler/run/bridge.json");
        let note: Value = serde_json::from_str(&fs::read_to_string(&note)?)?;
        let pid = note.get("pid").or_else(|| note.pointer("/process/pid")).and_then(Value::as_i64);
        let pid =
            pid.and_then(|pid| i32::try_from(pid).ok()).context("the bridge's note names no process")?;
        terminal::note("killing the bridge with -9");
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("the bridge cannot be killed")
    }

    fn strangler(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(arguments);
        terminal::command(&process::shown(&command));
        process::succeed_within(&mut command, COMMAND_LIMIT)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(lab::target().join("debug").join("strangler"));
        command.args(arguments).current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// Ends what an earlier run or this one left.
    fn down(&self) {
        if self.folder.join(".strangler").join("run").exists() {
            let _ = process::finish(&mut self.command(&["down"]), DOWN_LIMIT);
        }
    }

    /// Waits for Ctrl-C.
    pub fn stay(&self) -> Result<()> {
        loop {
            interrupt::sleep(Duration::from_secs(1))?;
        }
    }
}

/// An application that answers everything with nothing, until this process ends. Consumers of topics need none.
fn answering() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
        }
    });
    Ok(format!("http://{address}"))
}

impl Drop for House {
    fn drop(&mut self) {
        self.down();
    }
}
