//! Verification on two real clusters: exact while both sides move, and nothing that differs is missed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::{NEVER, prepared, session, started};
use house::orders::{ITEMS, plan};
use house::verification::{begin, clean, ended, look, post, told, url, verified};
use lab::Dice;
use migrations::code::Code;
use migrations::control::{Condition, VERSION};
use migrations::lsn::EndLsn;
use migrations::problem::Problem;
use migrations::stage::{Epoch, Event};
use migrations::verify::{CompareAnswer, CompareRequest, Course, RowKey, Verification};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const SOURCE: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, total numeric(12,2) NOT NULL,
        note text, data jsonb, placed timestamptz NOT NULL DEFAULT now(), code char(8), ratio double precision,
        weight numeric(9,3));
    CREATE TABLE order_items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        qty int NOT NULL, legacy text, PRIMARY KEY (line, order_id));
    CREATE TABLE words (word text COLLATE \"C\" PRIMARY KEY, meaning text);
    INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 50) g;
    INSERT INTO orders SELECT g, 1 + g % 50, g * 1.25, CASE WHEN g % 3 > 0 THEN 'note ' || g END, jsonb_build_object('n', g, 'a', 1.50),
        '2026-01-01 00:00:00+00'::timestamptz + g * interval '1 minute', 'c' || g % 100, g / 7.0, g * 0.125 FROM generate_series(1, 3000) g;
    INSERT INTO order_items SELECT g, l, g % 7, 'old' FROM generate_series(1, 3000) g, generate_series(1, 2) l;
    INSERT INTO words SELECT w, CASE WHEN n % 2 = 0 THEN 'm' || n END FROM unnest(ARRAY['a', 'B', 'c', 'Z', 'ä', 'Ä', 'z', 'aa', 'Aa',
        'o''x', '€', 'ß', 'ss', '', ' ', '~', '_', '10', '9', E'back\\\\slash']) WITH ORDINALITY AS w(w, n);
    INSERT INTO words SELECT md5(g::text), 'long' FROM generate_series(1, 1000) g;";

