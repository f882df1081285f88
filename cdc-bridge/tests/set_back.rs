//! A database or a log that was set back to an earlier moment of the same timeline: its positions come again and mean other
//! changes. It is found, stays found, and a new copy mends it.

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::crossing::there;
use house::one_table::{ALL, following};
use house::{House, slice};
use migrations::control::Condition;
use migrations::stage::Event;
use std::process::Command;
use std::time::Duration;

const SEAL: &str = "SELECT seal FROM strangler.seal";

/// How a moment of a folder is kept and put back, as by a snapshot of its disk.
fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|copied| copied.success()));
}

/// A source whose disk was saved before its last changes, which the sink has. The bridge runs.
async fn saved() -> House {
    let house = following().await;
    house.source.save();
    let seal = house.at_source(SEAL);
    house.at_source("UPDATE orders SET note = 'after the copy of the disk' WHERE id < 500");
    house.same(ALL, ALL).await;
    renewed(&house, &seal).await;
    house
}

async fn renewed(house: &House, seal: &str) {
    house.until_sql(true, &format!("SELECT ({SEAL}) <> '{}'", seal.trim()), "t").await;
}

fn end(house: &House) -> String {
    house.at_source("SELECT pg_current_wal_lsn()").trim().to_owned()
}

/// Other changes than the log has, until the source comes farther than it ever was.
fn write_past(house: &House, end: &str) {
    house.at_source("UPDATE orders SET note = 'another history' WHERE id >= 500");
    let passed = format!("SELECT pg_current_wal_lsn() > '{end}'");
    while house.at_source(&passed).trim() != "t" {
        house.at_source(
            "CREATE TABLE filler AS SELECT repeat(md5(g::text), 40) FROM generate_series(1, 2000) g; \
             DROP TABLE filler; SELECT pg_switch_wal()",
        );
    }
    house.at_source("UPDATE orders SET note = 'past it' WHERE id = 1");
}

/// It is found and stays so: while the source goes on, and after a restart of the bridge. Nothing of it is applied.
async fn stays_found(house: &House) {
    for _ in 0..2 {
        house.forget();
        house.until_agent("told", |said| said.contains("capture.other-server")).await;
        house.at_source("UPDATE orders SET note = 'past it' WHERE id < 10");
        tokio::time::sleep(Duration::from_secs(6)).await;
        house.forget();
        house.until_agent("told still", |said| said.contains("capture.other-server")).await;
        house.stop().await;
        house.start();
    }
    let applied = "SELECT count(*) FROM orders WHERE note IN ('another history', 'past it')";
    assert_eq!(house.at_sink(applied), "0");
}

