//! Install and uninstall against a real server: what is made, what holds, what is left behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod world;

use migrations::plan::{KafkaOptions, LogChoice, Publish};
use migrations::problem::Diagnostic;
use migrations::problem::Problem;
use migrations::sql::{self, Database};
use migrations::stage::Epoch;
use postgres::gate;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use world::{World, refusal};

/// Everything of strangler's that catalogs could still hold.
const LEFT: &str = "
    SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'strangler')
         + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'strangler%')
         + (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)
         + (SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee NOT IN (0, c.relowner, 10) AND c.relnamespace = 'public'::regnamespace)
         || '' ";

const GATE: &str = "SELECT epoch || ' ' || is_shut FROM strangler.gate";

#[tokio::test(flavor = "multi_thread")]
async fn install_can_be_repeated_and_uninstall_leaves_nothing() {
    let world = World::new("").await;
    let before = world.monolith(LEFT);
    assert_eq!(before, "0");
    let lines = world.install().await;
    assert!(lines.iter().any(|line| line.contains("publication strangler_shop")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("warning")), "{lines:?}");
    assert_eq!(world.codes().await, []);
    let id = world.monolith("SELECT id::text FROM strangler.journal_id");
    world.install().await;
    assert_eq!(world.monolith("SELECT id::text FROM strangler.journal_id"), id);
    assert_eq!(world.codes().await, []);
    let published = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables";
    assert_eq!(world.monolith(published), "", "no slice is started");
    world.publish(true).await;
    assert_eq!(world.monolith(published), "customers lines orders");

    // A gate that is shut, a slot that nobody reads: all of it goes.
    for database in ["monolith", "service"] {
        let us = world.client("strangler", database).await;
        gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
        world.stands("cutting", 3);
        gate::fence(&us, &world.slice, Epoch(3)).await.unwrap();
    }
    world.stands("monolith", 3);
    world.monolith("SELECT pg_create_logical_replication_slot('strangler_shop_abcd1234', 'pgoutput')");
    let lines = world.uninstall().await.unwrap();
    assert!(lines.iter().any(|line| line.contains("other databases")), "{lines:?}");
    for database in ["monolith", "service"] {
        assert_eq!(world.cluster.sql(database, LEFT), "0", "{database}");
    }
    assert_eq!(
        world.cluster.sql("postgres", "SELECT count(*)::text FROM pg_roles WHERE rolname = 'strangler'"),
        "0"
    );
    let audit = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'audit'";
    assert_eq!(world.service(audit), "O", "a skipped trigger stands as before");
    world.uninstall().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_database_refuses_leaves_nothing_in_another() {
    let world = World::new("").await;
    world.cluster.sql("postgres", "CREATE ROLE weak LOGIN");
    for part in ["monolith", "orders"] {
        let mut admin = world.admin.clone();
        let database = if part == "orders" { "service" } else { part };
        admin.insert(part.to_owned(), world::url(&world.cluster, "weak", database));
        let refused = controller::install(&world.plan, &admin, &mut |_| {}).await.unwrap_err();
        assert!(matches!(refused, controller::InstallError::Refused { .. }), "{refused}");
        for database in ["monolith", "service"] {
            assert_eq!(world.cluster.sql(database, LEFT), "0", "{database} after {part} refused");
        }
    }
    world.install().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_script_makes_the_same() {
    let world = World::new("").await;
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
        world.cluster.sql(name, &text);
    }
    assert_eq!(world.codes().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shut_gate_refuses_every_writer_but_strangler() {
    let world = World::new("").await;
    world.install().await;
    let us = world.client("strangler", "monolith").await;
    let owner = world.client("app", "monolith").await;
    let superuser = world.client("postgres", "monolith").await;
    let writes = [
        "INSERT INTO orders (customer_id, total) VALUES (1, 1)",
        "UPDATE orders SET note = 'x'",
        "DELETE FROM orders",
        "TRUNCATE orders",
        "INSERT INTO lines VALUES (1, 1, 1) ON CONFLICT DO NOTHING",
        "INSERT INTO lines_1 VALUES (1, 2, 1) ON CONFLICT DO NOTHING",
        "TRUNCATE lines_1",
    ];
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
    for write in writes {
        assert_eq!(refusal(&owner, write).await, None, "{write}");
    }
    world.stands("cutting", 2);
    gate::fence(&us, &world.slice, Epoch(2)).await.unwrap();
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
    let told = world::refused(&owner, writes[0]).await;
    assert!(
        told.message().contains("slice orders") && told.message().contains("service orders"),
        "{}",
        told.message()
    );
    let hint = told.hint().unwrap();
    assert!(
        hint.contains("strangler status") && hint.contains("SELECT strangler.abort('orders', 2)"),
        "{hint}"
    );
    assert_eq!(
        refusal(&owner, "INSERT INTO customers VALUES (1, 'a')").await,
        None,
        "reference tables are not gated here"
    );
    for forbidden in
        ["strangler.open('orders', 9)", "strangler.fence('orders', 9)", "strangler.gate_of_orders('open', 9)"]
    {
        let refused = refusal(&owner, &format!("SELECT {forbidden}")).await;
        assert_eq!(refused.as_deref(), Some("42501"), "{forbidden}");
    }

    world.stands("following", 2);
    let stale = gate::open(&us, &world.slice, Epoch(1)).await.unwrap_err();
    assert_eq!(stale.as_db_error().unwrap().code().code(), "STR02");
    gate::open(&us, &world.slice, Epoch(2)).await.unwrap();
    assert_eq!(refusal(&owner, writes[0]).await, None);
    assert_eq!(world.monolith(GATE), "2 false");
    gate::unmake(&us, &world.slice).await.unwrap();
    gate::unmake(&us, &world.slice).await.unwrap();
    let triggers = "SELECT count(*)::text FROM pg_trigger WHERE tgname LIKE 'strangler_gate%'";
    assert_eq!(world.monolith(triggers), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_waits_for_writers_but_not_for_readers_and_not_for_long() {
    let world = World::new("").await;
    world.install().await;
    let us = world.client("strangler", "monolith").await;
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
    let reader = world.client("app", "monolith").await;
    reader.batch_execute("BEGIN; SELECT * FROM orders").await.unwrap();
    world.stands("cutting", 1);
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    world.stands("following", 1);
    gate::open(&us, &world.slice, Epoch(1)).await.unwrap();
    world.stands("cutting", 2);
    let writer = world.client("app", "monolith").await;
    writer.batch_execute("BEGIN; INSERT INTO orders (customer_id, total) VALUES (1, 1)").await.unwrap();
    let busy = gate::fence(&us, &world.slice, Epoch(2)).await.unwrap_err();
    let busy = busy.as_db_error().unwrap();
    assert_eq!(busy.code().code(), "STR05", "{busy}");
    assert!(busy.detail().unwrap().contains("held by process"), "{busy:?}");
    assert_eq!(world.monolith(GATE), "1 false", "nothing of it stays");
    writer.batch_execute("COMMIT").await.unwrap();
    gate::fence(&us, &world.slice, Epoch(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_gate_lets_only_strangler_fill_the_tables() {
    let world = World::new("").await;
    world.install().await;
    let us = world.client("strangler", "service").await;
    let app = world.client("app", "service").await;
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
    let audit = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'audit'";
    assert_eq!(world.service(audit), "D");
    let rows = "INSERT INTO orders VALUES (1, 1, 'a', 100); INSERT INTO items VALUES (1, 1, 1); INSERT INTO customers VALUES (1, 'a')";
    for write in rows.split("; ") {
        assert_eq!(refusal(&app, write).await.as_deref(), Some("STR01"), "{write}");
        assert_eq!(refusal(&us, write).await, None, "{write}");
    }
    us.batch_execute("CREATE TEMP TABLE staged (id int); TRUNCATE items; DELETE FROM orders").await.unwrap();
    gate::open(&us, &world.slice, Epoch(1)).await.unwrap();
    assert_eq!(world.service(audit), "O");
    assert_eq!(refusal(&app, "INSERT INTO orders VALUES (1, 1, 'a', 100)").await, None);
    let still_a_copy = refusal(&app, "INSERT INTO customers VALUES (2, 'b')").await;
    assert_eq!(still_a_copy.as_deref(), Some("STR01"), "the monolith owns what is only referred to");
}

/// What failed and what to do, as the user reads them.
fn told<T: std::fmt::Debug>(refused: Result<T, controller::InstallError>) -> String {
    let problem = Problem::from(refused.unwrap_err());
    format!("{}; {}", problem.message, problem.remedy)
}

#[tokio::test(flavor = "multi_thread")]
async fn install_says_what_hinders_it() {
    let world = World::new("").await;
    world.monolith("CREATE ROLE other; ALTER TABLE lines OWNER TO other");
    let refused = told(controller::install(&world.plan, &world.admin, &mut |_| {}).await);
    assert!(refused.contains("several owners") && refused.contains("ALTER TABLE"), "{refused}");
    assert_eq!(world.monolith(LEFT), "0", "nothing was left half made");
    world.monolith("ALTER TABLE lines OWNER TO app; ALTER TABLE lines_1 OWNER TO other");
    let refused = told(controller::install(&world.plan, &world.admin, &mut |_| {}).await);
    assert!(
        refused.ends_with("e.g. ALTER TABLE public.lines_1 OWNER TO app;"),
        "a partition has an owner: {refused}"
    );
    world.monolith("ALTER TABLE lines_1 OWNER TO app; ALTER TABLE customers RENAME TO clients");
    let refused = told(controller::install(&world.plan, &world.admin, &mut |_| {}).await);
    assert!(
        refused.contains("has no table public.customers") || refused.contains("has no table customers"),
        "{refused}"
    );
    let no_admin = told(controller::install(&world.plan, &BTreeMap::new(), &mut |_| {}).await);
    assert!(no_admin.contains("--admin-url monolith="), "{no_admin}");
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_does_not_take_the_gate_of_a_slice_that_has_left() {
    let world = World::new("").await;
    world.install().await;
    let split = r#"INSERT INTO strangler.slice VALUES ('orders', '{"stage": "split"}', 1, 1)"#;
    world.monolith(split);
    let refused = told(world.uninstall().await);
    assert!(
        refused.contains("orders is split") && refused.contains("strangler rollback orders"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_leaves_no_log_of_a_slice_that_is_followed() {
    let mut world = World::new("").await;
    world.install().await;
    let following = r#"INSERT INTO strangler.slice VALUES ('orders', '{"stage": "following"}', 0, 2), ('gone', '{"stage": "copying"}', 0, 3)"#;
    world.monolith(following);
    world.plan.log = LogChoice::Kafka {
        brokers: "127.0.0.1:1".to_owned(),
        topic_prefix: "shop".to_owned(),
        partitions: 1,
        replication: 1,
        publish: Some(Publish::default()),
        bytes_max: 1 << 30,
        options: KafkaOptions::default(),
    };
    let refused = told(world.uninstall().await);
    assert!(
        refused.contains("copy of gone, orders is") && refused.contains("strangler.shop.log"),
        "{refused}"
    );
    let heads = "SELECT count(*)::text FROM strangler.slice";
    assert_eq!(world.monolith(heads), "2", "nothing was done");
    world.monolith("DELETE FROM strangler.slice WHERE slice = 'orders'");
    let refused = world.uninstall().await.unwrap_err();
    assert!(
        matches!(&refused, controller::InstallError::Followed { unplanned, .. } if *unplanned == ["gone"]),
        "the plan has it no longer, but its log is there: {refused:?}"
    );
    world.monolith("DELETE FROM strangler.slice");
    world.uninstall().await.unwrap();
    world.uninstall().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_names_the_verbs_that_come_first() {
    let world = World::new("").await;
    world.install().await;
    let shared = r#"INSERT INTO strangler.journal (generation, actor, slice, event)
        VALUES (1, 'ann', 'orders', '{"event": "shared", "routes": {"list": "10%"}}')"#;
    world.monolith(shared);
    let refused = world.uninstall().await.unwrap_err();
    let (message, remedy) = (refused.to_string(), refused.remedy());
    assert_eq!(message, "requests of orders go to the service");
    assert!(
        remedy.contains("`strangler route set orders monolith`") && !remedy.contains("sync drop"),
        "{remedy}"
    );
    world.monolith(r#"INSERT INTO strangler.slice VALUES ('orders', '{"stage": "following"}', 0, 2)"#);
    let refused = world.uninstall().await.unwrap_err();
    assert_eq!(refused.to_string(), "the copy of orders is not given up", "with the embedded log, too");
    let remedy = refused.remedy();
    let [back, drop, down] =
        ["route set orders monolith", "sync drop orders", "strangler down"].map(|verb| remedy.find(verb));
    assert!(back.is_some() && back < drop && drop < down, "{remedy}");
    let back = r#"INSERT INTO strangler.journal (generation, actor, slice, event)
        VALUES (2, 'ann', 'orders', '{"event": "shared", "routes": {"list": "monolith"}}')"#;
    world.monolith(back);
    world.monolith("DELETE FROM strangler.slice");
    world.uninstall().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_that_fails_drops_no_slot() {
    let world = World::new("").await;
    world.install().await;
    world.monolith("SELECT pg_create_logical_replication_slot('strangler_shop_abcd1234', 'pgoutput')");
    let busy = world.client("postgres", "monolith").await;
    busy.batch_execute("BEGIN; LOCK TABLE strangler.journal").await.unwrap();
    let refused = told(world.uninstall().await);
    assert!(refused.contains("quieter moment"), "{refused}");
    let slots = "SELECT count(*)::text FROM pg_replication_slots";
    assert_eq!(world.monolith(slots), "1");
    busy.batch_execute("COMMIT").await.unwrap();
    world.uninstall().await.unwrap();
    assert_eq!(world.monolith(slots), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_owns_something_else_keeps_it() {
    let world = World::new("").await;
    world.install().await;
    let function = "CREATE FUNCTION kept() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION kept() OWNER TO strangler";
    world.service(function);
    let lines = world.uninstall().await.unwrap();
    let stays =
        |line: &String| line.contains("warning: role strangler stays") && line.contains("owns objects here");
    assert!(lines.iter().any(stays), "{lines:?}");
    assert_eq!(world.service("SELECT kept()::text"), "1");
}

/// A table may have any name, and the text that is kept of it may be written by its owner: neither may become a
/// statement of the administrator.
#[tokio::test(flavor = "multi_thread")]
async fn a_tables_name_is_never_run() {
    let world = World::new("").await;
    world.install().await;
    let name = "public.orders/**/set/**/logged;create/**/role/**/evil--";
    let made = format!(
        "CREATE TABLE {quoted} (id int); CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER audit BEFORE INSERT ON {quoted} FOR EACH ROW EXECUTE FUNCTION noop();
         ALTER TABLE {quoted} DISABLE TRIGGER audit",
        quoted = "\"orders/**/set/**/logged;create/**/role/**/evil--\""
    );
    world.client("app", "monolith").await.batch_execute(&made).await.unwrap();
    let us = world.client("strangler", "monolith").await;
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
    let noted = format!("INSERT INTO strangler.skipped_trigger VALUES ('orders', '{name}', 'audit', 'O')");
    let evil = "SELECT count(*)::text FROM pg_roles WHERE rolname = 'evil'";
    let audit = "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'audit'";
    us.batch_execute(&noted).await.unwrap();
    gate::open(&us, &world.slice, Epoch(0)).await.unwrap();
    assert_eq!((world.monolith(evil), world.monolith(audit)), ("0".into(), "O".into()));
    us.batch_execute(&noted).await.unwrap();
    world.uninstall().await.unwrap();
    assert_eq!(world.monolith(evil), "0");
}

/// What is published, under which memberships, and since which change of the publication.
const PUBLISHED: &str = "
    SELECT p.xmin || ' ' || (SELECT string_agg(r.oid || ' ' || r.prrelid::regclass, ' ' ORDER BY r.oid)
                               FROM pg_publication_rel r WHERE r.prpubid = p.oid) FROM pg_publication p";
const LINES: &str = "- { from: public.lines, to: public.items, rename: { qty: quantity } }";
/// Beside [`world`]'s.
const MORE: &str = "SET ROLE app; CREATE TABLE more (order_id int NOT NULL, no int NOT NULL, qty int NOT NULL, PRIMARY KEY (order_id, no))";

async fn try_install(world: &World, plan: &migrations::plan::Plan) -> Result<(), controller::InstallError> {
    controller::install(plan, &world.admin, &mut |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_of_a_followed_slice_leaves_the_publication() {
    let world = World::new("").await;
    world.monolith(MORE);
    world.install().await;
    world.stands("following", 1);
    world.install().await;
    let before = (world.monolith(PUBLISHED), world.monolith("SELECT facts::text FROM strangler.installed"));
    let edits = [
        (world.plan_with(LINES, ""), "public.lines"),
        (world.plan_with("from: public.lines", "from: public.more"), "public.lines"),
        (world.plan_with("reference: [public.customers]", "reference: []"), "public.customers"),
    ];
    for stage in ["copying", "following", "cutting", "split", "returning"] {
        world.stands(stage, 1);
        for (plan, table) in &edits {
            let refused = told(try_install(&world, plan).await);
            assert!(
                refused.contains(&format!("slice orders is {stage}, and its table {table} ")),
                "{refused}"
            );
            let is_copy = matches!(stage, "copying" | "following");
            let next = if is_copy { "sync drop" } else { "rollback" };
            assert!(refused.contains(&format!("strangler {next} orders")), "{refused}");
        }
        try_install(&world, &world.plan).await.unwrap();
    }
    let after = (world.monolith(PUBLISHED), world.monolith("SELECT facts::text FROM strangler.installed"));
    assert_eq!(after, before, "nothing was changed");
    // A table that is not fit any more would leave, too.
    world.monolith("ALTER TABLE orders DROP CONSTRAINT orders_pkey");
    let refused = told(try_install(&world, &world.plan).await);
    assert!(refused.contains("its table public.orders would leave"), "{refused}");
    world.monolith("ALTER TABLE orders ADD PRIMARY KEY (id)");
    // Nobody follows any more.
    for stage in ["monolith", "retired"] {
        world.stands(stage, 1);
        for (plan, _) in edits.iter().rev() {
            try_install(&world, plan).await.unwrap();
            try_install(&world, &world.plan).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_no_table_away_may_be_installed_while_slices_are_followed() {
    let world = World::new("").await;
    for database in ["monolith", "service"] {
        world.cluster.sql(database, MORE);
    }
    world.install().await;
    world.stands("following", 1);
    world.publish(true).await;
    let before = world.monolith(PUBLISHED);
    world.install().await;
    assert_eq!(world.monolith(PUBLISHED), before, "a second install touches nothing");
    let other =
        |tables: &str| format!("triggers: {{ audit: skip }}\n  other: {{ service: orders, {tables} }}");
    let added = world.plan_with("triggers: { audit: skip }", &other("tables: [public.more]"));
    try_install(&world, &added).await.unwrap();
    assert_eq!(world.monolith(PUBLISHED), before, "nobody follows the other slice");
    // A table that moves to a slice that nobody follows would leave.
    let text =
        format!("reference: []\n    {}", other("tables: [public.more], reference: [public.customers]"));
    let moved = world.plan_with("reference: [public.customers]\n    triggers: { audit: skip }", &text);
    assert!(told(try_install(&world, &moved).await).contains("its table public.customers would leave"));
    try_install(&world, &world.plan).await.unwrap();
    assert_eq!(world.monolith(PUBLISHED), before);
}

/// What is published of which columns.
const COLUMNS: &str = "SELECT string_agg(tablename || ' ' || attnames::text, ' ' ORDER BY tablename) FROM pg_publication_tables";

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_the_plan_keeps_out_are_not_published() {
    let world = World::new("").await;
    world.monolith("ALTER TABLE customers ADD email text, ADD password text");
    // Two slices of two services need different columns of one table; the second service is never asked.
    let service =
        format!("orders: {{ upstream: \"http://127.0.0.1:2\", database: \"{}\" }}", world.url("service"));
    let mail = format!(
        "{service}, mail: {{ upstream: \"http://127.0.0.1:3\", database: \"{}\" }}",
        world.url("postgres")
    );
    let both = "reference: [{ from: public.customers, drop: [email, password] }]\n    triggers: { audit: skip }\n  \
                mail: { service: mail, reference: [{ from: public.customers, drop: [name, password] }] }";
    let edit = |from: &str, to: &str| world.plan_with_all(&[(service.as_str(), mail.as_str()), (from, to)]);
    let reference = "reference: [public.customers]\n    triggers: { audit: skip }";
    let plan = edit(reference, both);
    let whole = edit(reference, &both.replace("drop: [name, password]", "drop: [name]"));
    let less = edit(reference, &both.replace("[email, password]", "[email, password, name]"));
    let at_monolith = |plan: &migrations::plan::Plan| {
        let steps = migrations::sql::install(plan, &migrations::sql::Database::Monolith).unwrap();
        let steps: Vec<String> = steps.into_iter().map(|step| step.sql).collect();
        format!("BEGIN; {}; COMMIT", steps.join(";\n"))
    };
    world.monolith(&at_monolith(&plan));
    world.publish(true).await;
    let listed = "customers {id,name,email} lines {order_id,no,qty} orders {id,customer_id,note,total}";
    assert_eq!(world.monolith(COLUMNS), listed);
    let app = world.client("app", "monolith").await;
    let writes = "INSERT INTO customers VALUES (1, 'a', 'b', 'c'); UPDATE customers SET password = 'd'; DELETE FROM customers";
    assert_eq!(refusal(&app, writes).await, None);
    // A column that the plan keeps out no longer is not in the copy. More columns to keep out change nothing.
    world.stands("following", 1);
    let before = world.monolith(PUBLISHED);
    let refused =
        std::panic::catch_unwind(AssertUnwindSafe(|| world.monolith(&at_monolith(&whole)))).unwrap_err();
    let refused = refused.downcast_ref::<String>().unwrap();
    assert!(refused.contains("column password of its table public.customers is not published"), "{refused}");
    world.monolith(&at_monolith(&less));
    assert_eq!(world.monolith(PUBLISHED), before);
    // Once it is given up, the next copy gets what the plan says.
    world.stands("monolith", 1);
    world.publish(false).await;
    world.monolith(&at_monolith(&whole));
    world.publish(true).await;
    assert!(
        world.monolith(COLUMNS).starts_with("customers {id,name,email,password} "),
        "{}",
        world.monolith(COLUMNS)
    );
    // Under REPLICA IDENTITY FULL there can be no list of columns.
    world.publish(false).await;
    world.monolith("ALTER TABLE customers REPLICA IDENTITY FULL");
    world.monolith(&at_monolith(&plan));
    world.publish(true).await;
    assert_eq!(refusal(&app, writes).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_that_has_a_way_back_leaves_the_services_publication() {
    let world = World::new("").await;
    world.install().await;
    let one_way = world.plan_with("reverse: { total: \"total_cents / 100.0\" }", "");
    world.service("INSERT INTO strangler.stream (slice, direction) VALUES ('orders', 'reverse')");
    let refused = told(try_install(&world, &one_way).await);
    assert!(refused.contains("slice orders is split") && refused.contains("rollback orders"), "{refused}");
    world.service("DELETE FROM strangler.stream");
    try_install(&world, &one_way).await.unwrap();
}
