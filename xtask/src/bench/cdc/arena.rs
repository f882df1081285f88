//! Two clusters and four databases: the source, our sink, a sink that PostgreSQL's own logical replication fills, and one that
//! Debezium fills where it is measured.
//!
//! Both sinks lie in one cluster and hold the same table; both streams start from one backlog at one source. Only one of
//! them runs at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::super::account;
use super::super::house::{self, House, end};
use super::super::session::Session;
use lab::connect::{Connector, Plugin, Worker};
use lab::process::{self, Background};
use lab::{Access, Broker, Cluster, free_port, postgres};

const STREAM_LIMIT: Duration = Duration::from_secs(900);
/// How often a sink is looked at while a backlog is applied, which takes seconds.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// What both clusters run with beside the settings of every private cluster. Vacuum comes between the rounds.
const SETTINGS: [&str; 4] = [
    "shared_buffers = '256MB'",
    "max_wal_size = '4GB'",
    "autovacuum = off",
    "max_slot_wal_keep_size = '16GB'",
];
/// About 150 bytes a row.
const TABLE: &str = "CREATE TABLE items (id bigint PRIMARY KEY, customer bigint NOT NULL, status text NOT NULL, \
                     amount numeric(12,2) NOT NULL, note text NOT NULL, changed timestamptz NOT NULL)";
const SLICES: &str =
    "  items: { service: side, routes: { show: 'GET /items/{id}' }, tables: [public.items] }\n";
const SOURCE: &str = "shop";
const OURS: &str = "ours";
const NATIVE: &str = "native";
const DEBEZIUM: &str = "debezium";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ours,
    Native,
    Debezium,
}

/// Debezium's connector for PostgreSQL and its JDBC sink, in one Connect worker.
struct Debezium {
    source: Connector,
    worker: Worker,
}

/// What the measurements play in. What is dropped first stands first.
pub struct Arena {
    bridge: Option<Background>,
    debezium: Option<Debezium>,
    house: House,
    pub source: Session,
    ours: Session,
    native: Session,
    third: Session,
    sinks: Cluster,
    sources: Cluster,
    subscribed: bool,
    broker: Option<Broker>,
}

impl Arena {
    /// Makes the clusters, installs strangler, and starts a controller; no bridge runs yet. With `kafka`, changes go
    /// through a broker of its own.
    pub fn build(program: &Path, kafka: bool) -> Result<Arena> {
        let broker = if kafka { Some(Broker::start(None)?) } else { None };
        let (sources, sinks) =
            (cluster("bench-source", &[SOURCE])?, cluster("bench-sink", &[OURS, NATIVE, DEBEZIUM])?);
        let nobody = format!("127.0.0.1:{}", free_port()?);
        let listen = format!("127.0.0.1:{}", free_port()?);
        let kafka = broker.as_ref().map(Broker::address);
        let plan = house::plan([&nobody, &nobody], true, &listen, kafka.as_deref(), SLICES)?;
        let house = House::between(program, "bench-cdc", &plan, [(&sources, SOURCE), (&sinks, OURS)])?;
        let log = house.log("psql");
        Ok(Arena {
            bridge: None,
            debezium: None,
            source: Session::open(&sources.admin_url(SOURCE), &log)?,
            ours: Session::open(&sinks.admin_url(OURS), &log)?,
            native: Session::open(&sinks.admin_url(NATIVE), &log)?,
            third: Session::open(&sinks.admin_url(DEBEZIUM), &log)?,
            house,
            sinks,
            sources,
            subscribed: false,
            broker,
        })
    }

    pub fn sink(&mut self, side: Side) -> &mut Session {
        match side {
            Side::Ours => &mut self.ours,
            Side::Native => &mut self.native,
            Side::Debezium => &mut self.third,
        }
    }

    /// The superuser's URLs: source, and the sink of PostgreSQL's own.
    pub fn urls(&self) -> (String, String) {
        (self.sources.admin_url(SOURCE), self.sinks.admin_url(NATIVE))
    }

