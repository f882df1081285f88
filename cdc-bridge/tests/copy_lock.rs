//! What ends the sessions of a first copy while it runs, and rewrites a table then: no row is missing afterwards.

#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::session;
use house::one_table::plan;
use migrations::control::Condition;
use migrations::stage::Event;
use tokio_postgres::Client;

/// The sink takes the first table's row only after the test lets it. The other table is read after that.
const SOURCE: &str = "
    CREATE TABLE firsts (id bigint PRIMARY KEY);
    INSERT INTO firsts VALUES (1);
    CREATE TABLE items (id bigint PRIMARY KEY, first bigint REFERENCES firsts, note text);
    INSERT INTO items SELECT g, 1, 'note ' || g FROM generate_series(1, 5000) g;";
const SINK: &str = "
    CREATE TABLE firsts (id bigint PRIMARY KEY);
    CREATE TABLE items (id bigint PRIMARY KEY, first bigint REFERENCES firsts, note text);
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN new; END$$;
    CREATE TRIGGER wait BEFORE INSERT ON firsts FOR EACH ROW EXECUTE FUNCTION wait();";
const TABLES: &str = "    tables: [public.firsts, public.items]\n";
const ALL: &str = "SELECT id, first, note FROM items ORDER BY id";

/// The session that holds the locks: until the second table is read, no other one locks it.
const LOCKS: &str = "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity USING (pid) \
    WHERE application_name = 'strangler copy' AND relation = 'items'::regclass";
/// The session that keeps the snapshot.
const SNAPSHOT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE application_name = 'strangler copy' AND query LIKE '%pg_export_snapshot%'";

const REWRITE: &str = "ALTER TABLE items ALTER COLUMN note TYPE varchar(200)";
const EMPTY: &str = "TRUNCATE items; INSERT INTO items SELECT g, 1, 'later' FROM generate_series(1, 300) g";
const REPLACE: &str = "BEGIN; CREATE TABLE other (LIKE items INCLUDING ALL); INSERT INTO other SELECT * FROM items; \
    DROP TABLE items; ALTER TABLE other RENAME TO items; COMMIT";

/// A copy that has its snapshot and its locks, and waits before it reads the second table. The session lets it go on.
async fn halfway() -> (House, Client) {
    let house = House::new(SOURCE, SINK, &plan(TABLES)).await;
    let held = session(&house.sink.url("postgres", "orders")).await;
    held.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    house.start();
    house.decide(Event::SyncStarted { replace: false });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    house.until_sql(false, waits, "1").await;
    (house, held)
}

async fn go_on(held: &Client) {
    held.batch_execute("SELECT pg_advisory_unlock(1)").await.unwrap();
}

async fn is_whole(house: &House) {
    house.until("following", |report| report.condition == Condition::Following).await;
    house.same(ALL, ALL).await;
    house.at_source("UPDATE items SET note = 'after the copy' WHERE id <= 100");
    house.same(ALL, ALL).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lost_its_locks_begins_again() {
    for deed in [REWRITE, EMPTY] {
        let (house, held) = halfway().await;
        assert_eq!(house.at_source(LOCKS), "t");
        house.at_source(deed);
        go_on(&held).await;
        is_whole(&house).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_replaced_after_the_locks_were_lost_is_not_followed() {
    let (house, held) = halfway().await;
    assert_eq!(house.at_source(LOCKS), "t");
    house.at_source(REPLACE);
    go_on(&held).await;
    // What replaced it has neither rights nor gate, and is not published.
    let (finding, _) = house.stopped(&house::crossing::there()).await;
    assert!(finding.remedy.contains("`strangler install`"), "{finding}");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let now = house.report(&house::crossing::there()).unwrap().condition;
    assert_ne!(now, Condition::Following);
    house.stop().await;
}

/// The locks keep every table as it is. What needs the snapshot later fails, and the copy begins again.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lost_its_snapshot_begins_again() {
    for deed in [REWRITE, EMPTY, REPLACE] {
        let (house, held) = halfway().await;
        assert_eq!(house.at_source(SNAPSHOT), "t");
        let impatient = session(&house.source.url("postgres", "shop")).await;
        let refused = impatient.batch_execute(&format!("SET lock_timeout = '300ms'; {deed}")).await;
        assert!(refused.is_err(), "{deed} did not wait for the copy");
        go_on(&held).await;
        is_whole(&house).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_role_do_not_end_a_copy() {
    let house = House::new(SOURCE, SINK, &plan(TABLES)).await;
    for limit in ["idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"] {
        let known = format!("SELECT count(*) FROM pg_settings WHERE name = '{limit}'");
        if house.at_source(&known) == "1" {
            house.at_source(&format!("ALTER ROLE strangler SET {limit} = '500ms'"));
        }
    }
    let held = session(&house.sink.url("postgres", "orders")).await;
    held.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
    house.start();
    house.decide(Event::SyncStarted { replace: false });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    house.until_sql(false, waits, "1").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let alive = "SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity USING (pid) \
        WHERE application_name = 'strangler copy' AND relation = 'items'::regclass";
    assert_eq!(house.at_source(alive), "1");
    go_on(&held).await;
    is_whole(&house).await;
}
