//! What the crossings play in: a guestbook with two databases, the whole of strangler in front of it, and visitors.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::super::Wish;
use super::super::house::{self, House, await_listening, end};
use super::visits::{Found, Visit, counts};
use lab::process::Background;
use lab::{Broker, Cluster, free_port};

/// Requests a second, as the aim says.
const WRITES: u32 = 500;
const READS: u32 = 2000;
/// Pages that are read and liked.
const PAGES: u32 = 1000;
const STOP_LIMIT: Duration = Duration::from_secs(60);
const SETTINGS: &str = "-c max_slot_wal_keep_size=4GB";
/// The application's own role.
const APPLICATION: &str = "guestbook";
const DATABASE: &str = "guestbook";
pub const SLICE: &str = "guestbook";
const SLICES: &str = "
  guestbook:
    service: side
    routes: { show: 'GET /pages/{id}', like: 'POST /pages/{id}/like', write: POST /entries }
    tables: [public.entries, public.pages]
    writers: { guestbook: moved }
";

/// What is dropped first stands first.
pub struct Arena {
    visitors: Option<Background>,
    proxy: Background,
    bridge: Background,
    house: House,
    sides: [Side; 2],
    _broker: Option<Broker>,
}

/// One side of the guestbook: the application, and its database.
struct Side {
    application: Background,
    listen: String,
    cluster: Cluster,
}

impl Arena {
    /// Opens everything, copies the tables, and compares them once. No visitor comes yet.
    pub fn open(wish: &Wish) -> Result<Arena> {
        let broker = if wish.kafka { Some(Broker::start(None)?) } else { None };
        let sides = [Side::open(wish, "monolith", PAGES)?, Side::open(wish, "service", 0)?];
        let listen = format!("127.0.0.1:{}", free_port()?);
        let [monolith, service] = &sides;
        let kafka = broker.as_ref().map(Broker::address);
        let upstreams = [monolith.listen.as_str(), service.listen.as_str()];
        let plan = house::plan(upstreams, true, &listen, kafka.as_deref(), SLICES)?;
        let databases = [(&monolith.cluster, DATABASE), (&service.cluster, DATABASE)];
        let house = House::between(&wish.program("strangler"), "bench-cutover", &plan, databases)?;
        let bridge = house.part("bridge", None)?;
        let proxy = house.part("proxy", None)?;
        let port = listen.rsplit(':').next().and_then(|port| port.parse().ok()).context("no port")?;
        await_listening(port).with_context(|| proxy.log_end())?;
        house.verb(&["sync", "start", SLICE])?;
        house.verb(&["verify", SLICE, "--full-speed"])?;
        let mut arena = Arena { visitors: None, proxy, bridge, house, sides, _broker: broker };
        arena.invite(wish, &listen)?;
        Ok(arena)
    }

    fn invite(&mut self, wish: &Wish, listen: &str) -> Result<()> {
        let mut command = Command::new(wish.program("steady"));
        let [writes, reads, pages] = [WRITES, READS, PAGES].map(|number| number.to_string());
        command.args(["--proxy", &format!("http://{listen}"), "--pages", &pages]);
        command.args(["--writes", &writes, "--reads", &reads]).arg("--log").arg(self.visits());
        let log = self.house.log("visitors");
        self.visitors = Some(Background::start("the visitors", &mut command, &log)?);
        Ok(())
    }

    /// Runs one crossing to its end; gives what it said, well or ill.
    pub fn cross(&self, verb: &str) -> Result<Value> {
        self.house.document(&[verb, SLICE])
    }

    /// Fails if a part, a side or the visitors have ended by themselves.
    pub fn must_run(&mut self) -> Result<()> {
        for side in &mut self.sides {
            side.application.must_run()?;
        }
        for part in [&mut self.bridge, &mut self.proxy].into_iter().chain(&mut self.visitors) {
            part.must_run()?;
        }
        // Its access log is half a megabyte a second, which nobody reads.
        fs::File::options().write(true).truncate(true).open(self.house.log("proxy"))?;
        Ok(())
    }

    /// Asks the visitors to leave, and waits for their last answers; gives all their visits.
    pub fn dismiss(&mut self) -> Result<Vec<Visit>> {
        let mut visitors = self.visitors.take().context("there are no visitors")?;
        visitors.must_run()?;
        visitors.signal(Signal::SIGINT);
        let status = visitors.wait(STOP_LIMIT)?;
        anyhow::ensure!(status.success(), "the visitors failed ({status}):\n{}", visitors.log_end());
        let log = self.visits();
        let text = fs::read_to_string(&log).with_context(|| format!("{} cannot be read", log.display()))?;
        text.lines().map(Visit::read).collect()
    }

    /// What both databases hold: monolith, service.
    pub fn found(&self) -> Result<[Found; 2]> {
        let [monolith, service] = &self.sides;
        Ok([monolith.found()?, service.found()?])
    }

    /// The ends of all logs, for a run that went wrong.
    pub fn words(&self) -> String {
        let parts = ["controller", "bridge", "proxy", "visitors"];
        let end = |part: &&str| format!("{part}:\n{}", lab::process::end_of(&self.house.log(part)));
        parts.iter().map(end).collect::<Vec<_>>().join("\n")
    }

    fn visits(&self) -> PathBuf {
        self.house.folder().join("visits")
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for part in [&mut self.proxy, &mut self.bridge] {
            let _ = end(part);
        }
    }
}

impl Side {
    /// A cluster with one database that belongs to the application's role, and the application.
    fn open(wish: &Wish, name: &str, pages: u32) -> Result<Side> {
        let cluster = Cluster::of_application(&format!("bench-{name}"), DATABASE, APPLICATION, SETTINGS)?;
        let port = free_port()?;
        let listen = format!("127.0.0.1:{port}");
        let mut command = Command::new(wish.program("guestbook"));
        command.args(["--listen", &listen, "--pages", &pages.to_string()]);
        command.env("GUESTBOOK_DATABASE_URL", cluster.url(APPLICATION, DATABASE));
        let log = cluster.folder().join("application.log");
        let application = Background::start(&format!("the {name}"), &mut command, &log)?;
        let side = Side { application, listen, cluster };
        await_listening(port).with_context(|| side.application.log_end())?;
        Ok(side)
    }

    fn found(&self) -> Result<Found> {
        let entries = self.cluster.psql(DATABASE, "SELECT mark, count(*) FROM entries GROUP BY mark")?;
        let likes = self.cluster.psql(DATABASE, "SELECT id, likes FROM pages")?;
        Ok(Found { entries: counts(&entries)?, likes: counts(&likes)? })
    }
}
