//! `strangler init` with a live database: the tables that it lists, and a first plan that `check` accepts.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the finding")]

use lab::Cluster;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

const SHOP: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, parent int REFERENCES customers);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers);
    CREATE TABLE order_items (order_id bigint REFERENCES orders, line int, PRIMARY KEY (line, order_id));
    CREATE TABLE notes (words text);
    CREATE TABLE days (day date PRIMARY KEY, order_id bigint REFERENCES orders) PARTITION BY RANGE (day);
    CREATE TABLE days_2026 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE UNLOGGED TABLE scratch (id int PRIMARY KEY);
    CREATE SCHEMA \"Old\"; CREATE TABLE \"Old\".\"Stock\" (id int PRIMARY KEY);
    INSERT INTO customers SELECT g FROM generate_series(1, 300) g; ANALYZE customers;";

fn strangler(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strangler"));
    command.args(arguments).current_dir(folder).env_remove("STRANGLER_PLAN");
    command.env("MONOLITH_DATABASE_URL", "postgres://strangler:secret@localhost/shop");
    command.env("ORDERS_DATABASE_URL", "postgres://strangler:secret@localhost/orders");
    command.output().unwrap()
}

fn ok(folder: &Path, arguments: &[&str]) -> String {
    let output = strangler(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn init_from_a_live_database_writes_a_plan_that_check_accepts() {
    let cluster = Cluster::start();
    cluster.database("shop");
    cluster.sql("shop", SHOP);
    let (folder, url) = (tempfile::tempdir().unwrap(), cluster.url("postgres", "shop"));
    let listed: Value =
        serde_json::from_str(&ok(folder.path(), &["init", &url, "--output", "json"])).unwrap();
    let table = |name: &str, key: &[&str], rows: u64, points_to: &[&str]| json!({ "table": name, "key": key, "rows_estimated": rows, "points_to": points_to });
    let expected = [
        table("Old.Stock", &["id"], 0, &[]),
        table("public.customers", &["id"], 300, &[]),
        table("public.days", &["day"], 0, &["public.orders"]),
        table("public.notes", &[], 0, &[]),
        table("public.order_items", &["line", "order_id"], 0, &["public.orders"]),
        table("public.orders", &["id"], 0, &["public.customers"]),
    ];
    assert_eq!(listed["tables"], json!(expected));

    ok(
        folder.path(),
        &["init", &url, "--table", "orders", "--table", "public.order_items", "--name", "shop"],
    );
    let plan = std::fs::read_to_string(folder.path().join("strangler.yaml")).unwrap();
    assert!(!plan.contains(&url), "the URL is not for a file");
    for line in ["- public.orders", "- public.order_items", "- public.customers"] {
        assert!(plan.contains(line), "no `{line}` in:\n{plan}");
    }
    ok(folder.path(), &["check"]);

    let refused = strangler(folder.path(), &["init", &url, "--table", "baskets"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no table `baskets`"));
}
