//! What of the plan's options the client library does not take, and whether the brokers let us in by them.

use super::client::Cluster;
use super::look::Look;
use super::topic;
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::{KafkaOption, LogChoice};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

const LIST: &str = "https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md lists them";

/// The options that the client library does not take, each with its place in the plan. Nothing is connected to.
pub fn unknown_options(choice: &LogChoice) -> Vec<Finding> {
    let LogChoice::Kafka { options, .. } = choice else { return Vec::new() };
    let refused = |(name, option): (&str, &KafkaOption)| {
        let mut config = ClientConfig::new();
        config.set(name, option.expose());
        let Err(error) = config.create_native_config() else { return None };
        Some(refusal(name, option, &error).at(option.place.clone()))
    };
    options.iter().filter_map(refused).collect()
}

fn refusal(name: &str, option: &KafkaOption, error: &KafkaError) -> Finding {
    let (message, hint) = match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            (format!("Kafka's client has no option `{name}`"), format!("correct its name; {LIST}"))
        }
        // It repeats the value.
        KafkaError::ClientConfig(_, why, ..) if !option.is_secret => {
            (format!("Kafka's client does not take `{name}`: {why}"), format!("correct its value; {LIST}"))
        }
        _ => (format!("Kafka's client does not take the value of `{name}`"), format!("correct it; {LIST}")),
    };
    Finding::error(Code::PlanKafkaOption, message, hint)
}

/// What keeps us from the cluster; none if it answers, or if the log is not in Kafka.
pub async fn out_of_reach(choice: &LogChoice) -> Option<Finding> {
    let LogChoice::Kafka { brokers, topic_prefix, options, .. } = choice else { return None };
    let cluster = Cluster::new(brokers, options);
    let topic = topic(topic_prefix);
    let looked =
        tokio::task::spawn_blocking(move || Look::new(&cluster).and_then(|look| look.partitions(&topic)));
    let error = looked.await.ok()?.err()?;
    let found = error.finding();
    Some(Finding::error(Code::LogUnreachable, found.message, found.remedy))
}