    /// A file in the private folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.house.folder().join(name)
    }

    /// Brings all databases to rest: no dead rows, fresh statistics, nothing left to write out.
    pub fn rest(&mut self) -> Result<()> {
        for session in [&mut self.source, &mut self.ours, &mut self.native, &mut self.third] {
            session.ask("VACUUM (ANALYZE) items")?;
            session.ask("CHECKPOINT")?;
        }
        Ok(())
    }

    /// Copies the table by our first copy; the bridge must run. Gives the seconds from decision to the journalled end.
    pub fn copy(&mut self) -> Result<f64> {
        self.house.verb(&["sync", "start", "items", "--replace"])?;
        self.source.number(
            "SELECT extract(epoch FROM max(at) FILTER (WHERE event->>'event' = 'copy-completed') \
             - max(at) FILTER (WHERE event->>'event' = 'sync-started')) FROM strangler.journal WHERE slice = 'items'",
        )
    }

    pub fn drop_copy(&mut self) -> Result<()> {
        self.house.verb(&["sync", "drop", "items", "--yes"]).map(drop)
    }

    /// Subscribes PostgreSQL's own replication, which then stands still. The tables must be equal.
    pub fn subscribe(&mut self) -> Result<()> {
        self.source.ask("CREATE PUBLICATION native FOR TABLE items")?;
        let sql = format!(
            "CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION native WITH (copy_data = false, enabled = false, \
             create_slot = true)",
            self.sources.admin_url(SOURCE)
        );
        self.native.ask(&sql)?;
        self.subscribed = true;
        Ok(())
    }

    /// Ends it, so that its slot keeps no changes any more.
    pub fn unsubscribe(&mut self) -> Result<()> {
        if self.subscribed {
            self.native.ask("DROP SUBSCRIPTION native")?;
            self.source.ask("DROP PUBLICATION native")?;
            self.subscribed = false;
        }
        Ok(())
    }

    /// Starts Debezium's connectors in a worker of their own. The one that reads the source then stands still; its slot
    /// keeps what comes.
    pub fn connect_debezium(&mut self) -> Result<()> {
        let broker = self.broker.as_ref().context("Debezium needs Kafka")?;
        let mut worker = Worker::start(broker, &[Plugin::Postgres, Plugin::Jdbc], true)?;
        let url = format!(
            "jdbc:postgresql://127.0.0.1:{}/{DEBEZIUM}?reWriteBatchedInserts=true",
            self.sinks.port()
        );
        worker.create(
            "sink",
            Plugin::Jdbc,
            &[
                ("topics", "debezium.public.items"),
                ("connection.url", &url),
                ("connection.username", postgres::SUPERUSER),
                ("connection.password", postgres::PASSWORD),
                ("collection.name.format", "items"),
                ("insert.mode", "upsert"),
                ("delete.enabled", "true"),
                ("primary.key.mode", "record_key"),
                // The default of both is 500.
                ("batch.size", "5000"),
                ("consumer.override.max.poll.records", "5000"),
                // The topic comes with the first record.
                ("consumer.override.metadata.max.age.ms", "1000"),
            ],
        )?;
        let source = worker.create(
            "source",
            Plugin::Postgres,
            &[
                ("database.hostname", "127.0.0.1"),
                ("database.port", &self.sources.port().to_string()),
                ("database.user", postgres::SUPERUSER),
                ("database.password", postgres::PASSWORD),
                ("database.dbname", SOURCE),
                ("topic.prefix", DEBEZIUM),
                ("plugin.name", "pgoutput"),
                ("slot.name", DEBEZIUM),
                ("publication.name", DEBEZIUM),
                ("publication.autocreate.mode", "filtered"),
                ("table.include.list", "public.items"),
                ("snapshot.mode", "no_data"),
                ("topic.creation.default.replication.factor", "1"),
                ("topic.creation.default.partitions", "1"),
            ],
        )?;
        self.debezium = Some(Debezium { source, worker });
        self.await_stream(Side::Debezium)?;
        self.stop(Side::Debezium)
    }

    /// Ends Debezium, so that its slot keeps no changes any more.
    pub fn disconnect_debezium(&mut self) -> Result<()> {
        if let Some(mut debezium) = self.debezium.take() {
            debezium.worker.stop()?;
            self.source.ask("SELECT pg_drop_replication_slot('debezium')")?;
            self.source.ask("DROP PUBLICATION debezium")?;
        }
        Ok(())
    }

    pub fn start(&mut self, side: Side) -> Result<()> {
        match side {
            Side::Ours => self.bridge = Some(self.house.part("bridge", None)?),
            Side::Native => drop(self.native.ask("ALTER SUBSCRIPTION native ENABLE")?),
            Side::Debezium => {
                let Debezium { source, worker } =
                    self.debezium.as_mut().context("Debezium is not connected")?;
                worker.resume_connector(source)?;
            }
        }
        Ok(())
    }

    /// Stops a side's stream, and waits until its slot is let go.
    pub fn stop(&mut self, side: Side) -> Result<()> {
        match side {
            Side::Ours => {
                if let Some(mut bridge) = self.bridge.take() {
                    end(&mut bridge)?;
                }
            }
            Side::Native => drop(self.native.ask("ALTER SUBSCRIPTION native DISABLE")?),
            Side::Debezium => {
                let Debezium { source, worker } =
                    self.debezium.as_mut().context("Debezium is not connected")?;
                worker.stop_connector(source)?;
            }
        }
        let gone = format!("SELECT count(*) = 0 FROM pg_replication_slots WHERE active AND {}", slot(side));
        self.source.await_holding(&gone, SETTLE_LIMIT, LOOK_EVERY).map(drop)
    }

    /// Starts a side's stream on the backlog that waits for it, and stops it again when `done` holds in its sink. Gives
    /// the seconds from the stream's connection to the source until then: what it takes a process to start is left out
    /// on both sides.
    pub fn drain(&mut self, side: Side, done: &str) -> Result<f64> {
        self.start(side)?;
        let reached = match self.sink(side).await_holding(done, STREAM_LIMIT, LOOK_EVERY) {
            Ok(reached) => reached,
            Err(error) => return Err(error.context(self.words())),
        };
        let connected = format!(
            "SELECT extract(epoch FROM max(a.backend_start)) FROM pg_replication_slots s JOIN pg_stat_activity a ON \
             a.pid = s.active_pid WHERE {}",
            slot(side)
        );
        let connected = self.source.number(&connected)?;
        self.stop(side)?;
        self.must_be_equal(side)?;
        Ok(reached - connected)
    }

    /// Fails if a side's sink does not hold the very rows of the source.
    pub fn must_be_equal(&mut self, side: Side) -> Result<()> {
        let sum = "SELECT count(*), sum(hashtextextended(items::text, 0)) FROM items";
        let (source, sink) = (self.source.ask(sum)?, self.sink(side).ask(sum)?);
        if source != sink {
            bail!(
                "{side:?}: the sink has {sink} (rows, sum of hashes), the source {source}. {}",
                self.words()
            );
        }
        Ok(())
    }

    /// The most memory that the bridge has had so far, in MiB.
    pub fn bridge_peak_mib(&mut self) -> Result<f64> {
        let bridge = self.bridge.as_mut().context("no bridge runs")?;
        bridge.must_run()?;
        account::peak_mib(bridge.pid())
    }

    /// Waits until the bridge holds its slot: it follows from then on.
    pub fn await_stream(&mut self, side: Side) -> Result<()> {
        let held = format!("SELECT count(*) > 0 FROM pg_replication_slots WHERE active AND {}", slot(side));
        self.source.await_holding(&held, SETTLE_LIMIT, LOOK_EVERY).map(drop)
    }

    /// What the bridge or Debezium said last.
    fn words(&self) -> String {
        let ours = self.bridge.as_ref().map(|bridge| format!("The bridge said:\n{}", bridge.log_end()));
        let theirs = self.debezium.as_ref().map(|debezium| process::end_of(&debezium.worker.log()));
        ours.or(theirs.map(|words| format!("Debezium said:\n{words}"))).unwrap_or_default()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(mut bridge) = self.bridge.take() {
            let _ = end(&mut bridge);
        }
    }
}

/// The slot of a side, as a condition; ours has the tool's own name.
fn slot(side: Side) -> &'static str {
    match side {
        Side::Ours => "NOT temporary AND slot_name NOT IN ('native', 'debezium')",
        Side::Native => "slot_name = 'native'",
        Side::Debezium => "slot_name = 'debezium'",
    }
}

fn cluster(name: &str, databases: &[&str]) -> Result<Cluster> {
    let cluster = Cluster::create(name, Access::Passwords, "")?;
    for setting in SETTINGS {
        cluster.psql("postgres", &format!("ALTER SYSTEM SET {setting}"))?;
    }
    cluster.stop()?;
    cluster.run()?;
    for database in databases {
        cluster.psql("postgres", &format!("CREATE DATABASE \"{database}\""))?;
        cluster.psql(database, TABLE)?;
    }
    Ok(cluster)
}
