//! Why brokers turn us away, in the client library's words. Its calls themselves say only that no broker answered; the
//! reason is one of its log lines.

use super::lock::locked;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

/// What was heard so long ago is no reason for what fails now. The library tries again every second.
const FRESH: Duration = Duration::from_secs(15);
/// More brokers than this are not kept in mind.
const BROKERS_MAX: usize = 256;

static HEARD: LazyLock<Mutex<BTreeMap<String, Trouble>>> = LazyLock::new(Mutex::default);

/// From what says least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Not reached, or cut off.
    Connection,
    Tls,
    /// The brokers know neither our password nor us.
    Login,
}

#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) words: String,
    /// Whether the plan names the broker. Others are named by brokers.
    is_named: bool,
    at: Instant,
}

/// Keeps a line in mind that tells about a broker.
pub(super) fn hear(line: &str) {
    let Some((broker, trouble)) = read(line, Instant::now()) else { return };
    let mut heard = locked(&HEARD);
    let says_less = |known: &Trouble| known.kind > trouble.kind && known.at.elapsed() < FRESH;
    if heard.get(&broker).is_some_and(says_less) {
        return;
    }
    if heard.len() >= BROKERS_MAX {
        heard.clear();
    }
    heard.insert(broker, trouble);
}

/// What says most of these brokers, `host:port` with commas; of others if they send us to others.
pub(super) fn of(brokers: &str) -> Option<Trouble> {
    let heard = locked(&HEARD);
    let fresh = || heard.iter().filter(|(_, trouble)| trouble.at.elapsed() < FRESH);
    let named = fresh().filter(|(broker, _)| brokers.split(',').any(|one| one == *broker));
    let most = |(_, trouble): &(&String, &Trouble)| (trouble.kind, trouble.at);
    let found = named.max_by_key(most);
    let found = found.or_else(|| fresh().filter(|(_, trouble)| !trouble.is_named).max_by_key(most));
    found.map(|(_, trouble)| trouble.clone())
}

/// `[thrd:…]: sasl_ssl://host:9093/bootstrap: SASL authentication error: … (after 5ms in state AUTH_REQ)` → broker, words.
fn read(line: &str, at: Instant) -> Option<(String, Trouble)> {
    let rest = line.split_once("]: ").map_or(line, |(_, rest)| rest);
    let (name, words) = rest.split_once(": ")?;
    // Without TLS and login, the name has no scheme.
    let (broker, id) = name.rsplit_once("://").map_or(name, |(_, name)| name).split_once('/')?;
    let words = words.split(" (after ").next().unwrap_or_default().trim();
    let kind = if words.contains("SASL authentication error") {
        Kind::Login
    } else if words.contains("SSL") || words.contains("ssl") {
        Kind::Tls
    } else {
        Kind::Connection
    };
    Some((broker.to_owned(), Trouble { kind, words: words.to_owned(), is_named: id == "bootstrap", at }))
}

impl Trouble {
    /// What to do, if it is not that the brokers are away.
    pub(super) fn remedy(&self) -> Option<&'static str> {
        let says = |sign: &str| self.words.contains(sign);
        Some(match self.kind {
            Kind::Login => {
                "correct `sasl.mechanism`, `sasl.username` and `sasl.password` under `log.kafka.options`, then run \
                 `strangler reload`; an administrator makes the user with `kafka-configs.sh --alter --entity-type users --entity-name \
                 USER --add-config 'SCRAM-SHA-512=[password=…]'`"
            }
            Kind::Tls if says("certificate verify failed") => {
                "name the file with the authority that signed the brokers' certificates with `ssl.ca.location` under \
                 `log.kafka.options`, and the brokers in `log.kafka.brokers` as their certificates do; then `strangler reload`"
            }
            Kind::Tls if says("alert") || says("client SSL authentication") => {
                "name a certificate that the brokers' authority signed with `ssl.certificate.location` and \
                 `ssl.key.location` under `log.kafka.options`, then `strangler reload`"
            }
            Kind::Connection if !says("security.protocol") => return None,
            Kind::Tls | Kind::Connection => {
                "write the listener's `security.protocol` under `log.kafka.options` (`SSL`, `SASL_SSL`, `SASL_PLAINTEXT` or \
                 `PLAINTEXT`), or the port of another listener in `log.kafka.brokers`; then `strangler reload`"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_most_of_the_brokers_is_kept_in_mind() {
        hear(
            "[thrd:ssl://a:1/bootstrap]: ssl://a:1/bootstrap: Disconnected (after 3ms in state APIVERSION_QUERY)",
        );
        hear(
            "[thrd:ssl://b:1/7]: ssl://b:1/7: SSL handshake failed: certificate verify failed: broker … (after 2ms in x)",
        );
        assert_eq!(of("a:1").unwrap().words, "Disconnected");
        assert_eq!(of("a:1,b:1").unwrap().kind, Kind::Tls);
        assert_eq!(of("c:1").unwrap().kind, Kind::Tls, "a broker that these named");
        hear("sasl_ssl://a:1/bootstrap: SASL authentication error: no such user");
        hear("ssl://a:1/bootstrap: Disconnected");
        let login = of("a:1").unwrap();
        assert_eq!((login.kind, &*login.words), (Kind::Login, "SASL authentication error: no such user"));
        assert!(login.remedy().unwrap().contains("sasl.password"));
        hear("1/1 brokers are down");
        hear(
            "[thrd:d:1/bootstrap]: d:1/bootstrap: Connect to ipv4#10.0.0.1:1 failed: Connection refused (after 0ms)",
        );
        assert_eq!(of("d:1").unwrap().remedy(), None, "it is away");
    }
}
