//! The plan's log in Kafka: brokers, topics, and the options of the client library.
//!
//! Which names and values the library knows is its own business. Here stands what it would take silently: options that
//! strangler sets itself, and settings of TLS or a login that would not be used.

use super::publish;
use super::reading::{self, Fields, listed};
use crate::code::Code;
use crate::names::PlanName;
use crate::plan::LogChoice;
use crate::plan::kafka::{KafkaOption, KafkaOptions, is_secret, reserved};
use crate::plan::tree::{Node, Spot};
use crate::plan::written::{Notes, is_variable};
use std::collections::BTreeMap;

/// Kafka's names end at 249 characters (`Topic.MAX_NAME_LENGTH`); schema and table need the most of it.
const TOPIC_PREFIX_LEN_MAX: usize = 100;
/// What the log's topic may hold, of values before they are compressed.
const LOG_BYTES: u64 = 64 << 30;
const PROTOCOL: &str = "security.protocol";
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// The log's own topic is `strangler.<prefix>.log`.
const OWN_PREFIX: &str = "strangler";
/// What Debezium's `EventRouter` puts before a type.
const OUTBOX_PREFIX: &str = "outbox.event";

pub(super) fn log(
    node: &Node,
    name: Option<&PlanName>,
    outbox: &mut Vec<publish::Outbox>,
    notes: &mut Notes<'_>,
) -> Option<LogChoice> {
    let keys = ["brokers", "topic_prefix", "partitions", "replication", "publish", "max", "options"];
    let fields = Fields::open(node, "log.kafka", &keys, notes)?;
    let brokers = fields
        .need("brokers", "write `brokers: localhost:9092`", notes)
        .and_then(|node| brokers(node, notes));
    let topic_prefix = match fields.get("topic_prefix") {
        Some(node) => topic_prefix(node, notes),
        None => name.map(|name| name.as_str().to_owned()),
    };
    let mut count = |key, what, max| match fields.get(key) {
        Some(node) => reading::integer(node, what, 1..=max, notes).and_then(|n| u16::try_from(n).ok()),
        None => Some(1),
    };
    let partitions = count("partitions", "a number of partitions", 1000);
    let replication = count("replication", "a number of replicas", 32);
    let publish = publish::publish(fields.get("publish"), outbox, notes);
    if let Some(prefix) = &topic_prefix {
        let spot = fields.get("topic_prefix").map_or(fields.owner, |node| node.spot);
        stays_apart(prefix, !outbox.is_empty(), spot, notes);
    }
    let bytes_max = reading::log_max(&fields, LOG_BYTES, notes);
    let options = options(fields.get("options"), fields.owner, notes);
    Some(LogChoice::Kafka {
        brokers: brokers?,
        topic_prefix: topic_prefix?,
        partitions: partitions?,
        replication: replication?,
        publish: publish?,
        bytes_max: bytes_max?,
        options,
    })
}

fn brokers(node: &Node, notes: &mut Notes<'_>) -> Option<String> {
    let meant = reading::text(node, "brokers", notes)?;
    let one = |broker: &str| {
        let (host, port) = broker.trim().rsplit_once(':')?;
        let fits = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        port.parse::<u16>().ok().filter(|port| *port != 0 && fits)
    };
    if meant.split(',').all(|broker| one(broker).is_some()) {
        return Some(meant.split(',').map(str::trim).collect::<Vec<_>>().join(","));
    }
    let message = "these are not brokers of a Kafka cluster";
    notes.error(
        node.spot,
        Code::PlanBadValue,
        message,
        "write `host:port`, several with commas between them",
    );
    None
}

fn topic_prefix(node: &Node, notes: &mut Notes<'_>) -> Option<String> {
    let scalar = reading::scalar(node, "a topic prefix", notes)?;
    let meant = scalar.meant.as_deref()?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=TOPIC_PREFIX_LEN_MAX).contains(&meant.len()) && meant.bytes().all(fits) {
        return Some(meant.to_owned());
    }
    let message = format!("`{}` is not a topic prefix", reading::shown(&scalar.written));
    let hint = format!("use 1 to {TOPIC_PREFIX_LEN_MAX} of A-Z, a-z, 0-9, `.`, `_` and `-`");
    notes.error(node.spot, Code::PlanBadValue, message, hint);
    None
}

/// No table's topic may be among those that have other prefixes, nor be found by who looks for them.
fn stays_apart(prefix: &str, has_outbox: bool, spot: Spot, notes: &mut Notes<'_>) {
    let is_within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let (what, whose) = if is_within(OWN_PREFIX, prefix) {
        (OWN_PREFIX, "of strangler's own topics")
    } else if has_outbox && (is_within(OUTBOX_PREFIX, prefix) || is_within(prefix, OUTBOX_PREFIX)) {
        (OUTBOX_PREFIX, "of the outbox's topics")
    } else {
        return;
    };
    let message =
        format!("the topic prefix `{}` meets `{what}`, which is that {whose}", reading::shown(prefix));
    let hint = "write another `topic_prefix:`, for example `topic_prefix: shop`";
    notes.error(spot, Code::PlanSameTopic, message, hint);
}

