//! Cutovers and rollbacks by the coordinator, on two real databases. Agents are played. Tests that are named after a bug of
//! Vitess guard against the same one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test that cannot go on shall fail"
)]

mod played;
mod world;

use migrations::api::{CrossingEnd, CrossingVerb, Phase, Reconciled};
use migrations::code::Code;
use migrations::stage::{Epoch, Stage};
use played::House;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn ann() -> Value {
    json!({ "actor": "ann" })
}

/// Why the last crossing was given up.
async fn why(house: &House, n: usize) -> String {
    // The journal tells of the end a moment before the report does.
    for _ in 0..500 {
        match house.report(n).await.end {
            Some(CrossingEnd::Aborted { why }) => return why,
            Some(other) => panic!("not aborted: {other:?}"),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("no end is reported")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_and_a_rollback_do_what_their_dry_runs_say() {
    let house = House::new(1).await;
    house.only_writes("monolith").await;
    let told: Vec<String> = {
        let (status, steps) = house.wish(0, "cutover?dry_run=true", ann()).await;
        assert_eq!(status, StatusCode::OK, "{steps}");
        serde_json::from_value(steps).unwrap()
    };
    assert_eq!(house.events(0).await, Vec::<&str>::new(), "a dry run writes nothing");
    let line = |what: &str| told.iter().position(|line| line.contains(what)).unwrap();
    let (known, open) = (line("the proxies know"), line("open the gate of service"));
    assert!(
        known < open && open < line("journal released"),
        "reads move while both sides are equal: {told:#?}"
    );
    let next = "SELECT nextval('orders_id_seq')::text";
    let before: i64 = house.world.monolith(next).parse().unwrap();

    let answer = house.granted("cutover", ann()).await;
    assert_eq!((answer["stage"].as_str(), answer["owner"].as_str()), (Some("following"), Some("monolith")));
    house.until_stage(0, "split").await;
    assert_eq!(
        house.events(0).await,
        ["cutover-prepared", "cutover-started", "cutover-committed", "released"]
    );
    let report = house.report(0).await;
    assert_eq!(without_waits(&report.steps), without_waits(&told));
    assert_eq!((report.verb, report.end), (CrossingVerb::Cutover, Some(CrossingEnd::Committed)));
    let phases: Vec<_> = report.phases.keys().copied().collect();
    use Phase::{Arrived, Compared, Decided, Drained, Fenced, Numbered, Released};
    assert_eq!(phases, [Drained, Fenced, Arrived, Compared, Numbered, Decided, Released]);
    assert!(report.phases.values().is_sorted(), "{:?}", report.phases);
    assert!(
        report.hold_ms.unwrap() >= report.phases[&Decided]
            && (report.held_ms_p99, report.held_ms_max) == (5, 7)
    );
    assert!(report.not_compared.unwrap().contains("no verification"));
    house.only_writes("service").await;
    assert_eq!((house.gate("monolith"), house.gate("service")), ("1 true".into(), "1 false".into()));
    let metrics = house.http.get(format!("{}/metrics", house.controllers[0].base)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for line in [
        r#"strangler_slice_stage{owner="service",slice="orders",stage="split"} 1"#,
        r#"strangler_slice_epoch{slice="orders"} 1"#,
        r#"strangler_slice_held{slice="orders"} 0"#,
        r#"strangler_slice_stuck{slice="orders"} 0"#,
        r#"strangler_crossings_total{end="committed",slice="orders",verb="cutover"} 1"#,
        r#"strangler_crossing_hold_seconds_count{slice="orders",verb="cutover"} 1"#,
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} in {metrics}");
    }
    let after: i64 = house.world.service(next).parse().unwrap();
    assert!((before + 1_000..before + 1_010).contains(&after), "{before} {after}");

    let (_, told) = house.wish(0, "rollback?dry_run=true", ann()).await;
    let told: Vec<String> = serde_json::from_value(told).unwrap();
    house.granted("rollback", ann()).await;
    house.until_stage(0, "following").await;
    let report = house.report(0).await;
    assert_eq!((report.verb, report.end), (CrossingVerb::Rollback, Some(CrossingEnd::Committed)));
    assert_eq!(without_waits(&report.steps), without_waits(&told));
    house.only_writes("monolith").await;
    let back: i64 = house.world.monolith(next).parse().unwrap();
    assert!((after + 1_000..after + 1_010).contains(&back), "{after} {back}");
}

/// What was so already is not waited for.
fn without_waits(lines: &[String]) -> Vec<&String> {
    lines.iter().filter(|line| !line.starts_with("wait ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_holds_writes_and_leaves_everything_as_it_was() {
    let house = House::new(1).await;
    house.granted("rehearse", ann()).await;
    house.until(0, "aborted", |slice| slice.epoch == Epoch(2)).await;
    house.until_stage(0, "following").await;
    house.only_writes("monolith").await;
    let report = house.report(0).await;
    assert_eq!(report.verb, CrossingVerb::Rehearse);
    assert!(report.hold_ms.is_some() && report.phases.contains_key(&Phase::Numbered), "{report:?}");
    assert_eq!(why(&house, 0).await, "rehearsed");
    let last = house.journal(0).await.pop().unwrap();
    assert!(last.reason.starts_with("writes were held for "), "{last:?}");
    assert!(house.world.monolith("SELECT last_value::text FROM orders_id_seq").parse::<i64>().unwrap() < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_over_for_a_time_returns_by_itself_once_the_way_back_is_short() {
    let house = House::new(1).await;
    house.granted("cutover", json!({ "actor": "ann", "for_ms": 3_000 })).await;
    house.until_stage(0, "split").await;
    house.manners(|manners| manners.reverse_lag_ms = 60_000);
    house.until(0, "behind", |slice| slice.lanes.values().any(|lane| lane.lag_ms > Some(0))).await;
    let refused = house.refused("rollback", ann()).await;
    assert_eq!((refused.code, refused.exit()), (Code::SliceWayBack, 3), "{refused:?}");
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    let status = house.status(0).await;
    assert_eq!(status.slices[&house.world.slice].stage.name(), "split", "the service serves on");
    assert!(
        status.findings.iter().any(|finding| finding.code == Code::SliceWayBack),
        "{:?}",
        status.findings
    );
    house.manners(|manners| manners.reverse_lag_ms = 0);
    house.until_stage(0, "following").await;
    house.only_writes("monolith").await;
    assert!(house.status(0).await.findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_cutover_stays_and_completes_when_every_proxy_knows() {
    let house = House::new(1).await;
    house.granted("cutover", json!({ "actor": "ann", "for_ms": 60_000 })).await;
    house.until_stage(0, "split").await;
    house.granted("confirm", ann()).await;
    let again = house.refused("confirm", ann()).await;
    assert_eq!(again.exit(), 4, "{again:?}");
    house.manners(|manners| manners.proxy_listens = false);
    tokio::time::sleep(Duration::from_millis(200)).await;
    // It was told nothing of this entry.
    house.world.monolith("INSERT INTO strangler.journal (generation, actor, slice, event) SELECT max(generation) + 1, 'bob', 'orders', '{\"event\": \"paused\"}' FROM strangler.journal",
    );
    let refused = house.refused("complete", ann()).await;
    assert_eq!((refused.code, refused.exit()), (Code::SliceStillRead, 4), "{refused:?}");
    assert!(refused.message.contains("proxy shop-1-a"), "{refused:?}");
    house.manners(|manners| manners.proxy_listens = true);
    tokio::time::sleep(Duration::from_millis(300)).await;
    house.granted("complete", ann()).await;
    house.until_stage(0, "retired").await;
    house.only_writes("service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_stays_silent_ends_a_cutover_in_time() {
    let house = House::new(1).await;
    house.manners(|manners| manners.fences_pass = false);
    house.granted("cutover", json!({ "actor": "ann", "hold_ms": 800 })).await;
    house.until(0, "aborted", |slice| slice.epoch == Epoch(2)).await;
    assert!(why(&house, 0).await.contains("everything that the monolith wrote has arrived"));
    house.only_writes("monolith").await;
    assert!(house.report(0).await.hold_ms.unwrap() < 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_of_someone_else_to_the_service_ends_a_cutover() {
    let house = House::new(1).await;
    house.manners(|manners| (manners.way_back, manners.foreign) = (false, 5));
    tokio::time::sleep(Duration::from_millis(200)).await;
    house.granted("cutover", ann()).await;
    house.until(0, "prepared", |slice| slice.preparing.is_some()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(house.status(0).await.slices[&house.world.slice].preparing.is_some(), "five were there before");
    house.manners(|manners| (manners.way_back, manners.foreign) = (true, 6));
    house
        .until(0, "aborted", |slice| {
            slice.epoch >= Epoch(1) && slice.preparing.is_none() && slice.hold.is_none()
        })
        .await;
    assert!(why(&house, 0).await.contains("wrote to the service's tables"));
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_9481_a_writer_that_does_not_end_gives_the_cutover_up_and_commits() {
    let house = House::new(1).await;
    let writer = house.world.client("app", "monolith").await;
    writer.batch_execute("BEGIN; UPDATE orders SET note = 'mine' WHERE id = 1").await.unwrap();
    house.granted("cutover", ann()).await;
    house.until(0, "aborted", |slice| slice.epoch == Epoch(2)).await;
    let why = why(&house, 0).await;
    assert!(why.contains("could not shut the monolith's gate") && why.contains("held by process"), "{why}");
    assert!(
        why.contains("SELECT pg_terminate_backend("),
        "a session that waits for its client has nothing to cancel: {why}"
    );
    writer.batch_execute("COMMIT").await.unwrap();
    house.only_writes("monolith").await;
}

/// A vacuum takes such a lock.
const VACUUM: &str = "BEGIN; LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE";

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_waits_for_a_vacuum_before_it_holds_writes_and_keeps_the_next_one_off() {
    tokio::join!(a_cutover_waits_for_a_vacuum_at("monolith"), a_cutover_waits_for_a_vacuum_at("service"));
}

async fn a_cutover_waits_for_a_vacuum_at(database: &str) {
    let house = House::new(1).await;
    let vacuum = house.world.client("app", database).await;
    vacuum.batch_execute(VACUUM).await.unwrap();
    house.granted("cutover", ann()).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(house.events(0).await, ["cutover-prepared"], "writes are held although they need not be");
    house.manners(|manners| manners.in_flight = 1);
    vacuum.batch_execute("ROLLBACK").await.unwrap();
    house.until(0, "cutting", |slice| slice.stage.name() == "cutting").await;
    // From before the hold until the gate is turned, the next one passes the tables by.
    vacuum.batch_execute("SET lock_timeout = '50ms'").await.unwrap();
    assert_eq!(world::refusal(&vacuum, "ANALYZE orders").await.as_deref(), Some("55P03"));
    house.manners(|manners| manners.in_flight = 0);
    house.until_stage(0, "split").await;
    vacuum.batch_execute("SET lock_timeout = '5s'").await.unwrap();
    vacuum.batch_execute("VACUUM orders").await.unwrap();
    house.only_writes("service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_beside_a_vacuum_is_given_up_in_time_and_names_it() {
    let house = House::new(1).await;
    house.granted("cutover", ann()).await;
    house.until_stage(0, "split").await;
    let vacuum = house.world.client("app", "service").await;
    vacuum.batch_execute(VACUUM).await.unwrap();
    house.granted("rollback", ann()).await;
    house.until(0, "aborted", |slice| slice.epoch == Epoch(3)).await;
    house.until_stage(0, "split").await;
    let why = why(&house, 0).await;
    assert!(why.contains("held by process") && why.contains("SELECT pg_cancel_backend("), "{why}");
    house.only_writes("service").await;
    vacuum.batch_execute("ROLLBACK").await.unwrap();
    house.granted("rollback", ann()).await;
    house.until_stage(0, "following").await;
    house.only_writes("monolith").await;
}

/// As an autovacuum does that yields.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_waits_for_a_vacuum_that_yields_before_it_holds_writes() {
    let house = House::new(1).await;
    for database in ["service", "monolith"] {
        house.granted("cutover", ann()).await;
        house.until_stage(0, "split").await;
        let vacuum = house.world.client("app", database).await;
        vacuum.batch_execute(VACUUM).await.unwrap();
        let yielding = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = vacuum.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap();
            vacuum.batch_execute("ROLLBACK").await.unwrap();
            now.get::<_, String>(0)
        });
        house.granted("rollback", ann()).await;
        let yielded = yielding.await.unwrap();
        house.until_stage(0, "following").await;
        let held_after = format!(
            "SELECT max(at) > '{yielded}' FROM strangler.journal WHERE event->>'event' = 'rollback-started'"
        );
        assert_eq!(house.world.cluster.sql("monolith", &held_after), "t", "a vacuum at the {database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_16563_what_was_passed_before_the_fence_proves_nothing() {
    let house = House::new(1).await;
    // The lane passed a fence of an earlier epoch, and has nothing new to say.
    house.manners(|manners| (manners.fences_pass, manners.fence_said) = (false, Some(Epoch(0))));
    house.granted("cutover", json!({ "actor": "ann", "hold_ms": 1_000 })).await;
    house.until(0, "aborted", |slice| slice.epoch == Epoch(2)).await;
    let report = house.report(0).await;
    assert!(report.phases.contains_key(&Phase::Fenced) && !report.phases.contains_key(&Phase::Arrived));
    // An aborted epoch's fence counts no more under the next one.
    house.manners(|manners| manners.fence_said = Some(Epoch(1)));
    house.granted("cutover", json!({ "actor": "ann", "hold_ms": 1_000 })).await;
    house.until(0, "aborted again", |slice| slice.epoch == Epoch(4)).await;
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_17620_an_abort_needs_nothing_of_the_step_that_hangs() {
    let house = House::new(1).await;
    let locker = house.world.client("postgres", "service").await;
    house.manners(|manners| manners.fences_pass = false);
    house.granted("cutover", json!({ "actor": "ann", "hold_ms": 2_000 })).await;
    house.until_gate("monolith", "1 true").await;
    // What compares both sides hangs from here on.
    locker.batch_execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").await.unwrap();
    house.manners(|manners| manners.fences_pass = true);
    let began = std::time::Instant::now();
    house.until_gate("monolith", "2 false").await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(house.write("monolith").await, None);
    locker.batch_execute("ROLLBACK").await.unwrap();
    house.until_stage(0, "following").await;
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_comes_through_beside_a_fence_that_is_tried() {
    let house = House::new(1).await;
    let writer = house.world.client("app", "monolith").await;
    writer.batch_execute("BEGIN; UPDATE orders SET note = 'mine' WHERE id = 1").await.unwrap();
    house.granted("cutover", ann()).await;
    house.until(0, "cutting", |slice| slice.stage.name() == "cutting").await;
    house.granted("abort", json!({ "actor": "ann", "reason": "I changed my mind" })).await;
    house.until_stage(0, "following").await;
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(why(&house, 0).await, "I changed my mind");
    house.only_writes("monolith").await;
    let nothing = house.refused("abort", ann()).await;
    assert_eq!((nothing.code, nothing.exit()), (Code::SliceStage, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_17326_a_rollback_that_fails_leaves_the_service_writing() {
    let house = House::new(1).await;
    house.granted("cutover", ann()).await;
    house.until_stage(0, "split").await;
    house.manners(|manners| manners.fences_pass = false);
    house.granted("rollback", json!({ "actor": "ann", "hold_ms": 800 })).await;
    house.until(0, "aborted", |slice| slice.epoch == Epoch(3) && slice.hold.is_none()).await;
    let events = house.events(0).await;
    assert_eq!(&events[events.len() - 3..], ["rollback-started", "rollback-aborted", "released"]);
    house.only_writes("service").await;
    assert_eq!(house.gate("service"), "3 false");
    // A person wanted it, so a person asks again.
    house.manners(|manners| manners.fences_pass = true);
    let slice = house.until_stage(0, "split").await;
    assert!(matches!(slice.stage, Stage::Split { returns_at: None, .. }), "{:?}", slice.stage);
    house.granted("rollback", ann()).await;
    house.until_stage(0, "following").await;
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_that_was_due_is_tried_again_by_itself() {
    let house = House::new(1).await;
    house.granted("cutover", json!({ "actor": "ann", "for_ms": 1_000 })).await;
    house.until_stage(0, "split").await;
    house.manners(|manners| manners.fences_pass = false);
    house.until(0, "aborted", |slice| slice.epoch == Epoch(3)).await;
    house.manners(|manners| manners.fences_pass = true);
    house.until_stage(0, "following").await;
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_17127_a_cutover_is_given_up_though_reads_have_moved() {
    let house = House::new(1).await;
    let shares = json!({ "slice": "orders", "share": "50%", "actor": "ann" });
    let path = format!("{}/v1/shares", house.controllers[0].base);
    let shared = house.http.post(path).bearer_auth("right").json(&shares).send().await.unwrap();
    assert_eq!(shared.status(), StatusCode::OK);
    house.manners(|manners| manners.way_back = false);
    house.granted("cutover", ann()).await;
    house.until(0, "prepared", |slice| slice.preparing.is_some()).await;
    let busy = house.refused("cutover", ann()).await;
    assert_eq!(busy.exit(), 4, "{busy:?}");
    house.granted("abort", ann()).await;
    let slice = house.until_stage(0, "following").await;
    assert!(slice.routes.iter().any(|route| route.share.to_string() == "50%"), "reads stay where they were");
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vitess_6951_nothing_switches_while_the_copy_is_not_whole() {
    let house = House::new(1).await;
    house.world.client("strangler", "service").await.batch_execute("TRUNCATE orders").await.unwrap();
    house.granted("cutover", ann()).await;
    house.until(0, "aborted", |slice| slice.epoch == Epoch(2)).await;
    let why = why(&house, 0).await;
    assert!(
        why.contains("the two sides differ") && why.contains("public.orders {} is the first of 40"),
        "{why}"
    );
    house.only_writes("monolith").await;
    let lost = json!({ "event": "evicted", "why": "its slot is gone" });
    house.world.monolith(&format!("INSERT INTO strangler.journal (generation, actor, slice, event) SELECT max(generation) + 1, 'bridge', 'orders', '{lost}' FROM strangler.journal"),
    );
    let refused = house.refused("cutover", ann()).await;
    assert_eq!((refused.code, refused.exit()), (Code::SliceStage, 4), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ready_is_refused_before_it_is_journalled() {
    let house = House::new(1).await;
    house.world.monolith("ALTER TABLE orders REPLICA IDENTITY NOTHING");
    let refused = house.refused("cutover", ann()).await;
    assert_eq!((refused.code, refused.exit()), (Code::SliceNotReady, 3), "{refused:?}");
    assert!(
        refused.findings.iter().any(|finding| finding.code == Code::SourceReplicaIdentity),
        "{refused:?}"
    );
    assert_eq!(house.events(0).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_cutover_needs_is_refused_before_it_is_journalled() {
    let house = House::new(1).await;
    let noted = "INSERT INTO strangler.writer (id, slice, on_table, role, application, query)
                 VALUES (1, 'orders', 'public.orders', 'app', 'nightly', 'UPDATE orders SET note = ?')";
    house.world.monolith(noted);
    house.world.monolith(
        "CREATE TABLE invoices (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE)",
    );
    for verb in ["rehearse", "cutover"] {
        let refused = house.refused(verb, ann()).await;
        assert_eq!((refused.code, refused.exit()), (Code::SliceNotReady, 3), "{refused:?}");
        let errors = refused.findings.iter().filter(|finding| finding.is_error());
        let mut codes: Vec<Code> = errors.clone().map(|finding| finding.code).collect();
        codes.sort_unstable_by_key(|code| code.as_str());
        assert_eq!(codes, [Code::SourceForeignKeyAcross, Code::WriterUnmarked], "{refused:#?}");
        assert!(
            errors.clone().any(|finding| finding.remedy.contains("`writers: { nightly: moved }`")),
            "{refused:#?}"
        );
    }
    assert_eq!(house.events(0).await, Vec::<&str>::new());
    house.world.monolith("DROP TABLE invoices; DELETE FROM strangler.writer");
    house.granted("cutover", ann()).await;
    house.until_stage(0, "split").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_nothing_tells_of_end_a_cutover_before_writes_are_held() {
    let house = House::new(1).await;
    let told = async |epoch| {
        house.granted("cutover", ann()).await;
        house.until(0, "aborted", |slice| slice.epoch == Epoch(epoch) && slice.preparing.is_none()).await;
        assert_eq!(house.report(0).await.hold_ms, None);
        why(&house, 0).await
    };
    let alter = |database, how: &str| {
        house.world.cluster.sql(database, &format!("ALTER SEQUENCE orders_id_seq {how}"))
    };
    alter("service", "CYCLE");
    assert!(told(1).await.contains("begins again at its end"));
    alter("service", "NO CYCLE INCREMENT -1 MINVALUE -1000 START 1 RESTART");
    assert!(told(2).await.contains("different directions"));
    alter("service", "INCREMENT 1 MINVALUE 1");
    house.world.monolith("ALTER TABLE orders ALTER id DROP DEFAULT; DROP SEQUENCE orders_id_seq");
    assert!(told(3).await.contains("by a sequence at the service and by none at the monolith"));
    let app = house.world.client("app", "monolith").await;
    let made = "CREATE SEQUENCE orders_id_seq START 100; ALTER TABLE orders ALTER id SET DEFAULT nextval('orders_id_seq')";
    app.batch_execute(made).await.unwrap();
    assert!(told(4).await.contains("OWNED BY"));
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_altered_meanwhile_ends_a_cutover() {
    let house = House::new(1).await;
    house.manners(|manners| manners.way_back = false);
    house.granted("cutover", ann()).await;
    // The shapes were taken when the way back is waited for.
    let waits = "wait until the way back is kept".to_owned();
    while !house
        .get::<Option<migrations::api::CrossingReport>>(0, "/v1/slices/orders/crossing")
        .await
        .is_some_and(|report| report.steps.contains(&waits))
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.world.monolith("ALTER TABLE orders ADD COLUMN colour text");
    house.manners(|manners| manners.way_back = true);
    house.until(0, "aborted", |slice| slice.epoch == Epoch(2)).await;
    assert_eq!(why(&house, 0).await, "a table was altered meanwhile");
    house.only_writes("monolith").await;
}

/// The other one may still have the lease, and has not seen the rollback begin.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_driven_by_the_controller_that_was_asked() {
    let house = House::new(2).await;
    for way in ["cutover", "rollback", "cutover", "rollback"] {
        let asked = usize::from(way == "cutover");
        let (status, answer) = house.wish(asked, way, ann()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        house.until_stage(0, if way == "cutover" { "split" } else { "following" }).await;
        house.until_stage(1, if way == "cutover" { "split" } else { "following" }).await;
    }
    assert!(!house.events(0).await.contains(&"rollback-aborted"), "{:#?}", house.journal(0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_coordinator_is_followed_by_another_in_each_phase() {
    while_preparing().await;
    while_draining().await;
    behind_the_fence().await;
    before_the_gate_opens().await;
    while_returning().await;
}

async fn while_preparing() {
    let mut house = House::new(2).await;
    house.manners(|manners| manners.way_back = false);
    house.granted("cutover", ann()).await;
    house.until(0, "prepared", |slice| slice.preparing.is_some()).await;
    let other = house.kill_the_coordinator().await;
    house.manners(|manners| manners.way_back = true);
    house.until_stage(other, "split").await;
    house.only_writes("service").await;
}

async fn while_draining() {
    let mut house = House::new(2).await;
    house.manners(|manners| manners.in_flight = 1);
    house.granted("cutover", ann()).await;
    house.until(0, "cutting", |slice| slice.stage.name() == "cutting").await;
    let other = house.kill_the_coordinator().await;
    house.manners(|manners| manners.in_flight = 0);
    house.until(other, "aborted", |slice| slice.epoch == Epoch(2)).await;
    assert!(why(&house, other).await.contains("went away"));
    house.only_writes("monolith").await;
}

async fn behind_the_fence() {
    let mut house = House::new(2).await;
    house.manners(|manners| manners.fences_pass = false);
    house.granted("cutover", json!({ "actor": "ann", "hold_ms": 20_000 })).await;
    house.until_gate("monolith", "1 true").await;
    let other = house.kill_the_coordinator().await;
    house.manners(|manners| manners.fences_pass = true);
    house.until(other, "aborted", |slice| slice.epoch == Epoch(2)).await;
    house.only_writes("monolith").await;
    house.wish(other, "cutover", ann()).await;
    house.until_stage(other, "split").await;
    house.only_writes("service").await;
}

async fn before_the_gate_opens() {
    let mut house = House::new(2).await;
    let locker = house.world.client("app", "service").await;
    locker.batch_execute("BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE").await.unwrap();
    house.granted("cutover", ann()).await;
    house.until(0, "committed", |slice| slice.stage.name() == "split").await;
    let other = house.kill_the_coordinator().await;
    let aborted = house.wish(other, "abort", ann()).await;
    assert_eq!(aborted.0, StatusCode::CONFLICT, "{aborted:?}");
    locker.batch_execute("COMMIT").await.unwrap();
    house.until_stage(other, "split").await;
    house.only_writes("service").await;
    let commits = house.events(other).await.iter().filter(|event| **event == "cutover-committed").count();
    assert_eq!(commits, 1);
}

async fn while_returning() {
    let mut house = House::new(2).await;
    house.granted("cutover", ann()).await;
    house.until_stage(0, "split").await;
    house.manners(|manners| manners.fences_pass = false);
    house.granted("rollback", json!({ "actor": "ann", "hold_ms": 20_000 })).await;
    house.until_gate("service", "2 true").await;
    let other = house.kill_the_coordinator().await;
    house.until(other, "aborted", |slice| slice.epoch == Epoch(3) && slice.hold.is_none()).await;
    house.only_writes("service").await;
}

/// Logging in while writes wait would make them wait longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_has_its_sessions_before_writes_are_held() {
    let house = House::new(1).await;
    house.granted("cutover", ann()).await;
    house.until_stage(0, "split").await;
    house.manners(|manners| manners.fences_pass = false);
    house.granted("rollback", json!({ "actor": "ann", "hold_ms": 20_000 })).await;
    house.until_gate("service", "2 true").await;
    let sessions = "SELECT count(*) >= 2, count(*) FILTER (WHERE backend_start > (SELECT max(at) FROM strangler.journal \
                    WHERE event->>'event' = 'rollback-started')) FROM pg_stat_activity \
                    WHERE application_name = 'strangler coordinator'";
    assert_eq!(house.world.monolith(sessions), "t|0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_hears_no_agent_leaves_a_return_to_another() {
    let mut house = House::new(2).await;
    house.manners(|manners| manners.alone = Some(1));
    // Longer than agents count as live.
    tokio::time::sleep(Duration::from_secs(6)).await;
    house.granted("cutover", json!({ "actor": "ann", "for_ms": 5_000 })).await;
    house.until_stage(0, "split").await;
    house.controllers[0].kill();
    // Longer than a lease.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let leases = "SELECT count(*)::text FROM strangler.slice WHERE lease_until > clock_timestamp()";
    assert_eq!(house.world.monolith(leases), "0");
    house.manners(|manners| manners.alone = None);
    house.until_stage(1, "following").await;
    house.only_writes("monolith").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_controllers_exactly_one_cuts_over() {
    let house = House::new(2).await;
    let (first, second) = tokio::join!(house.wish(0, "cutover", ann()), house.wish(1, "cutover", ann()));
    let mut statuses = [first.0, second.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT], "{first:?} {second:?}");
    house.until_stage(0, "split").await;
    house.until_stage(1, "split").await;
    assert_eq!(
        house.events(0).await,
        ["cutover-prepared", "cutover-started", "cutover-committed", "released"]
    );
    // Whoever drives sees what the other one journals.
    for n in [0, 1] {
        assert_eq!(house.wish(n, "rollback", ann()).await.0, StatusCode::OK);
        house.until_stage(n, "following").await;
        house.only_writes("monolith").await;
        assert_eq!(
            house.wish(n, "cutover", json!({ "actor": "ann", "for_ms": 60_000 })).await.0,
            StatusCode::OK
        );
        house.until_stage(1 - n, "split").await;
    }
    house.only_writes("service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_takes_nothing_back() {
    let house = House::new(1).await;
    let address = house.controllers[0].base.trim_start_matches("http://").to_owned();
    let wish = ann().to_string();
    let request = format!(
        "POST /v1/slices/orders/cutover HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer right\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{wish}",
        wish.len()
    );
    let mut asked = tokio::net::TcpStream::connect(&address).await.unwrap();
    asked.write_all(request.as_bytes()).await.unwrap();
    // The wish is taken; the controller looks at the databases first, and nobody is there for the answer.
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(asked);
    house.until_stage(0, "split").await;
    house.only_writes("service").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_stopped_leaves_no_slice_without_an_owner() {
    // No other one might drive it.
    let mut house = House::new(1).await;
    house.manners(|manners| manners.fences_pass = false);
    house.granted("cutover", json!({ "actor": "ann", "hold_ms": 20_000 })).await;
    house.until_gate("monolith", "1 true").await;
    house.controllers[0].stop_in_order();
    house.until_gate("monolith", "2 false").await;
    house.only_writes("monolith").await;
    let why = "SELECT event->>'why' FROM strangler.journal WHERE event->>'event' = 'cutover-aborted'";
    assert_eq!(house.world.cluster.sql("monolith", why), "the controller was stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_turns_gates_that_a_failover_turned_and_tells_those_that_know_more() {
    let house = House::new(1).await;
    let reconcile = async || -> Vec<Reconciled> {
        let (status, done) = house.wish(0, "reconcile", json!({})).await;
        assert_eq!(status, StatusCode::OK, "{done}");
        serde_json::from_value(done).unwrap()
    };
    let nothing = Reconciled { slice: house.world.slice.clone(), did: Vec::new(), findings: Vec::new() };
    assert_eq!(reconcile().await, std::slice::from_ref(&nothing));
    house.granted("cutover", ann()).await;
    house.until_stage(0, "split").await;
    assert_eq!(reconcile().await, [nothing]);
    // The monolith's database lost what fenced it.
    let turn = |database: &str, table: &str, how: &str, gate: &str| {
        let turned = format!(
            "ALTER TABLE {table} {how} TRIGGER strangler_gate_orders; UPDATE strangler.gate SET {gate}"
        );
        house.world.cluster.sql(database, &turned)
    };
    turn("monolith", "orders", "DISABLE", "is_shut = false");
    assert_eq!(house.write("monolith").await, None);
    let done = reconcile().await;
    assert_eq!(done[0].did, ["the monolith's gate is shut again, at epoch 1"], "{done:?}");
    house.only_writes("service").await;
    turn("service", "orders", "ENABLE ALWAYS", "is_shut = true");
    assert_eq!(reconcile().await[0].did, ["the service's gate is open again, at epoch 1"]);
    house.only_writes("service").await;
    house.world.service("UPDATE strangler.gate SET epoch = 9");
    let done = reconcile().await;
    assert_eq!((done[0].did.len(), done[0].findings[0].code), (0, Code::GateAhead), "{done:?}");
}
