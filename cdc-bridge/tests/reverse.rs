//! A lane back from the service to the monolith, beside the lane that goes forward. The cutover's part is played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::{House, slice};
use migrations::control::{Condition, LaneOrder};
use migrations::crossing::{Crossing, Digest, Intent, Moment, Preparing};
use migrations::journal::Generation;
use migrations::lane::{LaneId, Right};
use migrations::lsn::{EndLsn, Of};
use migrations::stage::{Epoch, Event, Stage};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

const SOURCE: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, total numeric(12,2) NOT NULL,
        note text);
    CREATE TABLE order_items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        qty int NOT NULL, legacy text, PRIMARY KEY (order_id, line));
    INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 20) g;
    INSERT INTO orders SELECT g, 1 + g % 20, g * 1.25, 'note ' || g FROM generate_series(1, 500) g;
    INSERT INTO order_items SELECT g, 1, g % 7, 'old' FROM generate_series(1, 500) g;";

const SINK: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, total_cents bigint NOT NULL,
        note text, shelf text);
    CREATE TABLE items (order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        quantity int NOT NULL, PRIMARY KEY (order_id, line));";

const PLAN: &str = "
version: 1
name: shop
slices:
  orders:
    service: orders
    routes: { list: GET /orders }
    tables:
      - from: public.orders
        drop: [total]
        set: { total_cents: '(total * 100)::bigint' }
        reverse: { total: 'total_cents / 100.0' }
      - { from: public.order_items, to: public.items, rename: { qty: quantity }, drop: [legacy] }
    reference: [public.customers]
";

const AT_SOURCE: &str = "SELECT id, customer, (total * 100)::bigint, note FROM orders ORDER BY id";
const AT_SINK: &str = "SELECT id, customer, total_cents, note FROM orders ORDER BY id";

fn back() -> LaneId {
    LaneId::reverse(slice())
}

fn order(house: &House, stage: Stage, right: Right) -> LaneOrder {
    let attempt = house.journal().slice(&slice()).attempt;
    LaneOrder { stage, right, attempt, paused: false, skips: BTreeSet::new(), replace: false }
}

/// A house whose slice follows, with a lane back that watches.
async fn prepared() -> House {
    let house = House::new(SOURCE, SINK, PLAN).await;
    house.start();
    house.follow().await;
    let intent = Intent::Cutover { for_ms: None };
    let preparing = Preparing { intent, plan: Digest(1), hold_ms: 5_000, until: Moment(u64::MAX) };
    house.decide(Event::CutoverPrepared { preparing });
    house.until_lane(&back(), "watching", |lane| lane.condition == Condition::Following).await;
    house
}

fn started() -> Event {
    let intent = Intent::Cutover { for_ms: None };
    let crossing =
        Crossing { intent, plan: Digest(1), schema: Digest(2), reverse_from: Of::service(EndLsn(3)) };
    Event::CutoverStarted { epoch: Epoch(1), crossing, until: Moment(u64::MAX) }
}

fn committed() -> Event {
    Event::CutoverCommitted { epoch: Epoch(1), returns_at: None }
}

/// Shuts both gates. The head, which the monolith's gate asks for, is the controller's to write.
fn fence(house: &House) {
    let cutting = r#"INSERT INTO strangler.slice VALUES ('orders', '{"stage": "cutting"}', 1, 1)"#;
    house.source.sql("shop", &format!("{cutting}; SELECT strangler.fence('orders', 1)"));
    house.sink.sql("orders", "SELECT strangler.fence('orders', 1)");
}

/// Moves the writes to the service, as a coordinator does.
async fn cut_over(house: &House) {
    fence(house);
    house.decide(started());
    house.barrier().await;
    house.decide(committed());
    house.sink.sql("orders", "SELECT strangler.open('orders', 1)");
}

