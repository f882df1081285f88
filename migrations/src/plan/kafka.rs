//! What a plan tells Kafka's client library (`log.kafka.options`): how to connect, and what to tune.

use crate::finding::Place;
use std::collections::BTreeMap;
use std::fmt;

/// Options by name, as librdkafka knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KafkaOptions(BTreeMap<String, KafkaOption>);

#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOption {
    value: String,
    /// Where the plan sets it.
    pub place: Place,
    /// Whether nobody may see the value.
    pub is_secret: bool,
}

impl KafkaOption {
    pub(super) fn new(name: &str, value: String, place: Place) -> Self {
        Self { value, place, is_secret: is_secret(name) }
    }

    /// For the client library, never for people.
    pub fn expose(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for KafkaOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secret { "•••" } else { &self.value })
    }
}

impl KafkaOptions {
    pub(super) fn insert(&mut self, name: &str, option: KafkaOption) {
        self.0.insert(name.to_owned(), option);
    }

    pub fn get(&self, name: &str) -> Option<&KafkaOption> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &KafkaOption)> {
        self.0.iter().map(|(name, option)| (name.as_str(), option))
    }
}

/// Passwords, and keys that stand in the value itself.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    ["password", "secret", "key.pem", "oauthbearer.config", "token", "assertion"]
        .iter()
        .any(|word| name.contains(word))
}

/// Why an option is not the plan's to set; none if it is.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    Some(match name {
        "bootstrap.servers" | "metadata.broker.list" => "the brokers stand in `log.kafka.brokers`",
        "acks"
        | "request.required.acks"
        | "enable.idempotence"
        | "enable.gapless.guarantee"
        | "transactional.id"
        | "transaction.timeout.ms"
        | "message.timeout.ms"
        | "delivery.timeout.ms"
        | "delivery.report.only.error"
        | "retries"
        | "message.send.max.retries"
        | "max.in.flight"
        | "max.in.flight.requests.per.connection"
        | "queuing.strategy"
        | "produce.offset.report"
        | "partitioner"
        | "message.max.bytes" => "strangler sets it so that every change is written once and in order",
        "isolation.level"
        | "group.id"
        | "group.instance.id"
        | "group.protocol"
        | "group.remote.assignor"
        | "enable.auto.commit"
        | "auto.commit.enable"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store"
        | "auto.offset.reset"
        | "enable.partition.eof"
        | "offset.store.method"
        | "offset.store.path"
        | "partition.assignment.strategy"
        | "check.crcs" => "strangler sets it so that every change is read once and in order",
        "allow.auto.create.topics" => "strangler makes its topics itself",
        "queue.buffering.max.kbytes"
        | "queue.buffering.max.messages"
        | "queued.max.messages.kbytes"
        | "queued.min.messages"
        | "fetch.message.max.bytes"
        | "max.partition.fetch.bytes"
        | "fetch.max.bytes"
        | "receive.message.max.bytes" => "strangler sets it so that the bridge's memory is bounded",
        "log.queue"
        | "enable.random.seed"
        | "internal.termination.signal"
        | "plugin.library.paths"
        | "statistics.interval.ms" => "it is not for the plan",
        name if name.starts_with("test.mock.") => "it replaces the brokers by played ones",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let place = Place { file: String::new(), line: 1, column: 1, text: String::new() };
        let mut options = KafkaOptions::default();
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "ssl.keystore.password",
        ] {
            options.insert(name, KafkaOption::new(name, "geheim".to_owned(), place.clone()));
        }
        options.insert("client.id", KafkaOption::new("client.id", "us".to_owned(), place));
        let shown = format!("{options:?}");
        assert!(!shown.contains("geheim") && shown.contains("us"), "{shown}");
    }
}
