//! Install, doctor and uninstall against a real server: what is made, what holds, what is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod cluster;

use cluster::Cluster;
use migrations::finding::Finding;
use migrations::gate;
use migrations::names::SliceName;
use migrations::plan::Plan;
use migrations::sql::{self, Database};
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// What strangler's own tables are made beside: two databases of two applications.
const MONOLITH: &str = "
    CREATE ROLE app LOGIN;
    GRANT CREATE ON SCHEMA public TO app;
    SET ROLE app;
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL, note text, total numeric(12,2) NOT NULL);
    CREATE TABLE lines (order_id int NOT NULL, no int NOT NULL, qty int NOT NULL, PRIMARY KEY (order_id, no)) PARTITION BY RANGE (order_id);
    CREATE TABLE lines_1 PARTITION OF lines FOR VALUES FROM (0) TO (1000);";
const SERVICE: &str = "
    GRANT CREATE ON SCHEMA public TO app;
    SET ROLE app;
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id serial PRIMARY KEY, customer_id int NOT NULL, note text, total_cents bigint NOT NULL);
    CREATE TABLE items (order_id int NOT NULL, no int NOT NULL, quantity int NOT NULL, PRIMARY KEY (order_id, no));
    CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER audit BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noop();";

const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:1", database: "MONOLITH" }
services: { orders: { upstream: "http://127.0.0.1:2", database: "SERVICE" } }
slices:
  orders:
    service: orders
    routes: { show: "GET /orders/{id}" }
    tables:
      - from: public.orders
        set: { total_cents: "(total * 100)::bigint" }
        reverse: { total: "total_cents / 100.0" }
      - { from: public.lines, to: public.items, rename: { qty: quantity } }
    reference: [public.customers]
    triggers: { audit: skip }
"#;

/// Everything of strangler's that catalogs could still hold.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'strangler')
         + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'strangler%')
         + (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)
         + (SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee NOT IN (0, c.relowner, 10) AND c.relnamespace = 'public'::regnamespace)
         || '' ";

struct World {
    cluster: Cluster,
    plan: Plan,
    admin: BTreeMap<String, String>,
    slice: SliceName,
}

impl World {
    async fn new(settings: &[&str]) -> World {
        let cluster = Cluster::start(settings);
        cluster.run("postgres", "CREATE DATABASE monolith").await;
        cluster.run("postgres", "CREATE DATABASE service").await;
        cluster.run("monolith", MONOLITH).await;
        cluster.run("service", SERVICE).await;
        let text = PLAN
            .replace("MONOLITH", &cluster.url("strangler", "monolith"))
            .replace("SERVICE", &cluster.url("strangler", "service"));
        let admin = [("monolith", "monolith"), ("orders", "service")]
            .map(|(part, database)| (part.to_owned(), cluster.url("postgres", database)));
        let slice = "orders".parse().unwrap();
        World { plan: cluster::plan(&text), admin: admin.into_iter().collect(), cluster, slice }
    }

    async fn install(&self) -> Vec<String> {
        let mut lines = Vec::new();
        controller::install(&self.plan, &self.admin, &mut |line| lines.push(line.to_owned())).await.unwrap();
        lines
    }

    async fn uninstall(&self) -> Result<Vec<String>, controller::InstallError> {
        let mut lines = Vec::new();
        controller::uninstall(&self.plan, &self.admin, &mut |line| lines.push(line.to_owned())).await?;
        Ok(lines)
    }

    /// What doctor finds but the upstreams, which do not run here.
    async fn findings(&self) -> Vec<Finding> {
        let mut found = controller::doctor(&self.plan, Some(&self.slice)).await;
        found.retain(|finding| {
            finding.code != "upstream.unreachable" && finding.code != "source.wal-unlimited"
        });
        found
    }

    async fn codes(&self) -> Vec<String> {
        self.findings().await.into_iter().map(|finding| finding.code).collect()
    }

    async fn us(&self, database: &str) -> Client {
        self.cluster.client("strangler", database).await
    }
}

async fn call(client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
    client.query(sql, &[]).await.map(drop)
}

async fn set(
    client: &Client,
    slice: &SliceName,
    shut: bool,
    epoch: i64,
) -> Result<(), tokio_postgres::Error> {
    client.query(&gate::set(slice), &[&shut, &epoch]).await.map(drop)
}

