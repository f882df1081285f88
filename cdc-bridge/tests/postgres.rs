//! The bridge between two real Postgres clusters, over both logs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use cdc_bridge::log::{Flush, Log};
use house::orders::{self, plan};
use house::{House, kafka};
use migrations::code::Code;
use migrations::control::{Condition, LaneReport};
use migrations::lsn::{EndLsn, Timeline};
use migrations::plan::LogChoice;
use migrations::sql::Database;
use migrations::stage::Event;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rows::progress::Progress;
use std::time::{Duration, Instant};

const SOURCE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'fine', 'it''s \"ok\", really');
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, total numeric(12,2) NOT NULL,
        note text, email text UNIQUE, placed timestamptz NOT NULL DEFAULT now());
    CREATE TABLE order_items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE, line int NOT NULL,
        qty int NOT NULL, legacy text, PRIMARY KEY (order_id, line));
    CREATE TABLE things (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), a smallint, b bigint, c real, d double precision,
        e numeric, f bool, g bytea, h json, i jsonb, j date, k time, l timestamp, m timestamptz, n mood, o text[],
        p int[], q mood[], r varchar(20), s char(5), t oid, u numeric[], v timestamp(3), w text);
    INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 200) g;
    INSERT INTO orders SELECT g, 1 + g % 200, g * 1.25, 'note ' || g, 'e' || g FROM generate_series(1, 20000) g;
    INSERT INTO order_items SELECT 1 + g % 20000, g, g % 7, 'old' FROM generate_series(1, 40000) g;";

const SINK: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'fine', 'it''s \"ok\", really');
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, total_cents bigint NOT NULL,
        note text, email text UNIQUE, placed timestamptz NOT NULL);
    CREATE TABLE items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE ON UPDATE CASCADE, line int NOT NULL,
        quantity int NOT NULL, PRIMARY KEY (order_id, line));
    CREATE TABLE things (id uuid PRIMARY KEY, a smallint, b bigint, c real, d double precision,
        e numeric, f bool, g bytea, h json, i jsonb, j date, k time, l timestamp, m timestamptz, n mood, o text[],
        p int[], q mood[], r varchar(20), s char(5), t oid, u numeric[], v timestamp(3), w text);";

const ORDERS: (&str, &str) = (
    "SELECT id, customer, (total * 100)::bigint, note, email, placed FROM orders ORDER BY id",
    "SELECT id, customer, total_cents, note, email, placed FROM orders ORDER BY id",
);
const ITEMS: (&str, &str) = (
    "SELECT order_id, line, qty FROM order_items ORDER BY 1, 2",
    "SELECT order_id, line, quantity FROM items ORDER BY 1, 2",
);
const THINGS: (&str, &str) = ("SELECT * FROM things ORDER BY id", "SELECT * FROM things ORDER BY id");
const CUSTOMERS: (&str, &str) =
    ("SELECT * FROM customers ORDER BY id", "SELECT * FROM customers ORDER BY id");

async fn house(log: &str) -> House {
    let plan = plan(&format!("{}      - public.things\n", orders::ITEMS));
    House::new(SOURCE, SINK, &format!("{plan}{log}")).await
}

async fn all_same(house: &House) {
    for (left, right) in [ORDERS, ITEMS, THINGS, CUSTOMERS] {
        house.same(left, right).await;
    }
}

