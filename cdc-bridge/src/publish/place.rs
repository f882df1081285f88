//! From where publishing goes on: kept in the cluster as the offset of a consumer group, so that Kafka's own tools show it.
//!
//! The offset is the log's key; the cursor is the metadata beside it.

use crate::log::kafka::{Cluster, Listener};
use crate::log::{Cursor, Log, LogError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;
use std::sync::Arc;
use std::time::Duration;

const ANSWER_MAX: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Place {
    cluster: Cluster,
    consumer: Arc<BaseConsumer<Listener>>,
    /// The log's.
    topic: String,
}

impl Place {
    pub(super) fn new(cluster: &Cluster, log: &Log) -> Result<Place, LogError> {
        let group = format!("strangler.{}.publish", log.context().prefix);
        let mut config = cluster.consumer(10);
        let consumer = config.set("group.id", group).create_with_context(Listener);
        let consumer = Arc::new(consumer.map_err(|error| cluster.error(&error))?);
        Ok(Place { cluster: cluster.clone(), consumer, topic: log.topic() })
    }

    /// The place that was kept; none if there is none, or if another program kept it.
    pub(super) async fn load(&self) -> Result<Option<Cursor>, LogError> {
        self.blocking(|place| {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&place.topic, 0);
            let found = place.consumer.committed_offsets(asked, ANSWER_MAX)?;
            let kept =
                found.find_partition(&place.topic, 0).filter(|found| found.offset() != Offset::Invalid);
            let cursor = kept.map(|kept| kept.metadata().to_owned()).filter(|cursor| !cursor.is_empty());
            Ok(cursor.map(Cursor))
        })
        .await
    }

    pub(super) async fn keep(&self, cursor: &Cursor) -> Result<(), LogError> {
        let cursor = cursor.clone();
        self.blocking(move |place| {
            let mut kept = TopicPartitionList::new();
            kept.add_partition_offset(&place.topic, 0, Offset::Offset(cursor.key() as i64))?;
            if let Some(mut one) = kept.find_partition(&place.topic, 0) {
                one.set_metadata(&cursor.0);
            }
            place.consumer.commit(&kept, CommitMode::Sync)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Place) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let place = self.clone();
        let run =
            tokio::task::spawn_blocking(move || run(&place).map_err(|error| place.cluster.error(&error)));
        run.await.map_err(|error| self.cluster.unavailable(&error.to_string()))?
    }
}
