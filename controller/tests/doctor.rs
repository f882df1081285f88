//! Doctor against a real server: what it finds, and that the statements it names mend it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod world;

use migrations::code::Code;
use migrations::finding::Finding;
use migrations::stage::Epoch;
use postgres::gate;
use std::time::Duration;
use world::{World, codes_of, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_the_statement_and_the_statement_mends() {
    let world = World::new("").await;
    assert!(world.codes().await.iter().all(|code| code.as_str().ends_with("unreachable")), "no role yet");
    world.monolith("ALTER TABLE orders DROP CONSTRAINT orders_pkey; ALTER TABLE customers SET UNLOGGED");
    let lines = world.install().await;
    assert!(lines.iter().any(|line| line.contains("warning") && line.contains("not published")), "{lines:?}");
    assert_eq!(refusal(&world.client("app", "monolith").await, "UPDATE orders SET note = 'x'").await, None);
    let breaks = [
        ("monolith", "REVOKE SELECT ON orders FROM strangler", Code::TableNoRight),
        ("monolith", "ALTER ROLE strangler NOREPLICATION", Code::SourceNoReplicationRight),
        ("monolith", "ALTER TABLE lines REPLICA IDENTITY NOTHING", Code::SourceReplicaIdentity),
        ("service", "REVOKE TEMPORARY ON DATABASE service FROM PUBLIC, strangler", Code::SinkNoTemporary),
        ("service", "REVOKE DELETE, TRUNCATE ON items FROM strangler", Code::TableNoRight),
        ("service", "ALTER TABLE items DROP CONSTRAINT items_pkey", Code::SinkOtherKey),
        ("service", "ALTER TABLE orders ADD COLUMN region text NOT NULL", Code::SinkUnfilledColumn),
    ];
    for (database, statement, _) in breaks {
        world.cluster.sql(database, statement);
    }
    let found = world.findings().await;
    let mut wanted: Vec<Code> = breaks.iter().map(|(_, _, code)| *code).collect();
    wanted.extend([Code::SourceNoPrimaryKey, Code::TableUnlogged]);
    wanted.sort_unstable();
    let mut codes = codes_of(&found);
    codes.sort_unstable();
    assert_eq!(codes, wanted, "{found:#?}");
    mend(&world, &found);
    assert_eq!(world.codes().await, []);
}

/// Runs what the hints say.
fn mend(world: &World, found: &[Finding]) {
    for finding in found {
        let (database, statement) = match finding.remedy.split_once("run in the monolith's database: ") {
            Some((_, statement)) => ("monolith", statement),
            None => match finding.remedy.split_once("run in service orders's database: ") {
                Some((_, statement)) => ("service", statement),
                None => continue,
            },
        };
        world.cluster.sql(database, statement.lines().next().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_what_would_not_arrive_as_it_was() {
    let world = World::new("").await;
    world.install().await;
    let all = controller::doctor(&world.plan, None).await.following;
    assert!(
        all.iter().any(|finding| finding.code == Code::SourcePartitioned && !finding.is_error()),
        "{all:#?}"
    );
    let breaks = [
        ("monolith", "ALTER TABLE orders ADD shout text GENERATED ALWAYS AS (upper(note)) STORED"),
        ("service", "ALTER TABLE orders ADD shout text"),
        ("service", "ALTER TABLE orders ALTER id DROP DEFAULT, ALTER id ADD GENERATED ALWAYS AS IDENTITY"),
        (
            "service",
            "ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers ON DELETE CASCADE",
        ),
        ("service", "ALTER TABLE customers ADD FOREIGN KEY (id) REFERENCES orders ON UPDATE RESTRICT"),
        ("service", "ALTER TABLE items ADD FOREIGN KEY (order_id, no) REFERENCES items"),
        ("monolith", "ALTER TABLE customers ENABLE ROW LEVEL SECURITY"),
        ("service", "ALTER TABLE customers ENABLE ROW LEVEL SECURITY"),
        ("service", "CREATE POLICY everything ON customers TO strangler USING (true)"),
    ];
    for (database, statement) in breaks {
        world.cluster.sql(database, statement);
    }
    let found = world.findings().await;
    let mut codes = codes_of(&found);
    codes.sort_unstable_by_key(|code| code.as_str());
    let wanted = [
        Code::SinkForeignKeyAction,
        Code::SinkForeignKeyCircle,
        Code::SinkForeignKeyCircle,
        Code::SinkIdentityAlways,
        Code::SourceGeneratedColumn,
        Code::TableRowSecurity,
        Code::TableRowSecurity,
    ];
    assert_eq!(codes, wanted, "{found:#?}");
    let generated = found.iter().find(|finding| finding.code == Code::SourceGeneratedColumn).unwrap();
    assert!(generated.remedy.contains("`set: { shout: \"upper(note)\" }`"), "{generated:#?}");
    mend(&world, &found);
    assert_eq!(world.codes().await, [Code::SourceGeneratedColumn]);
    world.service("ALTER TABLE orders DROP shout");
    world.service("ALTER TABLE orders ADD shout text GENERATED ALWAYS AS (upper(note)) STORED");
    assert_eq!(world.codes().await, []);
    let keys = "SELECT string_agg(pg_get_constraintdef(oid), '; ' ORDER BY conrelid::regclass::text) FROM pg_constraint
                 WHERE contype = 'f' AND conrelid IN ('customers'::regclass, 'orders'::regclass)";
    let defined = "FOREIGN KEY (id) REFERENCES orders(id) DEFERRABLE; FOREIGN KEY (customer_id) REFERENCES customers(id)";
    assert_eq!(world.service(keys), defined);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_the_plans_sql_on_live_rows() {
    let mut world = World::new("").await;
    world.install().await;
    world.monolith("INSERT INTO orders (customer_id, total) VALUES (1, 12.34), (1, 5)");
    assert_eq!(world.codes().await, []);
    let lossy = world.plan_with("total * 100", "total * 10");
    let failing = world.plan_with("(total * 100)", "(total / 0)");
    world.plan = lossy;
    assert_eq!(world.codes().await, [Code::PlanReverseDiffers]);
    world.plan = failing;
    let found = world.findings().await;
    assert!(
        found.len() == 1 && found[0].is_error() && found[0].message.contains("row 2: division by zero"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_plans_sql_makes_vanish_or_doubles_is_found() {
    let mut world = World::new("").await;
    world.service("CREATE FUNCTION times(n int) RETURNS SETOF int LANGUAGE sql IMMUTABLE AS 'SELECT n FROM generate_series(1, n)'",
    );
    world.install().await;
    let line = |qty: i32| format!("INSERT INTO lines VALUES ({qty}, 1, {qty})");
    world.monolith(&line(1));
    world.plan =
        world.plan_with("rename: { qty: quantity }", r#"drop: [qty], set: { quantity: "times(qty)" }"#);
    assert_eq!(world.codes().await, [], "one row for one row");
    for qty in [0, 2] {
        world.monolith(&line(qty));
        let found = world.findings().await;
        assert!(found.len() == 1 && found[0].is_error() && found[0].code == Code::PlanSetFails, "{found:?}");
        assert!(found[0].message.contains(&format!("one row for row {qty}, 1")), "{found:?}");
        world.monolith(&format!("DELETE FROM lines WHERE qty = {qty}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_function_of_the_server_that_gives_many_rows_stands_in_a_plan() {
    let world = World::new("").await;
    let functions = world.service(
        "SELECT string_agg(DISTINCT proname, ' ') FROM pg_proc
          WHERE pronamespace = 'pg_catalog'::regnamespace AND (proretset OR prokind IN ('a', 'w'))",
    );
    let names: Vec<&str> = functions.split(' ').collect();
    assert!(names.len() > 100, "{functions}");
    let allowed: Vec<&&str> = names.iter().filter(|name| world.takes(&format!("{name}(total)"))).collect();
    assert!(allowed.is_empty(), "{allowed:?}");
    assert!(world.takes("round(total)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_what_two_databases_write_differently() {
    let mut world = World::new("").await;
    world.monolith(
        "ALTER DATABASE monolith SET DateStyle = 'SQL, DMY'; CREATE TYPE state AS ENUM ('open', 'paid');
         ALTER TABLE orders ADD data json, ADD made timestamp, ADD state state, REPLICA IDENTITY FULL",
    );
    world.service("ALTER TABLE orders ADD payload jsonb, ADD day date, ADD paid boolean");
    let row = r#"INSERT INTO orders (customer_id, total, data, made, state) VALUES (1, 5, '{"b":1, "a": [2]}', '2026-12-25', 'paid')"#;
    world.monolith(row);
    let computed = |more: &str| {
        format!(
            r#"(total * 100)::bigint", payload: "data::jsonb", day: "made::date"{more} }}
        reverse: {{ data: "payload::json", made: "day::timestamp", total: "total_cents / 100.0" }}
        drop: [state]"#
        )
    };
    let from = "(total * 100)::bigint\" }\n        reverse: { total: \"total_cents / 100.0\" }";
    let by_enum = world.plan_with(from, &computed(r#", paid: "state = 'paid'""#));
    world.plan = world.plan_with(from, &computed(""));
    world.install().await;
    assert_eq!(world.codes().await, [Code::SourceColumnSent], "the table is published whole");
    world.plan = by_enum;
    let found = world.findings().await;
    assert_eq!(codes_of(&found), [Code::PlanSetFails], "{found:#?}");
    assert!(
        found[0].message.contains("state") && found[0].remedy.contains("create the missing one"),
        "{found:#?}"
    );
    world.service("CREATE TYPE state AS ENUM ('open', 'paid')");
    assert_eq!(world.findings().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_takes_every_type_whose_text_another_database_reads_and_no_other() {
    let world = World::new("").await;
    let columns =
        "ADD at interval, ADD net inet[], ADD word ext.citext, ADD picture oid, ADD part pair, ADD kind kind";
    let types = "CREATE SCHEMA ext; GRANT USAGE ON SCHEMA ext TO PUBLIC; CREATE EXTENSION citext SCHEMA ext;
        CREATE DOMAIN kind AS char(3); CREATE TYPE pair AS (a kind, b int8range)";
    for run in [World::monolith, World::service] {
        run(&world, &format!("{types}; ALTER TABLE orders {columns}"));
    }
    world.install().await;
    assert_eq!(world.codes().await, []);
    world.monolith(
        "INSERT INTO orders (customer_id, total, picture) SELECT 1, 1, lo_from_bytea(0, 'a picture')",
    );
    assert_eq!(world.codes().await, [Code::SourceLargeObject]);
    world.monolith("UPDATE orders SET picture = 1; CREATE TYPE names AS (a int, b regclass[]); ALTER TABLE orders ADD owner names");
    world.service("CREATE TYPE names AS (a int, b regclass[]); ALTER TABLE orders ADD owner names");
    let found = world.findings().await;
    assert_eq!(codes_of(&found), [Code::SourceType], "{found:#?}");
    assert!(found[0].message.contains("regclass names an object of one database"), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_sees_partitions_triggers_and_other_databases_transactions() {
    let world = World::new("-c max_prepared_transactions=2").await;
    world.service("SET ROLE app; DROP TABLE items;
         CREATE TABLE items (order_id int NOT NULL, no int NOT NULL, quantity int NOT NULL, PRIMARY KEY (order_id, no)) PARTITION BY RANGE (order_id);
         CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (1000);
         CREATE TRIGGER count_items AFTER INSERT ON items_1 FOR EACH ROW EXECUTE FUNCTION noop()",
    );
    world.install().await;
    world
        .client("postgres", "postgres")
        .await
        .batch_execute("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'held'")
        .await
        .unwrap();
    let found = world.findings().await;
    assert_eq!(codes_of(&found), [Code::SinkUnmarkedTrigger, Code::SourcePreparedTransaction], "{found:#?}");
    assert!(found[0].message.contains("count_items"), "{found:#?}");
    assert!(found[1].remedy.starts_with("run in database postgres of the monolith's server"), "{found:#?}");
    world.cluster.sql("postgres", "ROLLBACK PREPARED 'held'");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_the_servers_settings_and_servers_that_are_down() {
    let mut world = World::new("-c wal_level=replica").await;
    world.install().await;
    assert_eq!(world.codes().await, [Code::SourceWalLevel]);
    world.cluster.kill();
    world.cluster.restart_with("-c max_replication_slots=1 -c max_wal_senders=1");
    assert_eq!(world.codes().await, [Code::SourceNoFreeSlot, Code::SourceNoFreeWalSender]);
    world.cluster.kill();
    let found = world.findings().await;
    assert_eq!(codes_of(&found), [Code::SourceUnreachable, Code::SinkUnreachable]);
    assert!(
        found.iter().all(|f| !f.message.contains("p@ss") && f.remedy.contains("start the server")),
        "{found:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_not_told_to_start() {
    let mut world = World::new("").await;
    world.plan = world.plan_with("/monolith\"", "/monolith?sslmode=require\"");
    let found = world.findings().await;
    let refused = found.iter().find(|finding| finding.code == Code::SourceUnreachable).unwrap();
    assert!(refused.remedy.contains("ssl = on") && refused.message.contains("by TLS"), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_stands_in_a_cutovers_way_and_the_statement_mends() {
    let world = World::new("-c max_prepared_transactions=2").await;
    world.monolith("SET ROLE app; CREATE SEQUENCE numbers;
         CREATE TABLE regions (id int PRIMARY KEY);
         CREATE TABLE invoices (id int PRIMARY KEY DEFAULT nextval('numbers'), order_id int REFERENCES orders ON DELETE CASCADE);
         ALTER TABLE orders ALTER id SET DEFAULT nextval('numbers'), ADD region int REFERENCES regions,
               ADD FOREIGN KEY (customer_id) REFERENCES customers;
         CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER notify AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noop();
         CREATE RULE quiet AS ON DELETE TO orders DO ALSO NOTIFY gone",
    );
    world.service("ALTER TABLE orders ADD region int");
    world.install().await;
    world.client("app", "monolith").await.batch_execute("INSERT INTO regions VALUES (1)").await.unwrap();
    let prepared = world.client("app", "monolith").await;
    prepared
        .batch_execute("BEGIN; UPDATE orders SET note = 'x' WHERE false; PREPARE TRANSACTION 'held'")
        .await
        .unwrap();
    // An index that waits for a writer.
    let (writer, builder) = (world.client("app", "service").await, world.client("app", "service").await);
    writer.batch_execute("BEGIN; UPDATE items SET quantity = 1 WHERE false").await.unwrap();
    let building = tokio::spawn(async move {
        builder.batch_execute("CREATE INDEX CONCURRENTLY by_quantity ON items (quantity)").await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let diagnosis = controller::doctor(&world.plan, Some(&world.slice)).await;
    assert!(diagnosis.may_follow(), "{diagnosis:#?}");
    let found = world.findings().await;
    let across = Code::SourceForeignKeyAcross;
    let mut codes: Vec<(Code, bool)> = found.iter().map(|found| (found.code, found.is_error())).collect();
    codes.sort_unstable_by_key(|(code, is_error)| (code.as_str(), *is_error));
    let wanted = [
        (across, false),
        (across, true),
        (across, true),
        (Code::SourcePreparedTransaction, false),
        (Code::SourcePreparedTransaction, true),
        (Code::SourceSharedSequence, true),
        (Code::SourceUnmarkedTrigger, true),
        (Code::TableBusy, false),
        (Code::TableBusy, true),
        (Code::TableRule, true),
    ];
    assert_eq!(codes, wanted, "{found:#?}");
    let orphans = found.iter().filter_map(|found| found.remedy.split_once("find orphans from then on: "));
    let orphans: Vec<&str> = orphans.map(|(_, query)| query).collect();
    assert_eq!(orphans.len(), 3);
    world.monolith("ROLLBACK PREPARED 'held'");
    for query in orphans {
        assert_eq!(world.monolith(query), "");
    }
    let mended: Vec<Finding> = found.into_iter().filter(|found| !found.remedy.contains("PREPARED")).collect();
    mend(&world, &mended);
    assert!(building.await.unwrap().is_err(), "it was cancelled");
    drop(writer);
    world.install().await;
    assert_eq!(world.codes().await, [Code::SourceUnmarkedTrigger]);
    let next = "SELECT nextval('orders_id_own_seq')::text";
    assert!(world.monolith(next).parse::<u64>().unwrap() > 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tries_the_gates_and_leaves_them_as_they_were() {
    let world = World::new("").await;
    world.install().await;
    world.make_gates().await;
    let filled = r#"INSERT INTO strangler.stream (slice, direction, filled) VALUES ('orders', 'forward', '["public.orders"]')"#;
    world.service(filled);
    world.stands("following", 0);
    let readiness = async || {
        let diagnosis = controller::doctor(&world.plan, Some(&world.slice)).await;
        diagnosis.cutover[&world.slice].clone()
    };
    let ready = readiness().await;
    assert!(ready.is_next && ready.is_ready(), "{ready:#?}");
    assert_eq!(
        refusal(
            &world.client("app", "monolith").await,
            "INSERT INTO orders (customer_id, total) VALUES (1, 1)"
        )
        .await,
        None
    );
    let writer = world.client("app", "monolith").await;
    writer.batch_execute("BEGIN; UPDATE orders SET note = 'mine'").await.unwrap();
    let busy = readiness().await;
    let against = busy.preconditions.iter().flat_map(|one| &one.findings);
    let against: Vec<&Finding> = against.filter(|found| found.code != Code::WriterUnwatched).collect();
    assert!(against.len() == 1 && against[0].code == Code::GateOther, "{against:#?}");
    assert!(against[0].message.contains("a lock was not had in time"), "{against:#?}");
    writer.batch_execute("COMMIT").await.unwrap();
    assert!(readiness().await.is_ready());
    world.service("UPDATE strangler.gate SET epoch = 3");
    assert_eq!(world.codes().await, [Code::GateAhead]);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_measures_what_a_hold_would_have_to_keep() {
    let mut world = World::new("").await;
    world.install().await;
    world.plan.proxy.hold.writes_max = 10;
    assert_eq!(world.codes().await, [], "nobody writes");
    let app = world.client("app", "monolith").await;
    let write = "INSERT INTO orders (customer_id, total) SELECT 1, 1 FROM generate_series(1, 20)";
    let writing = tokio::spawn(async move {
        loop {
            app.batch_execute(write).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let found = world.findings().await;
    writing.abort();
    assert!(found.len() == 1 && found[0].code == Code::HoldRoom && !found[0].is_error(), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_of_the_monolith_that_the_plan_skips_sleeps_while_the_service_owns() {
    let mut world = World::new("").await;
    world.plan = world.plan_with("triggers: { audit: skip }", "triggers: { audit: skip, notify: skip }");
    world.monolith(
        "SET ROLE app; CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER notify AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noop()",
    );
    world.install().await;
    assert_eq!(world.codes().await, []);
    let us = world.client("strangler", "monolith").await;
    gate::make(&us, &world.slice, Epoch(0)).await.unwrap();
    let stands = || world.monolith("SELECT tgenabled FROM pg_trigger WHERE tgname = 'notify'");
    assert_eq!(stands(), "O");
    world.stands("cutting", 1);
    gate::fence(&us, &world.slice, Epoch(1)).await.unwrap();
    assert_eq!(stands(), "D");
    world.stands("following", 2);
    gate::open(&us, &world.slice, Epoch(2)).await.unwrap();
    assert_eq!(stands(), "O");
}
