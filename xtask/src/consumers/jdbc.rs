//! Debezium's JDBC sink, unmodified: Postgres → bridge → Kafka → Kafka Connect → another Postgres database.
//!
//! Two sinks read the same topics. One takes the records as they are. The other takes rows, which Debezium's transform
//! `ExtractNewRecordState` makes of them.

mod copy;
mod tables;

use anyhow::Result;
use lab::connect::{Connector, Plugin, Worker};
use lab::postgres;

use super::comes_to;
use super::house::House;
use crate::terminal;
use copy::Pair;

/// The sinks' databases, in the monolith's cluster.
const PLAIN: &str = "plain";
const UNWRAPPED: &str = "unwrapped";
const PLAN: &str = r#"version: 1
name: jdbc
monolith: { upstream: "${UPSTREAM}", database: "${MONOLITH_DATABASE_URL}" }
services: { orders: { upstream: "${UPSTREAM}", database: "${ORDERS_DATABASE_URL}" } }
log: { kafka: { brokers: "${BROKERS}", topic_prefix: shop, publish: { schemas.enable: true } } }
proxy: { listen: "${PROXY_LISTEN}", admin: "${PROXY_ADMIN}" }
controller: { listen: "${CONTROLLER_LISTEN}" }
bridge: { listen: "${BRIDGE_LISTEN}" }
limits: { max_wal_kept: 2GiB }
slices:
"#;

/// How many comparisons failed.
pub fn run(stay: bool) -> Result<usize> {
    terminal::heading("Debezium's JDBC sink");
    let names = tables::names();
    let listed: Vec<_> = names.iter().map(|name| serde_json::Value::from(*name).to_string()).collect();
    let plan = format!("{PLAN}  orders: {{ service: orders, tables: [{}] }}\n", listed.join(", "));
    let house = House::open("jdbc", &plan, &tables::made(), &tables::made())?;
    for database in [PLAIN, UNWRAPPED] {
        house.monolith.psql("postgres", &format!("CREATE DATABASE {database}"))?;
        // The sink makes a column of it.
        house.monolith.psql(database, "CREATE EXTENSION ltree")?;
    }
    house.change(&tables::first())?;
    let mut worker =
        terminal::during("starting Kafka Connect", || Worker::start(&house.broker, &[Plugin::Jdbc], true))?;
    let mut sinks = Vec::new();
    for (what, database) in [("records as they are", PLAIN), ("rows by ExtractNewRecordState", UNWRAPPED)] {
        let connector = connector(&mut worker, &house, database, &names)?;
        let tables = names.iter().map(|name| (*name, topic(name).replace('.', "_"))).collect();
        let pair = Pair { cluster: &house.monolith, source: "shop", sink: database, tables };
        sinks.push((what, pair, connector));
    }
    let mut wrong = 0;
    for (when, changes) in [
        ("new rows", String::new()),
        ("changed rows", tables::second()),
        ("rows after a bridge was killed", tables::third()),
    ] {
        if when.ends_with("killed") {
            house.kill_bridge()?;
        }
        house.change(&changes)?;
        for (what, pair, connector) in &sinks {
            let claim = format!("the sink takes {what}, {} tables: {when}", names.len());
            let found = || {
                worker.must_run(connector)?;
                pair.found()
            };
            wrong += usize::from(!comes_to(&claim, || pair.expected(), found)?);
        }
    }
    for (what, why) in tables::NOT_TAKEN {
        terminal::note(&format!("the sink cannot take {what}: {why}"));
    }
    if stay {
        println!("\nIt stays up until Ctrl-C. psql '{}'", house.monolith.admin_url(PLAIN));
        house.stay()?;
    }
    Ok(wrong)
}

/// A sink that fills a database from the topics of these tables.
fn connector(worker: &mut Worker, house: &House, database: &str, names: &[&str]) -> Result<Connector> {
    let topics: Vec<_> = names.iter().map(|name| topic(name)).collect();
    let topics = topics.join(",");
    let url = format!("jdbc:postgresql://127.0.0.1:{}/{database}", house.monolith.port());
    let mut settings = vec![
        ("topics", topics.as_str()),
        ("connection.url", &url),
        ("connection.username", postgres::SUPERUSER),
        ("connection.password", postgres::PASSWORD),
        ("insert.mode", "upsert"),
        ("delete.enabled", "true"),
        ("primary.key.mode", "record_key"),
        ("schema.evolution", "basic"),
        ("quote.identifiers", "true"),
        // Otherwise Connect reads `__debezium.newkey` as a map, which the sink refuses; Debezium's connector writes the same.
        ("header.converter", "org.apache.kafka.connect.storage.StringConverter"),
    ];
    if database == UNWRAPPED {
        settings.extend([
            ("transforms", "unwrap"),
            ("transforms.unwrap.type", "io.debezium.transforms.ExtractNewRecordState"),
        ]);
    }
    worker.create(database, Plugin::Jdbc, &settings)
}

/// As documented in docs/plan.md.
fn topic(table: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    format!("shop.public.{table}").chars().map(allowed).collect()
}
