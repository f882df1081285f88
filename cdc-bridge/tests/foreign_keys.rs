//! Foreign keys that the source checks once, at the end of a statement: replay is not stricter, whatever the order of rows.

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::crossing::there;
use house::one_table::PLAN;
use migrations::code::Code;
use migrations::stage::Event;

const TABLES: &str = "
    CREATE TABLE nodes (id bigint PRIMARY KEY, parent bigint REFERENCES nodes, place int UNIQUE, note text);
    CREATE INDEX ON nodes (parent);
    CREATE TABLE chain (id int PRIMARY KEY, next int REFERENCES chain ON DELETE RESTRICT);
    CREATE TABLE regions (country text, code text, PRIMARY KEY (country, code));
    CREATE TABLE cities (id int, country text, code text, mayor int, PRIMARY KEY (id, country),
        FOREIGN KEY (country, code) REFERENCES regions ON UPDATE CASCADE ON DELETE CASCADE);
    CREATE TABLE twins (country text, code text, other_country text, other_code text, PRIMARY KEY (country, code),
        FOREIGN KEY (other_country, other_code) REFERENCES twins);
    CREATE TABLE owners (id int PRIMARY KEY);
    CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES owners ON DELETE SET NULL, of int REFERENCES pets);
    CREATE TABLE heads (id int PRIMARY KEY, tail int);
    CREATE TABLE tails (id int PRIMARY KEY, head int REFERENCES heads);
    ALTER TABLE heads ADD FOREIGN KEY (tail) REFERENCES tails DEFERRABLE;";

const NAMES: [&str; 9] = ["nodes", "chain", "regions", "cities", "twins", "owners", "pets", "heads", "tails"];

/// Each is taken by a database with these tables.
const CASES: [&str; 18] = [
    "INSERT INTO nodes SELECT g, nullif(g / 2, 0), g FROM generate_series(1, 3000) g",
    "INSERT INTO nodes SELECT g, g + 1, g FROM generate_series(4001, 4999) g UNION ALL SELECT 5000, NULL, 5000",
    "UPDATE nodes SET id = id + 10000, parent = parent + 10000",
    "UPDATE nodes SET parent = 10001, note = 'moved' WHERE id > 12000; DELETE FROM nodes WHERE id BETWEEN 11000 AND 12000",
    "DELETE FROM nodes",
    // Descending on disk, so that no key meets the next one.
    "INSERT INTO nodes SELECT g, g + 1, -g FROM generate_series(99, 1, -1) g UNION ALL SELECT 100, NULL, -100 ORDER BY 1 DESC; \
     UPDATE nodes SET id = id + 1, parent = parent + 1",
    // Unique values are exchanged, which only their order allows, beside rows that only their statement allows.
    "BEGIN; UPDATE nodes SET place = 0 WHERE id = 2; UPDATE nodes SET place = -1 WHERE id = 3; \
     UPDATE nodes SET place = -2 WHERE id = 2; INSERT INTO nodes VALUES (900, 901), (901, 900); \
     UPDATE nodes SET place = 0 WHERE id = 900; UPDATE nodes SET place = 1 WHERE id = 901; \
     UPDATE nodes SET place = 2 WHERE id = 900; UPDATE nodes SET place = 0 WHERE id = 901; DELETE FROM nodes WHERE id < 50; COMMIT",
    "INSERT INTO chain VALUES (1, 2), (2, 3), (3, 1); UPDATE chain SET id = id + 10, next = next + 10",
    "DELETE FROM chain",
    "INSERT INTO regions VALUES ('de', 'a'), ('de', 'b'); INSERT INTO cities VALUES (1, 'de', 'a', 1), (2, 'de', 'b', 2)",
    "BEGIN; UPDATE regions SET code = 'x' WHERE code = 'a'; UPDATE regions SET code = 'a' WHERE code = 'b'; \
     UPDATE regions SET code = 'b' WHERE code = 'x'; UPDATE regions SET country = 'fr' WHERE code = 'a'; COMMIT",
    "INSERT INTO twins VALUES ('de', 'a', 'de', 'b'), ('de', 'b', 'de', 'a'), ('fr', 'c', 'fr', 'c'); \
     UPDATE twins SET country = country || '1', other_country = other_country || '1'; DELETE FROM twins WHERE country = 'de1'",
    "WITH o AS (INSERT INTO owners VALUES (1), (2) RETURNING id) INSERT INTO pets SELECT id, id, 3 - id FROM o",
    "DELETE FROM owners WHERE id = 1; DELETE FROM regions WHERE country = 'fr'; DELETE FROM pets",
    "WITH t AS (INSERT INTO tails VALUES (1, 1), (2, 2)) INSERT INTO heads VALUES (1, 1), (2, 2)",
    "BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE tails SET id = id + 5; UPDATE heads SET tail = tail + 5; COMMIT",
    "WITH t AS (DELETE FROM heads) DELETE FROM tails",
    "TRUNCATE nodes, pets; INSERT INTO nodes VALUES (1, 2), (2, 1)",
];

fn plan() -> String {
    let tables: Vec<String> = NAMES.iter().map(|name| format!("public.{name}")).collect();
    PLAN.replace("[public.orders]", &format!("[{}]", tables.join(", ")))
}

async fn same(house: &House) {
    let all = NAMES.map(|name| format!("SELECT '{name}', t::text FROM {name} t")).join(" UNION ALL ");
    let all = format!("SELECT * FROM ({all}) a ORDER BY 1, 2");
    house.same(&all, &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_took_in_one_statement_is_applied_whatever_the_order_of_its_rows() {
    let house = House::following(TABLES, TABLES, &plan()).await;
    for case in CASES {
        house.at_source(case);
        same(&house).await;
    }
    house.at_source("TRUNCATE nodes, chain, regions, cities, twins, owners, pets, heads, tails");
    house.stop().await;
    // All of it in few batches.
    for case in CASES {
        house.at_source(case);
    }
    house.start();
    same(&house).await;
    // More than one batch of the log each, the parents first.
    house.at_source(
        "INSERT INTO nodes SELECT g + 10, nullif(g / 2 + 10, 10) FROM generate_series(1, 20000) g",
    );
    same(&house).await;
    house.at_source("DELETE FROM nodes");
    same(&house).await;
    house.stop().await;
}

/// What waits for the rest of its transaction is bounded. A key that can wait has no such bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_too_large_to_wait_for_stops_the_slice_until_its_key_can_wait() {
    let house = House::following(TABLES, TABLES, &plan()).await;
    let large = "INSERT INTO nodes SELECT g, CASE WHEN g < 12 THEN g + 1 END, g, repeat(md5(g::text), 32000) \
                 FROM generate_series(1, 12) g";
    house.at_source(large);
    let (finding, position) = house.stopped(&there()).await;
    assert_eq!((finding.code, position.map(|at| at.ordinal)), (Code::SinkRefusedRow, Some(1)), "{finding}");
    let cure = "ALTER TABLE \"public\".\"nodes\" ALTER CONSTRAINT \"nodes_parent_fkey\" DEFERRABLE;";
    assert!(finding.remedy.contains(cure), "{finding}");
    house.at_sink(cure);
    house.decide(Event::Resumed { skip: None });
    same(&house).await;
    house.stop().await;
}
