//! The thread of a reader: receives records and changes, and hands whole batches over.

use super::bell::Bell;
use super::client::{ANSWER_MAX, Cluster};
use super::listener::Listener;
use super::look::{Look, is_passing};
use super::merge::{Growing, Merge};
use super::partition::{Partition, Queue, Unread, queue, read};
use super::record::{Bookmark, ProgressRecord, Record, TablesRecord, VERSION};
use crate::log::contract::{BATCH_BYTES_MAX, Batch, LogError};
use migrations::names::TableName;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::Offset;
use rows::change::Relation;
use rows::progress::Progress;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Progress records that are read ahead.
const RECORDS_MAX: usize = 256;
/// Records that are searched at once for a table's shape.
const SEARCH_RECORDS: i64 = 500;

pub(crate) struct Begin {
    pub(crate) cluster: Cluster,
    pub(crate) progress_topic: String,
    pub(crate) tables: BTreeSet<TableName>,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) bookmark: Bookmark,
    /// The shapes that hold there.
    pub(crate) shapes: Option<TablesRecord>,
    /// How many partitions there will be, about.
    pub(crate) partitions: usize,
}

/// What the reader's thread holds.
pub(super) struct Reading {
    cluster: Cluster,
    consumer: Arc<BaseConsumer<Listener>>,
    bell: Arc<Bell>,
    sender: mpsc::Sender<Result<Batch, LogError>>,
    progress_topic: String,
    progress: Queue,
    topics: BTreeSet<String>,
    tables: BTreeSet<TableName>,
    /// One for each partition of `merge`, under the same number.
    sources: Vec<Partition>,
    numbers: HashMap<String, HashMap<i32, usize>>,
    merge: Merge,
    /// By hash; `None` for tables that are not the reader's.
    shapes: HashMap<String, Option<Arc<Relation>>>,
    /// The newest `tables` record received.
    newest_tables: Option<i64>,
    /// Progress records whose changes are not all delivered.
    records: VecDeque<Awaited>,
    /// What is complete up to a record and not handed over yet.
    ready: Option<Ready>,
    growing: Growing,
    /// Where a reader begins that has all that was handed over.
    bookmark: Bookmark,
}

struct Awaited {
    offset: i64,
    tables: Option<i64>,
    record: ProgressRecord,
}

struct Ready {
    content: Growing,
    progress: Progress,
    /// Of the record.
    offset: i64,
    tables: Option<i64>,
    /// Where each partition goes on after it.
    offsets: Vec<i64>,
}

/// Why the thread ends.
enum End {
    /// The reader was dropped.
    Unwanted,
    /// With this as its last word.
    With(LogError),
}

impl From<LogError> for End {
    fn from(error: LogError) -> Self {
        End::With(error)
    }
}

impl Reading {
    /// Begins to receive from a bookmark on.
    pub(super) fn new(
        begin: Begin,
        sender: mpsc::Sender<Result<Batch, LogError>>,
        bell: Arc<Bell>,
    ) -> Result<Self, LogError> {
        let cluster = begin.cluster;
        let consumer = cluster.consumer(begin.partitions).create_with_context(Listener);
        let consumer: Arc<BaseConsumer<Listener>> =
            Arc::new(consumer.map_err(|error| cluster.error(&error))?);
        let bookmark = begin.bookmark;
        let _ = consumer.fetch_metadata(Some(&begin.progress_topic), ANSWER_MAX);
        let progress = queue(&cluster, &consumer, &bell, (&begin.progress_topic, 0, bookmark.progress))?;
        let mut reading = Self {
            cluster,
            consumer,
            bell,
            sender,
            progress_topic: begin.progress_topic,
            progress,
            topics: begin.topics,
            tables: begin.tables,
            sources: Vec::new(),
            numbers: HashMap::new(),
            merge: Merge::new(bookmark.end),
            shapes: HashMap::new(),
            newest_tables: bookmark.tables,
            records: VecDeque::new(),
            ready: None,
            growing: Growing::default(),
            bookmark,
        };
        if let Some(shapes) = begin.shapes {
            reading.learn(shapes);
        }
        for (topic, partitions) in reading.bookmark.offsets.clone() {
            for (partition, offset) in partitions {
                reading.add(&topic, partition, offset)?;
            }
        }
        Ok(reading)
    }

