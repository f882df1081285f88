//! Who writes a slice's tables: the triggers that note it, on a real server, as an ordinary role.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod world;

use migrations::access::{Accesses, Evidence};
use migrations::code::Code;
use migrations::plan::Slice;
use migrations::preflight;
use std::time::Duration;
use tokio_postgres::{Client, NoTls};
use world::{World, refusal};

const INSERT: &str = "INSERT INTO orders (customer_id, total) VALUES (1, 12.5)";

fn slice(world: &World) -> &Slice {
    &world.plan.slices[&world.slice]
}

/// A session of the application's role under this name.
async fn application(world: &World, name: &str) -> Client {
    let url = format!("{}?application_name={name}", world::url(&world.cluster, "app", "monolith"));
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn observe(world: &World, time: Duration) -> Accesses {
    controller::writers(&world.plan, slice(world), Some(time), false, std::future::pending()).await.unwrap()
}

async fn known(world: &World) -> Accesses {
    controller::writers(&world.plan, slice(world), None, false, std::future::pending()).await.unwrap()
}

fn enabled(world: &World) -> String {
    let sql = "SELECT string_agg(tgrelid::regclass || ' ' || tgenabled::text, ', ' ORDER BY tgrelid::regclass::text) FROM pg_trigger
                WHERE tgname = 'strangler_writers_orders'";
    world.monolith(sql)
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_are_noted_by_role_application_and_statement_while_they_are_watched() {
    let world = World::new("").await;
    world.install().await;
    let (nightly, shop) = (application(&world, "nightly").await, application(&world, "shop").await);
    nightly.batch_execute(INSERT).await.unwrap();
    assert_eq!(known(&world).await, Accesses::default(), "nobody watches");
    let watching = observe(&world, Duration::from_secs(4));
    let writing = async {
        while enabled(&world) != "lines A, lines_1 A, orders A" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for total in 1..4 {
            let sql = format!("INSERT INTO orders (customer_id, total) VALUES ({total}, {total}), (7, 1)");
            nightly.batch_execute(&sql).await.unwrap();
            shop.execute("UPDATE orders SET note = $1 WHERE id = 1", &[&"it's"]).await.unwrap();
        }
        shop.batch_execute("INSERT INTO lines_1 VALUES (1, 1, 1)").await.unwrap();
        shop.batch_execute("BEGIN; DELETE FROM orders; ROLLBACK").await.unwrap();
        let us = world.client("strangler", "monolith").await;
        us.batch_execute(INSERT).await.unwrap();
    };
    let (accesses, ()) = tokio::join!(watching, writing);
    assert!(accesses.was_watched);
    let mut noted: Vec<_> = accesses.seen.iter().filter(|one| one.by == Evidence::Trigger).collect();
    noted.sort_by_key(|one| (one.name().to_owned(), one.table.clone()));
    let told: Vec<_> = noted
        .iter()
        .map(|one| (one.role.as_str(), one.name(), one.table.as_str(), one.query.as_str()))
        .collect();
    let wanted = [
        ("app", "nightly", "public.orders", "INSERT INTO orders (customer_id, total) VALUES (?)"),
        ("app", "shop", "public.lines", "INSERT INTO lines_1 VALUES (?)"),
        ("app", "shop", "public.orders", "UPDATE orders SET note = ? WHERE id = ?"),
    ];
    assert_eq!(told, wanted);
    assert!(noted.iter().all(|one| one.times > 0 && one.seconds_ago.is_some_and(|ago| ago < 60)));
    assert_eq!(enabled(&world), "lines D, lines_1 D, orders D");
    let unmarked = preflight::unmarked(slice(&world), &accesses);
    assert_eq!(unmarked.iter().map(|one| one.code).collect::<Vec<_>>(), [Code::WriterUnmarked; 2]);
    assert!(unmarked.iter().any(|one| one.remedy.contains("`writers: { nightly: moved }`")), "{unmarked:?}");
    let marks = |writers: &str| {
        let marked = format!("triggers: {{ audit: skip }}\n    writers: {writers}");
        let plan = world.plan_with("triggers: { audit: skip }", &marked);
        preflight::unmarked(&plan.slices[&world.slice], &accesses).len()
    };
    assert_eq!(marks("{ nightly: disabled }"), 1);
    assert_eq!(marks("{ nightly: disabled, shop: moved }"), 0);
    assert_eq!(marks("{ app: moved }"), 0, "a role stands for all its applications");
    let forgotten =
        controller::writers(&world.plan, slice(&world), None, true, std::future::pending()).await.unwrap();
    assert!(forgotten.seen.is_empty() && forgotten.was_watched, "{forgotten:?}");
    world.uninstall().await.unwrap();
    assert_eq!(enabled(&world), "");
    assert_eq!(refusal(&nightly, INSERT).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_client_died_ends_by_itself() {
    let world = World::new("").await;
    world.install().await;
    let nightly = application(&world, "nightly").await;
    let dies = tokio::time::timeout(Duration::from_millis(800), observe(&world, Duration::from_secs(2)));
    assert!(dies.await.is_err());
    assert_eq!(enabled(&world), "lines A, lines_1 A, orders A");
    nightly.batch_execute(INSERT).await.unwrap();
    let count = || world.monolith("SELECT count(*)::text FROM strangler.writer");
    assert_eq!(count(), "1");
    tokio::time::sleep(Duration::from_secs(2)).await;
    nightly.batch_execute("DELETE FROM orders").await.unwrap();
    assert_eq!((count().as_str(), enabled(&world).as_str()), ("1", "lines A, lines_1 A, orders A"));
    assert_eq!(known(&world).await.seen.len(), 1);
    assert_eq!(enabled(&world), "lines D, lines_1 D, orders D", "the next look switches them off");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_of_an_application_fails_or_waits_because_it_is_noted() {
    let world = World::new("").await;
    world.install().await;
    let us = world.client("strangler", "monolith").await;
    let on = "SELECT strangler.watch_writers('orders', clock_timestamp() + interval '1 h')";
    us.batch_execute(on).await.unwrap();
    let (one, other) = (application(&world, "shop").await, application(&world, "shop").await);
    other.batch_execute("SET lock_timeout = '500ms'").await.unwrap();
    // Two transactions of one writer, side by side, twice: nothing was noted before, and something was.
    for _ in 0..2 {
        one.batch_execute(&format!("BEGIN; {INSERT}")).await.unwrap();
        assert_eq!(refusal(&other, INSERT).await, None);
        one.batch_execute("COMMIT").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    // Old snapshots, side by side.
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for client in [&one, &other] {
            let begin = format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM customers");
            client.batch_execute(&begin).await.unwrap();
        }
        for _ in 0..50 {
            for client in [&one, &other] {
                client.batch_execute(INSERT).await.unwrap();
            }
        }
        for client in [&one, &other] {
            client.batch_execute("COMMIT").await.unwrap();
        }
    }
    let noted =
        world.monolith("SELECT count(DISTINCT id)::text FROM strangler.writer WHERE application = 'shop'");
    assert_eq!(noted, "2", "with and without BEGIN before it");
    // What notes is broken in every way that its owner could break it.
    let breaks = [
        "ALTER TABLE strangler.writer ADD CHECK (false) NOT VALID",
        "ALTER TABLE strangler.writer RENAME seconds TO times",
        "DROP TABLE strangler.writer",
        "DROP TABLE strangler.writer_watch",
        "DROP FUNCTION strangler.without_literals(text)",
    ];
    for statement in breaks {
        world.monolith(statement);
        let fresh = application(&world, "fresh").await;
        assert_eq!(refusal(&fresh, INSERT).await, None, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_noted_is_bounded() {
    let world = World::new("").await;
    world.install().await;
    let us = world.client("strangler", "monolith").await;
    us.batch_execute("SELECT strangler.watch_writers('orders', clock_timestamp() + interval '1 h')")
        .await
        .unwrap();
    let fill = "INSERT INTO strangler.writer (id, slice, on_table, role, application, query)
                SELECT n, 'other', 't', 'r', 'a', repeat('x', 160) FROM generate_series(1, 20000) n";
    us.batch_execute(fill).await.unwrap();
    let size = || -> u64 {
        let sql = "SELECT pg_relation_size('strangler.writer')::text";
        world.monolith(sql).parse().unwrap()
    };
    let before = size();
    assert!(before >= 4 << 20, "{before}");
    let app = application(&world, "shop").await;
    for n in 0..50 {
        app.batch_execute(&format!("WITH v{n}x AS (SELECT 1) UPDATE orders SET note = 'x'")).await.unwrap();
    }
    assert_eq!(size(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_sessions_show_writers_and_readers() {
    let world = World::new("-c shared_preload_libraries=pg_stat_statements").await;
    world.monolith("CREATE EXTENSION pg_stat_statements");
    world.install().await;
    let (shop, report) = (application(&world, "shop").await, application(&world, "report").await);
    shop.batch_execute(INSERT).await.unwrap();
    world.monolith("COPY public.orders (id) TO STDOUT");
    report
        .batch_execute("BEGIN; SELECT count(*) FROM public.orders o JOIN lines l ON l.order_id = o.id")
        .await
        .unwrap();
    shop.batch_execute("BEGIN; DELETE FROM orders WHERE id = 1").await.unwrap();
    let writers = known(&world).await;
    let by = |by: Evidence| writers.seen.iter().filter(move |one| one.by == by).collect::<Vec<_>>();
    assert!(writers.has_statements && by(Evidence::Trigger).is_empty(), "{writers:#?}");
    let calls: Vec<_> = by(Evidence::Statements).iter().map(|one| one.query.as_str()).collect();
    assert!(calls.iter().any(|query| query.starts_with("INSERT INTO orders")), "{writers:#?}");
    assert!(calls.iter().all(|query| !query.contains("SELECT")), "{writers:#?}");
    let is_ours = by(Evidence::Statements).iter().all(|one| one.role == "app");
    assert!(is_ours, "a backup writes nothing: {writers:#?}");
    let sessions: Vec<_> = by(Evidence::Session).iter().map(|one| one.name()).collect();
    assert_eq!(sessions, ["shop"], "{writers:#?}");
    let unmarked = preflight::unmarked(slice(&world), &writers);
    assert!(unmarked.len() == 1 && unmarked[0].remedy.contains("`writers: { app: moved }`"), "{unmarked:?}");

    let time = Duration::from_millis(300);
    let readers =
        controller::readers(&world.plan, slice(&world), time, std::future::pending()).await.unwrap();
    let sessions = readers.seen.iter().filter(|one| one.by == Evidence::Session && one.name() == "report");
    let mut tables: Vec<&str> = sessions.map(|one| one.table.as_str()).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["public.lines", "public.orders"], "{readers:#?}");
    let statements = readers.seen.iter().filter(|one| one.by == Evidence::Statements);
    assert!(statements.clone().any(|one| one.query.contains("JOIN lines")), "{readers:#?}");
    let mut copies = statements.clone().filter(|one| one.query.starts_with("COPY"));
    assert!(copies.any(|one| one.role == "postgres"), "{readers:#?}");
    assert!(statements.clone().all(|one| !one.query.starts_with("DELETE")), "{readers:#?}");
}
