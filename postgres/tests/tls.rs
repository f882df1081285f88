//! A server with a certificate of an authority of our own, met with every `sslmode`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use lab::Cluster;
use migrations::plan::DatabaseUrl;
use postgres::replication::Replication;
use postgres::{ConnectError, connect};
use std::path::Path;
use std::process::Command;

/// An authority, a certificate that it signed for `localhost`, and one that signed itself.
fn certificates(folder: &Path) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost' > server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext -out server.pem
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
            -addext subjectAltName=DNS:localhost -keyout self.key -out self.pem
        chmod 755 . && chmod 600 *.key
        if [ $(id -u) = 0 ]; then chown -R postgres .; fi";
    let made = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

struct Server {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(certificate: &str) -> Server {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let cluster = Cluster::start_with(&Server::options(folder.path(), certificate));
        Server { cluster, folder }
    }

    fn options(folder: &Path, certificate: &str) -> String {
        let file = |end: &str| folder.join(format!("{certificate}.{end}")).display().to_string();
        format!("-c ssl=on -c ssl_cert_file={} -c ssl_key_file={}", file("pem"), file("key"))
    }

    fn url(&self, host: &str, tls: &str) -> DatabaseUrl {
        let authority = |name: &str| format!("sslrootcert={}", self.folder.path().join(name).display());
        let tls = tls
            .replace("CA", &authority("ca.pem"))
            .replace("SELF", &authority("self.pem"))
            .replace("NONE", &authority("none.pem"));
        let port = self.cluster.port();
        let text = format!(
            "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:9', \
             database: 'postgres://postgres@{host}:{port}/postgres?{tls}' }}\n"
        );
        let (plan, _) = migrations::plan::check("plan.yaml", &text, &|_| None).unwrap();
        plan.monolith.database.unwrap()
    }

    /// Whether an ordinary connection and a replication connection are encrypted; the error if there is none.
    async fn is_encrypted(&self, host: &str, tls: &str) -> Result<bool, ConnectError> {
        let url = self.url(host, tls);
        let replication = Replication::open(&url, 1 << 20).await;
        let client = connect(&url, "strangler test").await?;
        let _replication = replication.unwrap();
        let ask = "SELECT bool_and(ssl), bool_or(ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                   WHERE application_name LIKE 'strangler%'";
        // The server may still be about to notice that the last try's connections are gone.
        for _ in 0..100 {
            let row = client.query_one(ask, &[]).await.unwrap();
            let (all, any, count): (bool, bool, i64) = (row.get(0), row.get(1), row.get(2));
            if count == 2 {
                assert_eq!(all, any, "both connections are made alike");
                return Ok(all);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("more connections are open than were made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sslmode_does_what_libpq_does() {
    let server = Server::start("server");
    for (host, tls, expected) in [
        ("127.0.0.1", "sslmode=disable", false),
        ("127.0.0.1", "sslmode=disable&NONE", false),
        ("127.0.0.1", "sslmode=allow", false),
        ("127.0.0.1", "sslmode=prefer", true),
        ("127.0.0.1", "", true),
        ("127.0.0.1", "sslmode=prefer&SELF", false),
        ("127.0.0.1", "sslmode=require", true),
        ("127.0.0.1", "sslmode=require&CA", true),
        ("127.0.0.1", "sslmode=verify-ca&CA", true),
        ("localhost", "sslmode=verify-full&CA", true),
    ] {
        assert_eq!(server.is_encrypted(host, tls).await.unwrap(), expected, "{host} {tls}");
    }
    for (host, tls, why) in [
        ("127.0.0.1", "sslmode=require&SELF", "UnknownIssuer"),
        ("127.0.0.1", "sslmode=verify-ca&SELF", "UnknownIssuer"),
        ("127.0.0.1", "sslmode=verify-full&CA", "not valid for"),
        ("localhost", "sslmode=verify-full", "UnknownIssuer"),
        ("localhost", "sslmode=verify-ca", "UnknownIssuer"),
        ("localhost", "sslrootcert=system", "UnknownIssuer"),
        ("localhost", "sslmode=verify-full&NONE", "none.pem"),
    ] {
        let error = server.is_encrypted(host, tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{host} {tls}: {error}");
        assert!(error.to_string().contains(why), "{host} {tls}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_signed_itself_is_trusted_if_it_is_named() {
    let server = Server::start("self");
    assert!(server.is_encrypted("localhost", "sslmode=verify-full&SELF").await.unwrap());
    assert!(server.is_encrypted("127.0.0.1", "sslmode=verify-full&SELF").await.is_err());
    assert!(server.is_encrypted("localhost", "sslmode=verify-full&CA").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_only_one_kind_gets_it_from_allow_and_prefer() {
    let mut server = Server::start("server");
    for (line, is_tls) in [("hostssl", true), ("hostnossl", false)] {
        let hba = server.folder.path().join("hba.conf");
        std::fs::write(&hba, format!("{line} all all all trust\n{line} replication all all trust\n"))
            .unwrap();
        server.cluster.kill();
        let options = Server::options(server.folder.path(), "server");
        server.cluster.restart_with(&format!("{options} -c hba_file={}", hba.display()));
        for mode in ["allow", "prefer"] {
            let found = server.is_encrypted("127.0.0.1", &format!("sslmode={mode}")).await.unwrap();
            assert_eq!(found, is_tls, "{mode} {line}");
        }
        let other = if is_tls { "disable" } else { "require" };
        assert!(server.is_encrypted("127.0.0.1", &format!("sslmode={other}")).await.is_err(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_met_in_plain_text_unless_the_url_asks_for_tls() {
    let server = Server { cluster: Cluster::start(), folder: tempfile::tempdir().unwrap() };
    for tls in ["", "sslmode=allow", "sslmode=prefer"] {
        assert!(!server.is_encrypted("127.0.0.1", tls).await.unwrap(), "{tls}");
    }
    let error = server.is_encrypted("127.0.0.1", "sslmode=require").await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
}
