//! A server with TLS, met with every `sslmode`, certificate and login, by ordinary and by replication connections. What
//! libpq does is not remembered but asked: `psql` meets the same server with the same parameters.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use lab::Cluster;
use migrations::plan::DatabaseUrl;
use migrations::problem::Diagnostic;
use postgres::replication::{Replication, ReplicationError};
use postgres::{ConnectError, connect, connect_unplanned};
use std::process::{Command, Output};
use std::time::Duration;

/// Authorities `ca` and `other`, `middle` that `ca` certified, and certificates of servers and clients.
const CERTIFICATES: &str = "for name in ca other; do authority $name; done
    sign middle middle ca \"$ec\" 'basicConstraints=critical,CA:TRUE\\nkeyUsage=keyCertSign'
    sign server x ca \"$ec\" subjectAltName=DNS:localhost
    # As the PostgreSQL manual makes one (19.9.5): of version 1, with a common name only.
    sign manual localhost ca '-newkey rsa:2048' ''
    sign address x ca '-newkey ec -pkeyopt ec_paramgen_curve:P-521' subjectAltName=IP:127.0.0.1
    sign expired x ca \"$ec\" subjectAltName=DNS:localhost,IP:127.0.0.1 -1
    sign short x middle '-newkey ed25519' subjectAltName=DNS:localhost
    cat short.pem middle.pem > chain.pem; cp short.key chain.key
    openssl req -x509 $ec -days 2 -subj /CN=localhost -keyout self.key -out self.pem
    sign us us ca \"$ec\" ''
    sign us-middle us middle \"$ec\" ''; cat middle.pem >> us-middle.pem
    sign them them ca \"$ec\" ''
    sign us-other us other \"$ec\" ''
    sign us-expired us ca \"$ec\" '' -1
    openssl pkey -in us.key -aes256 -passout pass:word -out us-locked.key
    chmod 755 . && chmod 600 *.key && cp us.key us-open.key && chmod 644 us-open.key
    if [ $(id -u) = 0 ]; then mkdir server && cp *.pem *.key server && chown -R postgres server; else ln -s . server; fi";

/// Each role is let in in a way of its own.
const ACCESS: &str = "host all postgres all trust
    hostssl all only_tls all trust
    hostnossl all only_plain all trust
    host all md5 all md5
    host all scram all scram-sha-256
    host all clear all password
    hostssl all us all cert
    hostssl all checked all scram-sha-256 clientcert=verify-ca
    hostssl all mapped all trust clientcert=verify-full\n";

const ROLES: &str = "SET password_encryption = md5; CREATE ROLE md5 LOGIN REPLICATION PASSWORD 'secret';
    SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret';
    CREATE ROLE clear LOGIN REPLICATION PASSWORD 'secret'; CREATE ROLE checked LOGIN REPLICATION PASSWORD 'secret';
    CREATE ROLE only_tls LOGIN REPLICATION; CREATE ROLE only_plain LOGIN REPLICATION;
    CREATE ROLE us LOGIN REPLICATION; CREATE ROLE mapped LOGIN REPLICATION";

