//! Reads Kafka: the progress topic first, then the partitions up to what it promises, merged by position.
//!
//! The client library's polls block, so each reader has a thread, which hands finished batches over a short channel.

use super::bell::Bell;
use super::client::Cluster;
use super::reading::{Begin, Reading};
use crate::log::contract::{Batch, LogError};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Finished batches that wait to be asked for.
const BATCHES_MAX: usize = 2;
#[derive(Debug)]
pub struct KafkaReader {
    cluster: Cluster,
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    bell: Arc<Bell>,
}

impl KafkaReader {
    pub(crate) fn new(begin: Begin) -> Result<Self, LogError> {
        let cluster = begin.cluster.clone();
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let bell = Arc::new(Bell::default());
        let reading = Reading::new(begin, sender, bell.clone())?;
        let thread = std::thread::Builder::new().name("kafka-reader".into());
        thread.spawn(move || reading.run()).map_err(|error| cluster.unavailable(&error.to_string()))?;
        Ok(Self { cluster, batches, bell })
    }

    pub(crate) async fn next(&mut self) -> Result<Batch, LogError> {
        let ended = || Err(self.cluster.unavailable("this reader has ended with an error"));
        self.batches.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.batches.close();
        self.bell.ring();
    }
}
