//! What only Kafka brings: topics that others made, promises whose rows never arrived, records that are gone.

use crate::history::{
    Committed, History, changes_of, flush, key_row, relation, row, table, tables, timeline,
};
use crate::place::{Place, Watcher};
use cdc_bridge::log::{Log, LogError, Owner};
use lab::Dice;
use migrations::code::Code;
use migrations::lsn::Timeline;
use migrations::plan::LogChoice;
use migrations::problem::Diagnostic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use rows::change::{Operation, Relation, ReplicaIdentity};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn names(place: &Place) -> (String, String) {
    match &place.choice {
        LogChoice::Kafka { brokers, topic_prefix, .. } => (brokers.clone(), topic_prefix.clone()),
        _ => panic!("not in Kafka"),
    }
}

pub fn config(place: &Place) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", names(place).0);
    config
}

pub fn admin(place: &Place) -> AdminClient<DefaultClientContext> {
    config(place).create().unwrap()
}

pub fn progress_topic(place: &Place) -> String {
    format!("{}.strangler.progress", names(place).1)
}

/// Writes a record beside those of the log's writers.
fn forge(place: &Place, topic: &str, key: &str, value: &str) {
    let producer: BaseProducer = config(place).create().unwrap();
    producer.send(BaseRecord::to(topic).partition(0).key(key).payload(value)).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// Asks every few milliseconds until it is so.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many topics there are whose names begin so.
pub fn topics(place: &Place, prefix: &str) -> usize {
    let consumer: BaseConsumer = config(place).create().unwrap();
    let there = consumer.fetch_metadata(None, PATIENCE).unwrap();
    there.topics().iter().filter(|topic| topic.name().starts_with(prefix)).count()
}

/// Transactions of one row each.
fn inserts(history: &mut History, ids: std::ops::Range<u64>) -> Vec<Committed> {
    ids.map(|id| insert(history, id)).collect()
}

pub fn insert(history: &mut History, id: u64) -> Committed {
    history.commit(vec![(0, Operation::Insert { new: row(id, "x") })])
}

pub async fn append(log: &Log, transactions: &[Committed]) {
    let mut writer = log.writer().await.unwrap();
    for committed in transactions {
        writer.append(flush(std::slice::from_ref(committed))).await.unwrap();
    }
}

/// All records of a partition: offset, key, value.
fn records(place: &Place, topic: &str, partition: i32) -> Vec<(i64, Vec<u8>, Option<Vec<u8>>)> {
    let consumer: BaseConsumer = config(place).set("group.id", "test").create().unwrap();
    let (from, to) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(from)).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while found.len() < (to - from) as usize && Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let key = message.key().unwrap_or_default().to_vec();
            found.push((message.offset(), key, message.payload().map(<[u8]>::to_vec)));
        }
    }
    found
}

