//! An ALTER that writes a followed column's values anew sends no row of it: the slice stops. What leaves values alone goes on.

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::there;
use house::one_table::PLAN;
use migrations::code::Code;
use migrations::control::Condition;
use migrations::stage::Event;

const TABLE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE orders (id bigint PRIMARY KEY, note text, at timestamptz, price numeric(10,2), size varchar(20), n int,
                         mood mood, moods mood[], code char(4)[]);";
const ALL: &str = "SELECT * FROM orders ORDER BY id";

const REWRITES: [&str; 11] = [
    "ALTER TABLE orders ALTER note TYPE text USING upper(note)",
    "ALTER TABLE orders ALTER at TYPE timestamptz(0)",
    "ALTER TABLE orders ALTER price TYPE numeric(12,2) USING price * 100",
    "ALTER TABLE orders ALTER price TYPE numeric(10,2) USING price + 1",
    "ALTER TABLE orders ALTER price TYPE numeric(10,1)",
    "ALTER TABLE orders ALTER size TYPE varchar(4) USING left(size, 4)",
    "ALTER TABLE orders ALTER n TYPE bigint USING n + 1",
    "ALTER TABLE orders ALTER code TYPE char(5)[]",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'x'; ALTER TYPE mood RENAME VALUE 'ok' TO 'sad'; ALTER TYPE mood RENAME VALUE 'x' TO 'ok'",
    "ALTER TABLE orders ALTER mood TYPE mood USING 'ok'",
];

async fn following() -> House {
    let rows = "INSERT INTO orders SELECT g, 'note ' || g, '2026-01-01 10:00:00.5', g + 0.25, 'size ' || g, g, 'sad', '{sad}', '{ab}'
                FROM generate_series(1, 100) g";
    House::following(&format!("{TABLE}{rows}"), TABLE, PLAN).await
}

/// Waits until the slice has stopped for its shape.
async fn stopped(house: &House, rewrite: &str, before: &str) {
    let (finding, _) = house.stopped(&there()).await;
    assert_eq!(finding.code, Code::SourceSchemaChanged, "{rewrite}: {finding}");
    assert!(!house.passes().await, "{rewrite}");
    assert_eq!(house.at_sink(ALL), before, "{rewrite}: nothing behind it is applied");
}

async fn copied_anew(house: &House) {
    house.decide(Event::SyncDropped);
    house.until("idle", |report| report.condition == Condition::Idle).await;
    house.at_source(&format!("TRUNCATE orders; {}", put_back()));
    house.at_source("INSERT INTO orders SELECT g, 'note ' || g, '2026-01-01 10:00:00.5', g + 0.25, 'size', g, 'sad', '{sad}', '{ab}' FROM generate_series(1, 100) g");
    house.follow().await;
    house.same(ALL, ALL).await;
}

