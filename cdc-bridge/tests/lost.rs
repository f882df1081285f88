//! What would be lost, or would fill a disk, and is noticed: slots and logs that went, were given up or are full, tables
//! that are not what they were, two copies at once.

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use cdc_bridge::lane;
use house::crossing::{session, there};
use house::one_table::{ALL, PLAN, SINK, SOURCE, SUMS, following};
use house::{House, slice};
use migrations::control::{Condition, Desired};
use migrations::journal::{Entry, Generation, State as Journal};
use migrations::lane::{LaneId, Mark};
use migrations::lsn::{CommitLsn, Of};
use migrations::stage::{Epoch, Event};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_log_with_a_live_slot_is_found_at_start() {
    let house = following().await;
    house.stop().await;
    house.at_source("UPDATE orders SET note = 'missed' WHERE id < 10");
    std::fs::remove_dir_all(house.folder.path().join("bridge")).unwrap();
    house.start();
    house.stopped(&there()).await;
    house.until_agent("told", |findings| findings.contains("capture.foreign-slot")).await;
    assert_eq!(house.at_sink("SELECT count(*) FROM orders WHERE note = 'missed'"), "0");
    copied_anew(&house).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_would_keep_too_much_wal_is_given_up_and_the_slice_is_copied_again() {
    let house = House::following(SOURCE, SINK, &format!("{PLAN}limits: {{ max_wal_kept: 48MiB }}")).await;
    let attempt = house.attempt();
    // An open transaction holds the slot's start back, whatever is confirmed.
    let open = session(&house.source.url("postgres", "shop")).await;
    open.batch_execute("BEGIN; SELECT txid_current()").await.unwrap();
    for _ in 0..5 {
        house.at_source(
            "SELECT pg_switch_wal(); CREATE TABLE filler AS SELECT repeat(md5(g::text), 40) FROM \
             generate_series(1, 12000) g; DROP TABLE filler",
        );
    }
    house.at_source("UPDATE orders SET note = 'meanwhile'");
    house.until("given up", |_| house.attempt() > attempt).await;
    open.batch_execute("COMMIT").await.unwrap();
    house.until("following again", |report| report.condition == Condition::Following).await;
    house.same(ALL, ALL).await;
    let kept =
        "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))::bigint FROM pg_replication_slots";
    let kept: u64 = house.at_source(kept).parse().unwrap();
    assert!(kept < 48 << 20, "{kept} bytes of WAL are kept");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_the_whole_log_leads_to_a_new_copy_not_to_a_standstill() {
    let house =
        House::following(SOURCE, SINK, &format!("{PLAN}log: {{ embedded: {{ max: 64MiB }} }}\n")).await;
    let attempt = house.attempt();
    let large =
        "INSERT INTO orders SELECT g, repeat(md5(g::text), 1000) FROM generate_series(10001, 13000) g";
    house.at_source(large);
    copied_again(&house, attempt).await;
    // It stays so: the transaction does not come again.
    house.at_source("UPDATE orders SET note = 'later' WHERE id <= 100");
    house.same(SUMS, SUMS).await;
    let settled = house.attempt();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(house.attempt(), settled, "it is copied again and again");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_slice_that_fills_the_log_is_given_up_and_copied_again() {
    let house =
        House::following(SOURCE, SINK, &format!("{PLAN}log: {{ embedded: {{ max: 64MiB }} }}\n")).await;
    let attempt = house.attempt();
    house.decide(Event::Paused);
    house.until("paused", |report| report.condition == Condition::Paused).await;
    for round in 0..20 {
        let rewrite = "INSERT INTO orders SELECT g, repeat(md5(g::text), 1000) FROM generate_series(1, 150) g \
                       ON CONFLICT (id) DO UPDATE SET note = excluded.note || '";
        house.at_source(&format!("{rewrite}{round}'"));
    }
    house.until("given up", |_| house.attempt() > attempt).await;
    house.decide(Event::Resumed { skip: None });
    house.until("following again", |report| report.condition == Condition::Following).await;
    house.same(SUMS, SUMS).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_had_another_name_for_a_moment_is_copied_again() {
    let house = following().await;
    let away = "ALTER TABLE orders RENAME TO away; UPDATE away SET note = 'unseen'; ALTER TABLE away RENAME TO orders";
    for is_up in [true, false] {
        let attempt = house.attempt();
        if !is_up {
            house.stop().await;
        }
        house.at_source(away);
        if !is_up {
            house.start();
        }
        house.at_source("UPDATE orders SET note = 'seen' WHERE id < 10");
        copied_again(&house, attempt).await;
        house.same(ALL, ALL).await;
    }
    let settled = house.attempt();
    house.at_source("UPDATE orders SET note = 'later' WHERE id < 10");
    house.same(ALL, ALL).await;
    assert_eq!(house.attempt(), settled, "it is copied again and again");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_keeps_another_from_beginning_while_a_chunk_is_under_way_and_not_after_it() {
    let house = following().await;
    let url = house.plan.services.values().next().unwrap().database.clone().unwrap();
    let connect = || postgres::connect(&url, "test");
    let (first, second) = (connect().await.unwrap(), connect().await.unwrap());
    let orders = LaneId::forward(slice());
    lane::hold(&first, &orders, "first").await.unwrap();
    let mark = Mark { lane: orders.clone(), epoch: Epoch(0) };
    lane::begin_chunk(&first, &mark, "first").await.unwrap();
    second.batch_execute("SET lock_timeout = '200ms'").await.unwrap();
    let refused = lane::hold(&second, &orders, "second").await.unwrap_err().to_string();
    assert!(refused.contains("lock timeout"), "{refused}");
    first.batch_execute("COMMIT").await.unwrap();
    lane::hold(&second, &orders, "second").await.unwrap();
    let refused = lane::begin_chunk(&first, &mark, "first").await.unwrap_err().to_string();
    assert!(refused.contains("another bridge copies slice orders"), "{refused}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_dropped_the_slot_leads_to_a_new_copy_not_to_a_gap() {
    let house = following().await;
    house.stop().await;
    released(&house).await;
    house.at_source("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; UPDATE orders SET note = 'unseen'");
    let attempt = house.attempt();
    house.start();
    copied_again(&house, attempt).await;
    house.same(ALL, ALL).await;
    house.stop().await;
}

/// Waits until the server knows that the stopped bridge reads the slot no more.
async fn released(house: &House) {
    house.until_sql(true, "SELECT bool_or(active) FROM pg_replication_slots", "f").await;
}

/// Waits until everything that the source wrote so far is confirmed, wanted or not.
async fn confirmed(house: &House) {
    let end = house.at_source("SELECT pg_current_wal_lsn()");
    let sql = format!("SELECT bool_and(confirmed_flush_lsn >= '{}') FROM pg_replication_slots", end.trim());
    house.until_sql(true, &sql, "t").await;
}

/// The way out that findings name: the copy is given up, and another one begun.
async fn copied_anew(house: &House) {
    house.decide(Event::SyncDropped);
    house.until("idle", |report| report.condition == Condition::Idle).await;
    house.follow().await;
    house.same(ALL, ALL).await;
}

/// Waits until the slice follows as another copy than this one.
async fn copied_again(house: &House, attempt: Generation) {
    house
        .until("copied again", |report| report.condition == Condition::Following && house.attempt() > attempt)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_the_plan_and_came_back_is_copied_again() {
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, note text);";
    let plan = PLAN.replace("[public.orders]", "[public.orders, public.notes]");
    let (source, sink) =
        (format!("{SOURCE}{notes} INSERT INTO notes VALUES (1, 'first')"), format!("{SINK}{notes}"));
    let mut house = House::following(&source, &sink, &plan).await;
    let attempt = house.attempt();
    house.stop().await;
    let whole = house.plan.clone();
    house.plan.slices.get_mut(&slice()).unwrap().tables.pop();
    house.start();
    house.stopped(&there()).await;
    house.at_source("UPDATE notes SET note = 'while it was out of the plan'");
    confirmed(&house).await;
    house.stop().await;
    house.plan = whole;
    house.start();
    copied_again(&house, attempt).await;
    for table in ["orders", "notes"] {
        let all = format!("SELECT id, note FROM {table} ORDER BY id");
        house.same(&all, &all).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_the_publication_for_a_moment_is_copied_again() {
    let house = following().await;
    let attempt = house.attempt();
    // What a new `strangler install` does is no such moment.
    house.at_source("ALTER PUBLICATION strangler_shop SET TABLE orders");
    house.stop().await;
    house.start();
    house.until("following", |report| report.condition == Condition::Following).await;
    house.at_source("UPDATE orders SET note = 'seen' WHERE id < 10");
    house.same(ALL, ALL).await;
    assert_eq!(house.attempt(), attempt, "it was copied again for nothing");
    house.at_source("ALTER PUBLICATION strangler_shop DROP TABLE orders");
    house.at_source("UPDATE orders SET note = 'unpublished' WHERE id < 10");
    house.at_source("ALTER PUBLICATION strangler_shop ADD TABLE orders");
    copied_again(&house, attempt).await;
    house.same(ALL, ALL).await;
    house.stop().await;
}

/// Its folder may have been put back from a backup: what it was told last then is no reason to take a copy away.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_order_removes_no_copy_before_the_controller_answers() {
    let tables = "tables: [public.orders]\n  notes: { service: orders, routes: { all: GET /notes }, tables: [public.notes] }";
    let notes = "CREATE TABLE notes (id int PRIMARY KEY, note text);";
    let plan = PLAN.replace("tables: [public.orders]", tables);
    let house = House::following(&format!("{SOURCE}{notes}"), &format!("{SINK}{notes}"), &plan).await;
    let attempt = house.attempt();
    // The journal is longer now than it was when the wish was stored.
    house.decide(Event::Paused);
    house.decide(Event::Resumed { skip: None });
    house.stop().await;
    // Another slice was followed then, and this one was not.
    let mut then = Journal::empty(house.journal().journal);
    for (event, at) in [
        (Event::SyncStarted { replace: false }, 1),
        (Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(1)) }, 2),
    ] {
        let (actor, reason) = ("test".to_owned(), String::new());
        let slice = "notes".parse().unwrap();
        let entry = Entry { generation: Generation(at), at: String::new(), actor, reason, slice, event };
        then.apply(&entry).unwrap();
    }
    let wish = serde_json::to_vec(&Desired::from(&house.plan, &then, None)).unwrap();
    std::fs::write(house.folder.path().join("bridge/desired.json"), wish).unwrap();
    let mut link = house.link();
    link.controller = format!("http://127.0.0.1:{}", lab::free_port().unwrap());
    let alone = tokio::spawn(cdc_bridge::serve(house.plan.clone(), link, std::future::pending()));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(house.at_sink("SELECT count(*) FROM orders"), "1000");
    alone.abort();
    let _ = alone.await;
    house.start();
    house.until("following", |report| report.condition == Condition::Following).await;
    house.at_source("UPDATE orders SET note = 'later'");
    house.same(ALL, ALL).await;
    assert!(house.attempt() >= attempt);
    house.stop().await;
}