/// Every kind of change, edge values included, in transactions small and large.
const CHANGES: &[&str] = &[
    "INSERT INTO orders VALUES (100001, 1, 12.34, E'tab\\t newline\\n back\\\\slash', 'x1')",
    "UPDATE orders SET total = total + 0.01 WHERE id <= 5000",
    "UPDATE orders SET id = 200000 WHERE id = 100001",
    "DELETE FROM orders WHERE id BETWEEN 6000 AND 6100",
    "BEGIN; UPDATE orders SET email = NULL WHERE id = 1; UPDATE orders SET email = 'e1' WHERE id = 2; \
     UPDATE orders SET email = 'e2' WHERE id = 1; COMMIT",
    "BEGIN; DELETE FROM orders WHERE id = 3; INSERT INTO orders VALUES (3, 2, 1, 'again', 'e3'); COMMIT",
    "BEGIN; INSERT INTO customers VALUES (999, 'new'); INSERT INTO orders VALUES (300000, 999, 5, NULL, NULL); \
     INSERT INTO order_items VALUES (300000, 1, 2, 'x'); COMMIT",
    "INSERT INTO things (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w) VALUES \
     (-32768, 9223372036854775807, 'NaN', '-Infinity', 'NaN', true, '\\x00ff27', '{\"a\" :  1}', '{\"b\": [1.10]}', \
      '4713-01-01 BC', '24:00:00', 'infinity', '294276-12-31 23:59:59.999999+00', 'it''s \"ok\", really', \
      ARRAY['a', NULL, 'NULL', 'q\"uote', 'back\\slash', ''], ARRAY[[1,2],[3,4]], ARRAY['sad','fine']::mood[], \
      '', 'ab', 4294967295, ARRAY[1.50, 'NaN'], '2024-02-29 12:00:00.123', '__debezium_unavailable_value')",
    "INSERT INTO things (e, w, g) SELECT 1.000, repeat(md5(g::text), 3000), decode(repeat(md5(g::text), 500), 'hex') \
     FROM generate_series(1, 20) g",
    "UPDATE things SET a = 7 WHERE w IS NOT NULL",
    "UPDATE things SET w = w || 'x', b = 1 WHERE a = 7",
    "INSERT INTO orders SELECT g, 1 + g % 200, g, repeat('n', 100), NULL FROM generate_series(400001, 460000) g",
    "UPDATE orders SET note = note || '!' WHERE id > 400000",
    "DELETE FROM orders WHERE id > 430000",
    "BEGIN; INSERT INTO orders SELECT g, 1, 1, NULL, NULL FROM unnest(ARRAY[700002, 700001]) g; \
     INSERT INTO order_items VALUES (700001, 1, 1, 'x'), (700002, 1, 2, 'x'); COMMIT",
    // The rows come along with their order, one in the place that the other has just left.
    "SET enable_indexscan = off; SET enable_bitmapscan = off; UPDATE orders SET id = id + 1 WHERE id > 700000",
    "UPDATE order_items SET order_id = 700003, line = 2, qty = 9 WHERE order_id = 700002",
    "BEGIN; TRUNCATE order_items; INSERT INTO order_items VALUES (5, 1, 3, NULL); COMMIT",
];

