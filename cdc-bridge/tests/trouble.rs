//! What the bridge does when something is wrong: it stops where it must, says why, and loses nothing.

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::{session, there};
use house::one_table::{ALL, PLAN, SINK, SOURCE, SUMS, following};
use lab::Cluster;
use link::Link;
use migrations::code::Code;
use migrations::control::{Condition, LaneReport};
use migrations::lsn::Of;
use migrations::stage::Event;
use std::time::Duration;

const SLOTS: &str = "SELECT coalesce(string_agg(slot_name, ' '), '') FROM pg_replication_slots";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_applied_stops_the_slice_until_it_is_fixed_or_skipped() {
    let house = following().await;
    house.at_sink("ALTER TABLE orders ADD CHECK (note <> 'bad')");
    house.at_source(
        "BEGIN; INSERT INTO orders VALUES (2000, 'good'); INSERT INTO orders VALUES (2001, 'bad'); COMMIT",
    );
    let (finding, position) = house.stopped(&there()).await;
    assert_eq!(finding.code, Code::SinkRefusedRow);
    assert!(finding.message.contains("id=2001") && finding.message.contains("check constraint"), "{finding}");
    assert_eq!(house.at_sink("SELECT count(*) FROM orders WHERE id >= 2000"), "0", "half a transaction");
    house.decide(Event::Resumed { skip: Some(Of::monolith(position.unwrap())) });
    house.barrier().await;
    assert_eq!(house.at_sink("SELECT id FROM orders WHERE id >= 2000"), "2000");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_missing_in_the_sink_stops_the_slice() {
    let house = following().await;
    // The gate keeps every other writer out; strangler's own role is the only way around it.
    house.at_sink("SET SESSION AUTHORIZATION strangler; DELETE FROM orders WHERE id = 7");
    house.at_source("UPDATE orders SET note = 'x' WHERE id IN (6, 7, 8)");
    let (finding, _) = house.stopped(&there()).await;
    assert!(finding.message.contains("id=7") && finding.message.contains("is not there"), "{finding}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_gate_is_shut_and_the_monoliths_is_open() {
    let house = following().await;
    let refused = std::panic::catch_unwind(|| {
        house.at_sink("SET ROLE app; INSERT INTO orders VALUES (5000, 'x')");
    });
    assert!(refused.is_err(), "the service wrote to tables that the monolith owns");
    house.at_source("SET ROLE app; INSERT INTO orders VALUES (5000, 'x')");
    house.same(ALL, ALL).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lag_is_unknown_while_the_source_is_down_or_stands_still() {
    let house = following().await;
    let measured = async || {
        let url = format!("http://{}/metrics", house.plan.bridge.listen);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    };
    let knows = |report: &LaneReport| report.lag_ms.is_some() && report.lag_bytes.is_some();
    let is_blind = |report: &LaneReport| {
        report.condition == Condition::Following
            && (report.lag_ms, report.lag_bytes) == (None, None)
            && report.lag_unknown.is_some()
    };
    for (goes, comes) in
        [(Cluster::freeze as fn(&Cluster), Cluster::thaw as fn(&Cluster)), (Cluster::kill, Cluster::restart)]
    {
        house.until("knowing its lag", knows).await;
        let text = measured().await;
        assert!(
            text.contains("strangler_stream_lag_ms{") && text.contains("strangler_stream_blind{"),
            "{text}"
        );
        goes(&house.source);
        house.until("blind", is_blind).await;
        let text = measured().await;
        assert!(!text.contains("lag_ms{") && !text.contains("lag_bytes{"), "{text}");
        assert!(text.contains("strangler_stream_blind{direction=\"forward\",slice=\"orders\"} 1"), "{text}");
        comes(&house.source);
    }
    house.until("knowing its lag again", knows).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bridge_is_kept_out_and_says_so() {
    let house = following().await;
    let mut plan = house.plan.clone();
    plan.bridge.listen = format!("127.0.0.1:{}", lab::free_port().unwrap());
    let mut link = house.link();
    link.state_dir = house.folder.path().join("second");
    let second = tokio::spawn(cdc_bridge::serve(plan, link, std::future::pending()));
    house
        .until_agent("refused", |findings| {
            findings.contains("another bridge") || findings.contains("another log")
        })
        .await;
    second.abort();
    house.at_source("UPDATE orders SET note = 'still first'");
    house.same(ALL, ALL).await;
    house.stop().await;
}

/// Two folders with one log: a copy of the embedded one, made while the first bridge stood.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_with_a_copy_of_the_log_says_where_the_other_one_is_and_loses_nothing() {
    let house = following().await;
    house.at_source("UPDATE orders SET note = 'copied' WHERE id = 1");
    house.same(ALL, ALL).await;
    house.stop().await;
    // What the bridge wrote last reaches the file.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = house.folder.path().join("second");
    std::fs::create_dir(&second).unwrap();
    for entry in std::fs::read_dir(&house.link().state_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "redb") {
            std::fs::copy(&path, second.join(path.file_name().unwrap())).unwrap();
        }
    }
    let end = house.at_source("SELECT pg_current_wal_lsn()");
    house.start();
    house.at_source("UPDATE orders SET note = 'beyond the copy'");
    house.same(ALL, ALL).await;
    // From now on the source keeps nothing that the copy lacks.
    let confirmed = format!("SELECT bool_and(confirmed_flush_lsn > '{end}') FROM pg_replication_slots");
    house.until_sql(true, &confirmed, "t").await;
    let attempt = house.attempt();
    let mut plan = house.plan.clone();
    plan.bridge.listen = format!("127.0.0.1:{}", lab::free_port().unwrap());
    let link = Link { state_dir: second, ..house.link() };
    let other = tokio::spawn(cdc_bridge::serve(plan, link, std::future::pending()));
    house
        .until_agent("told of the other bridge", |said| {
            said.contains("with the same log or a copy of it: process ")
                && said.contains("(strangler capture)")
                && said.contains("from 127.0.0.1")
                && said.contains("leave the slot as it is")
        })
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(house.attempt(), attempt, "the copy began anew");
    other.abort();
    house.at_source("UPDATE orders SET note = 'still first'");
    house.same(ALL, ALL).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_leaves_nothing_behind() {
    let house = following().await;
    assert!(house.at_source(SLOTS).contains("strangler_shop_"));
    house.decide(Event::SyncDropped);
    house.until("idle", |report| report.condition == Condition::Idle).await;
    house.until_sql(true, SLOTS, "").await;
    house.until_sql(false, "SELECT count(*) FROM strangler.stream", "0").await;
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'strangler%'";
    assert_eq!(house.at_source(triggers), "0");
    assert_eq!(house.at_sink(triggers), "0");
    assert_eq!(house.at_sink("SELECT count(*) FROM orders"), "0");
    house.stop().await;
}

/// The rows and the shut gate are removed even if the kept row is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_any_more_is_still_removed() {
    let house = following().await;
    house.stop().await;
    let damage = "UPDATE strangler.stream SET shapes = '7'; ALTER TABLE strangler.stream DROP COLUMN mapping";
    house.at_sink(damage);
    house.decide(Event::SyncDropped);
    house.start();
    house.until("idle", |report| report.condition == Condition::Idle).await;
    let left = "SELECT (SELECT count(*) FROM strangler.stream) + (SELECT count(*) FROM orders) + \
                (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'strangler%')";
    assert_eq!(house.at_sink(left), "0");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_a_key_only_includes_is_no_part_of_it() {
    let table = "CREATE TABLE orders (id bigint, note text, PRIMARY KEY (id) INCLUDE (note));";
    let filled = format!("{table} INSERT INTO orders SELECT g, 'n' || g FROM generate_series(1, 9) g;");
    let house = House::following(&filled, table, PLAN).await;
    house.at_source("DELETE FROM orders WHERE id = 1; UPDATE orders SET note = 'other' WHERE id = 2");
    house.at_source("UPDATE orders SET id = 20 WHERE id = 3");
    house.same(ALL, ALL).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_slice_waits_and_a_resumed_one_catches_up() {
    let house = following().await;
    house.decide(Event::Paused);
    house.until("paused", |report| report.condition == Condition::Paused).await;
    house.at_source("UPDATE orders SET note = 'later'");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(house.at_sink("SELECT count(*) FROM orders WHERE note = 'later'"), "0");
    house.decide(Event::Resumed { skip: None });
    house.same(ALL, ALL).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_was_dropped_and_added_again_stops_the_slice() {
    let house = following().await;
    house.at_source("ALTER TABLE orders DROP COLUMN note; ALTER TABLE orders ADD COLUMN note text");
    house.at_source("UPDATE orders SET note = 'after' WHERE id = 1");
    let (finding, _) = house.stopped(&there()).await;
    assert!(finding.message.contains("dropped and added again"), "{finding}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_up_to_the_limit_arrive_and_a_larger_one_is_a_finding() {
    let house = House::following(SOURCE, SINK, &format!("{PLAN}limits: {{ max_row: 1MiB }}")).await;
    house.at_source("INSERT INTO orders VALUES (3000, repeat('x', 1000000))");
    house.same(SUMS, SUMS).await;
    house.at_source("INSERT INTO orders VALUES (3001, repeat('x', 30000000))");
    house.until_agent("told", |findings| findings.contains("capture.row-too-large")).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_source_and_a_killed_sink_come_back_and_nothing_is_lost() {
    let house = following().await;
    for round in 0..2 {
        house.at_source(&format!("UPDATE orders SET note = 'a{round}'"));
        house.sink.kill();
        house.at_source(&format!(
            "INSERT INTO orders SELECT g, 'r' FROM generate_series({0}, {0} + 500) g",
            10_000 * (round + 1)
        ));
        house.sink.restart();
        house.same(ALL, ALL).await;
        house.source.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        house.source.restart();
        house.at_source(&format!("DELETE FROM orders WHERE id = {round} + 1"));
        house.same(ALL, ALL).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_outside_the_plan_goes_on_and_a_dropped_one_stops() {
    let house = following().await;
    house.at_source(
        "ALTER TABLE orders ADD COLUMN extra text; UPDATE orders SET extra = 'x', note = 'n' WHERE id < 50",
    );
    house.same(ALL, ALL).await;
    house.stop().await;
    house.start();
    house.at_source("UPDATE orders SET extra = 'y', note = 'm' WHERE id < 50");
    house.same(ALL, ALL).await;
    house.at_source("ALTER TABLE orders ADD COLUMN helpful integer NOT NULL DEFAULT 0, ADD COLUMN at timestamptz NOT NULL DEFAULT now()");
    house.at_source("ALTER TABLE orders ALTER COLUMN helpful DROP DEFAULT");
    house.at_source(
        "INSERT INTO orders VALUES (7000, 'new', 'x', 1); UPDATE orders SET note = 'o' WHERE id < 20",
    );
    house.same(ALL, ALL).await;
    house.at_source("ALTER TABLE orders DROP COLUMN note; UPDATE orders SET extra = 'z' WHERE id = 1");
    let (finding, _) = house.stopped(&there()).await;
    assert!(finding.message.contains("note"), "{finding}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_column_stops_the_slice_and_a_restart_does_not_let_it_pass() {
    let house = following().await;
    house.at_source("ALTER TABLE orders RENAME note TO remark; INSERT INTO orders VALUES (9000, 'lost?')");
    for _ in 0..2 {
        let (finding, _) = house.stopped(&there()).await;
        assert!(finding.code == Code::SourceSchemaChanged && finding.message.contains("note"), "{finding}");
        assert_eq!(house.at_sink("SELECT count(*) FROM orders WHERE id = 9000"), "0");
        house.stop().await;
        house.decide(Event::Resumed { skip: None });
        house.start();
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_too_long_for_the_service_stops_the_slice_rather_than_being_cut() {
    let sink = "CREATE TABLE orders (id bigint PRIMARY KEY, note varchar(12))";
    let house = House::following(SOURCE, sink, PLAN).await;
    house.at_source("UPDATE orders SET note = 'twelve chars' WHERE id = 1");
    house.same(ALL, ALL).await;
    house.at_source("UPDATE orders SET note = 'thirteen char' WHERE id = 1");
    let (finding, _) = house.stopped(&there()).await;
    assert!(finding.message.contains("too long"), "{finding}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_refer_to_each_other_in_a_circle_are_copied_and_followed() {
    let tables = "
        CREATE TABLE orders (id bigint PRIMARY KEY, note text, item bigint);
        CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint REFERENCES orders DEFERRABLE);
        ALTER TABLE orders ADD FOREIGN KEY (item) REFERENCES items DEFERRABLE;";
    let rows = "BEGIN; SET CONSTRAINTS ALL DEFERRED;
        INSERT INTO orders SELECT g, 'n', g FROM generate_series(1, 500) g;
        INSERT INTO items SELECT g, g FROM generate_series(1, 500) g; COMMIT;";
    let plan = PLAN.replace("[public.orders]", "[public.orders, public.items]");
    let house = House::following(&format!("{tables}{rows}"), tables, &plan).await;
    house.at_source(
        &rows.replace("g, 'n', g", "g + 1000, 'n', g + 1000").replace("g, g FROM", "g + 1000, g + 1000 FROM"),
    );
    house.at_source("BEGIN; SET CONSTRAINTS ALL DEFERRED; DELETE FROM items WHERE id = 7; DELETE FROM orders WHERE id = 7; COMMIT");
    house.same(ALL, ALL).await;
    house
        .same("SELECT id, order_id FROM items ORDER BY 1", "SELECT id, order_id FROM items ORDER BY 1")
        .await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_given_up_before_it_began_leaves_no_gate() {
    let house = House::new(SOURCE, SINK, PLAN).await;
    // Nobody can make a trigger meanwhile; without a transaction id it does not keep the slot from being made.
    let writer = session(&house.source.url("postgres", "shop")).await;
    writer.batch_execute("BEGIN; LOCK TABLE orders IN ROW EXCLUSIVE MODE").await.unwrap();
    house.start();
    house.decide(Event::SyncStarted { replace: false });
    house.until("begun", |report| report.condition != Condition::Idle).await;
    let shut = "SELECT count(*) FROM strangler.gate WHERE is_shut";
    house.until_sql(false, shut, "1").await;
    house.decide(Event::SyncDropped);
    writer.batch_execute("COMMIT").await.unwrap();
    house.until("idle", |report| report.condition == Condition::Idle).await;
    let left = "SELECT (SELECT count(*) FROM strangler.gate) + (SELECT count(*) FROM strangler.stream)";
    assert_eq!(house.at_sink(left), "0");
    assert_eq!(house.at_source("SELECT count(*) FROM strangler.gate"), "0");
    house.at_sink("SET ROLE app; INSERT INTO orders VALUES (1, 'the service''s own')");
    house.stop().await;
}

/// Rows that exist nowhere else are deleted only if the operator asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_service_are_not_deleted_unasked() {
    let own = format!("{SINK} INSERT INTO orders VALUES (1, 'its own')");
    let house = House::new(SOURCE, &own, PLAN).await;
    house.start();
    house.decide(Event::SyncStarted { replace: false });
    let stopped = |report: &LaneReport| match &report.condition {
        Condition::Stopped { finding, .. } => finding.code == Code::SinkNotEmpty,
        _ => false,
    };
    house.until("stopped", stopped).await;
    house.decide(Event::SyncDropped);
    house.until("idle", |report| report.condition == Condition::Idle).await;
    assert_eq!(house.at_sink("SELECT note FROM orders"), "its own");
    house.decide(Event::SyncStarted { replace: true });
    house.until("following", |report| report.condition == Condition::Following).await;
    house.same(ALL, ALL).await;
    house.stop().await;
}

/// Tables of the service that refer to the slice's, as a framework makes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_service_that_refers_to_the_copy_neither_stops_it_nor_loses_rows() {
    let own =
        "CREATE TABLE own (id int PRIMARY KEY, of bigint REFERENCES orders DEFERRABLE INITIALLY DEFERRED);
               CREATE TABLE strict (id int PRIMARY KEY, of bigint REFERENCES orders ON DELETE RESTRICT);";
    let house = House::following(SOURCE, &format!("{SINK}{own}"), PLAN).await;
    house.at_source("TRUNCATE orders; INSERT INTO orders VALUES (1, 'anew')");
    house.same(ALL, ALL).await;
    house.decide(Event::SyncDropped);
    house.until("idle", |report| report.condition == Condition::Idle).await;
    assert_eq!(house.at_sink("SELECT count(*) FROM orders"), "0");
    house.decide(Event::SyncStarted { replace: false });
    house.until("following", |report| report.condition == Condition::Following).await;
    for own in ["own", "strict"] {
        house.at_sink(&format!("INSERT INTO {own} VALUES (1, 1)"));
        house.decide(Event::SyncDropped);
        let (finding, _) = house.stopped(&there()).await;
        assert_eq!(finding.code, Code::SinkReferenced, "{finding}");
        assert!(finding.message.contains(own), "{finding}");
        assert_eq!(house.at_sink(&format!("SELECT count(*) FROM {own}")), "1");
        house.at_sink(&format!("DELETE FROM {own}"));
        house.decide(Event::SyncStarted { replace: false });
        house.until("following", |report| report.condition == Condition::Following).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_a_copy_up_deletes_no_row_of_another_table() {
    let own = "CREATE TABLE own (id int PRIMARY KEY, of bigint REFERENCES orders ON DELETE CASCADE);";
    let house = House::following(SOURCE, &format!("{SINK}{own}"), PLAN).await;
    house.at_sink("INSERT INTO own SELECT 1, min(id) FROM orders");
    house.decide(Event::SyncDropped);
    let (finding, _) = house.stopped(&there()).await;
    assert_eq!(finding.code, Code::SinkReferenced, "{finding}");
    assert_eq!(house.at_sink("SELECT count(*) FROM own"), "1");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_came_to_the_slice_later_keeps_its_rows_when_the_copy_is_dropped() {
    // One with rows of the service's own, and one that is empty and refers to what is emptied.
    let later = "CREATE TABLE notes (id int PRIMARY KEY, note text); \
                 CREATE TABLE lines (id int PRIMARY KEY, of bigint);";
    let plan = PLAN.replace("[public.orders]", "[public.orders, public.notes, public.lines]");
    let sink = format!("{SINK}{later} INSERT INTO notes VALUES (1, 'its own')");
    let mut house = House::new(&format!("{SOURCE}{later}"), &sink, &plan).await;
    let whole = house.plan.clone();
    house.plan.slices.get_mut(&house::slice()).unwrap().tables.truncate(1);
    house.start();
    house.follow().await;
    house.stop().await;
    house.at_sink("ALTER TABLE lines ADD FOREIGN KEY (of) REFERENCES orders");
    house.plan = whole;
    house.start();
    house.stopped(&there()).await;
    house.decide(Event::SyncDropped);
    house.until("idle", |report| report.condition == Condition::Idle).await;
    assert_eq!(house.at_sink("SELECT count(*) FROM orders"), "0");
    assert_eq!(house.at_sink("SELECT note FROM notes"), "its own");
    house.stop().await;
}

/// `array_nulls = off` made text of a NULL, and a limit on silent sessions made a first copy begin again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_role_and_database_change_no_value_and_end_no_session() {
    let source = SOURCE.replace("note text)", "note text, words text[], at timestamptz, ratio float8)");
    let sink = SINK.replace("note text)", "note text, words text[], at timestamptz, ratio float8)");
    let house = House::new(&source, &sink, PLAN).await;
    house.at_source("UPDATE orders SET words = '{a,NULL,\"NULL\"}', at = now(), ratio = 1.0 / id");
    let hostile = [
        "array_nulls = off",
        "datestyle = 'SQL, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "extra_float_digits = -5",
        "idle_session_timeout = '700ms'",
        "idle_in_transaction_session_timeout = '700ms'",
        "statement_timeout = '2s'",
        "lock_timeout = '10ms'",
        "default_transaction_read_only = on",
        "default_transaction_isolation = 'serializable'",
        "synchronous_commit = off",
        "transform_null_equals = on",
    ];
    for setting in hostile {
        house.at_source(&format!("ALTER ROLE strangler SET {setting}"));
        house.at_sink(&format!("ALTER ROLE strangler SET {setting}"));
    }
    house.start();
    house.follow().await;
    house
        .at_source("INSERT INTO orders VALUES (5000, 'x', '{NULL,b}', '2020-02-03 04:05:06.123456+00', 0.1)");
    house.barrier().await;
    // Longer than the limits on silence.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    house.at_source("UPDATE orders SET words = '{c,NULL}' WHERE id < 10");
    house.barrier().await;
    let all = "SELECT sum(hashtext(o::text)) || ' ' || count(*) || ' ' || count(*) FILTER (WHERE words[2] IS NULL) \
               FROM orders o";
    assert_eq!(house.at_sink(all), house.at_source(all));
    assert!(house.at_source(all).ends_with(" 1001 1000"), "{}", house.at_source(all));
}
