//! A value whose text is larger than a server sends ends the stream for all, and it is said of which table it is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::{session, there};
use house::one_table::{ALL, PLAN, SINK, SOURCE};
use migrations::code::Code;
use migrations::control::{Condition, LaneReport};
use migrations::lane::LaneId;
use migrations::stage::Event;

const BLOBS: &str = "CREATE TABLE blobs (id int PRIMARY KEY, name text, data bytea);";

/// It compresses to some MiB, and its text has 1080 MiB.
const LARGE: &str = "INSERT INTO blobs SELECT 7, 'large', convert_to(repeat('x', 540 << 20), 'UTF8')";

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_server_cannot_send_is_named_and_the_slices_can_go_on_without_it() {
    let slices = "tables: [public.orders]\n  blobs: { service: orders, routes: { all: GET /blobs }, tables: [public.blobs] }";
    let plan = PLAN.replace("tables: [public.orders]", slices);
    let house = House::new(&format!("{SOURCE}{BLOBS}"), &format!("{SINK}{BLOBS}"), &plan).await;
    house.start();
    house.follow().await;
    let blobs = LaneId::forward("blobs".parse().unwrap());
    house.decide_for("blobs", Event::SyncStarted { replace: false });
    let follows = |report: &LaneReport| report.condition == Condition::Following;
    house.until_lane(&blobs, "following", follows).await;
    house.at_source("INSERT INTO blobs SELECT g, 'small', 'x' FROM generate_series(1, 5) g");
    // A table that cannot be searched delays nothing.
    let held = session(&house.source.url("postgres", "shop")).await;
    house.at_source(LARGE);
    held.batch_execute("BEGIN; LOCK TABLE orders").await.unwrap();
    let told = Code::CaptureUnsendable.as_str();
    house.until_agent("told", |said| said.contains(told) && said.contains("is being looked for")).await;
    held.batch_execute("COMMIT").await.unwrap();
    house
        .until_agent("told of which table", |said| {
            ["table public.blobs has a row of 11324", "in column data", "LSN"]
                .iter()
                .all(|part| said.contains(part))
        })
        .await;
    // What the finding says to do.
    house.at_source("DELETE FROM blobs WHERE id = 7; UPDATE orders SET note = 'later' WHERE id < 9");
    house.stop().await;
    let attempt = house.attempt();
    house.until_sql(true, "SELECT count(*) FROM pg_replication_slots WHERE active", "0").await;
    house.at_source("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots");
    house.start();
    house.until_lane(&blobs, "following", follows).await;
    house.until_lane(&there(), "copied again", |report| follows(report) && house.attempt() > attempt).await;
    house.same(ALL, ALL).await;
    house.until_sql(false, "SELECT count(*) FROM blobs", "5").await;
    house.stop().await;
}
