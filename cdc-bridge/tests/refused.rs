//! What a sink's database refuses, again and again: each ends as a stop that says where, or goes through another way.

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::{session, there};
use house::one_table::{ALL, PLAN, SINK, SOURCE, following};
use migrations::code::Code;
use migrations::control::LaneReport;
use migrations::finding::Finding;
use migrations::lsn::Of;
use migrations::stage::Event;

const TWO: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, note text);
    CREATE TABLE items (id bigint PRIMARY KEY, of bigint REFERENCES orders DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO orders VALUES (1, 'one');";
const ITEMS: &str = "SELECT id, of FROM items ORDER BY id";

/// Refuses the row with the id 7 by a trigger, with this SQLSTATE.
fn raising(code: &str, on: &str) -> String {
    format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.id = 7 THEN RAISE EXCEPTION 'seven is refused' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$; \
         {on} FOR EACH ROW EXECUTE FUNCTION refuse();"
    )
}

/// The finding with which the first copy stops.
async fn stopped_copy(source: &str, sink: &str, plan: &str) -> Finding {
    let house = House::new(source, sink, plan).await;
    house.start();
    house.decide(Event::SyncStarted { replace: false });
    let (finding, _) = house.stopped(&there()).await;
    house.stop().await;
    finding
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_trigger_refuses_stops_the_copy() {
    let before = "CREATE TRIGGER seven BEFORE INSERT ON orders";
    let at_end = "CREATE CONSTRAINT TRIGGER seven AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED";
    for (code, on) in [("P0001", before), ("55000", before), ("P0001", at_end), ("40001", before)] {
        let finding = stopped_copy(SOURCE, &format!("{SINK}{}", raising(code, on)), PLAN).await;
        assert_eq!(finding.code, Code::CopyRefusedRow, "{code}: {finding}");
        let words = &finding.message;
        assert!(words.contains("public.orders") && words.contains("seven is refused"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_circle_refuses_at_its_end_stops_the_copy() {
    let tables = "
        CREATE TABLE orders (id bigint PRIMARY KEY, item bigint);
        CREATE TABLE items (id bigint PRIMARY KEY, of bigint);
        INSERT INTO orders VALUES (1, 1), (2, 99); INSERT INTO items VALUES (1, 1);";
    let keys = "
        CREATE TABLE orders (id bigint PRIMARY KEY, item bigint);
        CREATE TABLE items (id bigint PRIMARY KEY, of bigint REFERENCES orders DEFERRABLE);
        ALTER TABLE orders ADD FOREIGN KEY (item) REFERENCES items DEFERRABLE;";
    let plan = PLAN.replace("[public.orders]", "[public.orders, public.items]");
    let finding = stopped_copy(tables, keys, &plan).await;
    assert_eq!(finding.code, Code::CopyRefusedRow, "{finding}");
    assert!(finding.message.contains("public.orders") && finding.message.contains("(99)"), "{finding}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_only_the_services_table_refuses_stops_the_copy() {
    let long =
        "INSERT INTO orders SELECT 5000, string_agg(md5(g::text), '') FROM generate_series(1, 2000) g;";
    let sinks = [
        ("CREATE INDEX ON orders (note);", "index row"),
        ("ALTER TABLE orders ADD CHECK (length(note) < 100);", "check constraint"),
        ("CREATE UNIQUE INDEX ON orders ((id % 5000));", "unique constraint"),
    ];
    for (refuses, words) in sinks {
        let source =
            format!("{SOURCE}{long} INSERT INTO orders VALUES (5001, 'doubled by the service''s index');");
        let finding = stopped_copy(&source, &format!("{SINK}{refuses}"), PLAN).await;
        assert_eq!(finding.code, Code::CopyRefusedRow, "{refuses}: {finding}");
        assert!(finding.message.contains("public.orders") && finding.message.contains(words), "{finding}");
    }
}

/// By whatever code the refusal comes, it names the row, and that row can be skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_trigger_refuses_again_and_again_stops_the_slice() {
    for code in ["P0001", "55000", "40001", "XX000"] {
        let house = following().await;
        house.at_sink(&raising(code, "CREATE TRIGGER seven BEFORE UPDATE ON orders"));
        house.at_sink("ALTER TABLE orders ENABLE ALWAYS TRIGGER seven");
        house.at_source("UPDATE orders SET note = 'changed' WHERE id IN (6, 7, 8)");
        let (finding, position) = house.stopped(&there()).await;
        assert_eq!(finding.code, Code::SinkRefusedRow, "{code}: {finding}");
        let words = &finding.message;
        assert!(words.contains("id=7") && words.contains("public.orders") && words.contains(code), "{words}");
        house.decide(Event::Resumed { skip: Some(Of::monolith(position.unwrap())) });
        house.barrier().await;
        assert_eq!(house.at_sink("SELECT id FROM orders WHERE note = 'changed' ORDER BY id"), "6\n8");
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_deferred_checks_is_truncated_in_the_batch_that_filled_it() {
    let plan = PLAN.replace("[public.orders]", "[public.orders, public.items]");
    let house = House::following(TWO, &TWO.replace("INSERT INTO orders VALUES (1, 'one');", ""), &plan).await;
    house.stop().await;
    // All of it is one batch when the bridge comes back.
    house.at_source("INSERT INTO items VALUES (1, 1)");
    house.at_source("TRUNCATE items");
    house.at_source("BEGIN; INSERT INTO items VALUES (2, 2); INSERT INTO orders VALUES (2, 'two'); COMMIT");
    house.at_source("DELETE FROM items");
    house.at_source("TRUNCATE items, orders");
    house.at_source("BEGIN; INSERT INTO items VALUES (3, 3); INSERT INTO orders VALUES (3, 'three'); COMMIT");
    house.start();
    house.same(ITEMS, ITEMS).await;
    house.same(ALL, ALL).await;
    assert_eq!(house.at_sink(ITEMS), "3|3");
    house.stop().await;
}

/// The reader keeps both tables until the end of the test.
#[tokio::test(flavor = "multi_thread")]
async fn truncates_neither_deadlock_with_a_reader_of_the_tables_nor_wait_for_it() {
    let tables = "
        CREATE TABLE orders (id bigint PRIMARY KEY, note text);
        CREATE TABLE items (id bigint PRIMARY KEY, of bigint);
        INSERT INTO orders VALUES (1, 'one'); INSERT INTO items VALUES (1, 1);";
    let empty = tables.split("INSERT").next().unwrap();
    let plan = PLAN.replace("[public.orders]", "[public.orders, public.items]");
    for truncates in [&["TRUNCATE orders", "TRUNCATE items"][..], &["TRUNCATE orders, items"]] {
        let house = House::following(tables, empty, &plan).await;
        house.stop().await;
        let reader = session(&house.sink.url("postgres", "orders")).await;
        reader.batch_execute("BEGIN; SELECT FROM items").await.unwrap();
        for truncate in truncates {
            house.at_source(truncate);
        }
        house.start();
        let waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'";
        house.until_sql(false, waits, "t").await;
        reader.batch_execute("SELECT FROM orders").await.unwrap();
        house.same(ITEMS, ITEMS).await;
        house.same(ALL, ALL).await;
        reader.batch_execute("COMMIT").await.unwrap();
        house.stop().await;
    }
}

/// Another table of the service refers to the one that is emptied: nothing is deleted there, however busy the tables are.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_never_deletes_rows_of_another_table() {
    let house = following().await;
    house.at_sink(
        "CREATE TABLE own (id int PRIMARY KEY, of bigint REFERENCES orders ON DELETE CASCADE); INSERT INTO own VALUES (1, 1)",
    );
    house.stop().await;
    let reader = session(&house.sink.url("postgres", "orders")).await;
    reader.batch_execute("BEGIN; SELECT FROM orders").await.unwrap();
    house.at_source("TRUNCATE orders");
    house.start();
    house
        .until("tried", |report: &LaneReport| format!("{:?}", report.condition).contains("lock timeout"))
        .await;
    reader.batch_execute("COMMIT").await.unwrap();
    let (finding, _) = house.stopped(&there()).await;
    assert!(finding.message.contains("a truncate of public.orders"), "{finding}");
    assert_eq!(house.at_sink("SELECT count(*) FROM own"), "1");
    house.stop().await;
}

/// What the service's own functions lack, and what was dropped there, no `install` brings.
#[tokio::test(flavor = "multi_thread")]
async fn what_install_cannot_mend_is_not_called_so() {
    let house = following().await;
    let cases = [
        (
            "CREATE TABLE audit (id bigint); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO public.audit VALUES (NEW.id); RETURN NEW; END'; \
             CREATE TRIGGER note AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note()",
            "DROP TRIGGER note ON orders",
            Code::SinkRefusedRow,
            "SECURITY DEFINER",
        ),
        (
            "CREATE SCHEMA rules; CREATE TABLE rules.bad (note text); GRANT USAGE ON SCHEMA rules TO strangler; \
             GRANT SELECT ON rules.bad TO strangler; SET search_path = rules; \
             CREATE FUNCTION public.ok(n text) RETURNS boolean LANGUAGE sql AS 'SELECT NOT EXISTS (SELECT FROM bad WHERE note = n)'; \
             ALTER TABLE public.orders ADD CONSTRAINT ok CHECK (public.ok(note)) NOT VALID",
            "ALTER FUNCTION ok SET search_path = rules",
            Code::SinkRefusedRow,
            "SET search_path",
        ),
        (
            "ALTER TABLE orders DROP COLUMN note",
            "ALTER TABLE orders ADD COLUMN note text",
            Code::SinkNoColumn,
            "add it to the service's table",
        ),
    ];
    for (id, (breaks, mends, code, remedy)) in (5000..).zip(cases) {
        house.at_sink(breaks);
        house.at_source(&format!(
            "INSERT INTO orders VALUES ({id}, 'new'); UPDATE orders SET note = 'other' WHERE id = 1"
        ));
        let (finding, _) = house.stopped(&there()).await;
        assert_eq!(finding.code, code, "{finding}");
        assert!(
            finding.remedy.contains(remedy) && !finding.remedy.contains("strangler install"),
            "{finding}"
        );
        house.at_sink(mends);
        house.decide(Event::Resumed { skip: None });
        house.barrier().await;
        assert_eq!(house.at_sink(&format!("SELECT note FROM orders WHERE id = {id}")), "new");
    }
    house.stop().await;
}
