//! Tables that come into the plan of a slice that follows: they are copied alone, each whole and at one place.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::crossing::{back, session, there};
use house::one_table::PLAN;
use house::{House, kafka};
use migrations::code::Code;
use migrations::control::{Condition, LaneReport};
use migrations::plan::{Slice, Table};
use migrations::sql::{self, Database};
use migrations::stage::Event;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Each transaction of the traffic counts on, writes an order of that number, and notes it in one of 50 prices.
const SOURCE: &str = "
    CREATE TABLE counts (id int PRIMARY KEY, n int NOT NULL);
    INSERT INTO counts VALUES (1, 0);
    CREATE TABLE orders (id int PRIMARY KEY, note text);
    INSERT INTO orders SELECT -g, 'old' FROM generate_series(1, 1000) g;
    CREATE TABLE prices (id int PRIMARY KEY, amount int NOT NULL);
    INSERT INTO prices SELECT g, 0 FROM generate_series(0, 19999) g;
    CREATE TABLE kinds (id int PRIMARY KEY, above int REFERENCES kinds);
    INSERT INTO kinds VALUES (1, 2), (2, NULL);
    CREATE TABLE items (id int PRIMARY KEY, of_order int NOT NULL REFERENCES orders, kind int REFERENCES kinds, cost numeric NOT NULL);
    INSERT INTO items SELECT g, -g, 1 + g % 2, 0 FROM generate_series(1, 300) g;";
const SINK: &str = "
    CREATE TABLE counts (id int PRIMARY KEY, n int NOT NULL);
    CREATE TABLE orders (id int PRIMARY KEY, note text);
    CREATE TABLE prices (id int PRIMARY KEY, amount int NOT NULL);
    CREATE TABLE kinds (id int PRIMARY KEY, above int REFERENCES kinds);
    CREATE TABLE items (id int PRIMARY KEY, of_order int NOT NULL, kind int REFERENCES kinds, cents bigint NOT NULL);
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END$$;
    CREATE TRIGGER wait AFTER INSERT ON prices FOR EACH STATEMENT EXECUTE FUNCTION wait();";
/// The tables that come later.
const MORE: &str = "
version: 1
name: shop
monolith: { upstream: 'http://a:1', database: 'postgres://s@h/a' }
services: { orders: { upstream: 'http://b:1', database: 'postgres://s@h/b' } }
slices:
  orders:
    service: orders
    routes: { list: GET /orders }
    tables: [{ from: public.items, drop: [cost], set: { cents: '(cost * 100)::bigint' }, reverse: { cost: 'cents / 100.0' } }]
    reference: [public.prices, public.kinds]
";

/// One transaction of the traffic.
const WRITE: &str = "WITH next AS (UPDATE counts SET n = n + 1 RETURNING n),
    an_order AS (INSERT INTO orders SELECT n, 'new' FROM next),
    an_item AS (UPDATE items SET cost = n FROM next WHERE id = 1 + n % 300)
    UPDATE prices SET amount = n FROM next WHERE id = n % 50";

/// How far the sink is, how many prices it has, and whether all that it has is as the source was there.
const LOOK: &str = "SELECT n, (SELECT count(*) FROM prices),
    (SELECT count(*) FROM orders WHERE id > 0) = n AND (SELECT coalesce(max(id), 0) FROM orders WHERE id > 0) = n
    AND NOT EXISTS (SELECT FROM prices p WHERE id < 50 AND amount <>
        CASE WHEN n < p.id OR n - (n - p.id) % 50 <= 0 THEN 0 ELSE n - (n - p.id) % 50 END)
    AND NOT EXISTS (SELECT FROM items i WHERE cents <> 100 *
        CASE WHEN n < i.id - 1 OR n - (n - i.id + 1) % 300 <= 0 THEN 0 ELSE n - (n - i.id + 1) % 300 END)
    FROM counts";

/// What shows that the tables that were followed were not written anew.
const UNTOUCHED: &str = "SELECT pg_relation_filenode('orders'), pg_relation_filenode('counts'),
    (SELECT md5(string_agg(concat(id, xmin), ' ' ORDER BY id)) FROM orders WHERE id < 0)";

fn more() -> Slice {
    let (plan, _) = migrations::plan::check("more.yaml", MORE, &|_| None).unwrap();
    plan.slices[&house::slice()].clone()
}

/// The service's items refer to its orders, which could not be emptied for the first copy while they did.
const REFER: &str = "ALTER TABLE items ADD FOREIGN KEY (of_order) REFERENCES orders";

/// Edits the plan: these tables come.
fn edit(house: &mut House, moved: &[Table], read: &[Table]) {
    let slice = house.plan.slices.get_mut(&house::slice()).unwrap();
    slice.tables.extend_from_slice(moved);
    slice.reference.extend_from_slice(read);
}