/// The way out that the finding names.
async fn copied_anew(house: &House) {
    house.decide(Event::SyncDropped);
    house.until_agent("given up", |said| said.contains("holds_nothing: true")).await;
    house.until("idle", |report| report.condition == Condition::Idle).await;
    house.follow().await;
    house.same(ALL, ALL).await;
    house.at_source("UPDATE orders SET note = 'after the new copy' WHERE id > 700");
    house.same(ALL, ALL).await;
    house.stop().await;
    house.start();
    house.until("following", |report| report.condition == Condition::Following).await;
    house.at_source("UPDATE orders SET note = 'after a restart' WHERE id > 800");
    house.same(ALL, ALL).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_set_back_and_passed_the_log_before_the_bridge_looked() {
    let house = saved().await;
    house.stop().await;
    let end = end(&house);
    house.source.set_back();
    write_past(&house, &end);
    house.start();
    stays_found(&house).await;
    copied_anew(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_set_back_while_the_bridge_runs_and_then_passes_the_log() {
    let house = saved().await;
    let end = end(&house);
    house.source.set_back();
    house.until_agent("told", |said| said.contains("capture.other-server")).await;
    write_past(&house, &end);
    stays_found(&house).await;
    copied_anew(&house).await;
}

/// The source was saved within the log's last session, so both have the same seal, and only the positions tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_behind_the_log_once_stays_found() {
    let house = following().await;
    house.stop().await;
    let seal = house.at_source(SEAL);
    house.source.save();
    house.start();
    house.until("following", |report| report.condition == Condition::Following).await;
    house.same(ALL, ALL).await;
    house.at_source("UPDATE orders SET note = 'after the copy of the disk' WHERE id < 500");
    house.same(ALL, ALL).await;
    house.stop().await;
    let (end, newest) = (end(&house), house.at_source(SEAL));
    house.source.set_back();
    assert_eq!(house.at_source(SEAL), seal);
    house.at_source(&format!("UPDATE strangler.seal SET seal = '{}'", newest.trim()));
    house.start();
    house.until_agent("told", |said| said.contains("capture.other-server")).await;
    write_past(&house, &end);
    stays_found(&house).await;
    copied_anew(&house).await;
}

/// One snapshot of a machine takes the database's disk and the log's at slightly different moments.
#[tokio::test(flavor = "multi_thread")]
async fn source_and_log_that_were_set_back_to_different_moments() {
    let house = saved().await;
    let (folder, copy) = (house.folder.path().join("bridge"), house.folder.path().join("copy"));
    house.stop().await;
    copy_folder(&folder, &copy);
    let end = end(&house);
    house.start();
    house.until("following", |report| report.condition == Condition::Following).await;
    house.at_source("UPDATE orders SET note = 'after both' WHERE id < 300");
    house.same(ALL, ALL).await;
    house.stop().await;
    house.source.set_back();
    copy_folder(&copy, &folder);
    write_past(&house, &end);
    house.start();
    stays_found(&house).await;
    copied_anew(&house).await;
}

/// Source and log agree. Only the sink knows what they have forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_newer_than_source_and_log_is_not_followed() {
    let house = following().await;
    let (folder, copy) = (house.folder.path().join("bridge"), house.folder.path().join("copy"));
    house.stop().await;
    copy_folder(&folder, &copy);
    house.source.save();
    house.start();
    house.until("following", |report| report.condition == Condition::Following).await;
    for round in 0..5 {
        house.at_source(&format!("UPDATE orders SET note = 'forgotten {round}' WHERE id < 500"));
    }
    house.same(ALL, ALL).await;
    house.stop().await;
    house.source.set_back();
    copy_folder(&copy, &folder);
    house.start();
    let (found, _) = house.stopped(&there()).await;
    assert_eq!(found.code.as_str(), "log.other-history", "{found:?}");
    // The log comes past the sink's place with other changes.
    for round in 0..50 {
        house.at_source(&format!("UPDATE orders SET note = 'another {round}' WHERE id >= 500"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..2 {
        house.stop().await;
        house.start();
        let (found, _) = house.stopped(&there()).await;
        assert_eq!(found.code.as_str(), "log.other-history", "{found:?}");
    }
    assert_eq!(house.at_sink("SELECT count(*) FROM orders WHERE note LIKE 'another%'"), "0");
    copied_anew(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_either_side_at_any_write_of_the_seal_are_no_other_history() {
    let house = following().await;
    let attempt = house.journal().slice(&slice()).attempt;
    let mut seals = vec![house.at_source(SEAL)];
    for round in 0..3 {
        // The log has the next seal, and the source does not get it.
        house.at_source(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not now'; END$$; \
             CREATE TRIGGER refuse BEFORE UPDATE ON strangler.seal EXECUTE FUNCTION refuse()",
        );
        house.stop().await;
        house.start();
        house.until_agent("refused", |said| said.contains("not now")).await;
        house.stop().await;
        house.source.kill();
        house.source.restart();
        house.at_source("DROP TRIGGER refuse ON strangler.seal; DROP FUNCTION refuse");
        house.start();
        house.at_source(&format!("UPDATE orders SET note = 'round {round}'"));
        house.same(ALL, ALL).await;
        // The server dies under a running bridge.
        house.source.kill();
        house.source.restart();
        house.at_source(&format!("UPDATE orders SET note = 'again {round}'"));
        house.same(ALL, ALL).await;
        seals.push(house.at_source(SEAL));
    }
    assert_eq!(house.journal().slice(&slice()).attempt, attempt, "it was copied again");
    seals.dedup();
    assert_eq!(seals.len(), 4, "{seals:?}");
    // Within a long session the seal is renewed once something was captured, and not before.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let before = house.at_source(SEAL);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(house.at_source(SEAL), before, "it was renewed for nothing");
    house.at_source("UPDATE orders SET note = 'captured' WHERE id = 1");
    renewed(&house, &before).await;
    house.stop().await;
    house.start();
    house.at_source("UPDATE orders SET note = 'after all' WHERE id = 1");
    house.same(ALL, ALL).await;
    house.stop().await;
}

/// An installation from before there were seals: neither side has one.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_seal_that_the_log_knows_is_of_another_history() {
    let house = following().await;
    house.stop().await;
    house.at_source("DELETE FROM strangler.seal");
    house.start();
    stays_found(&house).await;
    copied_anew(&house).await;
}