    /// Begins to receive a partition; its number.
    fn add(&mut self, topic: &str, partition: i32, offset: i64) -> Result<usize, LogError> {
        if !self.numbers.contains_key(topic) {
            // The client library asks for topics that it does not know once a second only. A topic that is gone is
            // found out later.
            let _ = self.consumer.fetch_metadata(Some(topic), ANSWER_MAX);
        }
        let queue = queue(&self.cluster, &self.consumer, &self.bell, (topic, partition, offset))?;
        let number = self.merge.add(offset);
        self.sources.push(Partition { topic: topic.to_owned(), partition, queue });
        self.numbers.entry(topic.to_owned()).or_default().insert(partition, number);
        Ok(number)
    }

    fn learn(&mut self, tables: TablesRecord) {
        for (hash, relation) in tables.relations {
            let wanted = self.tables.contains(&relation.table);
            self.shapes.entry(hash).or_insert_with(|| wanted.then(|| Arc::new(relation)));
        }
    }

    /// Works until the reader is dropped.
    pub(super) fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => self.bell.wait(),
                Err(End::Unwanted) => return,
                Err(End::With(error)) => {
                    // The last word; a receiver that is gone does not need it.
                    let _ = self.sender.blocking_send(Err(error));
                    return;
                }
            }
        }
    }

    /// Receives and delivers what there is; false when there was nothing to do.
    fn turn(&mut self) -> Result<bool, End> {
        if self.sender.is_closed() {
            return Err(End::Unwanted);
        }
        if let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
            self.trouble(&error)?;
        }
        let mut busy = self.receive_records()?;
        while let Some(awaited) = self.records.front() {
            let end = awaited.record.progress.end;
            let received = self.receive_changes()?;
            busy |= received;
            if self.merge.advance(end, &mut self.growing) {
                self.pass_record()?;
                busy = true;
            } else if self.growing.bytes >= BATCH_BYTES_MAX {
                self.hand_over()?;
                self.hand_over_part()?;
            } else if !received {
                break;
            }
        }
        self.hand_over()?;
        Ok(busy)
    }

    /// All changes up to the first record are in `growing`: they are ready.
    fn pass_record(&mut self) -> Result<(), End> {
        let Some(Awaited { offset, tables, mut record }) = self.records.pop_front() else { return Ok(()) };
        let goes_with = |ready: &Ready| {
            let fits = ready.content.bytes + self.growing.bytes <= BATCH_BYTES_MAX;
            fits && ready.progress.captured == record.progress.captured
        };
        if !self.ready.as_ref().is_none_or(goes_with) {
            self.hand_over()?;
        }
        // A writer that began again may repeat an older promise.
        if record.progress.end >= self.merge.end {
            self.growing.take_messages(&mut record, self.merge.end);
            self.merge.end = record.progress.end;
            let mut content = self.ready.take().map(|ready| ready.content).unwrap_or_default();
            content.append(std::mem::take(&mut self.growing));
            let offsets = self.merge.offsets().collect();
            self.ready = Some(Ready { content, progress: record.progress, offset, tables, offsets });
        }
        self.promise()
    }

    fn hand_over(&mut self) -> Result<(), End> {
        let Some(ready) = self.ready.take() else { return Ok(()) };
        self.bookmark.end = ready.progress.end;
        self.bookmark.point = Some(ready.progress.point());
        self.bookmark.progress = ready.offset + 1;
        self.bookmark.tables = ready.tables;
        for (source, offset) in self.sources.iter().zip(&ready.offsets) {
            match self.bookmark.offsets.get_mut(&source.topic) {
                Some(partitions) => partitions.insert(source.partition, *offset),
                None => {
                    let partitions = [(source.partition, *offset)].into();
                    self.bookmark.offsets.insert(source.topic.clone(), partitions);
                    None
                }
            };
        }
        let progress = Progress { messages: ready.content.messages, ..ready.progress };
        self.send(Batch {
            changes: ready.content.changes,
            progress: Some((progress, self.bookmark.cursor())),
        })
    }

    /// Hands over a part of a large transaction.
    fn hand_over_part(&mut self) -> Result<(), End> {
        let part = std::mem::take(&mut self.growing);
        self.send(Batch { changes: part.changes, progress: None })
    }

    fn send(&mut self, batch: Batch) -> Result<(), End> {
        self.sender.blocking_send(Ok(batch)).map_err(|_| End::Unwanted)
    }

    /// What the first awaited record promises is awaited; partitions that it names first are received from there.
    fn promise(&mut self) -> Result<(), End> {
        let Some(awaited) = self.records.front() else { return Ok(()) };
        let sent = awaited.record.sent.iter().filter(|(topic, _)| self.topics.contains(*topic));
        let sent: Vec<_> = sent
            .flat_map(|(topic, parts)| parts.iter().map(move |(part, sent)| (topic.clone(), *part, *sent)))
            .collect();
        for (topic, partition, sent) in sent {
            let known = self.numbers.get(&topic).and_then(|numbers| numbers.get(&partition).copied());
            let number = match known {
                Some(number) => number,
                None => self.add(&topic, partition, sent.offset)?,
            };
            self.merge.promise(number, sent);
        }
        Ok(())
    }

    fn receive_records(&mut self) -> Result<bool, End> {
        let mut busy = false;
        while self.records.len() < RECORDS_MAX {
            let (offset, record) = match self.progress.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => (message.offset(), Record::read(message.key(), message.payload())),
                Some(Err(error)) => {
                    self.trouble(&error)?;
                    break;
                }
            };
            self.receive_record(offset, record)?;
            busy = true;
        }
        Ok(busy)
    }

    fn receive_record(&mut self, offset: i64, record: Option<Record>) -> Result<(), End> {
        let damaged = |why: &str| End::With(self.cluster.damaged(&format!("progress record {offset} {why}")));
        let record = record.ok_or_else(|| damaged("cannot be read"))?;
        if record.version() != VERSION {
            return Err(damaged("is of another version of strangler"));
        }
        if *record.log() != self.bookmark.log {
            return Err(End::With(LogError::Trimmed));
        }
        match record {
            Record::Log(_) => {}
            Record::Tables(tables) => {
                self.learn(tables);
                self.newest_tables = Some(offset);
            }
            Record::Progress(record) => {
                self.records.push_back(Awaited { offset, tables: self.newest_tables, record: *record });
                if self.records.len() == 1 {
                    self.promise()?;
                }
            }
        }
        Ok(())
    }

    /// Receives what is awaited, as far as there is room.
    fn receive_changes(&mut self) -> Result<bool, End> {
        let mut busy = false;
        for number in 0..self.merge.len() {
            while self.merge.wants(number) {
                let read = match self.sources[number].queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => {
                        let offset = message.offset();
                        read(&message, &self.shapes, |position| self.merge.is_new(number, position))
                            .map(|change| (offset, change))
                    }
                    Some(Err(error)) => {
                        self.trouble(&error)?;
                        break;
                    }
                };
                match read {
                    Ok((offset, change)) => self.merge.receive(number, offset, change),
                    Err(Unread::Envelope(error)) => return Err(End::With(self.damaged(&error))),
                    Err(Unread::Shape { hash, offset }) => self.find_shape(number, hash, offset)?,
                }
                busy = true;
            }
        }
        Ok(busy)
    }

    fn damaged(&self, error: &rows::envelope::EnvelopeError) -> LogError {
        self.cluster.damaged(&error.to_string())
    }

    /// A record of a writer that died may have a shape that its successor did not write again: it is looked for in
    /// the whole progress topic, and the record received once more.
    fn find_shape(&mut self, number: usize, hash: String, offset: i64) -> Result<(), End> {
        let look = Look::new(&self.cluster)?;
        let bounds = look.bounds(&self.progress_topic, 0)?;
        let (mut from, to) = bounds.ok_or(End::With(LogError::Trimmed))?;
        while from < to && !self.shapes.contains_key(&hash) {
            let until = (from + SEARCH_RECORDS).min(to);
            for message in look.read(&self.progress_topic, 0, from, until)? {
                if let Some(Record::Tables(tables)) = Record::read(message.key(), message.payload()) {
                    self.learn(tables);
                }
            }
            from = until;
        }
        if !self.shapes.contains_key(&hash) {
            return Err(End::With(self.cluster.damaged("it lacks a table's shape")));
        }
        let source = &self.sources[number];
        let place = Offset::Offset(offset);
        let sought = self.consumer.seek(&source.topic, source.partition, place, ANSWER_MAX);
        sought.map_err(|error| End::With(self.cluster.error(&error)))
    }

    /// Most troubles pass by themselves; that no broker answers is said, and waited out.
    fn trouble(&self, error: &KafkaError) -> Result<(), End> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err(End::With(LogError::Trimmed))
            }
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                // If the channel is full, nothing waits for news.
                let _ = self.sender.try_send(Err(self.cluster.error(error)));
                Ok(())
            }
            _ if is_passing(error) => Ok(()),
            _ => Err(End::With(self.cluster.error(error))),
        }
    }
}