fn install(house: &House) {
    for database in Database::all(&house.plan) {
        let script: Vec<String> =
            sql::install(&house.plan, &database).unwrap().into_iter().map(|step| step.sql).collect();
        let script = format!("BEGIN; {}; COMMIT", script.join(";\n"));
        match database {
            Database::Monolith => house.at_source(&script),
            Database::Service(_) => house.at_sink(&script),
        };
    }
}

async fn follows(house: &House) {
    house.until("following", |report| report.condition == Condition::Following).await;
}

fn is_adding(report: &LaneReport) -> bool {
    matches!(report.condition, Condition::Adding { .. })
}

async fn following(log: &str) -> House {
    House::following(SOURCE, SINK, &format!("{PLAN}    reference: [public.counts]\n{log}")).await
}

/// Writes at the source until told to stop.
fn traffic(house: &House, over: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (url, over) = (house.source.url("postgres", "shop"), over.clone());
    tokio::spawn(async move {
        let client = session(&url).await;
        while !over.load(Ordering::SeqCst) {
            client.batch_execute(WRITE).await.unwrap();
        }
    })
}

/// What the sink shows at many moments.
fn looks(house: &House, over: &Arc<AtomicBool>) -> JoinHandle<Vec<(i32, i64)>> {
    let (url, over) = (house.sink.url("postgres", "orders"), over.clone());
    tokio::spawn(async move {
        let client = session(&url).await;
        let mut seen = Vec::new();
        while !over.load(Ordering::SeqCst) {
            let row = client.query_one(LOOK, &[]).await.unwrap();
            let (n, prices): (i32, i64) = (row.get(0), row.get(1));
            assert!(
                row.get::<_, bool>(2),
                "at {n}, with {prices} prices, the sink is no prefix of the source"
            );
            seen.push((n, prices));
        }
        seen
    })
}

async fn tables_come_while_all_is_written(log: &str) {
    let mut house = following(log).await;
    let (attempt, over) = (house.attempt(), Arc::new(AtomicBool::new(false)));
    let before = house.at_sink(UNTOUCHED);
    let (writes, seen) = (traffic(&house, &over), looks(&house, &over));
    let all = more();
    edit(&mut house, &all.tables, &all.reference);
    house.at_sink(REFER);
    install(&house);
    let held = session(&house.sink.url("postgres", "orders")).await;
    held.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    // Each time it is killed somewhere else, the last time while the rows are in the sink's transaction.
    for pause in [0, 20, 50, 600] {
        house.stop().await;
        house.start();
        let report = house.until("adding", is_adding).await;
        let Condition::Adding { tables, .. } = report.condition else { unreachable!() };
        assert_eq!(tables.len(), 3);
        if pause == 600 {
            let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            house.until_sql(false, waits, "1").await;
            assert!(!house.passes().await, "a barrier lets read what is not there");
        } else {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        assert_eq!(house.at_sink("SELECT count(*) FROM prices"), "0");
    }
    house.stop().await;
    held.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    house.start();
    follows(&house).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    house.stop().await;
    house.start();
    follows(&house).await;
    over.store(true, Ordering::SeqCst);
    writes.await.unwrap();
    let seen = seen.await.unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0), "the sink went back");
    let whole: Vec<i64> = seen.iter().map(|(_, prices)| *prices).collect();
    assert_eq!(whole.iter().filter(|count| ![0, 20_000].contains(*count)).count(), 0);
    assert_eq!(whole.windows(2).filter(|pair| pair[0] != pair[1]).count(), 1);
    assert_eq!((house.attempt(), house.at_sink(UNTOUCHED)), (attempt, before), "it was copied again");
    // Whatever is written now arrives, also in what refers to the other tables.
    house.at_source("DELETE FROM items WHERE id > 200; INSERT INTO kinds VALUES (3, 1); UPDATE items SET kind = 3 WHERE id < 5");
    house.same("SELECT * FROM prices ORDER BY id", "SELECT * FROM prices ORDER BY id").await;
    house
        .same(
            "SELECT id, of_order, kind, (cost * 100)::bigint FROM items ORDER BY id",
            "SELECT * FROM items ORDER BY id",
        )
        .await;
    house.same("SELECT * FROM kinds ORDER BY id", "SELECT * FROM kinds ORDER BY id").await;
    house.same("SELECT * FROM orders ORDER BY id", "SELECT * FROM orders ORDER BY id").await;
    assert_eq!(house.attempt(), attempt);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_while_all_is_written_over_the_embedded_log() {
    tables_come_while_all_is_written("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_while_all_is_written_over_kafka() {
    tables_come_while_all_is_written(&kafka()).await;
}

/// What keeps a table from coming is said, costs no copy, and is gone when its cause is.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_come_yet_costs_no_copy() {
    let mut house = following("").await;
    let (attempt, before) = (house.attempt(), house.at_sink(UNTOUCHED));
    house.stop().await;
    edit(&mut house, &[], &more().reference);
    house.at_source(WRITE);
    house.start();
    let (finding, _) = house.stopped(&there()).await;
    assert!(
        finding.code == Code::InstallNotPublished && finding.message.contains("public.prices"),
        "{finding}"
    );
    house.at_source(WRITE);
    tokio::time::sleep(Duration::from_secs(2)).await;
    house.stop().await;
    house.at_source(WRITE);
    house.start();
    house.stopped(&there()).await;
    house.at_sink("INSERT INTO prices VALUES (1, 1)");
    house.forget();
    install(&house);
    let is_full = |report: &LaneReport| matches!(&report.condition, Condition::Stopped { finding, .. } if finding.code == Code::SinkNotEmpty);
    house.until("stopped at rows of others", is_full).await;
    assert_eq!(house.at_sink("SELECT count(*) FROM prices"), "1");
    house.at_sink("DELETE FROM prices");
    house.decide(Event::Resumed { skip: None });
    follows(&house).await;
    house.same("SELECT * FROM prices ORDER BY id", "SELECT * FROM prices ORDER BY id").await;
    house.same("SELECT * FROM counts", "SELECT * FROM counts").await;
    // The service may not write what it only reads.
    let app = session(&house.sink.url("app", "orders")).await;
    assert!(app.batch_execute("UPDATE prices SET amount = 7").await.is_err(), "no gate guards the new table");
    assert_eq!((house.attempt(), house.at_sink(UNTOUCHED)), (attempt, before));
    house.stop().await;
}