/// Waits until the monolith's rows are the service's.
async fn until_back(house: &House) {
    let began = Instant::now();
    loop {
        let (source, sink) = (house.source.sql("shop", AT_SOURCE), house.sink.sql("orders", AT_SINK));
        if source == sink {
            return;
        }
        assert!(began.elapsed() < house::WAIT, "not the same: {} and {} bytes", source.len(), sink.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Writes as strangler's own role, which the gates let pass, without a mark.
async fn write_unmarked(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_written_at_the_service_arrive_at_the_monolith_and_nothing_is_echoed() {
    let house = prepared().await;
    let write = "INSERT INTO orders SELECT g, 1, g, 'before' FROM generate_series(501, 600) g; \
                 UPDATE orders SET total = total + 1 WHERE id <= 100; DELETE FROM order_items WHERE order_id = 7";
    house.source.sql("shop", write);
    house.same(AT_SOURCE, AT_SINK).await;
    cut_over(&house).await;

    let versions = "SELECT count(DISTINCT xmin::text), max(id) FROM orders";
    let before = house.source.sql("shop", versions);
    house.sink.sql(
        "orders",
        "SET ROLE app; INSERT INTO orders SELECT g, 2, g * 10, 'after', 'shelf' FROM generate_series(601, 900) g; \
         INSERT INTO items SELECT g, 1, 3 FROM generate_series(601, 900) g; \
         UPDATE orders SET total_cents = 12345 WHERE id BETWEEN 1 AND 50; UPDATE items SET quantity = 9 WHERE order_id = 3; \
         DELETE FROM orders WHERE id = 4",
    );
    until_back(&house).await;
    assert_ne!(house.source.sql("shop", versions), before);
    assert_eq!(house.source.sql("shop", "SELECT total FROM orders WHERE id = 1"), "123.45");
    assert_eq!(house.source.sql("shop", "SELECT qty, legacy FROM order_items WHERE order_id = 3"), "9|old");
    assert_eq!(house.source.sql("shop", "SELECT count(*) FROM order_items WHERE order_id = 4"), "0");

    // What came before the cutover came with the forward lane's mark, so it did not go back; and what the service wrote
    // does not come forward again.
    let reverse = house.until_lane(&back(), "following", |lane| lane.changes > 0).await;
    assert_eq!((reverse.changes, reverse.foreign), (300 + 300 + 50 + 1 + 2, 0));
    let service = "SELECT count(*), sum(total_cents), count(shelf) FROM orders";
    let there = house.sink.sql("orders", service);
    house.barrier().await;
    assert_eq!(house.sink.sql("orders", service), there);
    let forward = house.until("watching", |lane| lane.condition == Condition::Following).await;
    assert_eq!(forward.foreign, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_back_goes_on_after_a_restart_and_loses_nothing() {
    let house = prepared().await;
    cut_over(&house).await;
    house.sink.sql("orders", "SET ROLE app; UPDATE orders SET note = 'one' WHERE id <= 10");
    until_back(&house).await;
    house.stop().await;
    house.sink.sql(
        "orders",
        "SET ROLE app; UPDATE orders SET note = 'two' WHERE id <= 20; DELETE FROM orders WHERE id > 400",
    );
    house.start();
    until_back(&house).await;
    house.sink.sql("orders", "SET ROLE app; INSERT INTO orders VALUES (1000, 1, 100, 'three', NULL)");
    until_back(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_watches_applies_nothing_and_reports_writes_of_others() {
    let house = prepared().await;
    let rows = house.source.sql("shop", AT_SOURCE);
    write_unmarked(
        &house.sink.url("strangler", "orders"),
        "UPDATE orders SET note = 'foreign' WHERE id <= 3",
    )
    .await;
    house.until_lane(&back(), "alarmed", |lane| lane.foreign == 3).await;
    assert_eq!(house.source.sql("shop", AT_SOURCE), rows);

    cut_over(&house).await;
    house.until("watching", |lane| lane.condition == Condition::Following && lane.foreign == 0).await;
    write_unmarked(&house.source.url("strangler", "shop"), "UPDATE orders SET note = 'late' WHERE id = 5")
        .await;
    house.until("alarmed", |lane| lane.foreign == 1).await;
    assert_eq!(house.sink.sql("orders", "SELECT note FROM orders WHERE id = 5"), "note 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_comes_before_the_right_to_apply_it_is_not_lost() {
    let house = prepared().await;
    fence(&house);
    house.decide(started());
    house.barrier().await;
    let stage = house.journal().slice(&slice()).stage;
    house.order(back(), order(&house, stage, Right::Watch));
    house.decide(committed());
    house.sink.sql("orders", "SELECT strangler.open('orders', 1)");
    house.sink.sql("orders", "SET ROLE app; UPDATE orders SET note = 'early' WHERE id <= 10");
    house.until_lane(&back(), "alarmed", |lane| lane.foreign == 10).await;
    // Longer than a quiet lane waits before it notes how far it is.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    house.sink.sql("orders", "SET ROLE app; UPDATE orders SET note = 'early' WHERE id = 11");
    house.until_lane(&back(), "alarmed again", |lane| lane.foreign == 11).await;
    let stage = house.journal().slice(&slice()).stage;
    house.order(back(), order(&house, stage, Right::Apply(Epoch(1))));
    until_back(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_back_that_is_not_known_does_not_begin_once_the_service_writes() {
    let house = prepared().await;
    cut_over(&house).await;
    house.sink.sql("orders", "SET ROLE app; UPDATE orders SET note = 'one' WHERE id <= 10");
    until_back(&house).await;
    house.stop().await;
    house.source.sql("shop", "DELETE FROM strangler.stream");
    house.start();
    let lost = |condition: &Condition| matches!(condition, Condition::Lost { attempt, .. } if *attempt != Generation(0));
    house.until_lane(&back(), "lost", |lane| lost(&lane.condition)).await;
}
