//! A lane back from the service to the monolith, beside the lane that goes forward. The cutover's part is played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::crossing::{back, session, there};
use house::orders::{AT_SINK, AT_SOURCE, ITEMS, SINK, SOURCE, plan};
use house::{House, one_table};
use migrations::code::Code;
use migrations::control::Condition;
use migrations::journal::Generation;
use migrations::lsn::Of;
use migrations::stage::Event;
use std::time::Duration;

const SOURCE_ITEMS: &str = "
    CREATE TABLE order_items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        qty int NOT NULL, legacy text, PRIMARY KEY (order_id, line));
    INSERT INTO order_items SELECT g, 1, g % 7, 'old' FROM generate_series(1, 500) g;";

const SINK_ITEMS: &str = "
    CREATE TABLE items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        quantity int NOT NULL, PRIMARY KEY (order_id, line));";

/// A house whose slice follows, with a lane back that watches.
async fn prepared() -> House {
    let (source, sink) = (format!("{SOURCE}{SOURCE_ITEMS}"), format!("{SINK}{SINK_ITEMS}"));
    following_back(House::new(&source, &sink, &plan(ITEMS)).await).await
}

async fn following_back(house: House) -> House {
    house.start();
    house.follow().await;
    house.prepare().await;
    house
}

/// Waits until the monolith's rows are the service's.
async fn until_back(house: &House) {
    house.until_sql(true, AT_SOURCE, &house.at_sink(AT_SINK)).await;
}

/// Writes as strangler's own role, which the gates let pass, without a mark.
async fn write_unmarked(url: &str, sql: &str) {
    session(url).await.batch_execute(sql).await.unwrap();
}

