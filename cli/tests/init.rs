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
    CREATE MATERIALIZED VIEW order_days AS SELECT day, customer FROM days JOIN orders ON orders.id = order_id;
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
    let view = json!({ "view": "public.order_days", "reads": ["public.days", "public.orders"] });
    assert_eq!(listed["materialized_views"], json!([view]));

    ok(folder.path(), &["init", &url, "--table", "order*", "--service", "orders", "--name", "shop"]);
    let plan = std::fs::read_to_string(folder.path().join("strangler.yaml")).unwrap();
    assert!(!plan.contains(&url), "the URL is not for a file");
    for line in [
        "- public.orders",
        "- public.order_items",
        "- public.customers",
        "# materialized view public.order_days",
    ] {
        assert!(plan.contains(line), "no `{line}` in:\n{plan}");
    }
    ok(folder.path(), &["check"]);

    let notes = ["init", &url, "--table", "no*", "--service", "notes=http://127.0.0.1:4002", "--add"];
    ok(folder.path(), &notes);
    let grown = std::fs::read_to_string(folder.path().join("strangler.yaml")).unwrap();
    assert!(plan.lines().all(|line| grown.lines().any(|other| other == line)), "{grown}");
    for line in ["  notes:", "    database: ${NOTES_DATABASE_URL}", "      - public.notes"] {
        assert!(grown.contains(line), "no `{line}` in:\n{grown}");
    }
    let again = strangler(folder.path(), &notes);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("has a slice `notes` already"));

    let view = strangler(folder.path(), &["init", &url, "--table", "order_days", "--force"]);
    assert!(String::from_utf8_lossy(&view.stderr).contains("is a materialized view"));
    let refused = strangler(folder.path(), &["init", &url, "--table", "baskets"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no table `baskets`"));
}

#[test]
fn an_added_slice_says_what_to_write_behind_a_balancer() {
    let folder = tempfile::tempdir().unwrap();
    let said = |plan: &str, slice: &str| {
        std::fs::write(folder.path().join("strangler.yaml"), plan).unwrap();
        let service = format!("{slice}=http://127.0.0.1:4002");
        let output = strangler(folder.path(), &["init", "--add", "--service", &service]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        stderr
    };
    let bare = "version: 1\nname: mine\nmonolith: { upstream: 'http://127.0.0.1:4000' }\n";
    assert!(said(bare, "notes").contains("write `trust_forwarded: true` under `proxy:`"));
    for known in ["proxy: { trust_forwarded: true }\n", "# not `trust_forwarded`: no balancer\n"] {
        assert!(!said(&format!("{bare}{known}"), "notes").contains("trust_forwarded"), "{known}");
    }
}