const SINK: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, total_cents bigint NOT NULL,
        note text, data jsonb, placed timestamptz NOT NULL, code char(8), ratio double precision, weight numeric);
    CREATE TABLE items (order_id bigint NOT NULL, line int NOT NULL, quantity int NOT NULL, PRIMARY KEY (order_id, line));
    CREATE TABLE words (word text COLLATE \"de-x-icu\" PRIMARY KEY, meaning text);";

async fn following() -> House {
    House::following(SOURCE, SINK, &plan(&format!("{ITEMS}      - public.words\n"))).await
}

/// Writes into the service's database as the gate lets only strangler's role do.
async fn plant(house: &House, sql: &str) {
    session(&house.sink.url("strangler", "orders")).await.batch_execute(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_sides_differ_in_nothing_and_every_row_is_compared() {
    let house = following().await;
    let report = verified(&house).await;
    clean(&report);
    assert_eq!(report.rows, 50 + 3000 + 6000 + 1020, "{report:?}");
    assert_eq!((report.changing.total, report.unsearched.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_difference_is_found_and_no_other() {
    let house = following().await;
    plant(
        &house,
        "UPDATE orders SET note = 'wrong' WHERE id = 1; UPDATE orders SET note = NULL WHERE id = 2;
         UPDATE orders SET note = '' WHERE id = 3; UPDATE orders SET total_cents = 1, customer = 1 WHERE id = 4;
         UPDATE orders SET data = data || '{\"n\": 0}' WHERE id = 5; UPDATE orders SET data = NULL WHERE id = 6;
         UPDATE orders SET placed = placed + interval '1 microsecond' WHERE id = 7; UPDATE orders SET code = 'x' WHERE id = 8;
         UPDATE orders SET ratio = ratio + 1e-9 WHERE id = 9; UPDATE orders SET weight = weight + 0.0001 WHERE id = 10;
         DELETE FROM orders WHERE id IN (11, 3000); INSERT INTO orders SELECT 0, 1, 0, NULL, NULL, now(), NULL, NULL, NULL;
         INSERT INTO orders SELECT 9000, 1, 0, NULL, NULL, now(), NULL, NULL, NULL;
         DELETE FROM items WHERE (order_id, line) IN ((1, 1), (3000, 2)); INSERT INTO items VALUES (1, 3, 1), (7, 0, 1);
         UPDATE items SET quantity = 99 WHERE order_id = 5 AND line = 2;
         DELETE FROM words WHERE word IN ('', 'ä'); UPDATE words SET meaning = 'Long' WHERE word = md5('7');
         UPDATE words SET meaning = NULL WHERE word = 'B'; INSERT INTO words VALUES ('ö', NULL), ('~~', NULL), ('0', '');
         UPDATE customers SET name = 'Customer 3' WHERE id = 3; DELETE FROM customers WHERE id = 50;",
    )
    .await;
    let expected = [
        "orders id=1: note",
        "orders id=2: note",
        "orders id=3: note",
        "orders id=4: customer+total_cents",
        "orders id=5: data",
        "orders id=6: data",
        "orders id=7: placed",
        "orders id=8: code",
        "orders id=9: ratio",
        "orders id=10: weight",
        "orders id=11: missing",
        "orders id=3000: missing",
        "orders id=0: extra",
        "orders id=9000: extra",
        "order_items line=1,order_id=1: missing",
        "order_items line=2,order_id=3000: missing",
        "order_items line=3,order_id=1: extra",
        "order_items line=0,order_id=7: extra",
        "order_items line=2,order_id=5: quantity",
        "words word=: missing",
        "words word=ä: missing",
        "words word=8f14e45fceea167a5a36dedd4bea2543: meaning",
        "words word=B: meaning",
        "words word=ö: extra",
        "words word=~~: extra",
        "words word=0: extra",
        "customers id=3: name",
        "customers id=50: missing",
    ];
    let report = verified(&house).await;
    assert_eq!(told(&report), expected.iter().map(|one| (*one).to_owned()).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_only_written_otherwise_is_no_difference() {
    let house = following().await;
    plant(
        &house,
        "UPDATE orders SET weight = weight + 0.000000; UPDATE orders SET data = replace(data::text, ':', ' :   ')::jsonb;
         UPDATE orders SET data = jsonb_build_object('a', 1.5, 'n', data->'n');
         SET timezone = 'Asia/Tokyo'; UPDATE orders SET placed = placed::text::timestamptz; SET extra_float_digits = 3;
         UPDATE orders SET ratio = ratio::text::float8, code = rtrim(code);",
    )
    .await;
    let scale = house.at_sink("SELECT weight, data FROM orders WHERE id = 8");
    assert_eq!(scale, "1.000000|{\"a\": 1.5, \"n\": 8}");
    clean(&verified(&house).await);
}

/// One random write, often of a few rows that all writers want.
fn write(dice: &mut Dice) -> String {
    let hot = 1 + dice.below(40);
    let any = 1 + dice.below(3500);
    let id = if dice.below(3) == 0 { hot } else { any };
    let text = dice.below(1000);
    match dice.below(9) {
        0 => format!(
            "INSERT INTO orders (id, customer, total) VALUES ({id}, 1 + {id} % 50, {text}) ON CONFLICT DO NOTHING"
        ),
        1 => format!("DELETE FROM orders WHERE id = {id}"),
        2 => format!(
            "UPDATE orders SET total = total + 1, note = 'n{text}' WHERE id BETWEEN {id} AND {id} + 5"
        ),
        3 => format!("UPDATE order_items SET qty = {text} WHERE order_id = {id}"),
        4 => format!(
            "INSERT INTO words VALUES ('w{id}', 'm{text}') ON CONFLICT (word) DO UPDATE SET meaning = 'm{text}'"
        ),
        5 => format!("DELETE FROM words WHERE word = 'w{id}'"),
        6 => format!(
            "UPDATE words SET word = 'w{any}' WHERE word = 'w{id}' AND NOT EXISTS (SELECT FROM words WHERE word = 'w{any}')"
        ),
        7 => format!("UPDATE customers SET name = 'c{text}' WHERE id = 1 + {id} % 50"),
        _ => format!(
            "BEGIN; UPDATE orders SET note = 'x{text}' WHERE id = {id}; SELECT pg_sleep(0.01); \
                      DELETE FROM order_items WHERE order_id = {id} AND line = 2; COMMIT"
        ),
    }
}

/// Writers that write at the source until they are dropped.
struct Load {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    writers: JoinSet<()>,
}

impl Load {
    async fn on(house: &House, dice: &mut Dice) -> Load {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        for _ in 0..4 {
            let client = session(&house.source.url("app", "shop")).await;
            let (stop, writes, mut dice) = (stop.clone(), writes.clone(), Dice::new(dice.number()));
            writers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Deadlocks and rows that two want are part of the life.
                    if client.batch_execute(&write(&mut dice)).await.is_err() {
                        let _ = client.batch_execute("ROLLBACK").await;
                    }
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Load { stop, writes, writers }
    }

    async fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while self.writers.join_next().await.is_some() {}
        self.writes.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_sides_never_differ_under_random_writes() {
    let mut dice = Dice::thrown("equal_sides_never_differ_under_random_writes");
    let house = following().await;
    let load = Load::on(&house, &mut dice).await;
    let (began, mut runs, mut changing) = (Instant::now(), 0, 0);
    while runs < 3 || began.elapsed() < Duration::from_secs(15) {
        let report = verified(&house).await;
        clean(&report);
        runs += 1;
        changing += report.changing.total;
    }
    let writes = load.end().await;
    println!("{runs} runs beside {writes} writes, {changing} rows changed at every look");
    assert!(writes > 500, "{writes}");
    let report = verified(&house).await;
    clean(&report);
    assert_eq!(report.changing.total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_differences_are_found_under_random_writes() {
    let mut dice = Dice::thrown("planted_differences_are_found_under_random_writes");
    let house = following().await;
    house.at_source(
        "INSERT INTO orders (id, customer, total) SELECT g, 1, 1 FROM generate_series(5000, 5009) g",
    );
    house.barrier().await;
    plant(
        &house,
        "UPDATE orders SET note = 'wrong' WHERE id = 5000; DELETE FROM orders WHERE id = 5001; \
         INSERT INTO words VALUES ('extra', '');",
    )
    .await;
    let load = Load::on(&house, &mut dice).await;
    let report = verified(&house).await;
    load.end().await;
    let expected = ["orders id=5000: note", "orders id=5001: missing", "words word=extra: extra"];
    assert_eq!(told(&report), expected.iter().map(|one| (*one).to_owned()).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_commits_late_is_neither_a_difference_nor_hides_one() {
    let house = following().await;
    let late = session(&house.source.url("app", "shop")).await;
    late.batch_execute(
        "BEGIN; UPDATE orders SET note = 'late' WHERE id = 100; DELETE FROM words WHERE word = 'Z'",
    )
    .await
    .unwrap();
    plant(&house, "UPDATE orders SET note = 'wrong' WHERE id = 200").await;
    begin(&house, json!({ "full_speed": true })).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    late.batch_execute("COMMIT").await.unwrap();
    let report = ended(&house).await;
    assert_eq!(report.course, Course::Done);
    assert_eq!(told(&report), BTreeSet::from(["orders id=200: note".to_owned()]));
    assert_eq!(report.undecided.total, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_is_in_the_copy_and_no_difference() {
    let house = following().await;
    let set = |names: &str| {
        house.at_source(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        house.at_source("SELECT pg_reload_conf()");
    };
    set("nobody");
    let waiting = session(&house.source.url("app", "shop")).await;
    let commit = tokio::spawn(async move {
        waiting
            .batch_execute(
                "BEGIN; UPDATE orders SET note = 'unseen' WHERE id = 100; DELETE FROM orders WHERE id = 101; \
                 INSERT INTO orders (id, customer, total) VALUES (7000, 1, 1); COMMIT",
            )
            .await
            .unwrap();
    });
    house.until_sql(false, "SELECT note FROM orders WHERE id = 100", "unseen").await;
    assert_eq!(house.at_source("SELECT note FROM orders WHERE id = 100"), "note 100");
    begin(&house, json!({ "full_speed": true })).await;
    let report = ended(&house).await;
    assert_eq!(report.course, Course::Done);
    assert_eq!(told(&report), BTreeSet::new());
    let named = |row: &RowKey| {
        format!("{} {}", row.table.name, row.key.values().cloned().collect::<Vec<_>>().join(","))
    };
    let undecided: BTreeSet<String> = report.undecided.listed.iter().map(named).collect();
    let expected = ["orders 100", "orders 101", "orders 7000", "order_items 1,101", "order_items 2,101"];
    assert_eq!(undecided, expected.iter().map(|one| (*one).to_owned()).collect());
    set("");
    commit.await.unwrap();
    clean(&verified(&house).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_goes_on_after_it_was_stopped_or_its_bridge_was_killed() {
    let house = following().await;
    house.at_source("INSERT INTO words SELECT 'n' || g, 'new' FROM generate_series(1, 60000) g");
    house.barrier().await;
    plant(&house, "UPDATE customers SET name = 'wrong' WHERE id = 1").await;
    begin(&house, json!({})).await;
    let halfway = |report: &Verification| report.rows > 12_000;
    let began = Instant::now();
    while !halfway(&look(&house).await) {
        assert!(began.elapsed() < house::WAIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stopped = post(&house, "/v1/verify/stop", json!({ "version": VERSION, "slice": "orders" })).await;
    assert_eq!(stopped.course, Course::Stopped, "{stopped:?}");

    let again = begin(&house, json!({})).await;
    assert!(again.rows >= stopped.rows && again.course == Course::Running, "{again:?}");
    while look(&house).await.rows < stopped.rows + 5000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // So it cannot end before its bridge does.
    let locker = session(&house.source.url("app", "shop")).await;
    locker.batch_execute("BEGIN; LOCK TABLE words").await.unwrap();
    let before = look(&house).await;
    assert_eq!(before.course, Course::Running, "{before:?}");
    house.stop().await;
    locker.batch_execute("COMMIT").await.unwrap();
    house.start();
    house.until("following", |lane| lane.condition == Condition::Following).await;
    let killed = look(&house).await;
    assert_eq!(killed.course, Course::Stopped);
    assert!(killed.rows >= stopped.rows && killed.rows <= before.rows + 20_000, "{killed:?}");

    begin(&house, json!({ "full_speed": true })).await;
    let report = ended(&house).await;
    assert_eq!((report.course.clone(), report.rows), (Course::Done, 50 + 3000 + 6000 + 61_020));
    assert_eq!(told(&report), BTreeSet::from(["customers id=1: name".to_owned()]));
    // The next one begins anew.
    assert!(begin(&house, json!({ "full_speed": true })).await.rows < 61_020);
    assert_eq!(ended(&house).await.course, Course::Done);
}

async fn compare(house: &House, epoch: u64) -> Result<CompareAnswer, Problem> {
    let body = CompareRequest { version: VERSION, slice: house::slice(), epoch: Epoch(epoch) };
    let client = reqwest::Client::new();
    let began = Instant::now();
    loop {
        let asked = client.post(url(house, "/v1/compare")).bearer_auth("t").json(&body);
        let answer = asked.send().await.unwrap();
        if answer.status().is_success() {
            return Ok(answer.json().await.unwrap());
        }
        let problem: Problem = answer.json().await.unwrap();
        // The bridge hears of a decision a moment later.
        if began.elapsed() > Duration::from_secs(5) {
            return Err(problem);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_owners_just_the_rows_that_changed_are_compared() {
    let house = following().await;
    house.prepare().await;
    clean(&verified(&house).await);
    assert!(look(&house).await.is_watched);
    // Nobody changes this one any more, so nobody looks at it.
    plant(&house, "UPDATE orders SET note = 'unseen' WHERE id = 77").await;
    house.at_source(
        "UPDATE orders SET note = 'new' WHERE id IN (1, 2); DELETE FROM words WHERE word = 'a'; \
         INSERT INTO order_items VALUES (3, 9, 1, NULL)",
    );
    house.barrier().await;
    plant(
        &house,
        "UPDATE orders SET note = 'wrong' WHERE id = 2; UPDATE items SET quantity = 7 WHERE line = 9",
    )
    .await;
    assert_eq!(compare(&house, 1).await.unwrap_err().code, Code::JournalConflict, "nothing crosses");
    house.cut().await;
    let answer = compare(&house, 1).await.unwrap();
    assert!(answer.complete && answer.compared < 10, "{answer:?}");
    let keys: BTreeSet<&str> =
        answer.differences.listed.iter().map(|one| one.row.key.values().next().unwrap().as_str()).collect();
    assert_eq!(keys, BTreeSet::from(["2", "9"]), "{answer:?}");
    assert_eq!(compare(&house, 2).await.unwrap_err().code, Code::JournalConflict, "another epoch");

    // Mended, it is complete, and the rows that the service changes are known from here on.
    plant(
        &house,
        "UPDATE orders SET note = 'new' WHERE id = 2; UPDATE items SET quantity = 1 WHERE line = 9",
    )
    .await;
    let answer = compare(&house, 1).await.unwrap();
    assert_eq!((answer.complete, answer.differences.total), (true, 0), "{answer:?}");
    house.commit();
    house.at_sink("SET ROLE app; UPDATE orders SET note = 'service', total_cents = 500 WHERE id = 5");
    house.until_sql(true, "SELECT note, total FROM orders WHERE id = 5", "service|5.00").await;
    house.decide(Event::RollbackStarted { epoch: Epoch(2), until: NEVER });
    let answer = compare(&house, 2).await.unwrap();
    assert_eq!((answer.complete, answer.differences.total), (true, 0), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_verification_nothing_is_complete_and_that_is_said() {
    let house = following().await;
    start_to_cross(&house);
    let answer = compare(&house, 1).await.unwrap();
    assert!(!answer.complete && answer.incomplete_because.is_some(), "{answer:?}");
}

/// A cutover begins, and nobody waited for its way back.
fn start_to_cross(house: &House) {
    house.decide(prepared());
    house.decide(started(Epoch(1), EndLsn(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_changed_are_compared_again_so_that_few_are_left() {
    let mut dice = Dice::thrown("rows_that_changed_are_compared_again_so_that_few_are_left");
    let house = following().await;
    let load = Load::on(&house, &mut dice).await;
    clean(&verified(&house).await);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let writes = load.end().await;
    house.barrier().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    start_to_cross(&house);
    let answer = compare(&house, 1).await.unwrap();
    assert_eq!((answer.complete, answer.differences.total), (true, 0), "{answer:?}");
    assert!(answer.compared < 200, "{} of {writes} writes are left", answer.compared);
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_mends_every_kind_of_difference_beside_random_writes() {
    let mut dice = Dice::thrown("repair_mends_every_kind_of_difference_beside_random_writes");
    let house = following().await;
    let more = "INSERT INTO orders (id, customer, total) SELECT g, 1, 1 FROM generate_series(5000, 5099) g; \
                INSERT INTO customers VALUES (60, 'a'), (61, 'b')";
    house.at_source(more);
    house.barrier().await;
    plant(
        &house,
        "UPDATE orders SET note = 'wrong', total_cents = 0 WHERE id BETWEEN 5000 AND 5039; \
         DELETE FROM orders WHERE id BETWEEN 5040 AND 5079; DELETE FROM customers WHERE id IN (60, 61); \
         INSERT INTO words SELECT 'extra' || g, '' FROM generate_series(1, 40) g;",
    )
    .await;
    let load = Load::on(&house, &mut dice).await;
    begin(&house, json!({ "restart": true, "full_speed": true, "repair": true })).await;
    let report = ended(&house).await;
    assert_eq!(report.course, Course::Done, "{report:?}");
    clean(&report);
    assert!(report.repaired >= 120, "{report:?}");
    clean(&verified(&house).await);
    load.end().await;
    clean(&verified(&house).await);
}

/// It waits for a while, not for ever; and it goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_of_a_table_that_others_have_locked_ends_and_names_them() {
    let house = following().await;
    let other = session(&house.sink.url("postgres", "orders")).await;
    let lock = "SET application_name = 'nightly'; BEGIN; LOCK TABLE words IN ACCESS EXCLUSIVE MODE";
    other.batch_execute(lock).await.unwrap();
    begin(&house, json!({ "full_speed": true })).await;
    let Course::Failed { problem } = ended(&house).await.course else { panic!("it did not fail") };
    assert_eq!(problem.code, Code::VerifyLocked, "{problem}");
    let told = problem.message.contains("public.words is locked by nightly");
    assert!(told && problem.remedy.contains("pg_terminate_backend("), "{problem}");
    other.batch_execute("COMMIT").await.unwrap();
    begin(&house, json!({ "full_speed": true })).await;
    assert_eq!(ended(&house).await.course, Course::Done);
    house.stop().await;
}
