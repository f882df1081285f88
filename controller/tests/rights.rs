//! What applications could do by `install`'s rights, and `install` to applications.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod world;

use migrations::code::Code;
use migrations::problem::Diagnostic;
use migrations::stage::Epoch;
use postgres::gate;
use world::{World, refusal};

const LINES: &str = "      - { from: public.lines, to: public.items, rename: { qty: quantity } }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_checked_late_is_not_published_before_it_is_mended() {
    let mut world = World::new("").await;
    for (database, key) in [("monolith", "PRIMARY KEY DEFERRABLE"), ("service", "PRIMARY KEY")] {
        world.cluster.sql(database, &format!("SET ROLE app; CREATE TABLE late (id int {key}, note text)"));
    }
    world.plan =
        world.plan_with("reference: [public.customers]", "reference: [public.customers, public.late]");
    let lines = world.install().await;
    assert!(lines.iter().any(|line| line.contains("not published") && line.contains("late")), "{lines:?}");
    let app = world.client("app", "monolith").await;
    let writes = "INSERT INTO late VALUES (1, 'a'); UPDATE late SET note = 'b'; DELETE FROM late";
    assert_eq!(refusal(&app, writes).await, None);
    let found = world.findings().await;
    let late = found.iter().find(|finding| finding.code == Code::SourceLatePrimaryKey).unwrap();
    let statement = late.remedy.split_once("database: ").unwrap().1;
    world.monolith(statement);
    world.install().await;
    assert_eq!(world.codes().await, []);
    assert_eq!(refusal(&app, writes).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_functions_are_not_run_by_the_administrator() {
    let world = World::new("").await;
    for (function, result) in [("cardinality(text[])", "int"), ("array_to_string(text[], text)", "text")] {
        let sql = format!(
            "SET ROLE app; CREATE FUNCTION public.{function} RETURNS {result} LANGUAGE plpgsql AS \
             'BEGIN EXECUTE ''ALTER ROLE app SUPERUSER''; RETURN NULL; END'"
        );
        for database in ["monolith", "service"] {
            world.cluster.sql(database, &sql);
        }
    }
    world.install().await;
    world.uninstall().await.unwrap();
    let is_superuser = "SELECT rolsuper::text FROM pg_roles WHERE rolname = 'app'";
    assert_eq!(world.cluster.sql("postgres", is_superuser), "false");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_somebody_else_made_is_not_used_by_a_superuser() {
    let world = World::new("").await;
    world.monolith("GRANT CREATE ON DATABASE monolith TO app; SET ROLE app; CREATE SCHEMA strangler");
    let error = controller::install(&world.plan, &world.admin, &mut |_| {}).await.unwrap_err();
    assert!(
        error.to_string().contains("belongs to role app") && error.remedy().contains("as app"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_left_its_slice_is_let_go_with_its_rows() {
    let mut world = World::new("").await;
    world.install().await;
    let us = world.client("strangler", "service").await;
    gate::make(&us, &world.slice, Epoch(1)).await.unwrap();
    us.batch_execute(
        "INSERT INTO strangler.stream (slice, direction, filled) VALUES ('orders', 'forward', '[\"public.items\", \"public.orders\"]')",
    )
    .await
    .unwrap();
    let app = world.client("app", "service").await;
    let (items, orders) = ("INSERT INTO items VALUES (1, 1, 1)", "INSERT INTO orders VALUES (1, 1, '', 1)");
    for refused in [items, orders] {
        assert_eq!(refusal(&app, refused).await.as_deref(), Some("STR01"), "{refused}");
    }
    world.plan = world.plan_with(LINES, "");
    world.install().await;
    assert_eq!(refusal(&app, items).await, None);
    assert_eq!(refusal(&app, orders).await.as_deref(), Some("STR01"));
    let filled = "SELECT filled::text FROM strangler.stream";
    assert_eq!(world.service(filled), "[\"public.orders\"]");
    gate::unmake(&us, &world.slice).await.unwrap();
    let left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'strangler%'";
    assert_eq!(world.service(left), "0");
}

/// What strangler's role may do with the application's tables and sequences, what is published, and whether it may read
/// the stream.
const MAY: &str = "
    SELECT concat_ws('; ',
        (SELECT string_agg(relname || ' ' || rights, ', ' ORDER BY relname) FROM (
            SELECT c.relname, string_agg(substr(a.privilege_type, 1, 1), '' ORDER BY a.privilege_type) AS rights
            FROM pg_class c, aclexplode(c.relacl) a
            WHERE a.grantee = 'strangler'::regrole AND c.relnamespace = 'public'::regnamespace GROUP BY 1) AS granted),
        'published ' || (SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables),
        CASE WHEN rolreplication THEN 'replication' END) FROM pg_roles WHERE rolname = 'strangler'";

const READ: &str = "customers S, lines S, lines_1 S, orders S, orders_id_seq S; published customers lines orders; replication";
const WRITE: &str = "customers S, lines DISTU, lines_1 DISTU, orders DISTU, orders_id_seq SUU; \
    published customers lines orders; replication";
const FILL: &str = "customers DISTU, items DISTU, orders DISTU, orders_id_seq SUU";

#[tokio::test(flavor = "multi_thread")]
async fn each_database_can_be_source_and_sink_of_what_has_a_way_back() {
    let mut world = World::new("").await;
    world.install().await;
    world.publish(true).await;
    assert_eq!(world.monolith(MAY), WRITE);
    assert_eq!(world.service(MAY), format!("{FILL}; published items orders; replication"));
    let us = world.client("strangler", "service").await;
    let slot = "SELECT pg_create_logical_replication_slot('strangler_shop_abcd1234', 'pgoutput')";
    us.batch_execute(slot).await.unwrap();
    let us = world.client("strangler", "monolith").await;
    us.batch_execute("INSERT INTO strangler.stream (slice, direction) VALUES ('orders', 'reverse')")
        .await
        .unwrap();

    // A slice that cannot come back needs none of it, and what it had is taken away.
    world.plan =
        world.plan_with("        reverse: { total: \"total_cents / 100.0\" }\n", "        drop: [total]\n");
    world.install().await;
    assert_eq!(world.monolith(MAY), READ);
    assert_eq!(world.service(MAY), format!("{FILL}; replication"), "the role may be read by elsewhere");
    world.uninstall().await.unwrap();
    let left = "SELECT count(*)::text FROM pg_replication_slots";
    assert_eq!(world.service(left), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_only_followed_is_no_source() {
    let mut world = World::new("").await;
    world.plan =
        world.plan_with("        reverse: { total: \"total_cents / 100.0\" }\n", "        drop: [total]\n");
    let service = world.plan.services.keys().next().unwrap().clone();
    let scripts =
        migrations::sql::install(&world.plan, &migrations::sql::Database::Service(service)).unwrap();
    let text: Vec<String> = scripts.into_iter().map(|script| script.sql).collect();
    world.service(&text.join("\n"));
    assert_eq!(world.service(MAY), FILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_gives_functions_to_nobody_has_gates_all_the_same() {
    let world = World::new("").await;
    for database in ["monolith", "service"] {
        world.cluster.sql(database, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC");
    }
    world.install().await;
    for database in ["monolith", "service"] {
        let us = world.client("strangler", database).await;
        gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
        world.stands("cutting", 1);
        gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
        gate::unmake(&us, &world.slice).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_plan_needs_elsewhere_stays_with_the_role() {
    let world = World::new("").await;
    world.install().await;
    world.cluster.database("elsewhere");
    world.cluster.sql(
        "elsewhere",
        "REVOKE ALL ON DATABASE elsewhere FROM PUBLIC; GRANT CONNECT ON DATABASE elsewhere TO strangler",
    );
    world.uninstall().await.unwrap();
    let may = "SELECT has_database_privilege('strangler', 'elsewhere', 'CONNECT')::text";
    assert_eq!(world.cluster.sql("postgres", may), "true");
}