struct Server {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        lab::certificates(folder.path(), CERTIFICATES).unwrap();
        let hba = folder.path().join("hba.conf");
        std::fs::write(&hba, ACCESS).unwrap();
        let cluster = Cluster::start_with(&format!("-c hba_file={}", hba.display()));
        cluster.psql("postgres", ROLES).unwrap();
        let server = Server { cluster, folder };
        let ca = server.folder.path().join("server/ca.pem");
        server
            .cluster
            .psql("postgres", &format!("ALTER SYSTEM SET ssl_ca_file = '{}'", ca.display()))
            .unwrap();
        server.show("server");
        server
    }

    /// Makes the server show another certificate from now on.
    fn show(&self, certificate: &str) {
        let file = |end: &str| self.folder.path().join("server").join(format!("{certificate}.{end}"));
        let said = |sql: &str| self.cluster.psql("postgres", sql).unwrap();
        said(&format!("ALTER SYSTEM SET ssl_key_file = '{}'", file("key").display()));
        let shown = file("pem").display().to_string();
        said(&format!("ALTER SYSTEM SET ssl_cert_file = '{shown}'"));
        said("ALTER SYSTEM SET ssl = on");
        said("SELECT pg_reload_conf()");
        for _ in 0..500 {
            if said("SHOW ssl_cert_file").trim() == shown {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the server does not show {certificate}");
    }

    /// `FILE` names a file of the folder: `sslrootcert=FILE:ca.pem`.
    fn url(&self, user: &str, host: &str, tls: &str) -> DatabaseUrl {
        let tls = tls.replace("FILE:", &format!("{}/", self.folder.path().display()));
        let port = self.cluster.port();
        let text = format!(
            "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:9', \
             database: 'postgres://{user}@{host}:{port}/postgres?{tls}' }}\n"
        );
        let (plan, _) = migrations::plan::check("plan.yaml", &text, &|_| None).unwrap();
        plan.monolith.database.unwrap()
    }

    /// Whether all kinds of connections are encrypted; the error if there is none.
    async fn is_encrypted(&self, user: &str, host: &str, tls: &str) -> Result<bool, ConnectError> {
        let url = self.url(user, host, tls);
        let replication = Replication::open(&url, 1 << 20).await;
        let client = match connect(&url, "strangler test").await {
            Ok(client) => client,
            Err(error) => {
                let unplanned = connect_unplanned(url.expose(), "URL", "strangler test").await.map(drop);
                assert!(unplanned.is_err(), "{user} {host} {tls}");
                let Err(ReplicationError::Connect(other)) = replication else {
                    panic!("{user} {host} {tls}: refused only one: {error}, {replication:?}");
                };
                assert_eq!(other.remedy(), error.remedy(), "{user} {host} {tls}: {other}, {error}");
                return Err(error);
            }
        };
        let _replication = replication.unwrap_or_else(|error| panic!("{user} {host} {tls}: {error}"));
        let _unplanned = connect_unplanned(url.expose(), "URL", "strangler test").await?;
        let ask = "SELECT bool_and(ssl), bool_or(ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                   WHERE application_name LIKE 'strangler%'";
        // The server may still be about to notice that the last try's connections are gone.
        for _ in 0..400 {
            let row = client.query_one(ask, &[]).await.unwrap();
            let (all, any, count): (bool, bool, i64) = (row.get(0), row.get(1), row.get(2));
            if count == 3 {
                assert_eq!(all, any, "all connections are made alike");
                return Ok(all);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("more connections are open than were made");
    }

    /// Whether libpq's connection is encrypted; none if there is none.
    fn asked_of_libpq(&self, user: &str, host: &str, tls: &str) -> Option<bool> {
        let answer = self.psql(self.url(user, host, tls).expose());
        match String::from_utf8_lossy(&answer.stdout).trim() {
            "t" => Some(true),
            "f" => Some(false),
            _ => None,
        }
    }

    fn psql(&self, url: &str) -> Output {
        let ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let mut psql = Command::new(lab::postgres::programs().unwrap().join("psql"));
        psql.args(["-w", "-XAtc", ask, url]).env("HOME", self.folder.path()).output().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_is_judged_as_libpq_judges_it() {
    let server = Server::start();
    let unchecked = ["sslmode=disable&sslrootcert=FILE:ca.pem", "sslmode=allow", "", "sslmode=require"];
    let checked = [
        "sslmode=prefer&sslrootcert=FILE:ca.pem",
        "sslmode=require&sslrootcert=FILE:ca.pem",
        "sslmode=verify-ca&sslrootcert=FILE:ca.pem",
        "sslmode=verify-full&sslrootcert=FILE:ca.pem",
        "sslmode=verify-full&sslrootcert=FILE:self.pem",
        "sslmode=verify-full&sslrootcert=FILE:middle.pem",
    ];
    let mut met = [0; 3];
    for shown in ["server", "manual", "address", "expired", "short", "chain", "self"] {
        server.show(shown);
        for host in ["localhost", "127.0.0.1"] {
            for mode in checked.iter().chain(unchecked.iter().filter(|_| shown == "server")) {
                let ours = server.is_encrypted("postgres", host, mode).await.ok();
                let libpq = server.asked_of_libpq("postgres", host, mode);
                assert_eq!(ours, libpq, "{shown} {host} {mode}");
                met[ours.map_or(0, |encrypted| 1 + usize::from(encrypted))] += 1;
            }
        }
    }
    assert!(met.iter().all(|count| *count > 3), "refused, plain, encrypted: {met:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_which_file_and_host_and_what_to_do() {
    let server = Server::start();
    let full = "sslmode=verify-full&sslrootcert=FILE:ca.pem";
    for (shown, host, tls, why, remedy) in [
        ("server", "127.0.0.1", full, "is for localhost, not for 127.0.0.1", "hostaddr=IP"),
        (
            "server",
            "localhost",
            "sslmode=require&sslrootcert=FILE:other.pem",
            "other.pem: ",
            "sslrootcert=FILE",
        ),
        ("server", "localhost", "sslmode=verify-full", "authorities of this system", "sslrootcert=FILE"),
        ("server", "localhost", "sslmode=verify-ca", "authorities of this system", "sslrootcert=FILE"),
        ("server", "localhost", "sslrootcert=system", "authorities of this system", "sslrootcert=FILE"),
        (
            "server",
            "localhost",
            "sslmode=prefer&sslrootcert=FILE:none.pem",
            "none.pem: No such",
            "correct `sslrootcert`",
        ),
        ("server", "localhost", "sslmode=require&sslrootcert=ca.pem", "/ca.pem: No such", "whole path"),
        (
            "server",
            "localhost",
            "sslmode=require&sslrootcert=FILE:ca.key",
            "holds no certificate",
            "BEGIN CERTIFICATE",
        ),
        ("expired", "localhost", full, "certificate has expired", "renew the server's certificate"),
        ("short", "localhost", full, "unable to get", "in between itself"),
        ("server", "localhost", "sslcert=FILE:us.pem", "us.pem has no key", "sslkey=FILE"),
        ("server", "localhost", "sslkey=FILE:us.key", "us.key has no certificate", "sslcert=FILE"),
        (
            "server",
            "localhost",
            "sslcert=FILE:us.pem&sslkey=FILE:us-locked.key",
            "passphrase",
            "openssl pkey",
        ),
        ("server", "localhost", "sslcert=FILE:us.pem&sslkey=FILE:us-open.key", "other users", "chmod 600"),
        (
            "server",
            "localhost",
            "sslcert=FILE:us.pem&sslkey=FILE:them.key",
            "does not belong to sslcert",
            "together",
        ),
    ] {
        server.show(shown);
        let error = server.is_encrypted("postgres", host, tls).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{host} {tls}: {error}");
        assert!(error.to_string().contains(why), "{host} {tls}: {error}");
        assert!(error.remedy().contains(remedy), "{host} {tls}: {}", error.remedy());
    }
    server.show("server");
    // The name of the certificate and the place of the server are two things.
    let elsewhere = format!("{full}&hostaddr=127.0.0.1");
    assert!(server.is_encrypted("postgres", "localhost", &elsewhere).await.unwrap());
    // A host that is not there is passed over.
    let several = format!("127.0.0.1:{},localhost", lab::free_port().unwrap());
    assert!(server.is_encrypted("postgres", &several, "sslmode=require").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_login_that_a_server_asks_for_is_known() {
    let server = Server::start();
    let (us, bound) = ("sslcert=FILE:us.pem&sslkey=FILE:us.key", "sslmode=require&channel_binding=require");
    let client = |name: &str| format!("sslcert=FILE:{name}.pem&sslkey=FILE:{name}.key");
    for (user, tls, expected) in [
        ("md5:secret", "sslmode=disable", Some(false)),
        ("md5:secret", "sslmode=require", Some(true)),
        ("md5:wrong", "", None),
        ("md5", "", None),
        ("clear:secret", "sslmode=disable", Some(false)),
        ("scram:secret", "sslmode=disable", Some(false)),
        ("scram:secret", "sslmode=require", Some(true)),
        ("scram:secret", "sslmode=require&channel_binding=disable", Some(true)),
        ("scram:wrong", "sslmode=require", None),
        ("scram", "sslmode=require", None),
        // Only SCRAM can be tied to the certificate.
        ("scram:secret", bound, Some(true)),
        ("scram:secret", "sslmode=disable&channel_binding=require", None),
        ("md5:secret", bound, None),
        ("clear:secret", bound, None),
        ("only_tls", bound, None),
        ("only_tls", "sslmode=allow", Some(true)),
        ("only_tls", "sslmode=prefer", Some(true)),
        ("only_tls", "sslmode=disable", None),
        ("only_plain", "sslmode=allow", Some(false)),
        ("only_plain", "sslmode=prefer", Some(false)),
        ("only_plain", "sslmode=require", None),
        ("us", us, Some(true)),
        ("us", &client("us-middle"), Some(true)),
        ("us", "", None),
        ("us", &client("them"), None),
        ("us", &format!("sslmode=require&{}", client("us-other")), None),
        ("us", &format!("sslmode=require&{}", client("us-expired")), None),
        ("checked:secret", &client("them"), Some(true)),
        ("checked:secret", "", None),
        ("checked:secret", &format!("{bound}&{us}"), Some(true)),
        ("mapped", us, None),
    ] {
        let ours = server.is_encrypted(user, "localhost", tls).await;
        let libpq = server.asked_of_libpq(user, "localhost", tls);
        assert_eq!(ours.as_ref().ok(), libpq.as_ref(), "{user} {tls}: {ours:?}");
        assert_eq!(libpq, expected, "{user} {tls}");
    }
    for (user, tls, why, remedy) in [
        ("us", "sslmode=require", "28000", "`sslcert`"),
        ("us", &*format!("sslmode=require&{}", client("us-other")), "sslcert /", "ssl_ca_file"),
        ("us", &*format!("sslmode=require&{}", client("us-expired")), "us-expired.pem", "not expired"),
        ("md5", "", "the URL has none", "PASSWORD"),
        ("md5:wrong", "", "28P01", "ALTER ROLE"),
        ("only_tls", bound, "channel binding", "channel_binding"),
    ] {
        let error = server.is_encrypted(user, "localhost", tls).await.unwrap_err();
        assert!(error.to_string().contains(why), "{user} {tls}: {error}");
        assert!(error.remedy().contains(remedy), "{user} {tls}: {}", error.remedy());
        assert!(!format!("{error} {}", error.remedy()).contains("wrong"), "a password is never shown");
    }
}

/// OpenSSL finds the system's authorities by a variable, so this test runs itself once more with it.
#[test]
fn a_public_authority_is_one_that_the_system_trusts() {
    const URL: &str = "STRANGLER_TEST_URL";
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Ok(url) = std::env::var(URL) {
        runtime.block_on(connect_unplanned(&url, "URL", "strangler test")).map(drop).unwrap();
        return;
    }
    let server = Server::start();
    let met = |host: &str, tls: &str| {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "a_public_authority_is_one_that_the_system_trusts"]);
        again.env(URL, server.url("postgres", host, tls).expose());
        again.env("SSL_CERT_FILE", server.folder.path().join("ca.pem")).output().unwrap().status.success()
    };
    assert!(met("localhost", "sslrootcert=system"));
    assert!(met("localhost", "sslmode=verify-full"));
    assert!(met("localhost", "sslmode=verify-ca"));
    assert!(!met("127.0.0.1", "sslrootcert=system"));
    assert!(!met("127.0.0.1", "sslmode=verify-ca"), "a public authority certifies everyone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_met_in_plain_text_unless_the_url_asks_for_tls() {
    let server = Server { cluster: Cluster::start(), folder: tempfile::tempdir().unwrap() };
    for tls in ["", "sslmode=allow", "sslmode=prefer"] {
        assert!(!server.is_encrypted("postgres", "127.0.0.1", tls).await.unwrap(), "{tls}");
    }
    let error = server.is_encrypted("postgres", "127.0.0.1", "sslmode=require").await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
    assert!(error.remedy().contains("ssl = on"), "{}", error.remedy());
}
