//! The topics: made, checked, shortened, removed.

use super::client::{ANSWER_MAX, Cluster};
use super::listener::Listener;
use crate::log::contract::LogError;
use migrations::code::Code;
use migrations::finding::Finding;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;

/// Topics made in one request.
const TOPICS_PER_REQUEST: usize = 50;

/// The log's topic gives space back in files of this size (`segment.bytes`).
const SEGMENT_BYTES: &str = "67108864";

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

    /// Makes the log's topic if it is missing, and checks it if it is there. Nothing but us takes records away.
    pub(crate) async fn ensure_log(&self, name: &str, shape: Shape) -> Result<(), LogError> {
        let ours = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("segment.bytes", SEGMENT_BYTES),
        ];
        if self.make(&[name.to_owned()], shape, &ours).await?.is_empty() {
            return Ok(());
        }
        self.check(name).await
    }

    /// Makes the topics of tables that are missing; how long they keep records is for the brokers to say.
    pub(crate) async fn ensure(&self, names: &[String], shape: Shape) -> Result<(), LogError> {
        for names in names.chunks(TOPICS_PER_REQUEST) {
            self.make(names, shape, &[]).await?;
        }
        Ok(())
    }

    /// Makes topics; the names of those that were there already.
    async fn make(
        &self,
        names: &[String],
        shape: Shape,
        settings: &[(&'static str, &'static str)],
    ) -> Result<Vec<String>, LogError> {
        let bytes = shape.record_bytes_max.to_string();
        let new = |name| {
            let mut new = NewTopic::new(name, shape.partitions, TopicReplication::Fixed(shape.replication))
                .set("max.message.bytes", &bytes);
            for (name, value) in settings {
                new = new.set(name, value);
            }
            new
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

    /// A compacted topic loses records that are still needed.
    async fn check(&self, name: &str) -> Result<(), LogError> {
        let found = self.admin.describe_configs([&ResourceSpecifier::Topic(name)], &options()).await;
        for resource in found.map_err(|error| self.cluster.error(&error))? {
            let resource =
                resource.map_err(|code| self.cluster.unavailable(&format!("topic {name}: {code}")))?;
            let policy = resource.get("cleanup.policy").and_then(|entry| entry.value.clone());
            if policy.is_some_and(|policy| policy.contains("compact")) {
                let message = format!("the log's topic {name} is compacted, which would lose changes");
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

    /// Takes a topic away; one that is not there is no error.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), LogError> {
        let gone = self.admin.delete_topics(&[name], &options()).await;
        for result in gone.map_err(|error| self.cluster.error(&error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((name, code)) => {
                    let why = format!("topic {name} cannot be taken away: {code}");
                    return Err(self.cluster.unavailable(&why));
                }
            }
        }
        Ok(())
    }

    /// Takes the records of the log's topic before an offset away.
    pub(crate) async fn delete_records(&self, name: &str, before: u64) -> Result<(), LogError> {
        let wrong = |error: KafkaError| self.cluster.error(&error);
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(name, 0, Offset::Offset(before as i64)).map_err(wrong)?;
        let deleted = self.admin.delete_records(&places, &options()).await.map_err(wrong)?;
        deleted.elements().iter().try_for_each(|place| place.error()).map_err(wrong)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_MAX)).operation_timeout(Some(ANSWER_MAX))
}
