//! A broker that asks who comes: TLS, TLS on both sides, and logins. One broker has a listener for each.

use crate::history::{History, changes_of, tables};
use crate::kafka_only::{append, insert};
use crate::place::{Place, Watcher};
use cdc_bridge::log::{LogError, out_of_reach, unknown_options};
use lab::Dice;
use lab::kafka::{Broker, Doors, PASSWORD, USER};
use migrations::code::Code;
use migrations::plan::LogChoice;
use migrations::problem::Diagnostic;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// An authority, the broker's certificate for `localhost`, ours, and another authority.
const CERTIFICATES: &str = "set -e
    for name in ca other; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$name -keyout $name.key -out $name.pem
    done
    printf subjectAltName=DNS:localhost > ext
    for name in broker us; do
        openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
        openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem
    done
    cat broker.key broker.pem > server.pem
    openssl pkey -in us.key -aes256 -passout pass:open-sesame -out locked.key";

struct Guarded {
    _broker: Broker,
    doors: Doors,
    folder: tempfile::TempDir,
}

impl Guarded {
    fn start() -> Guarded {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("sh").args(["-c", CERTIFICATES]).current_dir(folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (broker, doors) = Broker::guarded(folder.path()).unwrap();
        Guarded { _broker: broker, doors, folder }
    }

    /// A log whose options are as a plan says them: `ca` and so on are files.
    fn place(&self, brokers: &str, options: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        Place { choice: choice(self.folder.path(), brokers, options), plan: "shop".parse().unwrap(), folder }
    }
}

fn choice(folder: &Path, brokers: &str, options: &str) -> LogChoice {
    let options = options.replace("FILE:", &format!("{}/", folder.display()));
    let prefix = uuid::Uuid::new_v4().simple();
    let text = format!(
        "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:9' }}\n\
         log: {{ kafka: {{ brokers: '{brokers}', topic_prefix: 'test-{prefix}', options: {{ {options} }} }} }}\n"
    );
    let environment = |name: &str| match name {
        "KAFKA_PASSWORD" => Some(PASSWORD.to_owned()),
        "WRONG_PASSWORD" => Some("sesame-shut".to_owned()),
        _ => None,
    };
    let (plan, _) = migrations::plan::check("plan.yaml", &text, &environment).unwrap();
    plan.log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_written_and_read_through_every_kind_of_listener() {
    let guarded = Guarded::start();
    let Doors { tls, mutual, login_tls, login_plain } = guarded.doors;
    let (ca, ours) = (CA, "ssl.certificate.location: 'FILE:us.pem'");
    let key = "ssl.key.location: 'FILE:locked.key', ssl.key.password: '${KAFKA_PASSWORD}'";
    let ways = [
        (tls, format!("security.protocol: SSL, {ca}")),
        (mutual, format!("security.protocol: SSL, {ca}, {ours}, {key}, linger.ms: 1, fetch.wait.max.ms: 5")),
        (login_tls, format!("security.protocol: SASL_SSL, {ca}, {}", login("SCRAM-SHA-512"))),
        (login_tls, format!("security.protocol: sasl_ssl, {ca}, {}", login("PLAIN"))),
        (login_plain, format!("security.protocol: SASL_PLAINTEXT, {}", login("SCRAM-SHA-256"))),
        (login_plain, format!("security.protocol: SASL_PLAINTEXT, {}", login("PLAIN"))),
    ];
    let through = ways.iter().enumerate().map(async |(seed, (port, options))| {
        let place = guarded.place(&format!("localhost:{port}"), options);
        assert_eq!(unknown_options(&place.choice), [], "{options}");
        assert_eq!(out_of_reach(&place.choice).await, None, "{options}");
        let log = place.ready().await;
        let cursor = log.end_cursor().await.unwrap();
        let mut history = History::new(Dice::new(seed as u64));
        let written: Vec<_> = (0..20).map(|id| insert(&mut history, id)).collect();
        append(&log, &written).await;
        let mut watcher = Watcher::new(&log, &tables(&[0]), &cursor).await;
        watcher.until(written.last().unwrap().end).await;
        assert_eq!(watcher.changes, changes_of(&written, &tables(&[0])), "{options}");
    });
    futures_util::future::join_all(through).await;
    turned_away(&guarded).await;
}

const CA: &str = "ssl.ca.location: 'FILE:ca.pem'";

fn login(mechanism: &str) -> String {
    format!("sasl.mechanism: {mechanism}, sasl.username: {USER}, sasl.password: '${{KAFKA_PASSWORD}}'")
}

/// Each error says why and what to do, and no password.
async fn turned_away(guarded: &Guarded) {
    let Doors { tls, mutual, login_tls, login_plain } = guarded.doors;
    let ca = CA;
    let wrong_password = login("SCRAM-SHA-512").replace("KAFKA_PASSWORD", "WRONG_PASSWORD");
    let turned_away = [
        (
            format!("localhost:{login_tls}"),
            format!("security.protocol: SASL_SSL, {ca}, {wrong_password}"),
            "Authentication failed",
            "`sasl.password`",
        ),
        (
            format!("localhost:{login_plain}"),
            format!("security.protocol: SASL_PLAINTEXT, {}", login("PLAIN").replace(": us,", ": them,")),
            "Authentication failed",
            "`sasl.username`",
        ),
        (
            format!("localhost:{tls}"),
            "security.protocol: SSL, ssl.ca.location: 'FILE:other.pem'".to_owned(),
            "certificate verify failed",
            "`ssl.ca.location`",
        ),
        (
            format!("127.0.0.1:{tls}"),
            format!("security.protocol: SSL, {ca}"),
            "certificate verify failed",
            "as their certificates do",
        ),
        (
            format!("localhost:{mutual}"),
            format!("security.protocol: SSL, {ca}"),
            "certificate",
            "`ssl.certificate.location`",
        ),
        (format!("127.0.0.1:{login_tls}"), String::new(), "Disconnected", "`security.protocol`"),
        (
            format!("127.0.0.1:{login_plain}"),
            format!("security.protocol: SSL, {ca}"),
            "SSL",
            "`security.protocol`",
        ),
        (
            "localhost:9".to_owned(),
            "security.protocol: SSL, ssl.ca.location: 'FILE:none.pem'".to_owned(),
            "none.pem",
            "`log.kafka.options`",
        ),
        ("localhost:9".to_owned(), String::new(), "Connect", "check that the brokers run"),
    ];
    let turned_away = turned_away.iter().map(async |(brokers, options, why, remedy)| {
        let place = guarded.place(brokers, options);
        let begun = Instant::now();
        let error = place.try_open().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(20), "{brokers} {options}: {:?}", begun.elapsed());
        assert!(matches!(error, LogError::Unavailable { .. }), "{brokers} {options}: {error}");
        assert!(error.to_string().contains(why), "{brokers} {options}: {error}");
        assert!(error.to_string().contains(&format!("Kafka {brokers}")), "{brokers} {options}: {error}");
        assert!(error.remedy().contains(remedy), "{brokers} {options}: {error}: {}", error.remedy());
        let found = out_of_reach(&place.choice).await.unwrap();
        assert_eq!(found.code, Code::LogUnreachable, "{found}");
        assert!(!format!("{error:?} {found:?} {:?}", place.choice).contains("sesame"), "a password is shown");
    });
    futures_util::future::join_all(turned_away).await;
}

#[test]
fn an_option_that_the_client_library_does_not_take_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for (options, message) in [
        ("ssl.ca.locatoin: x, security.protocol: SSL", "no option `ssl.ca.locatoin`"),
        ("linger.ms: soon", "does not take `linger.ms`"),
        ("compression.type: best", "does not take `compression.type`"),
        (
            "sasl.jaas.config: x, security.protocol: SASL_SSL, sasl.mechanism: PLAIN, sasl.username: u, sasl.password: p",
            "does not take `sasl.jaas.config`",
        ),
    ] {
        let found = unknown_options(&choice(folder.path(), "localhost:9", options));
        assert_eq!(found.len(), 1, "{options}: {found:?}");
        assert_eq!(found[0].code, Code::PlanKafkaOption);
        assert!(found[0].message.contains(message), "{options}: {}", found[0]);
        assert_eq!(found[0].place.as_ref().map(|place| place.line), Some(4));
    }
}
