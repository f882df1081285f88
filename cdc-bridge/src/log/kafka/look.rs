//! Short looks into topics: where they begin and end, and some of their records. Everything here blocks.

use super::client::{ANSWER_MAX, Cluster};
use super::listener::Listener;
use super::trouble;
use crate::log::contract::LogError;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::metadata::{Metadata, MetadataPartition};
use rdkafka::topic_partition_list::Offset;
use std::time::{Duration, Instant};

/// A question about topics is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A look goes from place to place.
const FETCH_WAIT_MS: u64 = 10;
/// News of the client library that are taken at once.
const NEWS_MAX: usize = 64;

/// A consumer that is pointed at one partition after the other.
pub(crate) struct Look {
    cluster: Cluster,
    consumer: BaseConsumer<Listener>,
}

impl Look {
    /// Connects when it is first used.
    pub(crate) fn new(cluster: &Cluster) -> Result<Look, LogError> {
        let consumer = cluster
            .consumer(FETCH_WAIT_MS)
            .create_with_context(Listener)
            .map_err(|error| cluster.error(&error))?;
        Ok(Look { cluster: cluster.clone(), consumer })
    }

    /// How many partitions a topic has; none if the topic does not exist.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Option<i32>, LogError> {
        Ok(Some(self.list(topic)?.len() as i32).filter(|count| *count > 0))
    }

    /// A topic's partitions, also those that have no leader now; none if the topic does not exist.
    fn list(&self, topic: &str) -> Result<Vec<i32>, LogError> {
        let metadata = self.metadata(topic)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(Vec::new());
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(found.partitions().iter().map(MetadataPartition::id).collect()),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Ok(Vec::new())
            }
            Some(code) => Err(self.cluster.unavailable(&format!("topic {topic}: {code}"))),
        }
    }

    /// Asks several times, so that brokers that turn us away are noticed before the time is over.
    fn metadata(&self, topic: &str) -> Result<Metadata, LogError> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.fetch_metadata(Some(topic), left.min(ASK_AGAIN)) {
                Ok(metadata) => return Ok(metadata),
                Err(error) if is_passing(&error) && left > ASK_AGAIN && !self.is_turned_away() => {}
                Err(error) => return Err(self.wrong(&error)),
            }
        }
    }

    fn is_turned_away(&self) -> bool {
        self.listen();
        trouble::of(&self.cluster.brokers).is_some_and(|trouble| trouble.remedy().is_some())
    }

    /// The client library says what is wrong only if it is asked for news.
    fn listen(&self) {
        for _ in 0..NEWS_MAX {
            if self.consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
    }

    fn wrong(&self, error: &KafkaError) -> LogError {
        self.listen();
        self.cluster.error(error)
    }

    /// How many partitions a topic has that was just made, which not every broker knows at once.
    pub(crate) fn await_partitions(&self, topic: &str) -> Result<i32, LogError> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            match self.partitions(topic) {
                Ok(Some(count)) => return Ok(count),
                Ok(None) | Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50))
                }
                Ok(None) => return Err(self.cluster.unavailable(&format!("topic {topic} is not there"))),
                Err(error) => return Err(error),
            }
        }
    }

    /// The first offset that is kept and the next that will be written; none if there is no such partition. One without
    /// a leader, which the client library reports alike, is an error: its content is not known.
    pub(crate) fn bounds(&self, topic: &str, partition: i32) -> Result<Option<(i64, i64)>, LogError> {
        match self.consumer.fetch_watermarks(topic, partition, ANSWER_MAX) {
            Ok(bounds) => Ok(Some(bounds)),
            Err(error) if is_missing(&error) && !self.list(topic)?.contains(&partition) => Ok(None),
            Err(error) => Err(self.wrong(&error)),
        }
    }

    /// Hands the records of a topic's first partition from an offset up to, not including, another to `visit`.
    pub(crate) fn each(
        &self,
        topic: &str,
        (from, to): (u64, u64),
        mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        if from >= to {
            return Ok(());
        }
        let wrong = |error: KafkaError| self.wrong(&error);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(topic, 0, Offset::Offset(from as i64)).map_err(wrong)?;
        self.consumer.assign(&place).map_err(wrong)?;
        let mut deadline = Instant::now() + ANSWER_MAX;
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(wrong(error)),
                Some(Ok(message)) => {
                    deadline = Instant::now() + ANSWER_MAX;
                    let offset = message.offset() as u64;
                    if offset < to {
                        visit(&message)?;
                    }
                    if offset + 1 >= to {
                        return self.consumer.unassign().map_err(wrong);
                    }
                }
            }
        }
        Err(self.cluster.unavailable(&format!("it does not deliver record {from} of {topic}")))
    }
}

/// The topic or the partition is not there, or has no leader.
fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// The client library goes on by itself after it.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::plan::KafkaOptions;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaRespErr;

    #[test]
    fn a_topic_without_a_leader_is_not_taken_for_none() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("there", 2, 1).unwrap();
        let look = Look::new(&Cluster::new(&mock.bootstrap_servers(), &KafkaOptions::default())).unwrap();
        assert_eq!(look.partitions("there").unwrap(), Some(2));
        let told = |error| {
            mock.topic_error("there", error).unwrap();
            look.partitions("there")
        };
        let leaderless = told(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
        assert!(matches!(leaderless, Err(LogError::Unavailable { .. })), "{leaderless:?}");
        assert_eq!(told(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap(), None);
    }

    #[test]
    fn a_partition_without_a_leader_is_not_taken_for_none() {
        let mock = MockCluster::new(2).unwrap();
        mock.create_topic("there", 2, 1).unwrap();
        let look = Look::new(&Cluster::new(&mock.bootstrap_servers(), &KafkaOptions::default())).unwrap();
        assert_eq!(look.bounds("there", 1).unwrap(), Some((0, 0)));
        assert_eq!(look.bounds("there", 2).unwrap(), None);
        mock.partition_leader("there", 1, None).unwrap();
        let look = Look::new(&Cluster::new(&mock.bootstrap_servers(), &KafkaOptions::default())).unwrap();
        assert_eq!(look.partitions("there").unwrap(), Some(2));
        let leaderless = look.bounds("there", 1);
        assert!(matches!(leaderless, Err(LogError::Unavailable { .. })), "{leaderless:?}");
    }
}
