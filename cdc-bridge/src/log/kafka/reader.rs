//! Reads Kafka: the progress topic first, then the partitions up to what it promises, merged by position.
//!
//! The client library's polls block, so each reader has a thread, which hands finished batches over a short channel.

use super::client::Cluster;
use super::locked;
use super::reading::Reading;
use super::record::{Bookmark, TablesRecord};
use crate::log::{Batch, LogError};
use migrations::names::TableName;
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Finished batches that wait to be asked for.
const BATCHES_MAX: usize = 2;
/// A reader that nobody wakes looks around after this time: for errors, and whether it is still wanted.
const NAP: Duration = Duration::from_millis(100);

/// Reads from a cursor on.
#[derive(Debug)]
pub struct KafkaReader {
    cluster: Cluster,
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    bell: Arc<Bell>,
}

/// What a reader begins with.
pub struct Begin {
    /// The cluster.
    pub cluster: Cluster,
    /// The topic of progress records.
    pub progress_topic: String,
    /// The tables to read, and their topics.
    pub tables: BTreeSet<TableName>,
    /// The topics of the tables.
    pub topics: BTreeSet<String>,
    /// Where to begin.
    pub bookmark: Bookmark,
    /// The shapes that hold there.
    pub shapes: Option<TablesRecord>,
    /// How many partitions there will be, about.
    pub partitions: usize,
}

impl KafkaReader {
    /// Begins to read.
    pub fn new(begin: Begin) -> Result<Self, LogError> {
        let cluster = begin.cluster.clone();
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let bell = Arc::new(Bell::default());
        let reading = Reading::new(begin, sender, bell.clone())?;
        let thread = std::thread::Builder::new().name("kafka-reader".into());
        thread.spawn(move || reading.run()).map_err(|error| cluster.unavailable(&error.to_string()))?;
        Ok(Self { cluster, batches, bell })
    }

    /// The next batch, as [`crate::log::Reader::next`] says.
    pub async fn next(&mut self) -> Result<Batch, LogError> {
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

/// Wakes the reader's thread when any of its queues has something.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *locked(&self.rung) = true;
        self.heard.notify_all();
    }

    pub(super) fn wait(&self) {
        let waited = self.heard.wait_timeout_while(locked(&self.rung), NAP, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}