/// The table as it was, whatever was done to it.
fn put_back() -> &'static str {
    "ALTER TABLE orders ALTER at TYPE timestamptz, ALTER price TYPE numeric(10,2), ALTER size TYPE varchar(20), \
     ALTER n TYPE int, ALTER code TYPE char(4)[]; \
     ALTER TABLE orders ALTER mood TYPE text, ALTER moods TYPE text[]; DROP TYPE mood; \
     CREATE TYPE mood AS ENUM ('sad', 'ok'); \
     ALTER TABLE orders ALTER mood TYPE mood USING mood::mood, ALTER moods TYPE mood[] USING moods::mood[]"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_stops_the_slice_while_the_bridge_runs() {
    let house = following().await;
    for (n, rewrite) in REWRITES.into_iter().enumerate() {
        house.same(ALL, ALL).await;
        let before = house.at_sink(ALL);
        house.at_source(rewrite);
        // With rows after it, and without.
        if n % 2 == 0 {
            house.at_source("UPDATE orders SET n = 7 WHERE id = 5");
        }
        stopped(&house, rewrite, &before).await;
        copied_anew(&house).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_stops_the_slice_after_a_restart() {
    let house = following().await;
    for (n, rewrite) in REWRITES.into_iter().enumerate() {
        house.same(ALL, ALL).await;
        let before = house.at_sink(ALL);
        house.stop().await;
        house.at_source(rewrite);
        if n % 2 == 1 {
            house.at_source("UPDATE orders SET n = 7 WHERE id = 5");
        }
        house.start();
        stopped(&house, rewrite, &before).await;
        copied_anew(&house).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_every_value_alone_goes_on() {
    let house = following().await;
    house.at_sink("ALTER TYPE mood ADD VALUE 'good'");
    let files = [
        "VACUUM FULL orders",
        "CLUSTER orders USING orders_pkey",
        "CREATE INDEX ON orders (note)",
        "REINDEX TABLE orders",
        "ANALYZE orders",
        "TRUNCATE orders",
        "ALTER TABLE orders SET (fillfactor = 70)",
        "ALTER TYPE mood ADD VALUE 'good'",
    ];
    let entries = [
        "ALTER TABLE orders ALTER note SET STATISTICS 500",
        "ALTER TABLE orders ALTER note SET STORAGE EXTERNAL",
        "ALTER TABLE orders ALTER note SET DEFAULT 'x'",
        "ALTER TABLE orders ALTER n SET NOT NULL",
        "CREATE ROLE reader; GRANT SELECT (note) ON orders TO reader",
        "CREATE STATISTICS together ON n, note FROM orders; ANALYZE orders",
    ];
    for family in [&files[..], &entries[..]] {
        for (n, harmless) in family.iter().enumerate() {
            house.at_source(harmless);
            house.at_source(&format!("INSERT INTO orders (id, n, note) VALUES ({n}, 1, 'seen') ON CONFLICT (id) DO UPDATE SET n = 8"));
            house.same(ALL, ALL).await;
        }
        house.stop().await;
        house.start();
        house.until("following", |report| report.condition == Condition::Following).await;
        house.same(ALL, ALL).await;
        // Both families since one copy are taken for a rewrite.
        house.decide(Event::SyncDropped);
        house.until("idle", |report| report.condition == Condition::Idle).await;
        house.follow().await;
    }
    house.stop().await;
}

/// At the service. A number that no longer fits is refused, but the column is at fault, not the row.
const NARROWER: [(&str, &str); 7] = [
    ("at", "ALTER TABLE orders ALTER at TYPE timestamptz(0)"),
    ("price", "ALTER TABLE orders ALTER price TYPE numeric(10,1)"),
    ("size", "ALTER TABLE orders ALTER size TYPE varchar(9)"),
    ("n", "ALTER TABLE orders ALTER n TYPE smallint USING n % 1000"),
    ("code", "ALTER TABLE orders ALTER code TYPE char(3)[]"),
    ("mood", "CREATE TYPE few AS ENUM ('sad'); ALTER TABLE orders ALTER mood TYPE few USING 'sad'"),
    (
        "note",
        "CREATE DOMAIN short AS text CHECK (length(value) < 100); ALTER TABLE orders ALTER note TYPE short",
    ),
];
const FIRST: &str = "SELECT * FROM orders WHERE id = 1";

/// A row whose values each of the narrower columns would round or cut.
fn updated(n: usize) -> String {
    format!(
        "UPDATE orders SET note = 'note {n}', at = '2026-02-02 10:00:00.{n}', price = {n}.25, size = '{n}            ', n = 7000{n}, \
         mood = 'sad', code = '{{a{n}}}' WHERE id = 1"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_the_service_that_becomes_narrower_stops_the_slice_before_a_value_is_cut() {
    let house = following().await;
    for (n, (column, narrow)) in (1..).zip(NARROWER) {
        house.at_sink(narrow);
        let cut = house.at_sink(FIRST);
        house.at_source(&updated(n));
        let (finding, _) = house.stopped(&there()).await;
        assert_eq!(finding.code, Code::SinkNarrowed, "{narrow}: {finding}");
        let place = format!("column {column} of the service's table public.orders");
        assert!(finding.message.contains(&place), "{finding}");
        assert_eq!(house.at_sink(FIRST), cut, "{narrow}: nothing is applied");
        if n == 1 {
            house.stop().await;
            house.decide(Event::Resumed { skip: None });
            house.start();
            assert_eq!(house.stopped(&there()).await.0.code, Code::SinkNarrowed, "a restart changes nothing");
        }
        // The finding's own statement mends it.
        house.at_sink(finding.remedy.split('`').nth(1).unwrap());
        house.decide(Event::Resumed { skip: None });
        house.same(FIRST, FIRST).await;
    }
    house.at_sink(
        "ALTER TABLE orders ALTER price TYPE numeric(14,4), ALTER n TYPE bigint, ALTER size TYPE text, ADD own int DEFAULT 0",
    );
    for harmless in [
        "ALTER TABLE orders ALTER note SET STATISTICS 10",
        "ALTER TYPE mood ADD VALUE 'odd'",
        "VACUUM FULL orders",
    ] {
        house.at_sink(harmless);
    }
    house.at_source(&updated(8));
    let wider =
        "SELECT id, note, at, price::numeric(10,2), size, n, mood, moods, code FROM orders WHERE id = 1";
    house.same(wider, wider).await;
    house.stop().await;
}