/// The SQLSTATE with which a writer is refused; none where it may write.
async fn refusal(client: &Client, sql: &str) -> Option<String> {
    client.batch_execute(sql).await.err().map(|error| error.as_db_error().unwrap().code().code().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn install_can_be_repeated_and_uninstall_leaves_nothing() {
    let world = World::new(&["wal_level = logical"]).await;
    let before = world.cluster.ask("monolith", LEFT).await;
    assert_eq!(before, "0");
    let lines = world.install().await;
    assert!(lines.iter().any(|line| line.contains("publication strangler_shop")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("warning")), "{lines:?}");
    assert_eq!(world.codes().await, [""; 0]);
    let id = world.cluster.ask("monolith", "SELECT id::text FROM strangler.journal_id").await;
    world.install().await;
    assert_eq!(world.cluster.ask("monolith", "SELECT id::text FROM strangler.journal_id").await, id);
    assert_eq!(world.codes().await, [""; 0]);
    let published = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables";
    assert_eq!(world.cluster.ask("monolith", published).await, "customers lines orders");

    // A gate that is shut, a slot that nobody reads: all of it goes.
    for database in ["monolith", "service"] {
        let us = world.us(database).await;
        call(&us, &gate::make(&world.slice)).await.unwrap();
        set(&us, &world.slice, true, 3).await.unwrap();
    }
    world
        .cluster
        .run("monolith", "SELECT pg_create_logical_replication_slot('strangler_shop_abcd1234', 'pgoutput')")
        .await;
    let lines = world.uninstall().await.unwrap();
    assert!(lines.iter().any(|line| line.contains("other databases")), "{lines:?}");
    for database in ["monolith", "service"] {
        assert_eq!(world.cluster.ask(database, LEFT).await, "0", "{database}");
    }
    assert_eq!(
        world
            .cluster
            .ask("postgres", "SELECT count(*)::text FROM pg_roles WHERE rolname = 'strangler'")
            .await,
        "0"
    );
    let audit = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'audit'";
    assert_eq!(world.cluster.ask("service", audit).await, "O", "a skipped trigger stands as before");
    world.uninstall().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_makes_the_same() {
    let world = World::new(&["wal_level = logical"]).await;
    for database in Database::all(&world.plan) {
        let text =
            sql::printed(&world.plan, &database, &sql::install(&world.plan, &database).unwrap()).unwrap();
        assert!(
            !text.contains("p@ss") && text.contains("\\password \"strangler\""),
            "the password is asked for"
        );
        // What psql does itself is left out here.
        let text: String =
            text.lines().filter(|line| !line.starts_with('\\')).flat_map(|line| [line, "\n"]).collect();
        let name = if database == Database::Monolith { "monolith" } else { "service" };
        world.cluster.run(name, &text).await;
    }
    assert_eq!(world.codes().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shut_gate_refuses_every_writer_but_strangler() {
    let world = World::new(&["wal_level = logical"]).await;
    world.install().await;
    let us = world.us("monolith").await;
    let owner = world.cluster.client("app", "monolith").await;
    let superuser = world.cluster.client("postgres", "monolith").await;
    let writes = [
        "INSERT INTO orders (customer_id, total) VALUES (1, 1)",
        "UPDATE orders SET note = 'x'",
        "DELETE FROM orders",
        "TRUNCATE orders",
        "INSERT INTO lines VALUES (1, 1, 1) ON CONFLICT DO NOTHING",
        "INSERT INTO lines_1 VALUES (1, 2, 1) ON CONFLICT DO NOTHING",
        "TRUNCATE lines_1",
    ];
    call(&us, &gate::make(&world.slice)).await.unwrap();
    call(&us, &gate::make(&world.slice)).await.unwrap();
    for write in writes {
        assert_eq!(refusal(&owner, write).await, None, "{write}");
    }
    set(&us, &world.slice, true, 2).await.unwrap();
    superuser.batch_execute("SET session_replication_role = replica").await.unwrap();
    owner
        .batch_execute("CREATE TABLE lines_2 PARTITION OF lines FOR VALUES FROM (1000) TO (2000)")
        .await
        .unwrap();
    for write in writes.iter().chain(&["INSERT INTO lines_2 VALUES (1500, 1, 1)", "UPDATE lines SET qty = 2"])
    {
        for client in [&owner, &superuser] {
            assert_eq!(refusal(client, write).await.as_deref(), Some("STR01"), "{write}");
        }
    }
    let told = owner.batch_execute(writes[0]).await.unwrap_err();
    let told = told.as_db_error().unwrap();
    assert!(
        told.message().contains("slice orders") && told.message().contains("service orders"),
        "{}",
        told.message()
    );
    assert!(told.hint().unwrap().contains("strangler rollback orders"));
    assert_eq!(
        refusal(&owner, "INSERT INTO customers VALUES (1, 'a')").await,
        None,
        "reference tables are not gated here"
    );
    assert_eq!(
        refusal(&owner, "SELECT strangler.\"gate_set_orders\"(false, 9)").await.as_deref(),
        Some("42501")
    );

    let stale = set(&us, &world.slice, false, 1).await.unwrap_err();
    assert_eq!(stale.as_db_error().unwrap().code().code(), "STR02");
    set(&us, &world.slice, false, 2).await.unwrap();
    assert_eq!(refusal(&owner, writes[0]).await, None);
    let gate = "SELECT epoch || ' ' || is_shut FROM strangler.gate";
    assert_eq!(world.cluster.ask("monolith", gate).await, "2 false");
    call(&us, &gate::unmake(&world.slice)).await.unwrap();
    call(&us, &gate::unmake(&world.slice)).await.unwrap();
    let triggers = "SELECT count(*)::text FROM pg_trigger WHERE tgname LIKE 'strangler_gate%'";
    assert_eq!(world.cluster.ask("monolith", triggers).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_waits_for_writers_but_not_for_readers_and_not_for_long() {
    let world = World::new(&["wal_level = logical"]).await;
    world.install().await;
    let us = world.us("monolith").await;
    call(&us, &gate::make(&world.slice)).await.unwrap();
    let reader = world.cluster.client("app", "monolith").await;
    reader.batch_execute("BEGIN; SELECT * FROM orders").await.unwrap();
    set(&us, &world.slice, true, 1).await.unwrap();
    set(&us, &world.slice, false, 1).await.unwrap();
    let writer = world.cluster.client("app", "monolith").await;
    writer.batch_execute("BEGIN; INSERT INTO orders (customer_id, total) VALUES (1, 1)").await.unwrap();
    let busy = set(&us, &world.slice, true, 2).await.unwrap_err();
    assert_eq!(busy.as_db_error().unwrap().code().code(), "55P03", "lock_not_available");
    writer.batch_execute("COMMIT").await.unwrap();
    set(&us, &world.slice, true, 2).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_gate_lets_only_strangler_fill_the_tables() {
    let world = World::new(&["wal_level = logical"]).await;
    world.install().await;
    let us = world.us("service").await;
    let app = world.cluster.client("app", "service").await;
    call(&us, &gate::make(&world.slice)).await.unwrap();
    set(&us, &world.slice, true, 0).await.unwrap();
    let audit = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'audit'";
    assert_eq!(world.cluster.ask("service", audit).await, "D");
    let rows = "INSERT INTO orders VALUES (1, 1, 'a', 100); INSERT INTO items VALUES (1, 1, 1); INSERT INTO customers VALUES (1, 'a')";
    for write in rows.split("; ") {
        assert_eq!(refusal(&app, write).await.as_deref(), Some("STR01"), "{write}");
        assert_eq!(refusal(&us, write).await, None, "{write}");
    }
    us.batch_execute("CREATE TEMP TABLE staged (id int); TRUNCATE items; DELETE FROM orders").await.unwrap();
    set(&us, &world.slice, false, 1).await.unwrap();
    assert_eq!(world.cluster.ask("service", audit).await, "O");
    assert_eq!(refusal(&app, "INSERT INTO orders VALUES (1, 1, 'a', 100)").await, None);
    let still_a_copy = refusal(&app, "INSERT INTO customers VALUES (2, 'b')").await;
    assert_eq!(still_a_copy.as_deref(), Some("STR01"), "the monolith owns what is only referred to");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_the_statement_and_the_statement_mends() {
    let world = World::new(&["wal_level = logical"]).await;
    assert!(world.codes().await.iter().all(|code| code.ends_with("unreachable")), "no role yet");
    world
        .cluster
        .run("monolith", "ALTER TABLE orders DROP CONSTRAINT orders_pkey; ALTER TABLE customers SET UNLOGGED")
        .await;
    let lines = world.install().await;
    assert!(lines.iter().any(|line| line.contains("warning") && line.contains("not published")), "{lines:?}");
    assert_eq!(
        refusal(&world.cluster.client("app", "monolith").await, "UPDATE orders SET note = 'x'").await,
        None
    );
    let breaks = [
        ("monolith", "REVOKE SELECT ON orders FROM strangler", "table.no-right"),
        ("monolith", "ALTER ROLE strangler NOREPLICATION", "source.no-replication-right"),
        ("monolith", "ALTER TABLE lines REPLICA IDENTITY NOTHING", "source.replica-identity"),
        ("service", "REVOKE TEMPORARY ON DATABASE service FROM PUBLIC, strangler", "sink.no-temporary"),
        ("service", "REVOKE DELETE, TRUNCATE ON items FROM strangler", "table.no-right"),
        ("service", "ALTER TABLE items DROP CONSTRAINT items_pkey", "sink.other-key"),
        ("service", "ALTER TABLE orders ADD COLUMN region text NOT NULL", "sink.unfilled-column"),
    ];
    for (database, statement, _) in breaks {
        world.cluster.run(database, statement).await;
    }
    let found = world.findings().await;
    let mut wanted: Vec<&str> = breaks.iter().map(|(_, _, code)| *code).collect();
    wanted.extend([
        "source.no-primary-key",
        "table.unlogged",
        "install.not-published",
        "install.not-published",
    ]);
    wanted.sort_unstable();
    let mut codes: Vec<&str> = found.iter().map(|finding| finding.code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(codes, wanted, "{found:#?}");
    for finding in found {
        let (database, statement) = match finding.hint.split_once("run in the monolith's database: ") {
            Some((_, statement)) => ("monolith", statement),
            None => match finding.hint.split_once("run in service orders's database: ") {
                Some((_, statement)) => ("service", statement),
                None => continue,
            },
        };
        world.cluster.run(database, statement).await;
    }
    assert_eq!(world.codes().await, ["install.not-published"; 2]);
    world.install().await;
    assert_eq!(world.codes().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_the_plans_sql_on_live_rows() {
    let mut world = World::new(&["wal_level = logical"]).await;
    world.install().await;
    world.cluster.run("monolith", "INSERT INTO orders (customer_id, total) VALUES (1, 12.34), (1, 5)").await;
    assert_eq!(world.codes().await, [""; 0]);
    let with = |from: &str, to: &str| {
        let text = PLAN
            .replace("MONOLITH", &world.cluster.url("strangler", "monolith"))
            .replace("SERVICE", &world.cluster.url("strangler", "service"));
        assert!(text.contains(from));
        cluster::plan(&text.replace(from, to))
    };
    let (lossy, failing) = (with("total * 100", "total * 10"), with("(total * 100)", "(total / 0)"));
    world.plan = lossy;
    assert_eq!(world.codes().await, ["plan.reverse-differs"]);
    world.plan = failing;
    let found = world.findings().await;
    assert!(
        found.len() == 1 && found[0].is_error() && found[0].message.contains("row 2: division by zero"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_the_servers_settings_and_servers_that_are_down() {
    let world = World::new(&["wal_level = replica"]).await;
    world.install().await;
    assert_eq!(world.codes().await, ["source.wal-level"]);
    world.cluster.restart(&["wal_level = logical", "max_replication_slots = 1", "max_wal_senders = 1"]);
    assert_eq!(world.codes().await, ["source.no-free-slot", "source.no-free-wal-sender"]);
    world.cluster.stop();
    let found = world.findings().await;
    assert_eq!(
        found.iter().map(|f| f.code.as_str()).collect::<Vec<_>>(),
        ["source.unreachable", "sink.unreachable"]
    );
    assert!(
        found.iter().all(|f| !f.message.contains("p@ss") && f.hint.contains("start the server")),
        "{found:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn install_says_what_hinders_it() {
    let world = World::new(&["wal_level = logical"]).await;
    world.cluster.run("monolith", "CREATE ROLE other; ALTER TABLE lines OWNER TO other").await;
    let refused = controller::install(&world.plan, &world.admin, &mut |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("several owners") && refused.contains("ALTER TABLE"), "{refused}");
    assert_eq!(world.cluster.ask("monolith", LEFT).await, "0", "nothing was left half made");
    world
        .cluster
        .run("monolith", "ALTER TABLE lines OWNER TO app; ALTER TABLE customers RENAME TO clients")
        .await;
    let refused = controller::install(&world.plan, &world.admin, &mut |_| {}).await.unwrap_err().to_string();
    assert!(
        refused.contains("has no table public.customers") || refused.contains("has no table customers"),
        "{refused}"
    );
    let no_admin =
        controller::install(&world.plan, &BTreeMap::new(), &mut |_| {}).await.unwrap_err().to_string();
    assert!(no_admin.contains("--admin-url monolith="), "{no_admin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_does_not_take_the_gate_of_a_slice_that_has_left() {
    let world = World::new(&["wal_level = logical"]).await;
    world.install().await;
    let split = r#"INSERT INTO strangler.slice VALUES ('orders', '{"stage": "split"}', 1, 1)"#;
    world.cluster.run("monolith", split).await;
    let refused = world.uninstall().await.unwrap_err().to_string();
    assert!(
        refused.contains("orders is split") && refused.contains("strangler rollback orders"),
        "{refused}"
    );
}
