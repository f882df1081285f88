//! Every change of the publication is noticed, also one that was taken back: what was written meanwhile is not in the stream.

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::there;
use house::one_table::{ALL, following};
use migrations::code::Code;
use migrations::control::Condition;
use migrations::journal::Generation;
use migrations::sql::{self, Database};
use std::time::Duration;

/// Each change, and how it is taken back.
const CHANGES: [(&str, &str); 8] = [
    ("SET (publish = 'insert')", "SET (publish = 'insert, update, delete, truncate')"),
    ("SET (publish_via_partition_root = false)", "SET (publish_via_partition_root = true)"),
    ("SET TABLE orders WHERE (id > 500)", "SET TABLE orders"),
    ("SET TABLE orders (id)", "SET TABLE orders"),
    ("DROP TABLE orders", "ADD TABLE orders"),
    ("SET TABLES IN SCHEMA public", "SET TABLE orders"),
    ("RENAME TO other", "RENAME TO strangler_shop"),
    ("", ""),
];

fn alter(house: &House, change: &str, name: &str) {
    house.at_source(&format!("ALTER PUBLICATION {name} {change}"));
}

fn make(house: &House, (change, _): (&str, &str)) {
    match change {
        "" => drop(house.at_source("DROP PUBLICATION strangler_shop")),
        change => alter(house, change, "strangler_shop"),
    }
}

fn take_back(house: &House, (change, back): (&str, &str)) {
    let made = "CREATE PUBLICATION strangler_shop FOR TABLE orders WITH (publish_via_partition_root = true)";
    match back {
        "" => drop(house.at_source(made)),
        back => alter(house, back, if change.starts_with("RENAME") { "other" } else { "strangler_shop" }),
    }
}

async fn copied_again(house: &House, attempt: Generation, change: &str) {
    house
        .until(&format!("copied again after `{change}`"), |report| {
            report.condition == Condition::Following && house.attempt() > attempt
        })
        .await;
    house.same(ALL, ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_taken_back_is_noticed_while_the_bridge_runs() {
    let house = following().await;
    for (n, change) in CHANGES.into_iter().enumerate() {
        let attempt = house.attempt();
        make(&house, change);
        house.at_source(&format!("UPDATE orders SET note = 'missed {n}' WHERE id <= 10"));
        take_back(&house, change);
        // A barrier that passes covers the update.
        house.same(ALL, ALL).await;
        copied_again(&house, attempt, change.0).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_was_taken_back_is_noticed_after_a_restart() {
    let house = following().await;
    for (n, change) in CHANGES.into_iter().enumerate() {
        let attempt = house.attempt();
        house.stop().await;
        make(&house, change);
        house.at_source(&format!("UPDATE orders SET note = 'missed {n}' WHERE id <= 10"));
        take_back(&house, change);
        house.start();
        copied_again(&house, attempt, change.0).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_about_the_slices_tables_goes_on() {
    let house = following().await;
    let attempt = house.attempt();
    let steps = sql::install(&house.plan, &Database::Monolith).unwrap();
    let install: Vec<String> = steps.into_iter().map(|step| step.sql).collect();
    let harmless = [
        "CREATE TABLE another (id int PRIMARY KEY); ALTER PUBLICATION strangler_shop ADD TABLE another",
        "ALTER PUBLICATION strangler_shop SET TABLE orders, another",
        "ALTER PUBLICATION strangler_shop DROP TABLE another",
        "VACUUM FREEZE pg_publication",
        "VACUUM FULL pg_publication_rel",
        "VACUUM FULL pg_publication",
        "COMMENT ON PUBLICATION strangler_shop IS 'ours'",
        "CREATE PUBLICATION theirs FOR ALL TABLES",
        "ALTER TABLE orders REPLICA IDENTITY FULL",
        &format!("BEGIN; {}; COMMIT", install.join(";\n")),
    ];
    for (n, harmless) in harmless.into_iter().enumerate() {
        house.at_source(harmless);
        house.at_source(&format!("UPDATE orders SET note = 'seen {n}' WHERE id <= 10"));
        house.same(ALL, ALL).await;
    }
    house.stop().await;
    house.start();
    house.until("following", |report| report.condition == Condition::Following).await;
    house.same(ALL, ALL).await;
    assert_eq!(house.attempt(), attempt, "it was copied again for nothing");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_barrier_passes_and_no_copy_is_read_while_a_table_is_not_published() {
    let house = following().await;
    let attempt = house.attempt();
    house.at_source("ALTER PUBLICATION strangler_shop DROP TABLE orders; UPDATE orders SET note = 'missed'");
    assert!(!house.passes().await, "the update is not in the stream");
    // The copy is given up once, so its reads go to the monolith, and another one waits for the table.
    let (finding, _) = house.stopped(&there()).await;
    assert_eq!(finding.code, Code::CaptureOtherTable);
    let given_up = house.attempt();
    assert!(given_up > attempt);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(house.attempt(), given_up);
    house.at_source("ALTER PUBLICATION strangler_shop ADD TABLE orders");
    house.same(ALL, ALL).await;
    house.stop().await;
}