async fn write_at_monolith(house: &House, sql: &str) {
    write_unmarked(&house.source.url("strangler", "shop"), sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_written_at_the_service_arrive_at_the_monolith_and_nothing_is_echoed() {
    let house = prepared().await;
    let write = "INSERT INTO orders SELECT g, 1, g, 'before' FROM generate_series(501, 600) g; \
                 UPDATE orders SET total = total + 1 WHERE id <= 100; DELETE FROM order_items WHERE order_id = 7";
    house.at_source(write);
    house.same(AT_SOURCE, AT_SINK).await;
    house.cut_over().await;

    let versions = "SELECT count(DISTINCT xmin::text), max(id) FROM orders";
    let before = house.at_source(versions);
    house.at_sink("SET ROLE app; INSERT INTO orders SELECT g, 2, g * 10, 'after', 'shelf' FROM generate_series(601, 900) g; \
         INSERT INTO items SELECT g, 1, 3 FROM generate_series(601, 900) g; \
         UPDATE orders SET total_cents = 12345 WHERE id BETWEEN 1 AND 50; UPDATE items SET quantity = 9 WHERE order_id = 3; \
         DELETE FROM orders WHERE id = 4",
    );
    until_back(&house).await;
    assert_ne!(house.at_source(versions), before);
    assert_eq!(house.at_source("SELECT total FROM orders WHERE id = 1"), "123.45");
    assert_eq!(house.at_source("SELECT qty, legacy FROM order_items WHERE order_id = 3"), "9|old");
    assert_eq!(house.at_source("SELECT count(*) FROM order_items WHERE order_id = 4"), "0");

    // What came before the cutover came with the forward lane's mark, so it did not go back; and what the service wrote
    // does not come forward again.
    let reverse = house.until_lane(&back(), "following", |lane| lane.changes > 0).await;
    assert_eq!((reverse.changes, reverse.foreign), (300 + 300 + 50 + 1 + 2, 0));
    let service = "SELECT count(*), sum(total_cents), count(shelf) FROM orders";
    let there = house.at_sink(service);
    house.barrier().await;
    assert_eq!(house.at_sink(service), there);
    let forward = house.until("watching", |lane| lane.condition == Condition::Following).await;
    assert_eq!(forward.foreign, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_back_goes_on_after_a_restart_and_loses_nothing() {
    let house = prepared().await;
    house.cut_over().await;
    house.at_sink("SET ROLE app; UPDATE orders SET note = 'one' WHERE id <= 10");
    until_back(&house).await;
    house.stop().await;
    house.at_sink(
        "SET ROLE app; UPDATE orders SET note = 'two' WHERE id <= 20; DELETE FROM orders WHERE id > 400",
    );
    house.start();
    until_back(&house).await;
    house.at_sink("SET ROLE app; INSERT INTO orders VALUES (1000, 1, 100, 'three', NULL)");
    until_back(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_others_at_the_service_are_reported_before_the_cutover_and_not_applied() {
    let house = prepared().await;
    let rows = house.at_source(AT_SOURCE);
    write_unmarked(
        &house.sink.url("strangler", "orders"),
        "UPDATE orders SET note = 'foreign' WHERE id <= 3",
    )
    .await;
    house.until_lane(&back(), "alarmed", |lane| lane.foreign == 3).await;
    house.until_agent("told", |said| said.contains("slice.foreign-writes")).await;
    assert_eq!(house.at_source(AT_SOURCE), rows);
    // It keeps its place, so a new bridge finds them again.
    house.stop().await;
    house.start();
    house.until_lane(&back(), "alarmed again", |lane| lane.foreign == 3).await;
    // Giving the cutover up and preparing it again begins behind them.
    let abort = Event::CutoverAborted { epoch: house.epoch().next(), why: "foreign".to_owned() };
    house.journal_with(abort, "");
    house.until_lane(&back(), "at rest", |lane| lane.condition == Condition::Idle).await;
    let again = house.prepare().await;
    assert_eq!(again.foreign, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_back_that_is_prepared_again_at_once_begins_with_what_is_published_then() {
    let house = prepared().await;
    // The session that captures for the first way back takes a while to end.
    let reader = house.at_sink("SELECT active_pid FROM pg_replication_slots").parse().unwrap();
    house.sink.freeze_one(reader);
    let abort = Event::CutoverAborted { epoch: house.epoch().next(), why: "rehearsed".to_owned() };
    house.journal_with(abort, "");
    house.until_lane(&back(), "at rest", |lane| lane.condition == Condition::Idle).await;
    let thaw = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        house.sink.thaw();
    };
    tokio::join!(house.prepare(), thaw);
    house.at_source("UPDATE orders SET note = 'between' WHERE id <= 10");
    house.same(AT_SOURCE, AT_SINK).await;
    house.cut_over().await;
    house.at_sink("SET ROLE app; UPDATE orders SET note = 'after' WHERE id <= 20");
    until_back(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_others_at_the_monolith_are_not_forgotten_and_stop_the_slice_after_a_rollback() {
    let house = prepared().await;
    house.cut_over().await;
    let copied = house.at_sink(AT_SINK);
    write_at_monolith(&house, "UPDATE orders SET note = 'foreign' WHERE id <= 3").await;
    house.until("alarmed", |lane| lane.foreign == 3).await;
    house.until_agent("told", |said| said.contains("slice.foreign-writes")).await;
    // The place goes on all the same, and reference tables with it.
    house.at_source("SET ROLE app; INSERT INTO customers VALUES (100, 'new')");
    house.until_sql(false, "SELECT name FROM customers WHERE id = 100", "new").await;
    house.stop().await;
    house.start();
    house.until("alarmed after a restart", |lane| lane.foreign == 3).await;
    write_at_monolith(&house, "UPDATE orders SET note = 'foreign' WHERE id = 4").await;
    house.until("alarmed again", |lane| lane.foreign == 4).await;
    assert_eq!(house.at_sink(AT_SINK), copied);

    house.roll_back().await;
    let (finding, last) = house.stopped(&there()).await;
    assert_eq!(finding.code, Code::SliceForeignWrites);
    assert!(finding.remedy.contains(&format!("--skip {}", last.unwrap())), "{}", finding.remedy);
    // One of the two ways that it names: go on with what there is, then repair.
    house.decide(Event::Resumed { skip: Some(Of::monolith(last.unwrap())) });
    house.until("following", |lane| lane.condition == Condition::Following && lane.foreign == 0).await;
    house.at_source("SET ROLE app; UPDATE orders SET note = 'later' WHERE id <= 4");
    house.same(AT_SOURCE, AT_SINK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_comes_before_the_right_to_apply_it_is_neither_lost_nor_foreign() {
    let house = prepared().await;
    house.cut().await;
    // The service's gate opens, and the bridge hears nothing of it yet.
    house.at_sink(
        "SELECT strangler.open('orders', 1); SET ROLE app; UPDATE orders SET note = 'early' WHERE id <= 10",
    );
    // Longer than a quiet lane waits before it notes how far it is.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    house.at_sink("SET ROLE app; UPDATE orders SET note = 'early' WHERE id = 11");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(house.report(&back()).map(|lane| lane.foreign), Some(0));
    house.commit();
    until_back(&house).await;

    // So is a write at the monolith after a rollback.
    house.stop_service().await;
    let epoch = house.epoch();
    let set = format!(
        "UPDATE strangler.slice SET stage = '{{\"stage\": \"following\"}}'; SELECT strangler.open('orders', {epoch})"
    );
    house.at_source(&format!("{set}; SET ROLE app; UPDATE orders SET note = 'back' WHERE id <= 10; INSERT INTO customers VALUES (100, 'new')"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(house.report(&there()).map(|lane| lane.foreign), Some(0));
    house.give_back();
    house.same(AT_SOURCE, AT_SINK).await;
    assert_eq!(house.at_sink("SELECT name FROM customers WHERE id = 100"), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_back_that_is_not_known_does_not_begin_once_the_service_writes() {
    let house = prepared().await;
    house.cut_over().await;
    house.at_sink("SET ROLE app; UPDATE orders SET note = 'one' WHERE id <= 10");
    until_back(&house).await;
    house.stop().await;
    house.at_source("DELETE FROM strangler.stream");
    house.start();
    let lost = |condition: &Condition| matches!(condition, Condition::Lost { attempt, .. } if *attempt != Generation(0));
    house.until_lane(&back(), "lost", |lane| lost(&lane.condition)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_writes_only_the_columns_that_changed() {
    // The service keeps less of a price than the monolith, and names in lower case.
    let source = "
        CREATE TABLE goods (id int PRIMARY KEY, price numeric(12,4) NOT NULL, name text NOT NULL, tags json, legacy text,
            size numeric);
        INSERT INTO goods SELECT g, g + 0.1234, 'Name ' || g, '{\"a\":  1}', 'old', 1.50 FROM generate_series(1, 200) g;
        CREATE TABLE fired (what text);
        CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO public.fired VALUES (TG_ARGV[0]); RETURN NEW; END$$;
        CREATE TRIGGER on_price AFTER UPDATE OF price ON goods FOR EACH ROW EXECUTE FUNCTION fire('price');
        CREATE TRIGGER on_name AFTER UPDATE OF name ON goods FOR EACH ROW EXECUTE FUNCTION fire('name');
        GRANT INSERT ON fired TO PUBLIC;";
    let sink = "CREATE TABLE goods (id int PRIMARY KEY, cents bigint NOT NULL, lower text NOT NULL, tags json, size numeric,
        own int DEFAULT 0);";
    let goods = "    tables:
      - from: public.goods
        drop: [price, name, legacy]
        set: { cents: '(price * 100)::bigint', lower: 'lower(name)' }
        reverse: { price: 'cents / 100.0', name: 'lower' }
    triggers: { on_price: fire, on_name: fire }
";
    let house = following_back(House::new(source, sink, &one_table::plan(goods)).await).await;
    house.cut_over().await;
    let rows = |of: &str| house.at_source(&format!("SELECT {of} FROM goods ORDER BY id"));
    let (exact, ids) = (rows("price, name, tags, legacy"), rows("id"));
    // Not one of these columns changes, though each row does; and columns of the service's own have no place to go.
    house.at_sink("SET ROLE app; UPDATE goods SET size = 2.50, own = 7");
    house.until_sql(true, "SELECT count(*) FROM goods WHERE size = 2.5", "200").await;
    assert_eq!((rows("price, name, tags, legacy"), rows("id")), (exact, ids));
    assert_eq!(house.at_source("SELECT count(*) FROM fired"), "0");
    // What changed is computed back, and nothing else of its row.
    house.at_sink(
        "SET ROLE app; UPDATE goods SET cents = 500 WHERE id <= 2; UPDATE goods SET lower = 'x' WHERE id = 3",
    );
    house
        .until_sql(
            true,
            "SELECT price, name FROM goods WHERE id <= 3 ORDER BY id",
            "5.0000|Name 1\n5.0000|Name 2\n3.1234|x",
        )
        .await;
    assert_eq!(house.at_source("SELECT what FROM fired ORDER BY what"), "name\nprice\nprice");
    // A changed key takes nothing else along.
    house.at_sink("SET ROLE app; UPDATE goods SET id = 1000, size = 3 WHERE id = 4");
    house
        .until_sql(true, "SELECT price, name, size, legacy FROM goods WHERE id = 1000", "4.1234|Name 4|3|old")
        .await;
    // A text counts by every letter of it, a number by its value.
    house.at_sink("SET ROLE app; UPDATE goods SET tags = '{\"a\": 1}', size = 2.500 WHERE id = 5");
    house.until_sql(true, "SELECT tags, size FROM goods WHERE id = 5", "{\"a\": 1}|2.50").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_key_the_monolith_has_already_stops_the_way_back_and_names_it() {
    let house = prepared().await;
    house.cut_over().await;
    write_at_monolith(&house, "INSERT INTO orders VALUES (7000, 1, 1, 'theirs')").await;
    house.at_sink("SET ROLE app; INSERT INTO orders VALUES (7000, 1, 500, 'ours', NULL)");
    let (finding, _) = house.stopped(&back()).await;
    assert_eq!(finding.code, Code::SinkRowExists);
    assert!(
        finding.message.contains("the key id=7000; row id=7000 customer=1 total_cents=500 note=ours"),
        "{finding}"
    );
    assert_eq!(house.at_source("SELECT note FROM orders WHERE id = 7000"), "theirs");
    // As the finding says.
    write_at_monolith(&house, "DELETE FROM orders WHERE id = 7000").await;
    house.decide(Event::Resumed { skip: None });
    until_back(&house).await;
}