async fn every_change_arrives(log: &str) {
    let house = house(log).await;
    house.start();
    house.follow().await;
    all_same(&house).await;
    for change in CHANGES {
        if change.contains("TRUNCATE") {
            all_same(&house).await;
        }
        house.at_source(change);
    }
    all_same(&house).await;
    house.stop().await;
    house.at_source("UPDATE orders SET note = 'while away' WHERE id < 100");
    house.start();
    all_same(&house).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_arrives_over_the_embedded_log() {
    every_change_arrives("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_arrives_over_kafka() {
    every_change_arrives(&kafka()).await;
}

/// The topics of tables, and the log's.
fn topics(house: &House) -> Vec<String> {
    let LogChoice::Kafka { brokers, topic_prefix, .. } = &house.plan.log else { panic!("not in Kafka") };
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let there = consumer.fetch_metadata(None, Duration::from_secs(10)).unwrap();
    let names = there.topics().iter().map(|topic| topic.name().to_owned());
    names.filter(|name| name.contains(topic_prefix)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_other_tables_than_the_plan_has_is_not_followed() {
    let mut house = house("").await;
    house.start();
    house.follow().await;
    house.stop().await;
    let as_it_was = house.plan.clone();
    let stopped = |report: &LaneReport| match &report.condition {
        Condition::Stopped { finding, .. } => finding.code == Code::PlanCopiedOtherwise,
        _ => false,
    };
    house.plan.slices.get_mut(&house::slice()).unwrap().tables.pop();
    house.start();
    let report = house.until("a table that went", stopped).await;
    assert!(format!("{:?}", report.condition).contains("removed public.things"), "{:?}", report.condition);
    house.stop().await;
    house.plan = as_it_was.clone();
    house.plan.slices.get_mut(&house::slice()).unwrap().tables[1].rename.clear();
    house.start();
    let report = house.until("another mapping", stopped).await;
    assert!(format!("{:?}", report.condition).contains("mapped"), "{:?}", report.condition);
    house.stop().await;
    house.plan = as_it_was;
    house.plan.slices.get_mut(&house::slice()).unwrap().tables.reverse();
    house.start();
    house.until("the same tables", |report| report.condition == Condition::Following).await;
    house.stop().await;
}

const SYSTEM_ID: &str = "SELECT system_identifier::text FROM pg_control_system()";

/// A log as a bridge makes it that is killed before it keeps anything.
async fn left_behind(house: &House, system_id: &str) -> (Log, Timeline) {
    let log = Log::open(&house.plan.log, &house.plan.name, &Database::Monolith, "shop", house.folder.path())
        .await
        .unwrap();
    let timeline = Timeline { system_id: system_id.to_owned(), timeline: 1 };
    log.prepare(1 << 20, &timeline).await.unwrap();
    (log, timeline)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_with_nothing_to_do_leaves_the_log_of_others() {
    let house = house(&kafka()).await;
    let (theirs, timeline) = left_behind(&house, "7300000000000000001").await;
    let before = topics(&house);
    house.start();
    house.until("idle", |report| report.condition == Condition::Idle).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((topics(&house), before.len()), (before.clone(), 1));
    let progress = Progress {
        version: 1,
        log: theirs.id(),
        timeline,
        end: EndLsn(1),
        committed_us: 0,
        messages: Vec::new(),
        captured: [].into(),
        seals: None,
    };
    let flush = Flush { changes: Vec::new(), progress: Some(progress) };
    theirs.writer().await.unwrap().append(flush).await.unwrap();
    // A bridge looks once whether there is something to give up.
    house.stop().await;
    house.start();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(topics(&house), before);
    house.stop().await;
    theirs.destroy().await.unwrap();
}

/// A start in a log that is not ours stops with this finding, and giving it up ends.
async fn leaves_topics(house: &House, code: Code) {
    house.decide(Event::SyncStarted { replace: false });
    house.until_agent("stopped", |report| report.contains(code.as_str())).await;
    house.decide(Event::SyncDropped);
    house.until_agent("given up", |report| report.contains("holds_nothing: true")).await;
}

/// A plan that was given the prefix of another monolith's log by mistake: it stops, and giving it up takes nothing away.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistaken_start_leaves_the_topics_of_others() {
    let house = house(&kafka()).await;
    let (theirs, _) = left_behind(&house, "7300000000000000001").await;
    let before = topics(&house);
    house.start();
    leaves_topics(&house, Code::CaptureOtherServer).await;
    assert_eq!((topics(&house), before.len()), (before.clone(), 1));
    house.stop().await;
    theirs.destroy().await.unwrap();
}

/// Two plans with one prefix, for databases of one server: the second one leaves the first one's log alone.
#[tokio::test(flavor = "multi_thread")]
async fn another_plans_log_of_the_same_server_stays() {
    let mut house = house(&kafka()).await;
    let (ours, shop) = (house.at_source(SYSTEM_ID), house.plan.name.clone());
    house.plan.name = "other".parse().unwrap();
    let (theirs, _) = left_behind(&house, &ours).await;
    house.plan.name = shop;
    let before = topics(&house);
    house.start();
    house.until("idle", |report| report.condition == Condition::Idle).await;
    leaves_topics(&house, Code::CaptureOtherPlan).await;
    assert_eq!((topics(&house), before.len()), (before.clone(), 1));
    house.stop().await;
    theirs.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_that_a_killed_bridge_of_this_monolith_made_is_removed() {
    let house = house(&kafka()).await;
    let (left, ..) = left_behind(&house, &house.at_source(SYSTEM_ID)).await;
    assert_eq!(topics(&house).len(), 1);
    drop(left);
    house.start();
    let until = Instant::now() + Duration::from_secs(20);
    while !topics(&house).is_empty() {
        assert!(Instant::now() < until, "{:?} are still there", topics(&house));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    house.stop().await;
}
