//! What the plan keeps out of a service stays out of the publication and of the log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::House;
use house::one_table::plan;
use migrations::stage::Event;

const SOURCE: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text, email text, password text, token text);
    CREATE TABLE accounts (id int PRIMARY KEY, note text, secret text);
    CREATE TABLE prices (id int PRIMARY KEY, total numeric(10,2), secret text);
    CREATE TABLE parts (id int, no int, secret text, PRIMARY KEY (id, no)) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
    ALTER TABLE accounts REPLICA IDENTITY FULL;
    INSERT INTO users SELECT g, 'n', 'e', 'hunter2', 'x' FROM generate_series(1, 9) g;";
const SINK: &str = "
    CREATE TABLE users (id int PRIMARY KEY, name text, token text);
    CREATE TABLE accounts (id int PRIMARY KEY, note text);
    CREATE TABLE prices (id int PRIMARY KEY, cents int, secret text);
    CREATE TABLE parts (id int, no int, PRIMARY KEY (id, no));";
/// `total` is dropped and read by a `set`; `token` and `secret` are masked.
const TABLES: &str = "    tables:
      - { from: public.accounts, drop: [secret] }
      - { from: public.prices, drop: [total], set: { cents: '(total * 100)::int', secret: \"''\" } }
      - { from: public.parts, drop: [secret] }
    reference: [{ from: public.users, drop: [email, password], set: { token: \"'-'\" } }]
";
const COLUMNS: &str = "SELECT string_agg(tablename || ' ' || attnames::text, ' ' ORDER BY tablename) FROM pg_publication_tables";
/// As the application writes. Every secret is `hunter2`.
const WRITES: &str = "SET ROLE app;
    INSERT INTO users VALUES (20, 'name', 'someone@example.com', 'hunter2', 'hunter2');
    UPDATE users SET password = 'hunter2!', email = 'other@example.com'; UPDATE users SET id = 30 WHERE id = 1;
    DELETE FROM users WHERE id = 2;
    INSERT INTO accounts VALUES (1, 'a', 'hunter2'), (2, 'b', 'hunter2');
    UPDATE accounts SET secret = 'hunter2?', note = 'c' WHERE id = 1; DELETE FROM accounts WHERE id = 2;
    INSERT INTO prices VALUES (1, 12.34, 'hunter2'); UPDATE prices SET secret = 'hunter2', total = 98765.43;
    INSERT INTO parts VALUES (1, 1, 'hunter2'), (2, 1, 'hunter2'); UPDATE parts SET secret = 'hunter2.', no = 2 WHERE id = 1;
    DELETE FROM parts WHERE id = 2";

fn log(house: &House) -> String {
    let bytes = std::fs::read(house.folder.path().join("bridge/log.redb")).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_no_slice_needs_is_in_no_log() {
    let house = House::following(SOURCE, SINK, &plan(TABLES)).await;
    // Under REPLICA IDENTITY FULL there is no list of columns, but the log has none of the secrets either.
    let listed = "accounts {id,note,secret} parts {id,no} prices {id,total} users {id,name}";
    assert_eq!(house.at_source(COLUMNS), listed);
    house.at_source(WRITES);
    let pairs = [
        ("SELECT id, name, '-' FROM users ORDER BY 1", "SELECT * FROM users ORDER BY 1"),
        ("SELECT id, note FROM accounts", "SELECT id, note FROM accounts"),
        ("SELECT id, (total * 100)::int, '' FROM prices", "SELECT * FROM prices"),
        ("SELECT id, no FROM parts", "SELECT * FROM parts"),
    ];
    for (there, here) in pairs {
        house.same(there, here).await;
    }
    let attempt = house.attempt();
    let held = log(&house);
    assert!(held.contains("98765.43"), "what is needed is in the log");
    assert!(!held.contains("hunter2") && !held.contains("example.com"), "a secret is in the log");

    // A new column of the monolith's needs no list, and a column that is left out may go.
    house.at_source(
        "ALTER TABLE users ADD COLUMN age int NOT NULL DEFAULT 0; ALTER TABLE parts DROP COLUMN secret",
    );
    house.at_source("UPDATE users SET name = 'older'; INSERT INTO parts VALUES (3, 3)");
    for (there, here) in pairs {
        house.same(there, here).await;
    }
    assert_eq!(house.attempt(), attempt, "it was copied again for nothing");

    // The log goes with the last slice.
    house.decide(Event::SyncDropped);
    house.until_agent("let go", |said| said.contains("holds_nothing: true")).await;
    assert!(!log(&house).contains("98765.43"), "rows are left on the disk");
    house.stop().await;
}