pub async fn make_topic(place: &Place, topic: &str, policy: &str) {
    let admin = admin(place);
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_refused() {
    let place = Place::kafka();
    let topic = format!("{}.public.t0", names(&place).1);
    make_topic(&place, &topic, "compact").await;
    let log = place.open().await;
    let refused = log.prepare(&tables(&[0]), 1 << 20, &timeline()).await;
    let Err(LogError::Refused(finding)) = refused else { panic!("{refused:?}") };
    assert_eq!(finding.code, Code::LogTopicCompacted);
    assert!(finding.remedy.contains(&topic), "{}", finding.remedy);
    log.forget(&tables(&[0])).await.unwrap();
    log.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_whose_rows_never_arrived_is_waited_for() {
    let place = Place::kafka();
    let (log, start, mut history) = place.begun(Dice::new(20)).await;
    let transactions = inserts(&mut history, 0..5);
    append(&log, &transactions[..2]).await;
    // What a writer leaves that dies when the broker has its record and not yet its rows.
    let topic = progress_topic(&place);
    let written = records(&place, &topic, 0);
    let last = written.iter().rev().find(|(_, key, _)| key == b"progress").unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(last.2.as_ref().unwrap()).unwrap();
    let promised = &transactions[3];
    let position = promised.changes[0].position.to_string();
    record["acknowledged"] = transactions[1].end.to_string().into();
    record["end"] = promised.end.to_string().into();
    for (_, partitions) in record["sent"].as_object_mut().unwrap() {
        for (_, sent) in partitions.as_object_mut().unwrap() {
            sent["last"] = position.clone().into();
        }
    }
    forge(&place, &topic, "progress", &record.to_string());

    assert_eq!(log.end().await.unwrap().unwrap().end, transactions[1].end);
    let mut early = Watcher::new(&log, &tables(&[0]), &start).await;
    early.until(transactions[1].end).await;
    let mut late = Watcher::new(&log, &tables(&[0]), &log.end_cursor().await.unwrap()).await;
    assert!(early.is_silent(Duration::from_millis(300)).await);
    assert!(late.is_silent(Duration::from_millis(100)).await);
    // The next writer repeats from what was confirmed, and goes on.
    let more = inserts(&mut history, 5..40);
    append(&log, &transactions[1..]).await;
    append(&log, &more).await;
    let all = [transactions.clone(), more].concat();
    early.until(all.last().unwrap().end).await;
    late.until(all.last().unwrap().end).await;
    assert_eq!(early.changes, changes_of(&all, &tables(&[0])));
    assert_eq!(late.changes, changes_of(&all[2..], &tables(&[0])));
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_records_are_reported() {
    let place = Place::kafka();
    let (log, start, mut history) = place.begun(Dice::new(21)).await;
    append(&log, &inserts(&mut history, 0..30)).await;
    let mut watcher = Watcher::new(&log, &tables(&[0]), &start).await;
    watcher.step().await;
    append(&log, &inserts(&mut history, 30..60)).await;
    let admin = admin(&place);
    let mut list = TopicPartitionList::new();
    for partition in 0..3 {
        let topic = format!("{}.{}", names(&place).1, table(0));
        list.add_partition_offset(&topic, partition, Offset::End).unwrap();
    }
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    let refused = log.reader(tables(&[0]), &watcher.cursor).await;
    assert!(matches!(refused, Err(LogError::Trimmed)), "{refused:?}");
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_kafka_refuses_is_a_finding() {
    let place = Place::kafka();
    let log = place.open().await;
    log.prepare(&tables(&[0]), 1 << 20, &timeline()).await.unwrap();
    let mut history = History::new(Dice::new(22));
    let note = "n".repeat(8 << 20);
    let committed = history.commit(vec![(0, Operation::Insert { new: row(1, &note) })]);
    let refused = log.writer().await.unwrap().append(flush(&[committed])).await;
    assert!(matches!(&refused, Err(LogError::Refused(finding)) if finding.code == Code::LogRowTooLarge));
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_whose_it_is() {
    let place = Place::kafka();
    let ours = place.open().await;
    assert_eq!(ours.owner().await.unwrap(), None);
    let made_for = Timeline { system_id: "42".to_owned(), timeline: 1 };
    ours.prepare(&tables(&[0]), 1 << 20, &made_for).await.unwrap();
    let theirs = place.open().await;
    assert_eq!(ours.owner().await.unwrap(), Some(Owner::Us));
    assert_eq!(theirs.owner().await.unwrap(), Some(Owner::Server(made_for.system_id)));
    append(&ours, &[insert(&mut History::new(Dice::new(26)), 1)]).await;
    assert_eq!(theirs.owner().await.unwrap(), Some(Owner::Server(timeline().system_id)));
    place.clean(&ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_made_is_known_to_it_although_the_log_is_gone() {
    let place = Place::kafka();
    let (log, other) = (place.open().await, place.open().await);
    log.prepare(&tables(&[0, 1, 2]), 1 << 20, &timeline()).await.unwrap();
    log.forget(&tables(&[0])).await.unwrap();
    log.destroy().await.unwrap();
    let prefix = format!("{}.public.", names(&place).1);
    let until = async |count: usize| {
        until(&format!("{count} topics"), async || topics(&place, &prefix) == count).await
    };
    until(2).await;
    other.forget_made().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    until(2).await;
    log.forget_made().await.unwrap();
    until(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_say_whose_it_is_is_damaged() {
    let place = Place::kafka();
    let log = place.open().await;
    let topic = progress_topic(&place);
    make_topic(&place, &topic, "delete").await;
    forge(&place, &topic, "log", r#"{"version":1,"log":"nobodys"}"#);
    let owner = log.owner().await;
    assert!(matches!(owner, Err(LogError::Damaged { .. })), "{owner:?}");
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_capture_makes_the_log() {
    let place = Place::kafka();
    let log = place.open().await;
    assert!(matches!(log.end_cursor().await, Err(LogError::Missing)));
    assert!(matches!(log.writer().await.map(drop), Err(LogError::Missing)));
    assert_eq!(log.owner().await.unwrap(), None);
    // The topic's maker was killed before it wrote the log's name.
    let topic = progress_topic(&place);
    make_topic(&place, &topic, "delete").await;
    until("the topic", async || log.owner().await.unwrap() == Some(Owner::Nobody)).await;
    assert!(matches!(log.end_cursor().await, Err(LogError::Missing)));
    log.prepare(&tables(&[0]), 1 << 20, &timeline()).await.unwrap();
    assert_eq!(log.owner().await.unwrap(), Some(Owner::Us));
    log.end_cursor().await.unwrap();
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_row_arrives_though_all_of_it_is_escaped() {
    let place = Place::kafka();
    let log = place.open().await;
    let row_bytes_max = 16 << 20;
    log.prepare(&tables(&[0]), row_bytes_max, &timeline()).await.unwrap();
    let start = log.end_cursor().await.unwrap();
    let mut history = History::new(Dice::new(25));
    let mut dice = Dice::new(27);
    let mut note = || -> String {
        // Each is escaped to six bytes, and they hardly compress.
        (0..row_bytes_max - 100).map(|_| char::from(0x0e + dice.below(0x12) as u8)).collect()
    };
    let (first, second, third) = (note(), note(), note());
    let (one, other) = (row(1, &second), row(2, &third));
    let changes = [
        Operation::Insert { new: row(1, &first) },
        Operation::Update { old: Some(row(1, &first)), new: one.clone() },
        Operation::Update { old: Some(one.clone()), new: other.clone() },
        Operation::Delete { old: other.clone() },
    ];
    let mut all: Vec<_> = changes.map(|change| history.commit(vec![(0, change)])).to_vec();
    let full = Arc::new(Relation { identity: ReplicaIdentity::Full, ..(*relation(0)).clone() });
    all.iter_mut().for_each(|committed| committed.changes[0].relation = full.clone());
    append(&log, &all).await;
    let mut watcher = Watcher::new(&log, &tables(&[0]), &start).await;
    watcher.until(all[3].end).await;
    // Two such rows are more than a record holds: the old one is told by its key.
    all[1].changes[0].operation = Operation::Update { old: Some(key_row(1)), new: one };
    all[2].changes[0].operation = Operation::Update { old: Some(key_row(1)), new: other };
    assert!(watcher.changes == changes_of(&all, &tables(&[0])), "they are other rows");
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_forgotten_begins_again() {
    let place = Place::kafka();
    let log = place.ready().await;
    let mut history = History::new(Dice::new(23));
    append(&log, &inserts(&mut history, 0..30)).await;
    log.forget(&tables(&[0])).await.unwrap();
    // Kafka takes a topic away after it has said so.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let log = place.ready().await;
    let start = log.end_cursor().await.unwrap();
    let later = inserts(&mut history, 30..40);
    append(&log, &later).await;
    Watcher::at_the_end_of(&later, &log, &tables(&[0]), &start).await;
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_more_keeps_the_order() {
    let place = Place::kafka();
    let (log, start, mut history) = place.begun(Dice::new(24)).await;
    let before = inserts(&mut history, 0..20);
    append(&log, &before).await;
    let mut watcher = Watcher::new(&log, &tables(&[0]), &start).await;
    watcher.step().await;
    let admin = admin(&place);
    let topic = format!("{}.{}", names(&place).1, table(0));
    let more = rdkafka::admin::NewPartitions::new(&topic, 5);
    admin.create_partitions([&more], &AdminOptions::new()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = inserts(&mut history, 20..80);
    append(&log, &after).await;
    assert!((3..5).any(|partition| !records(&place, &topic, partition).is_empty()));
    let all = [before, after].concat();
    watcher.until(all.last().unwrap().end).await;
    assert_eq!(watcher.changes, changes_of(&all, &tables(&[0])));
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_broker_is_named_with_its_address() {
    let mut place = Place::kafka();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    if let LogChoice::Kafka { brokers, .. } = &mut place.choice {
        *brokers = free.to_string();
    }
    let error = place.try_open().await.unwrap_err();
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert!(error.remedy().contains("check that the brokers run"), "{error}");
}
