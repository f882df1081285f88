//! The connections to the cluster: their settings, and what their errors mean.

use crate::log::contract::LogError;
use migrations::code::Code;
use migrations::finding::Finding;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::time::Duration;

/// One question to the cluster is answered within this time, or the cluster is not available.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A record that is not acknowledged for this long ends the writer's session.
const DELIVERY_MS_MAX: u64 = 20_000;
/// What a producer may hold that is not acknowledged yet.
const PRODUCER_KBYTES_MAX: u64 = 32 << 10;
/// What a consumer may hold, over all its partitions.
const CONSUMER_KBYTES_MAX: u64 = 8 << 10;
/// Fetched batches are compressed: so many times smaller than what they are received as, about.
const COMPRESSION: u64 = 8;
/// The broker answers a fetch that finds nothing after this time; a partition that is added in between waits so long.
const FETCH_WAIT_MS: u64 = 10;

#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    /// `host:port`, several with commas.
    pub(crate) brokers: String,
}

impl Cluster {
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "strangler")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            // Batches of ours are as large as rows may be.
            .set("receive.message.max.bytes", "1000000000");
        config
    }

    /// For topics and their settings.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.config()
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
        config
    }

    /// For a reader of so many partitions. It belongs to no group and commits nothing.
    pub(crate) fn consumer(&self, partitions: usize) -> ClientConfig {
        let mut config = self.config();
        let kbytes = (CONSUMER_KBYTES_MAX / partitions.max(1) as u64).clamp(64, CONSUMER_KBYTES_MAX / 4);
        config
            .set("group.id", "strangler")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("enable.partition.eof", "false")
            .set("queued.max.messages.kbytes", kbytes.to_string())
            .set("fetch.message.max.bytes", (kbytes * 1024 / COMPRESSION).to_string())
            .set("fetch.max.bytes", (CONSUMER_KBYTES_MAX * 1024 / COMPRESSION).to_string())
            .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
            .set("fetch.min.bytes", "1")
            .set("fetch.error.backoff.ms", "20")
            // Its default of a second would stop a reader that is faster than its queue is long.
            .set("fetch.queue.backoff.ms", "1");
        config
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
        self.unavailable(&error.to_string())
    }

    /// The cluster does not do what it should, for now.
    pub(crate) fn unavailable(&self, why: &str) -> LogError {
        LogError::Unavailable {
            place: format!("Kafka {}", self.brokers),
            why: why.to_owned(),
            hint: "check that the brokers run and are reached from here (`log.kafka.brokers` in the plan); \
                   the bridge goes on by itself when they answer"
                .into(),
        }
    }

    /// What was read is not ours.
    pub(crate) fn damaged(&self, why: &str) -> LogError {
        LogError::Damaged { place: format!("Kafka {}", self.brokers), why: why.to_owned() }
    }
}
