//! One slice's trouble is that slice's: the others of the same source go on following.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::one_table::{ALL, PLAN, SINK, SOURCE};
use migrations::code::Code;
use migrations::control::Condition;
use migrations::lane::LaneId;
use migrations::lsn::Of;
use migrations::stage::Event;

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, note text);";
const ALL_NOTES: &str = "SELECT id, note FROM notes ORDER BY id";

/// What happens to the table of one slice, and how it is taken back.
const TROUBLES: [(&str, &str); 5] = [
    ("ALTER TABLE notes RENAME TO away", "ALTER TABLE away RENAME TO notes"),
    (
        "CREATE SCHEMA other; ALTER TABLE notes SET SCHEMA other",
        "ALTER TABLE other.notes SET SCHEMA public; DROP SCHEMA other",
    ),
    ("ALTER PUBLICATION strangler_shop DROP TABLE notes", "ALTER PUBLICATION strangler_shop ADD TABLE notes"),
    (
        "ALTER TABLE notes RENAME TO away; CREATE TABLE notes (LIKE away INCLUDING ALL); INSERT INTO notes VALUES (7, 'new')",
        "DROP TABLE notes; ALTER TABLE away RENAME TO notes",
    ),
    (
        "DROP TABLE notes",
        "SET ROLE app; CREATE TABLE notes (id int PRIMARY KEY, note text); RESET ROLE; GRANT SELECT ON notes TO strangler; \
         ALTER PUBLICATION strangler_shop ADD TABLE notes",
    ),
];

fn notes() -> LaneId {
    LaneId::forward("notes".parse().unwrap())
}

/// Two slices, each with one table.
fn plan() -> String {
    let slices = "tables: [public.orders]\n  notes: { service: orders, routes: { all: GET /notes }, tables: [public.notes] }";
    PLAN.replace("tables: [public.orders]", slices)
}

/// Both follow. The source database is made with these options, and has a table that nobody follows.
async fn two_slices(options: &str) -> House {
    let filled =
        format!("{SOURCE}{NOTES} INSERT INTO notes VALUES (1, 'first'); CREATE TABLE loose (LIKE notes);");
    let house = House::new_with(options, &filled, &format!("{SINK}{NOTES}"), &plan()).await;
    house.start();
    house.follow().await;
    house.decide_for("notes", Event::SyncStarted { replace: false });
    follows(&house).await;
    house
}

async fn follows(house: &House) {
    let is_following = |report: &migrations::control::LaneReport| report.condition == Condition::Following;
    house.until_lane(&notes(), "following", is_following).await;
}

/// The other slice goes on while this one stands.
async fn goes_on(house: &House, note: &str) {
    let attempt = house.attempt();
    house.at_source(&format!("UPDATE orders SET note = $${note}$$ WHERE id <= 10"));
    house.same(ALL, ALL).await;
    assert_eq!(house.attempt(), attempt, "the other slice was copied again: {note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_followed_stops_only_its_slice() {
    let house = two_slices("").await;
    for (n, (trouble, back)) in TROUBLES.into_iter().enumerate() {
        // Each second one happens while no bridge runs.
        let is_up = n % 2 == 0;
        if !is_up {
            house.stop().await;
        }
        house.at_source(trouble);
        house.at_source(&format!("UPDATE orders SET note = 'before {n}' WHERE id <= 10"));
        if !is_up {
            house.start();
        }
        let (finding, _) = house.stopped(&notes()).await;
        assert_eq!(finding.code, Code::CaptureOtherTable, "{trouble}");
        assert!(finding.message.contains("public.notes"), "{finding}");
        goes_on(&house, trouble).await;
        house.at_source(back);
        house.at_source(&format!("INSERT INTO notes VALUES (10 + {n}, 'x')"));
        follows(&house).await;
        goes_on(&house, back).await;
        house.until_sql(false, ALL_NOTES, &house.at_source(ALL_NOTES)).await;
    }
    // Nothing more of an old row is written, or something else of it.
    house.at_source("ALTER TABLE notes REPLICA IDENTITY NOTHING");
    let (finding, _) = house.stopped(&notes()).await;
    assert_eq!(finding.code, Code::SourceSchemaChanged, "{finding}");
    goes_on(&house, "identity").await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_stops_only_its_slice() {
    // The second one is larger than any message that is read.
    for kilobytes in [8, 300] {
        let mut house = two_slices("").await;
        house.stop().await;
        house.plan.limits.row_bytes_max = 4096;
        house.start();
        follows(&house).await;
        let large = format!(
            "INSERT INTO notes SELECT 50, string_agg(md5(g::text), '') FROM generate_series(1, {kilobytes} * 32) g"
        );
        house.at_source(&format!(
            "{large}; UPDATE orders SET note = 'beside' WHERE id = 1; {}",
            "UPDATE notes SET note = 'x' WHERE id = 50"
        ));
        let (finding, _) = house.stopped(&notes()).await;
        assert_eq!(finding.code, Code::CaptureRowTooLarge);
        assert!(finding.message.contains("public.notes"), "{finding}");
        goes_on(&house, "large").await;
        // With a higher limit the slice is copied, and follows.
        house.stop().await;
        house.plan.limits.row_bytes_max = 1 << 20;
        house.start();
        follows(&house).await;
        house.at_source(&large.replace("50", "51"));
        house.until_sql(false, ALL_NOTES, &house.at_source(ALL_NOTES)).await;
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_tables_of_started_slices_are_published() {
    let published = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables";
    let house = House::new(&format!("{SOURCE}{NOTES}"), &format!("{SINK}{NOTES}"), &plan()).await;
    house.start();
    assert_eq!(house.at_source(published), "");
    house.follow().await;
    assert_eq!(house.at_source(published), "orders");
    let attempt = house.attempt();
    house.decide_for("notes", Event::SyncStarted { replace: false });
    follows(&house).await;
    assert_eq!(house.at_source(published), "notes orders");
    house.decide_for("notes", Event::SyncDropped);
    house.until_sql(true, published, "orders").await;
    goes_on(&house, "the other was dropped").await;
    assert_eq!(house.attempt(), attempt);
    house.decide(Event::SyncDropped);
    house.until_sql(true, published, "").await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_not_utf_8_stops_only_the_slice_that_needs_it() {
    let house = two_slices("ENCODING SQL_ASCII TEMPLATE template0 LOCALE 'C'").await;
    house.at_source(r"INSERT INTO loose VALUES (1, E'\xff')");
    goes_on(&house, "nobody follows it").await;
    // One by one, and many at once.
    for (n, rows) in [(2, "generate_series(100, 100)"), (3, "generate_series(200, 300)")] {
        house.at_source(&format!(r"INSERT INTO notes SELECT g, E'caf\xe9' FROM {rows} g"));
        let (finding, position) = house.stopped(&notes()).await;
        assert!(finding.message.contains("public.notes") && finding.message.contains("UTF-8"), "{finding}");
        goes_on(&house, rows).await;
        // The service may get the slice without these rows.
        if n == 2 {
            house.decide_for("notes", Event::Resumed { skip: Some(Of::monolith(position.unwrap())) });
            follows(&house).await;
        }
    }
    // A copy cannot read them either, and says of which table they are.
    house.decide_for("notes", Event::SyncDropped);
    house.until_lane(&notes(), "idle", |report| report.condition == Condition::Idle).await;
    house.decide_for("notes", Event::SyncStarted { replace: false });
    let (finding, _) = house.stopped(&notes()).await;
    assert!(finding.code == Code::CopyRefusedRow && finding.message.contains("public.notes"), "{finding}");
    goes_on(&house, "copy").await;
    house.stop().await;
}
