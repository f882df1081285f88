//! The stream may be at an older place than the catalog: a row has the columns and types that its table had then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::crossing::there;
use house::one_table::{self, ALL, PLAN, SINK, SOURCE};
use house::{House, kafka};
use migrations::code::Code;
use migrations::control::Condition;
use migrations::stage::Event;
use serde_json::Value as Json;

/// Columns of types that this schema alone has.
const OWN: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN cents AS numeric(12,2);
    CREATE TYPE spot AS (x int, y text); CREATE TYPE span AS RANGE (subtype = text);
    ALTER TABLE orders ADD m mood DEFAULT 'sad', ADD c cents, ADD s spot, ADD r span, ADD ms mood[]";
const OWN_GONE: &str = "ALTER TABLE orders DROP m, DROP c, DROP s, DROP r, DROP ms;
    DROP TYPE mood, spot, span; DROP DOMAIN cents";
const OWN_ROW: &str = "(id, note, m, c, s, r, ms) VALUES (%, 'own', 'ok', 1.5, '(1,a)', '[a,b]', '{sad}')";

fn own_row(id: u32) -> String {
    format!("INSERT INTO orders {}", OWN_ROW.replace('%', &id.to_string()))
}

/// What `tail` shows of the table's rows, as their records.
async fn records(house: &House) -> Vec<Json> {
    let url = format!("http://{}/v1/tail?slice=orders&n=100", house.plan.bridge.listen);
    let asked = reqwest::Client::new().get(&url).bearer_auth("t").send().await.unwrap();
    let lines = asked.text().await.unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A column of the newest record of the row with this id.
async fn recorded(house: &House, id: u64, column: &str) -> Option<Json> {
    let of = |record: &Json| {
        let value = &record["value"];
        let value = value.get("payload").unwrap_or(value);
        (value["after"]["id"] == id).then(|| value["after"].get(column).cloned().unwrap_or_default())
    };
    records(house).await.iter().rev().find_map(of)
}

async fn follows_on(house: &House) {
    house.same(ALL, ALL).await;
    house.until("following", |report| report.condition == Condition::Following).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_columns_were_dropped_with_their_types_is_copied_and_followed() {
    for log in [String::new(), kafka()] {
        let house = House::new(&format!("{SOURCE} {OWN}"), SINK, &format!("{PLAN}{log}")).await;
        house.at_source(&format!("{}; {}; {OWN_GONE}", own_row(2000), own_row(2001)));
        house.start();
        house.follow().await;
        house.at_source("UPDATE orders SET note = 'later' WHERE id > 1990");
        follows_on(&house).await;
        // The same while the stream is still before the drop.
        house.at_source(&format!("SET ROLE app; {OWN}"));
        house.at_source(&own_row(2002));
        house.stop().await;
        house.at_source(&format!("{}; UPDATE orders SET c = 2 WHERE id = 2002; {OWN_GONE}", own_row(2003)));
        house.decide(Event::SyncDropped);
        house.decide(Event::SyncStarted { replace: false });
        house.start();
        house.until("following", |report| report.condition == Condition::Following).await;
        house.at_source("UPDATE orders SET note = 'after' WHERE id = 2003");
        follows_on(&house).await;
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_dropped_with_its_type_during_the_copy_waits_for_it() {
    let rows =
        "INSERT INTO orders (id, note) SELECT g, repeat('n', 200) FROM generate_series(2000, 200000) g";
    let left_out = one_table::plan("    tables: [{ from: public.orders, drop: [m, c, s, r, ms] }]\n");
    for (plan, goes_on) in [(left_out.as_str(), true), (PLAN, false)] {
        let sink = if goes_on { SINK.to_owned() } else { format!("{SINK} {OWN};") };
        let house = House::new(&format!("{SOURCE} {OWN}; {rows};"), &sink, plan).await;
        house.start();
        house.decide(Event::SyncStarted { replace: false });
        house.until_sql(true, "SELECT count(*) > 0 FROM pg_stat_progress_copy", "t").await;
        house.at_source(OWN_GONE);
        house.at_source("INSERT INTO orders VALUES (1000000, 'after')");
        if goes_on {
            follows_on(&house).await;
        } else {
            let (finding, _) = house.stopped(&there()).await;
            assert_eq!(finding.code, Code::SourceSchemaChanged, "{finding}");
            assert!(finding.message.contains("its column `m` is gone"), "{finding}");
        }
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_comes_and_goes_in_one_transaction_is_left_out() {
    for log in [String::new(), kafka()] {
        let house = House::following(SOURCE, SINK, &format!("{PLAN}{log}")).await;
        for (n, kind, value) in [(0, "int", "7"), (1, "text[]", "'{a}'"), (2, "regclass", "'orders'")] {
            let id = 2000 + 10 * n;
            house.at_source(&format!(
                "BEGIN; INSERT INTO orders VALUES ({id}, 'before'); ALTER TABLE orders ADD x {kind}; \
                 INSERT INTO orders VALUES ({id} + 1, 'between', {value}); UPDATE orders SET x = NULL WHERE id < 5; \
                 ALTER TABLE orders DROP x; INSERT INTO orders VALUES ({id} + 2, 'after'); COMMIT; \
                 DELETE FROM orders WHERE id = {id}"
            ));
            follows_on(&house).await;
        }
        assert_eq!(recorded(&house, 2001, "x").await, Some(Json::from(7)), "as it was written");
        // With types that go as well.
        house.at_source(&format!("BEGIN; {OWN}; {}; {OWN_GONE}; COMMIT", own_row(3000)));
        follows_on(&house).await;
        house.stop().await;
        house.at_source(&format!(
            "{OWN}; {}; {OWN_GONE}; UPDATE orders SET note = 'x' WHERE id = 3000",
            own_row(3001)
        ));
        house.start();
        follows_on(&house).await;
        assert_eq!(recorded(&house, 3001, "m").await, Some(Json::from("ok")));
        house.stop().await;
    }
}

/// A type, what it becomes next, and last.
const CHANGES: [[&str; 3]; 5] = [
    ["int", "bigint", "text"],
    ["int", "bigint", "numeric"],
    ["varchar(8)", "varchar(20)", "varchar(4)"],
    ["numeric(10,2)", "numeric(12,4)", "numeric(8,1)"],
    ["int", "text", "int"],
];

fn altered(kinds: [&str; 3], rows: [&str; 3]) -> String {
    let alter =
        |kind: &str| format!("ALTER TABLE orders ALTER v TYPE {kind} USING left(v::text, 4)::{kind};");
    let [before, between, after] = rows;
    format!("{before}; {} {between}; {} {after}", alter(kinds[1]), alter(kinds[2]))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fast_changes_of_a_used_columns_type_stop_the_slice_by_name() {
    for is_away in [true, false] {
        for kinds in CHANGES {
            let with = |table: &str| table.replace("note text)", &format!("note text, v {})", kinds[0]));
            let house = House::following(&with(SOURCE), &with(SINK), PLAN).await;
            if is_away {
                house.stop().await;
            }
            let all = "SELECT id, note, v FROM orders ORDER BY id";
            let before = house.at_sink(all);
            house.at_source(&altered(
                kinds,
                [
                    "INSERT INTO orders VALUES (2000, 'before', '12')",
                    "INSERT INTO orders VALUES (2001, 'between', '12')",
                    "INSERT INTO orders VALUES (2002, 'after', '12')",
                ],
            ));
            if is_away {
                house.start();
            }
            let (finding, _) = house.stopped(&there()).await;
            assert_eq!(finding.code, Code::SourceSchemaChanged, "{kinds:?} {finding}");
            assert!(finding.message.contains("column `v`"), "{kinds:?} {finding}");
            let now = house.at_sink(all);
            let more = now.strip_prefix(before.trim_end()).unwrap_or_else(|| panic!("{kinds:?} {now}"));
            let earlier = ["", "2000|before|12", "2000|before|12.00"];
            assert!(
                earlier.contains(&more.trim()),
                "{kinds:?}: only what came before it is applied, not {more}"
            );
            // The finding's own way out.
            house.at_source(&format!("ALTER TABLE orders ALTER v TYPE {0} USING v::text::{0}", kinds[0]));
            house.decide(Event::SyncDropped);
            house.until("idle", |report| report.condition == Condition::Idle).await;
            house.follow().await;
            house.same(all, all).await;
            house.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_outside_the_plan_is_recorded_as_the_type_that_it_had() {
    for log in [String::new(), kafka()] {
        let house = House::following(SOURCE, SINK, &format!("{PLAN}{log}")).await;
        house.at_source("ALTER TABLE orders ADD v int, ADD w numeric(10,2)");
        follows_on(&house).await;
        house.stop().await;
        house.at_source(
            "INSERT INTO orders VALUES (2000, 'a', 5, 1.25);
             ALTER TABLE orders ALTER v TYPE bigint, ALTER w TYPE numeric(12,4);
             INSERT INTO orders VALUES (2001, 'b', 5000000000, 1.25);
             ALTER TABLE orders ALTER v TYPE text, ALTER w TYPE double precision;
             INSERT INTO orders VALUES (2002, 'c', 'five', 1.25);
             ALTER TABLE orders ALTER v TYPE boolean USING true, DROP w;
             INSERT INTO orders VALUES (2003, 'd', false)",
        );
        house.start();
        follows_on(&house).await;
        let mut found = Vec::new();
        for id in 2000..2004 {
            found.push((recorded(&house, id, "v").await.unwrap(), recorded(&house, id, "w").await.unwrap()));
        }
        // Debezium's decimals: the unscaled number as base64 of its bytes.
        let as_then: [(Json, Json); 4] = [
            (5.into(), "fQ==".into()),
            (5_000_000_000_u64.into(), "MNQ=".into()),
            ("five".into(), 1.25.into()),
            (false.into(), Json::Null),
        ];
        assert_eq!(found, as_then);
        house.stop().await;
    }
}