fn options(node: Option<&Node>, owner: Spot, notes: &mut Notes<'_>) -> KafkaOptions {
    let (mut options, mut spots) = (KafkaOptions::default(), BTreeMap::new());
    // A variable that is missing would look like an option that is.
    let mut is_whole = true;
    for (key, node) in reading::entries(node, "log.kafka.options", notes) {
        let name = key.text.as_str();
        if let Some(why) = reserved(name) {
            let message = format!("`{}` cannot be set in the plan: {why}", reading::shown(name));
            notes.error(key.spot, Code::PlanKafkaOption, message, "take it out");
            continue;
        }
        let Some(scalar) = reading::scalar(node, "an option of Kafka's client", notes) else {
            is_whole = false;
            continue;
        };
        if is_secret(name) && !is_variable(&scalar.written) && !scalar.written.is_empty() {
            notes.keep_secret(&scalar.written);
            let hint = format!("set it in the environment and write `{name}: ${{KAFKA_PASSWORD}}`");
            notes.warning(node.spot, Code::PlanLiteralSecret, format!("the plan contains `{name}`"), hint);
        }
        let Some(meant) = scalar.meant.clone() else {
            is_whole = false;
            continue;
        };
        options.insert(name, KafkaOption::new(name, meant, notes.place(key.spot)));
        spots.insert(name, key.spot);
    }
    if is_whole {
        coherent(&options, &spots, owner, notes);
    }
    options
}

/// TLS and logins: what is set must be used, and what is used must be set.
fn coherent(options: &KafkaOptions, spots: &BTreeMap<&str, Spot>, owner: Spot, notes: &mut Notes<'_>) {
    let value = |name: &str| options.get(name).map(KafkaOption::expose).filter(|value| !value.is_empty());
    let spot = |name: &str| spots.get(name).copied().unwrap_or(owner);
    let mut error = |name: &str, message: String, hint: String| {
        notes.error(spot(name), Code::PlanKafkaOption, message, hint);
    };
    let protocol = value(PROTOCOL).unwrap_or("plaintext").to_lowercase();
    let (is_tls, has_login) = match protocol.as_str() {
        "plaintext" => (false, false),
        "ssl" => (true, false),
        "sasl_plaintext" => (false, true),
        "sasl_ssl" => (true, true),
        _ => {
            let message = format!("`{PROTOCOL}` has a value that Kafka's client does not know");
            return error(
                PROTOCOL,
                message,
                "write `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`".into(),
            );
        }
    };
    let find = |prefix: &str| options.iter().map(|(name, _)| name).find(|name| name.starts_with(prefix));
    if let (false, Some(name)) = (is_tls, find("ssl.")) {
        let wanted = if has_login { "SASL_SSL" } else { "SSL" };
        let message = format!("`{name}` is not used, for the connection has no TLS");
        error(name, message, format!("write `{PROTOCOL}: {wanted}`, or take it out"));
    }
    if let (false, Some(name)) = (has_login, find("sasl.")) {
        let wanted = if is_tls { "SASL_SSL" } else { "SASL_PLAINTEXT" };
        let message = format!("`{name}` is not used, for the connection has no login");
        error(name, message, format!("write `{PROTOCOL}: {wanted}`, or take it out"));
    }
    for (given, needed) in [
        ("ssl.certificate.location", ["ssl.key.location", "ssl.key.pem"]),
        ("ssl.certificate.pem", ["ssl.key.pem", "ssl.key.location"]),
        ("ssl.key.location", ["ssl.certificate.location", "ssl.certificate.pem"]),
    ] {
        if value(given).is_some() && needed.iter().all(|name| value(name).is_none()) {
            error(
                given,
                format!("`{given}` needs `{}`", needed[0]),
                format!("write `{}` beside it", needed[0]),
            );
        }
    }
    if !has_login {
        return;
    }
    let mechanism = value("sasl.mechanism").or(value("sasl.mechanisms"));
    if !mechanism.is_some_and(|mechanism| MECHANISMS.contains(&mechanism)) {
        let name = if value("sasl.mechanisms").is_some() { "sasl.mechanisms" } else { "sasl.mechanism" };
        let message = "strangler logs in to Kafka by PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512".to_owned();
        error(name, message, format!("write `sasl.mechanism:` with one of {}", listed(&MECHANISMS)));
    }
    for name in ["sasl.username", "sasl.password"] {
        if value(name).is_none() {
            error(PROTOCOL, format!("a login needs `{name}`"), format!("write `{name}: ${{…}}` beside it"));
        }
    }
    if !is_tls && mechanism == Some("PLAIN") {
        let message = "the password for Kafka travels unencrypted";
        let hint = format!("write `{PROTOCOL}: SASL_SSL`, or let the brokers ask for SCRAM-SHA-512");
        notes.warning(spot(PROTOCOL), Code::PlanKafkaOption, message, hint);
    }
}
