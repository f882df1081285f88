//! Slices cross over to the service and back, over and over, on both logs: the bridge's part of cutover and rollback.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::crossing::{NEVER, back, prepared, started, there};
use house::orders::{AT_SINK, AT_SOURCE, SINK, SOURCE, plan};
use house::{House, kafka, slice};
use migrations::code::Code;
use migrations::control::{Condition, LaneReport};
use migrations::lane::LaneId;
use migrations::lsn::EndLsn;
use migrations::stage::{Epoch, Event};
use std::time::Duration;

const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots";

async fn following(log: &str) -> House {
    House::following(SOURCE, SINK, &format!("{}{log}\n", plan(""))).await
}

fn equal(house: &House) {
    assert_eq!(house.at_source(AT_SOURCE), house.at_sink(AT_SINK));
}

/// What the application of the side that owns the slice does in a round.
fn write(round: u32, cents: &str) -> String {
    let first = 10_000 * round;
    format!(
        "SET ROLE app; INSERT INTO orders SELECT g, 2, {cents}, 'round {round}' FROM generate_series({first}, {first} + 99) g; \
         UPDATE orders SET note = note || ' {round}' WHERE id % 7 = {round} % 7; DELETE FROM orders WHERE id = {round}"
    )
}

async fn over_and_back_and_over_again(log: &str) {
    let house = following(log).await;
    let mut took = Vec::new();
    let mut began = None;
    for round in [1, 3] {
        house.at_source(&write(round, "g * 1.5"));
        let way_back = house.prepare().await;
        // A way back of its own each time, which keeps WAL only from here on.
        let at = way_back.began.map(|began| began.at);
        assert!(at > began, "{at:?} is not after {began:?}");
        began = at;
        assert_eq!(house.at_sink(SLOTS), "1");
        house.at_source("SET ROLE app; UPDATE orders SET total = total + 1 WHERE id <= 50");
        took.push(house.cut().await);
        // Nobody waited for anything but the fence.
        equal(&house);
        house.commit();

        house.at_sink(&write(round + 1, "g * 10"));
        house.at_source(&format!("SET ROLE app; INSERT INTO customers VALUES ({round}00, 'new {round}')"));
        let name = format!("SELECT name FROM customers WHERE id = {round}00");
        house.until_sql(false, &name, &format!("new {round}")).await;
        took.push(house.stop_service().await);
        equal(&house);
        house.give_back();
        house.at_source("SET ROLE app; UPDATE orders SET note = 'back', total = 7 WHERE id <= 20");
        house.same(AT_SOURCE, AT_SINK).await;

        // The way back is given up, and leaves nothing behind.
        house.until_lane(&back(), "at rest", |lane| lane.condition == Condition::Idle).await;
        house.until_sql(false, SLOTS, "0").await;
        let kept = "SELECT string_agg(direction, ' ') FROM strangler.stream";
        assert_eq!((house.at_source(kept), house.at_sink(kept)), ("".into(), "forward".into()));
        for lane in [there(), back()] {
            assert_eq!(house.report(&lane).map(|lane| lane.foreign), Some(0), "{lane}");
        }
    }
    eprintln!("from the fence's commit to the controller: {took:?}");
    assert!(took.iter().all(|took| *took < Duration::from_secs(2)), "{took:?}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_goes_over_and_back_and_over_again_on_the_embedded_log() {
    over_and_back_and_over_again("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_goes_over_and_back_and_over_again_on_kafka() {
    over_and_back_and_over_again(&kafka()).await;
}

/// The bridge is killed after its sink has passed the fence, and before it could tell; and while the fence is made.
async fn fences_survive_restarts(log: &str) {
    let house = following(log).await;
    house.prepare().await;
    house.cut().await;
    house.stop().await;
    let fenced = "SELECT fenced FROM strangler.stream WHERE direction = 'forward'";
    assert_eq!(house.at_sink(fenced), "1");
    house.start();
    house.until("fenced", |lane| lane.fenced == Some(Epoch(1))).await;
    house.commit();
    house.at_sink(&write(1, "g"));
    house.stop().await;
    house.journal_with(Event::RollbackStarted { epoch: Epoch(2), until: NEVER }, "");
    house.at_sink("SELECT strangler.fence('orders', 2)");
    house.start();
    house.until_lane(&back(), "fenced", |lane| lane.fenced == Some(Epoch(2))).await;
    equal(&house);
    house.give_back();
    house.at_source(&write(2, "g"));
    house.same(AT_SOURCE, AT_SINK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_fence_survives_a_killed_bridge_on_the_embedded_log() {
    fences_survive_restarts("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_fence_survives_a_killed_bridge_on_kafka() {
    fences_survive_restarts(&kafka()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_cutover_leaves_everything_as_it_was_and_the_next_one_works() {
    let house = following("").await;
    house.prepare().await;
    house.cut().await;
    let epoch = house.epoch().next();
    let opens = format!("SELECT strangler.open('orders', {epoch})");
    house.journal_with(Event::CutoverAborted { epoch, why: "tried".to_owned() }, &opens);
    house.at_source(&write(1, "g"));
    house.same(AT_SOURCE, AT_SINK).await;
    house.until_sql(false, SLOTS, "0").await;
    // The applier took the new epoch over: a bridge that still works under the old one is refused.
    let gate = "SELECT is_shut, epoch FROM strangler.gate";
    assert_eq!(house.at_sink(gate), "t|2");
    house.prepare().await;
    house.cut_over().await;
    house.at_sink(&write(2, "g"));
    house.until_sql(true, AT_SOURCE, &house.at_sink(AT_SINK)).await;
    // Aborting the rollback gives the service back what it owned.
    house.stop_service().await;
    let epoch = house.epoch().next();
    let why = "tried".to_owned();
    house.journal_with(Event::RollbackAborted { epoch, why, returns_at: None }, "");
    house.at_sink(&format!("SELECT strangler.open('orders', {epoch})"));
    house.at_sink(&write(3, "g"));
    house.until_sql(true, AT_SOURCE, &house.at_sink(AT_SINK)).await;
    assert_eq!(house.at_source(gate), format!("t|{epoch}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_applied_where_another_has_opened_the_gate() {
    let house = following("").await;
    let copied = house.at_sink(AT_SINK);
    house.at_sink("SELECT strangler.open('orders', 0)");
    house.at_source(&write(1, "g"));
    let (found, _) = house.stopped(&there()).await;
    assert_eq!(found.code, Code::SinkGate, "{found}");
    assert_eq!(house.at_sink(AT_SINK), copied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_does_not_begin_while_the_service_may_write() {
    let house = following("").await;
    house.at_sink("SELECT strangler.open('orders', 0)");
    house.decide(prepared());
    let waits = |lane: &LaneReport| matches!(&lane.condition, Condition::Waiting { finding } if finding.code == Code::SinkGate);
    house.until_lane(&back(), "waiting for the gate", waits).await;
    house.at_sink("SELECT strangler.fence('orders', 1)");
    house.until_lane(&back(), "begun", |lane| lane.began.is_some()).await;
}

/// The monolith's database knows by its own clock that nobody drives the cutover any more.
#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_aborts_a_cutover_that_nobody_drives() {
    let house = following("").await;
    house.prepare().await;
    house.cut().await;
    let lease = |when: &str| {
        let sql = format!(
            "UPDATE strangler.slice SET coordinator = 'test', lease_until = now() + interval '{when}'"
        );
        house.at_source(&sql)
    };
    lease("1 hour");
    house.go_away();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stage = "SELECT stage->>'stage', epoch FROM strangler.slice";
    assert_eq!(house.at_source(stage), "cutting|1");
    lease("-1 second");
    house.until_sql(true, stage, "following|2").await;
    let journalled = "SELECT event->>'event', event->>'epoch' FROM strangler.journal WHERE slice = 'orders'";
    assert_eq!(house.at_source(journalled), "cutover-aborted|2");
    // And the data flows on, although nobody tells the bridge anything.
    house.at_source(&write(1, "g"));
    house.until_sql(false, AT_SINK, &house.at_source(AT_SOURCE)).await;
}

/// Two slices of one service: each has a lane back, on one slot.
const TWO: &str = "
version: 1
name: shop
log: { embedded: { max: 64MiB } }
slices:
  orders:
    service: orders
    routes: { list: GET /orders }
    tables: [public.orders]
    reference: [public.customers]
  notes:
    service: orders
    routes: { all: GET /notes }
    tables: [public.notes]
";

const TWO_TABLES: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, note text);
    CREATE TABLE notes (id int PRIMARY KEY, note text);";

/// Two slices that are split.
async fn two_split() -> House {
    let house = House::following(TWO_TABLES, TWO_TABLES, TWO).await;
    let notes = LaneId::forward("notes".parse().unwrap());
    house.decide_for("notes", Event::SyncStarted { replace: false });
    house.until_lane(&notes, "following", |lane| lane.condition == Condition::Following).await;
    house.prepare().await;
    house.cut_over().await;
    // The other one's gates stand open and shut as a cutover leaves them; its lane back waits for its epoch.
    house.decide_for("notes", prepared());
    let began = |lane: &LaneReport| lane.began.is_some() && lane.condition == Condition::Following;
    house.until_lane(&notes.opposite(), "begun", began).await;
    house.at_source("INSERT INTO strangler.slice (slice, stage, epoch, generation) VALUES ('notes', '{\"stage\": \"cutting\"}', 1, 1); \
         SELECT strangler.fence('notes', 1)",
    );
    house.until_lane(&notes, "fenced", |lane| lane.fenced == Some(Epoch(1))).await;
    house.decide_for("notes", started(Epoch(1), EndLsn(3)));
    house.decide_for("notes", Event::CutoverCommitted { epoch: Epoch(1), returns_at: None });
    house.decide_for("notes", Event::Released { epoch: Epoch(1) });
    house.at_sink("SELECT strangler.open('notes', 1)");
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lane_back_leaves_the_other_slices_of_its_feed_alone() {
    let house = two_split().await;
    house.decide(Event::Paused);
    house.until_lane(&back(), "paused", |lane| lane.condition == Condition::Paused).await;
    for round in 0..20 {
        house.at_sink(&format!(
                "SET ROLE app; INSERT INTO orders SELECT g, repeat(md5(g::text), 1000) FROM generate_series(1, 150) g \
                 ON CONFLICT (id) DO UPDATE SET note = excluded.note || '{round}'; \
                 INSERT INTO notes VALUES ({round}, 'note')"
            ),
        );
    }
    house.until_lane(&back(), "lost", |lane| matches!(lane.condition, Condition::Lost { .. })).await;
    house
        .until_agent("told", |said| {
            said.contains("slice.lane-lost") && said.contains("a rollback would lose")
        })
        .await;
    house.until_sql(true, "SELECT count(*) FROM notes", "20").await;
    house.at_sink("SET ROLE app; INSERT INTO notes VALUES (100, 'later')");
    house.until_sql(true, "SELECT count(*) FROM notes", "21").await;
    // So it stays after a restart, and the monolith's feed never stopped.
    house.decide(Event::Resumed { skip: None });
    house.stop().await;
    house.start();
    house.at_sink("SET ROLE app; INSERT INTO notes VALUES (101, 'later')");
    house.until_sql(true, "SELECT count(*) FROM notes", "22").await;
    house.at_source("SET ROLE app; INSERT INTO customers VALUES (1, 'new')");
    house.until_sql(false, "SELECT count(*) FROM customers", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_whose_slot_is_gone_is_reported_and_the_monoliths_lanes_go_on() {
    let house = two_split().await;
    house.at_sink("SET ROLE app; INSERT INTO orders VALUES (1, 'kept')");
    house.until_sql(true, "SELECT count(*) FROM orders", "1").await;
    house.stop().await;
    house.at_sink("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots; SET ROLE app; INSERT INTO orders VALUES (2, 'unseen')");
    house.start();
    for lane in [back(), LaneId::reverse("notes".parse().unwrap())] {
        house.until_lane(&lane, "lost", |lane| matches!(lane.condition, Condition::Lost { .. })).await;
    }
    let since = "what service orders wrote since 20";
    house.until_agent("told", |said| said.contains("slice.lane-lost") && said.contains(since)).await;
    house.at_source("SET ROLE app; INSERT INTO customers VALUES (1, 'new')");
    house.until_sql(false, "SELECT count(*) FROM customers", "1").await;
    assert_eq!(house.at_source("SELECT count(*) FROM orders"), "1");
    assert_eq!(house.journal().slice(&slice()).stage.name(), "split");
    // When it is completed, nothing of the way back stays, and reference tables still follow.
    house.decide(Event::Completed);
    house.until_lane(&back(), "at rest", |lane| lane.condition == Condition::Idle).await;
    house.at_source("DROP TABLE orders; SET ROLE app; INSERT INTO customers VALUES (2, 'newer')");
    house.until_sql(false, "SELECT count(*) FROM customers", "2").await;
}
