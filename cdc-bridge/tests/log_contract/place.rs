//! Where a log under test is, and a reader that watches what it is given.

use crate::history::{self, Committed, History, changes_of};
use cdc_bridge::log::{BATCH_BYTES_MAX, Batch, Cursor, Log, LogError, Reader};
use lab::Dice;
use migrations::lsn::{EndLsn, Position};
use migrations::names::{PlanName, TableName};
use migrations::plan::{KafkaOptions, LogChoice, Publish};
use migrations::sql::Database;
use rows::change::Change;
use rows::progress::Message;
use std::collections::BTreeSet;
use std::time::Duration;

/// Nothing here takes longer, on a slow machine neither.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Place {
    pub choice: LogChoice,
    pub plan: PlanName,
    pub folder: tempfile::TempDir,
}

impl Place {
    pub fn embedded() -> Self {
        Self {
            choice: LogChoice::Embedded { bytes_max: 1 << 30 },
            plan: "shop".parse().unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// On the broker of `STRANGLER_TEST_KAFKA`, under a prefix of its own.
    pub fn kafka() -> Self {
        let brokers = std::env::var("STRANGLER_TEST_KAFKA").unwrap_or_else(|_| {
            panic!(
                "these tests need a Kafka broker: run `cargo xtask test`, or start one with `cargo xtask kafka` \
                 and set STRANGLER_TEST_KAFKA=host:port"
            )
        });
        let topic_prefix = format!("test-{}", uuid::Uuid::new_v4().simple());
        Self {
            choice: LogChoice::Kafka {
                brokers,
                topic_prefix,
                partitions: 3,
                replication: 1,
                publish: Some(Publish::default()),
                bytes_max: 1 << 30,
                options: KafkaOptions::default(),
            },
            plan: "shop".parse().unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The same with another bound.
    pub fn of(mut self, most: u64) -> Self {
        match &mut self.choice {
            LogChoice::Embedded { bytes_max } | LogChoice::Kafka { bytes_max, .. } => *bytes_max = most,
            _ => panic!("another kind of log"),
        }
        self
    }

    pub async fn open(&self) -> Log {
        self.try_open().await.unwrap()
    }

    /// Opens it again after everyone let go of it; a reader's last read may still be ending.
    pub async fn reopen(&self) -> Log {
        for _ in 0..100 {
            if let Ok(log) = self.try_open().await {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.open().await
    }

    pub async fn try_open(&self) -> Result<Log, LogError> {
        Log::open(&self.choice, &self.plan, &Database::Monolith, "shopdb", self.folder.path()).await
    }

    /// An open log that is ready.
    pub async fn ready(&self) -> Log {
        let log = self.open().await;
        log.prepare(4 << 20, &history::timeline()).await.unwrap();
        log
    }

    /// A log that is ready, where it ends, and a history to write into it.
    pub async fn begun(&self, dice: Dice) -> (Log, Cursor, History) {
        let log = self.ready().await;
        let start = log.end_cursor().await.unwrap();
        (log, start, History::new(dice))
    }

    /// Takes the log away again.
    pub async fn clean(&self, log: &Log) {
        log.destroy().await.unwrap();
    }
}

/// Reads and checks on the way what holds for every batch.
#[derive(Debug)]
pub struct Watcher {
    reader: Option<Reader>,
    last: Position,
    end: EndLsn,
    pub changes: Vec<Change>,
    pub messages: Vec<Message>,
    pub cursor: Cursor,
    /// What of `changes` lies before `cursor`.
    pub done: usize,
    pub batches: usize,
}

impl Watcher {
    pub async fn new(log: &Log, tables: &BTreeSet<TableName>, from: &Cursor) -> Self {
        Self {
            reader: Some(log.reader(tables.clone(), from).await.unwrap()),
            last: Position::default(),
            end: EndLsn(0),
            changes: Vec::new(),
            messages: Vec::new(),
            cursor: from.clone(),
            done: 0,
            batches: 0,
        }
    }

    /// One that has read all of these transactions, and nothing else of these tables.
    pub async fn at_the_end_of(
        transactions: &[Committed],
        log: &Log,
        tables: &BTreeSet<TableName>,
        from: &Cursor,
    ) -> Self {
        let mut watcher = Self::new(log, tables, from).await;
        watcher.until(transactions.last().unwrap().end).await;
        assert_eq!(watcher.changes, changes_of(transactions, tables));
        watcher
    }

    /// The next batch; it is noted in the watcher.
    pub async fn step(&mut self) -> EndLsn {
        let batch =
            tokio::time::timeout(PATIENCE, self.reader().next()).await.expect("the reader stands still");
        self.note(batch.unwrap());
        self.end
    }

    /// True when nothing comes for a while.
    pub async fn is_silent(&mut self, while_: Duration) -> bool {
        match tokio::time::timeout(while_, self.reader().next()).await {
            Err(_) => true,
            Ok(batch) => {
                self.note(batch.unwrap());
                false
            }
        }
    }

    /// Reads until the log's promise reaches `end`.
    pub async fn until(&mut self, end: EndLsn) {
        while self.end < end {
            self.step().await;
        }
    }

    /// Takes up at the last cursor again, as a sink would that was killed.
    pub async fn restart(&mut self, log: &Log, tables: &BTreeSet<TableName>) {
        self.reader = Some(log.reader(tables.clone(), &self.cursor).await.unwrap());
        self.changes.truncate(self.done);
        self.last = self.changes.last().map(|change| change.position).unwrap_or_default();
    }

    pub fn close(&mut self) {
        self.reader = None;
    }

    fn reader(&mut self) -> &mut Reader {
        self.reader.as_mut().expect("the watcher was closed")
    }

    fn note(&mut self, batch: Batch) {
        self.batches += 1;
        let size: usize = batch.changes.iter().map(Change::size).sum();
        let largest = batch.changes.iter().map(Change::size).max().unwrap_or(0);
        assert!(size <= BATCH_BYTES_MAX + largest, "a batch of {size} bytes");
        assert!(!batch.changes.is_empty() || batch.progress.is_some(), "an empty batch");
        for change in &batch.changes {
            assert!(change.position > self.last, "{} after {}", change.position, self.last);
            self.last = change.position;
        }
        self.changes.extend(batch.changes);
        if let Some((progress, cursor)) = batch.progress {
            assert!(progress.end >= self.end, "the promise went back");
            let covered = self.changes.last().is_none_or(|last| progress.end.is_past(last.position.commit));
            assert!(covered, "changes beyond the promise");
            self.end = progress.end;
            self.messages.extend(progress.messages);
            self.cursor = cursor;
            self.done = self.changes.len();
        }
    }
}
