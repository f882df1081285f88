//! What a session of ours takes from nobody: hostile settings of role and database, and a pooler in between.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use bytes::{BufMut, BytesMut};
use lab::Cluster;
use migrations::plan::DatabaseUrl;
use postgres::replication::Replication;
use postgres::{ConnectError, connect};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A setting, what a hostile database has, and what our sessions have all the same.
const HOSTILE: &[(&str, &str, &str)] = &[
    ("array_nulls", "off", "on"),
    ("bytea_output", "escape", "hex"),
    ("client_encoding", "LATIN1", "UTF8"),
    ("client_min_messages", "error", "notice"),
    ("datestyle", "SQL, DMY", "ISO, YMD"),
    ("default_transaction_deferrable", "on", "off"),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("default_transaction_read_only", "on", "off"),
    ("exit_on_error", "on", "off"),
    ("extra_float_digits", "-10", "1"),
    ("idle_in_transaction_session_timeout", "300ms", "0"),
    ("idle_session_timeout", "300ms", "0"),
    ("intervalstyle", "iso_8601", "postgres"),
    ("lock_timeout", "1ms", "0"),
    ("quote_all_identifiers", "on", "off"),
    ("row_security", "on", "off"),
    ("standard_conforming_strings", "off", "on"),
    ("statement_timeout", "300ms", "0"),
    ("synchronous_commit", "off", "on"),
    ("timezone", "Asia/Kathmandu", "UTC"),
    ("transform_null_equals", "on", "off"),
    ("xmlbinary", "hex", "base64"),
    ("xmloption", "document", "content"),
    ("client_connection_check_interval", "0", "5s"),
];

fn url(port: u16, parameters: &str) -> DatabaseUrl {
    let text = format!(
        "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:9', \
         database: 'postgres://strangler@127.0.0.1:{port}/shop{parameters}' }}\n"
    );
    let (plan, _) = migrations::plan::check("plan.yaml", &text, &|_| None).unwrap();
    plan.monolith.database.unwrap()
}

fn hostile(settings: &[(&str, &str, &str)]) -> Cluster {
    let cluster = Cluster::start();
    cluster.sql("postgres", "CREATE ROLE strangler LOGIN REPLICATION");
    cluster.sql("postgres", "CREATE DATABASE shop OWNER strangler");
    for (number, (name, value, _)) in settings.iter().enumerate() {
        let at = if number % 2 == 0 { "ROLE strangler" } else { "DATABASE shop" };
        cluster.sql("postgres", &format!("ALTER {at} SET {name} = '{value}'"));
    }
    cluster
}

#[tokio::test]
async fn no_setting_of_role_or_database_reaches_a_session() {
    // Whatever is set at the role in one round is set at the database in the other.
    for round in 0..2 {
        let mut settings = HOSTILE.to_vec();
        settings.rotate_left(round);
        let cluster = hostile(&settings);
        let client = connect(&url(cluster.port(), ""), "strangler test").await.unwrap();
        let mut replication = Replication::open(&url(cluster.port(), ""), 1 << 20).await.unwrap();
        for (name, _, expected) in &settings {
            let ask = format!("SHOW {name}");
            let row = client.query_one(&ask, &[]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), *expected, "{name}");
            // Replication sends text of one kind only, and waits for no lock.
            if *name != "client_connection_check_interval" {
                let rows = replication.ask(&ask).await.unwrap();
                assert_eq!(rows[0][0].as_deref(), Some(*expected), "{name} of replication");
            }
        }
        // Longer than any of the hostile limits.
        tokio::time::sleep(Duration::from_millis(700)).await;
        client.batch_execute("CREATE TABLE t (v text[])").await.unwrap();
        let row =
            client.query_one("INSERT INTO t VALUES ('{NULL}') RETURNING v[1] IS NULL", &[]).await.unwrap();
        assert!(row.get::<_, bool>(0));
        assert!(replication.ask("IDENTIFY_SYSTEM").await.is_ok());
    }
}

#[tokio::test]
async fn more_than_off_is_left_to_commits() {
    let cluster = hostile(&[("synchronous_commit", "remote_apply", "")]);
    let client = connect(&url(cluster.port(), ""), "strangler test").await.unwrap();
    let row = client.query_one("SHOW synchronous_commit", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "remote_apply");
}

/// As pgbouncer does with `ignore_startup_parameters = options`: the session begins without them.
async fn pooler(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let length = client.read_u32().await.unwrap() as usize;
                let mut startup = vec![0; length - 4];
                client.read_exact(&mut startup).await.unwrap();
                server.write_all(&without_options(&startup)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

/// A startup message: its version, then names and values, each ended by a zero byte (PostgreSQL manual, 55.7).
fn without_options(startup: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&startup[..4]);
    let words: Vec<&[u8]> = startup[4..].split(|byte| *byte == 0).collect();
    for pair in words.chunks_exact(2).filter(|pair| !pair[0].is_empty() && pair[0] != b"options") {
        out.put_slice(pair[0]);
        out.put_u8(0);
        out.put_slice(pair[1]);
        out.put_u8(0);
    }
    out.put_u8(0);
    let mut message = BytesMut::new();
    message.put_u32(out.len() as u32 + 4);
    message.put_slice(&out);
    message
}

#[tokio::test]
async fn a_pooler_that_drops_settings_is_found() {
    let cluster = hostile(&[]);
    let url = url(pooler(cluster.port()).await, "?sslmode=disable");
    let refused = connect(&url, "strangler test").await.unwrap_err();
    assert!(matches!(refused, ConnectError::Pooler { .. }), "{refused}");
    let refused = Replication::open(&url, 1 << 20).await.unwrap_err();
    assert!(refused.to_string().contains("a pooler stands between"), "{refused}");
}
