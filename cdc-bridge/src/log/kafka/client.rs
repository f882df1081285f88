//! The connections to the cluster: their settings, and what their errors mean.

use super::trouble;
use crate::log::contract::LogError;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::KafkaOptions;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::time::Duration;

/// One question to the cluster is answered within this time, or the cluster is not available.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A record that is not acknowledged for this long ends the writer's session.
const DELIVERY_MS_MAX: u64 = 20_000;
/// What a producer may hold that is not acknowledged yet.
const PRODUCER_KBYTES_MAX: u64 = 32 << 10;
/// What a reader may hold that is not asked for yet.
const CONSUMER_KBYTES_MAX: u64 = 2 << 10;
/// What one answer of a broker brings, compressed: it is received as up to so many times more.
const FETCH_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Admin,
    Producer,
    Consumer,
}

impl Client {
    /// The library complains about an option that its kind of client does not use.
    fn takes(self, name: &str) -> bool {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let writes =
            starts(&["linger.", "queue.buffering.", "batch.", "compression.", "sticky.", "request.timeout."]);
        let reads = starts(&["fetch.", "queued.", "session.", "heartbeat.", "max.poll.", "coordinator."]);
        match self {
            Client::Admin => !writes && !reads,
            Client::Producer => !reads,
            Client::Consumer => !writes,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// `host:port`, several with commas.
    pub(crate) brokers: String,
    options: KafkaOptions,
}

impl Cluster {
    pub(crate) fn new(brokers: &str, options: &KafkaOptions) -> Cluster {
        Cluster { brokers: brokers.to_owned(), options: options.clone() }
    }

    /// What the plan says comes last: it tunes what we do not insist on, and how we are let in.
    fn with_options(&self, mut config: ClientConfig, client: Client) -> ClientConfig {
        for (name, option) in self.options.iter().filter(|(name, _)| client.takes(name)) {
            config.set(name, option.expose());
        }
        config
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "strangler")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // Batches of ours are as large as rows may be.
            .set("receive.message.max.bytes", "1000000000")
            // Why a broker cuts us off is said on this level.
            .set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// For topics and their settings.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.with_options(self.config(), Client::Admin)
    }

    /// For a writer whose largest record has so many bytes.
    pub(crate) fn producer(&self, record_bytes_max: u64) -> ClientConfig {
        let mut config = self.config();
        let kbytes = PRODUCER_KBYTES_MAX.max(record_bytes_max / 1024 + 1024);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0.5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.kbytes", kbytes.to_string())
            .set("queue.buffering.max.messages", "200000")
            .set("message.max.bytes", record_bytes_max.to_string())
            .set("message.timeout.ms", DELIVERY_MS_MAX.to_string());
        self.with_options(config, Client::Producer)
    }

    /// For a reader of one partition. It belongs to no group and commits nothing. The broker answers a fetch that finds
    /// nothing after `wait_ms`; another place that is read from then waits for so long.
    pub(crate) fn consumer(&self, wait_ms: u64) -> ClientConfig {
        let mut config = self.config();
        config
            .set("group.id", "strangler")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("enable.partition.eof", "false")
            .set("queued.max.messages.kbytes", CONSUMER_KBYTES_MAX.to_string())
            .set("fetch.message.max.bytes", (FETCH_BYTES_MAX / 2).to_string())
            .set("fetch.max.bytes", FETCH_BYTES_MAX.to_string())
            .set("fetch.wait.max.ms", wait_ms.to_string())
            .set("fetch.min.bytes", "1")
            .set("fetch.error.backoff.ms", "20")
            // Its default of a second would stop a reader that is faster than its queue is long.
            .set("fetch.queue.backoff.ms", "1");
        self.with_options(config, Client::Consumer)
    }

    pub(crate) fn error(&self, error: &KafkaError) -> LogError {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            let hint = "raise `limits: max_row` in the plan, `max.message.bytes` of the topic and \
                        `message.max.bytes` of the brokers";
            return LogError::Refused(Finding::error(
                Code::LogRowTooLarge,
                "a change is larger than Kafka accepts",
                hint,
            ));
        }
        match (error, trouble::of(&self.brokers)) {
            // It would repeat a value that may be secret.
            (KafkaError::ClientConfig(_, _, name, _), _) => self.turned_away(
                &format!("the client library does not take `{name}`"),
                "run `strangler check`, which names the place in the plan",
            ),
            (KafkaError::ClientCreation(why), _) => {
                // It names the option, and not the file.
                let mut files = self.options.iter().filter(|(name, _)| name.ends_with(".location"));
                let file = files.find(|(name, _)| why.contains(name)).map(|(_, file)| file.expose());
                let why = file.map_or(why.clone(), |file| format!("{why} ({file})"));
                self.turned_away(&why, "correct `log.kafka.options` in the plan, then `strangler reload`")
            }
            (_, Some(trouble)) => match trouble.remedy() {
                Some(remedy) => self.turned_away(&trouble.words, remedy),
                None => self.unavailable(&format!("{error}: {}", trouble.words)),
            },
            (_, None) => self.unavailable(&error.to_string()),
        }
    }

    /// The cluster is there and does not let us in. Someone may mend it there, so that it is tried again.
    fn turned_away(&self, why: &str, hint: &str) -> LogError {
        LogError::Unavailable {
            place: format!("Kafka {}", self.brokers),
            why: why.to_owned(),
            hint: hint.to_owned(),
        }
    }

    /// The cluster does not do what it should, for now.
    pub(crate) fn unavailable(&self, why: &str) -> LogError {
        LogError::Unavailable {
            place: format!("Kafka {}", self.brokers),
            why: why.to_owned(),
            hint: "check that the brokers run and are reached from here (`log.kafka.brokers` in the plan), and that \
                   `security.protocol` under `log.kafka.options` is their listener's; the bridge goes on by itself when \
                   they answer"
                .into(),
        }
    }

    /// What was read is not ours.
    pub(crate) fn damaged(&self, why: &str) -> LogError {
        LogError::Damaged { place: format!("Kafka {}", self.brokers), why: why.to_owned() }
    }
}
