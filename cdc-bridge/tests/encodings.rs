//! A source whose encoding is not UTF-8: each text arrives as the source's own conversion makes it, and a character that
//! UTF-8 has not stops only the slice that needs it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::one_table::{PLAN, SINK, SOURCE};
use migrations::control::{Condition, LaneReport};
use migrations::lane::LaneId;
use migrations::lsn::Of;
use migrations::stage::Event;

/// Encodings, with SQL for the bytes of their characters: of one byte, of two, of three and of four.
const ENCODINGS: [(&str, &str); 9] = [
    ("WIN1252", ONE),
    ("WIN1255", ONE),
    ("LATIN1", ONE),
    ("KOI8R", ONE),
    ("EUC_KR", TWO),
    ("EUC_CN", TWO),
    ("EUC_JIS_2004", TWO),
    (
        "EUC_JP",
        "SELECT b FROM two UNION ALL SELECT '\\x8e'::bytea || b FROM one UNION ALL SELECT '\\x8f'::bytea || b FROM two",
    ),
    ("EUC_TW", "SELECT b FROM two UNION ALL SELECT '\\x8ea2'::bytea || b FROM two"),
];
/// Those all of whose characters UTF-8 has.
const WHOLE: [&str; 2] = ["LATIN1", "KOI8R"];
const ONE: &str = "SELECT b FROM one";
const TWO: &str = "SELECT b FROM two";

/// What the source's own conversion makes of each character; null where UTF-8 has it not. What the encoding itself has not
/// is left out.
const KNOWN: &str = "
    CREATE FUNCTION known(b bytea) RETURNS text LANGUAGE plpgsql AS $$BEGIN
        PERFORM convert_from(b, getdatabaseencoding());
        BEGIN RETURN encode(convert(b, getdatabaseencoding(), 'UTF8'), 'hex'); EXCEPTION WHEN OTHERS THEN RETURN NULL; END;
    EXCEPTION WHEN OTHERS THEN RETURN 'none'; END$$;
    CREATE TABLE known AS WITH
        one AS (SELECT set_byte('\\x00', 0, g) AS b FROM generate_series(128, 255) g),
        two AS (SELECT a.b || z.b AS b FROM one a, one z WHERE a.b > '\\xa0' AND z.b > '\\xa0' AND a.b < '\\xff' AND z.b < '\\xff')
        SELECT b, known(b) AS utf8 FROM (CHARACTERS) all_of_them;
    DELETE FROM known WHERE utf8 = 'none';";

const NOTES: &str = "CREATE TABLE notes (id int PRIMARY KEY, note text);";

fn notes() -> LaneId {
    LaneId::forward("notes".parse().unwrap())
}

async fn follows(house: &House) {
    let is_following = |report: &LaneReport| report.condition == Condition::Following;
    house.until_lane(&notes(), "following", is_following).await;
}

async fn two_slices(encoding: &str, characters: &str) -> House {
    let slices = "tables: [public.orders]\n  notes: { service: orders, routes: { all: GET /notes }, tables: [public.notes] }";
    let source = format!("{SOURCE}{NOTES}{}", KNOWN.replace("CHARACTERS", characters));
    let options = format!("ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'");
    let plan = PLAN.replace("tables: [public.orders]", slices);
    let house = House::new_with(&options, &source, &format!("{SINK}{NOTES}"), &plan).await;
    house.start();
    house.follow().await;
    house.decide_for("notes", Event::SyncStarted { replace: false });
    follows(&house).await;
    house
}

/// The other slice goes on while this one stands, with texts of its own.
async fn goes_on(house: &House, note: &str) {
    let attempt = house.attempt();
    let text = "(SELECT string_agg(convert_from(b, getdatabaseencoding()), '') FROM (SELECT b FROM known WHERE utf8 IS NOT NULL LIMIT 9) k)";
    house.at_source(&format!("UPDATE orders SET note = '{note} ' || {text} WHERE id <= 10"));
    let sent = "SELECT id, encode(convert(convert_to(note, getdatabaseencoding()), getdatabaseencoding(), 'UTF8'), 'hex') FROM orders ORDER BY id";
    house.same(sent, "SELECT id, encode(convert_to(note, 'UTF8'), 'hex') FROM orders ORDER BY id").await;
    assert_eq!(house.attempt(), attempt, "the other slice was copied again: {note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_character_arrives_as_the_source_converts_it_and_one_without_equivalent_stops_its_slice() {
    for (encoding, characters) in ENCODINGS {
        let house = two_slices(encoding, characters).await;
        // Many in a text, between others, and alone.
        house.at_source(
            "INSERT INTO notes SELECT n, string_agg('a' || convert_from(b, getdatabaseencoding()), '' ORDER BY b) \
             FROM (SELECT b, 1 + (row_number() OVER (ORDER BY b) / 50)::int AS n FROM known WHERE utf8 IS NOT NULL) k GROUP BY n; \
             INSERT INTO notes SELECT 1000000, convert_from(b, getdatabaseencoding()) FROM known WHERE utf8 IS NOT NULL LIMIT 1",
        );
        let expected = house.at_source(
            "SELECT n, string_agg('61' || utf8, '' ORDER BY b) \
             FROM (SELECT b, utf8, 1 + (row_number() OVER (ORDER BY b) / 50)::int AS n FROM known WHERE utf8 IS NOT NULL) k \
             GROUP BY n ORDER BY n",
        );
        assert!(expected.len() > 400, "{encoding}: {expected}");
        let arrived =
            "SELECT id, encode(convert_to(note, 'UTF8'), 'hex') FROM notes WHERE id < 1000000 ORDER BY id";
        house.until_sql(false, arrived, &expected).await;
        house.until_sql(false, "SELECT count(*) FROM notes WHERE id = 1000000", "1").await;
        let without = house.at_source("SELECT encode(b, 'hex') FROM known WHERE utf8 IS NULL LIMIT 1");
        assert_eq!(without.is_empty(), WHOLE.contains(&encoding), "{encoding}");
        if !without.is_empty() {
            house.at_source(&format!(
                "INSERT INTO notes VALUES (2000000, 'caf' || convert_from('\\x{without}', getdatabaseencoding()))"
            ));
            let (finding, position) = house.stopped(&notes()).await;
            let told = finding.message.contains("public.notes") && finding.message.contains("UTF-8");
            assert!(told, "{encoding}: {finding}");
            goes_on(&house, encoding).await;
            house.decide_for("notes", Event::Resumed { skip: Some(Of::monolith(position.unwrap())) });
            follows(&house).await;
        }
        goes_on(&house, "after").await;
        house.stop().await;
    }
}
