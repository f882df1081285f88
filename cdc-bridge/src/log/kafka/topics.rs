//! The topics: made, checked, removed.

use super::client::{ANSWER_MAX, Cluster};
use super::listener::Listener;
use crate::log::contract::LogError;
use migrations::code::Code;
use migrations::finding::Finding;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

/// Topics made, checked or removed in one request.
const TOPICS_PER_REQUEST: usize = 50;

/// How topics of ours are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) partitions: i32,
    pub(crate) replication: i32,
    /// `max.message.bytes`.
    pub(crate) record_bytes_max: u64,
}

pub(crate) struct Topics {
    cluster: Cluster,
    admin: AdminClient<Listener>,
}

impl Topics {
    /// Connects when it is first used.
    pub(crate) fn new(cluster: &Cluster) -> Result<Topics, LogError> {
        let admin = cluster.admin().create_with_context(Listener).map_err(|error| cluster.error(&error))?;
        Ok(Topics { cluster: cluster.clone(), admin })
    }

    /// Makes the topics that are missing, and checks those that are there.
    pub(crate) async fn ensure(&self, names: &[String], shape: Shape) -> Result<(), LogError> {
        for names in names.chunks(TOPICS_PER_REQUEST) {
            let there = self.make(names, shape).await?;
            self.check(&there).await?;
        }
        Ok(())
    }

    /// Makes topics; the names of those that were there already.
    async fn make(&self, names: &[String], shape: Shape) -> Result<Vec<String>, LogError> {
        let bytes = shape.record_bytes_max.to_string();
        let new = |name| {
            NewTopic::new(name, shape.partitions, TopicReplication::Fixed(shape.replication))
                .set("cleanup.policy", "delete")
                .set("retention.ms", "-1")
                .set("retention.bytes", "-1")
                .set("max.message.bytes", &bytes)
        };
        let new: Vec<NewTopic<'_>> = names.iter().map(|name| new(name.as_str())).collect();
        let made = self.admin.create_topics(&new, &options()).await;
        let mut there = Vec::new();
        for result in made.map_err(|error| self.cluster.error(&error))? {
            match result {
                Ok(_) => {}
                Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => there.push(name),
                Err((name, code)) => return Err(self.refused_topic(&name, code, shape)),
            }
        }
        Ok(there)
    }

    fn refused_topic(&self, name: &str, code: RDKafkaErrorCode, shape: Shape) -> LogError {
        let finding =
            |code: Code, message: String, hint: &str| LogError::Refused(Finding::error(code, message, hint));
        match code {
            RDKafkaErrorCode::InvalidReplicationFactor => finding(
                Code::LogReplication,
                format!("Kafka has too few brokers for {} replicas of topic {name}", shape.replication),
                "set `log: { kafka: { replication: N } }` in the plan to the number of brokers or less",
            ),
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
                finding(
                    Code::LogRights,
                    format!("Kafka does not let the bridge make topic {name}"),
                    "allow it Create, Delete, Describe, DescribeConfigs, Read and Write on its topics",
                )
            }
            RDKafkaErrorCode::InvalidTopic => finding(
                Code::LogTopicName,
                format!("Kafka does not take {name} as a topic's name"),
                "topic names have 249 letters, digits, `.`, `_` and `-` at most: shorten `topic_prefix`",
            ),
            code => self.cluster.unavailable(&format!("topic {name} cannot be made: {code}")),
        }
    }

    /// A compacted topic loses values that a later change leaves out, and halves of transactions.
    async fn check(&self, names: &[String]) -> Result<(), LogError> {
        if names.is_empty() {
            return Ok(());
        }
        let topics: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let found = self.admin.describe_configs(&topics, &options()).await;
        let found = found.map_err(|error| self.cluster.error(&error))?;
        for (name, resource) in names.iter().zip(found) {
            let resource =
                resource.map_err(|code| self.cluster.unavailable(&format!("topic {name}: {code}")))?;
            let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.clone());
            if policy.is_some_and(|policy| policy.contains("compact")) {
                let message = format!("topic {name} is compacted, which would lose parts of changes");
                let hint = format!(
                    "run `kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {name} \
                     --add-config cleanup.policy=delete`, or choose another `topic_prefix`",
                    self.cluster.brokers
                );
                return Err(LogError::Refused(Finding::error(Code::LogTopicCompacted, message, hint)));
            }
        }
        Ok(())
    }

    /// Takes topics away; those that are not there are no error.
    pub(crate) async fn delete(&self, names: &[String]) -> Result<(), LogError> {
        for names in names.chunks(TOPICS_PER_REQUEST) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let gone = self.admin.delete_topics(&names, &options()).await;
            for result in gone.map_err(|error| self.cluster.error(&error))? {
                match result {
                    Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                    Err((name, code)) => {
                        let why = format!("topic {name} cannot be taken away: {code}");
                        return Err(self.cluster.unavailable(&why));
                    }
                }
            }
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}