/// A snapshot waits for every open transaction of the source; the tables that are followed do not.
#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_while_a_table_waits_for_a_long_transaction() {
    let mut house = following("").await;
    house.stop().await;
    edit(&mut house, &[], &more().reference);
    install(&house);
    let long = session(&house.source.url("postgres", "shop")).await;
    long.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    house.start();
    house.until("adding", is_adding).await;
    for n in 1..=5 {
        house.at_source(WRITE);
        house.until_sql(false, "SELECT n FROM counts", &n.to_string()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    house.until("adding still", is_adding).await;
    long.batch_execute("COMMIT").await.unwrap();
    follows(&house).await;
    house.same("SELECT * FROM prices ORDER BY id", "SELECT * FROM prices ORDER BY id").await;
    house.stop().await;
}

/// The source keeps what a snapshot sees for as long as it is held.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_behind_catches_up_before_it_takes_a_snapshot() {
    const BEHIND: i64 = 100;
    let mut house = following("").await;
    house.stop().await;
    edit(&mut house, &[], &more().reference);
    install(&house);
    house.at_sink(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END$$;
        CREATE TRIGGER slow AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    // Ten batches of the log.
    house.at_source(&format!(
        "DO $$BEGIN FOR i IN 1..{BEHIND} LOOP UPDATE counts SET n = i;
        INSERT INTO orders SELECT i, string_agg(md5(random()::text), '') FROM generate_series(1, 3000); COMMIT; END LOOP; END$$"
    ));
    let held = session(&house.sink.url("postgres", "orders")).await;
    held.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    house.start();
    let snapshots = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'strangler copy'
        AND state = 'idle in transaction' AND backend_xmin IS NOT NULL";
    let fills = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    let mut was_behind = false;
    while house.at_sink(fills) == "0" {
        let is_held = house.at_source(snapshots) != "0";
        let n: i64 = house.at_sink("SELECT n FROM counts").parse().unwrap();
        was_behind |= n < BEHIND / 2;
        assert!(!is_held || n > BEHIND / 2, "a snapshot is held for {} transactions", BEHIND - n);
    }
    assert!(was_behind);
    held.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
    follows(&house).await;
    house.same("SELECT * FROM prices ORDER BY id", "SELECT * FROM prices ORDER BY id").await;
    house.stop().await;
}

/// When the move is complete, what the service reads may still grow.
#[tokio::test(flavor = "multi_thread")]
async fn a_reference_table_comes_after_the_move_was_completed() {
    let mut house = following("").await;
    house.prepare().await;
    house.cut_over().await;
    house.until_lane(&back(), "following back", |lane| lane.condition == Condition::Following).await;
    house.journal_with(Event::Completed, "");
    house.until("following", |report| report.condition == Condition::Following).await;
    house.stop().await;
    edit(&mut house, &[], &more().reference);
    install(&house);
    house.start();
    follows(&house).await;
    house.same("SELECT * FROM prices ORDER BY id", "SELECT * FROM prices ORDER BY id").await;
    house.at_source("UPDATE prices SET amount = 9 WHERE id < 10");
    house.same("SELECT * FROM prices ORDER BY id", "SELECT * FROM prices ORDER BY id").await;
    house.stop().await;
}
