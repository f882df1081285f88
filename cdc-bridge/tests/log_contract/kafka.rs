//! What only the log in Kafka does: its topic, whose log it is, and what others do to it.

use crate::history::{Committed, History, changes_of, flush, relation, row, tables, timeline};
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

pub fn log_topic(place: &Place) -> String {
    format!("strangler.{}.log", names(place).1)
}

/// Writes a record beside those of the log's writers.
fn forge(place: &Place, topic: &str, key: &[u8], value: &[u8]) {
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

/// All records of the log: offset, key, value.
fn records(place: &Place) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let (topic, config) = (log_topic(place), config(place).set("group.id", "test").clone());
    let consumer: BaseConsumer = config.create().unwrap();
    let (from, to) = consumer.fetch_watermarks(&topic, 0, PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(from)).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while found.len() < (to - from) as usize && Instant::now() < deadline {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let (key, value) = (message.key().unwrap().to_vec(), message.payload().unwrap().to_vec());
            found.push((message.offset(), key, value));
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
    let topic = log_topic(&place);
    make_topic(&place, &topic, "compact").await;
    let log = place.open().await;
    let refused = log.prepare(1 << 20, &timeline()).await;
    let Err(LogError::Refused(finding)) = refused else { panic!("{refused:?}") };
    assert_eq!(finding.code, Code::LogTopicCompacted);
    assert!(finding.remedy.contains(&topic), "{}", finding.remedy);
    log.destroy().await.unwrap();
}

/// What a frozen bridge, a lost record, a producer that repeats, and a stranger leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_lies_elsewhere_than_its_key_says_does_not_count() {
    let place = Place::kafka();
    let (log, start, mut history) = place.begun(Dice::new(20)).await;
    let transactions = inserts(&mut history, 0..6);
    append(&log, &transactions[..3]).await;
    let topic = log_topic(&place);
    let written = records(&place);
    let (next, newest) = (written.len(), written.last().unwrap());
    assert_eq!(newest.1, format!("value/{}", next - 1).as_bytes());
    let head = written.iter().rev().find(|(_, key, _)| key.starts_with(b"head/")).unwrap();
    // Nothing of these is taken for a promise, a shape, or an end.
    for (key, value) in [
        (newest.1.clone(), newest.2.clone()),
        (format!("value/{}", next + 7).into_bytes(), newest.2.clone()),
        (head.1.clone(), head.2.clone()),
        (format!("head/{}", next + 7).into_bytes(), head.2.clone()),
        (b"value".to_vec(), b"x".to_vec()),
        (b"".to_vec(), b"".to_vec()),
    ] {
        forge(&place, &topic, &key, &value);
    }
    assert_eq!(log.end().await.unwrap().unwrap().end, transactions[2].end);
    let mut early = Watcher::at_the_end_of(&transactions[..3], &log, &tables(&[0]), &start).await;
    let other = place.open().await;
    assert_eq!(other.end().await.unwrap().unwrap().end, transactions[2].end);
    append(&log, &transactions[3..]).await;
    early.until(transactions[5].end).await;
    assert_eq!(early.changes, changes_of(&transactions, &tables(&[0])));
    Watcher::at_the_end_of(&transactions, &other, &tables(&[0]), &start).await;
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_another_process_overtook_promises_nothing() {
    let place = Place::kafka();
    let (log, start, mut history) = place.begun(Dice::new(29)).await;
    let transactions = inserts(&mut history, 0..40);
    let mut frozen = log.writer().await.unwrap();
    let one = |at: usize| flush(&transactions[at..=at]);
    frozen.append(one(0)).await.unwrap();
    let mut cut = one(1);
    cut.progress = None;
    frozen.append(cut).await.unwrap();
    // Its reader sees what the other writes.
    let mut watcher = Watcher::new(&log, &tables(&[0]), &start).await;
    let other = place.open().await;
    let mut next = other.writer().await.unwrap();
    next.append(flush(&transactions[1..3])).await.unwrap();
    let late = frozen.append(one(3)).await;
    assert!(matches!(late, Err(LogError::Unavailable { .. })), "{late:?}");
    // What the frozen one sent late is passed over. It costs the other a session.
    assert!(next.append(one(3)).await.is_err());
    let mut next = other.writer().await.unwrap();
    for at in 3..40 {
        next.append(one(at)).await.unwrap();
    }
    watcher.until(transactions[39].end).await;
    assert_eq!(watcher.changes, changes_of(&transactions, &tables(&[0])));
    Watcher::at_the_end_of(&transactions, &other, &tables(&[0]), &start).await;
    // It begins anew behind what the other promised.
    assert_eq!(log.end().await.unwrap().unwrap().end, transactions[39].end);
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_begin_at_once_leave_one_log_with_one_history() {
    let place = Place::kafka();
    let (log, start, mut history) = place.begun(Dice::new(30)).await;
    let transactions = inserts(&mut history, 0..60);
    let race = |log: Log| {
        let transactions = transactions.clone();
        async move {
            for _ in 0..12 {
                let from = log.end().await.unwrap().map(|end| end.end).unwrap_or_default();
                let Ok(mut writer) = log.writer().await else { continue };
                for committed in transactions.iter().filter(|committed| committed.end > from) {
                    if writer.append(flush(std::slice::from_ref(committed))).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(committed.end.0 % 7)).await;
                }
            }
        }
    };
    let (a, b) = (place.open().await, place.open().await);
    tokio::join!(race(a), race(b));
    let left = log.end().await.unwrap().unwrap().end;
    let done = transactions.iter().position(|committed| committed.end == left).unwrap() + 1;
    assert!(done > 10, "{done} transactions");
    Watcher::at_the_end_of(&transactions[..done], &log, &tables(&[0]), &start).await;
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
    list.add_partition_offset(&log_topic(&place), 0, Offset::End).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    for log in [&log, &place.open().await] {
        let refused = log.reader(tables(&[0]), &watcher.cursor).await;
        assert!(matches!(refused, Err(LogError::Trimmed)), "{refused:?}");
    }
    place.clean(&log).await;
}

/// Heads come again, so that a reader needs little of what lies before it, and a broker's disk is given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_trim_leaves_what_a_reader_from_there_needs_and_little_more() {
    let place = Place::kafka();
    let (log, start, mut history) = place.begun(Dice::new(31)).await;
    let note = "n".repeat(400_000);
    let mut writer = log.writer().await.unwrap();
    let (mut watcher, mut kept) = (Watcher::new(&log, &tables(&[0]), &start).await, 0);
    for id in 0..150 {
        let committed = history.commit(vec![(0, Operation::Insert { new: row(id, &note) })]);
        writer.append(flush(std::slice::from_ref(&committed))).await.unwrap();
        watcher.until(committed.end).await;
        if id % 10 == 9 {
            log.trim(&watcher.cursor).await.unwrap();
            kept = kept.max(log.bytes());
            watcher.restart(&log, &tables(&[0])).await;
        }
    }
    assert!((4 << 20..16 << 20).contains(&kept), "{kept} bytes were kept of 60 MB");
    assert_eq!(watcher.changes.len(), 150);
    let again = place.open().await;
    assert_eq!(again.bytes(), log.bytes(), "another process counts the same");
    assert!(matches!(again.reader(tables(&[0]), &start).await, Err(LogError::Trimmed)));
    again.trim(&start).await.unwrap();
    Watcher::new(&again, &tables(&[0]), &watcher.cursor).await;
    assert_eq!(again.recent(&tables(&[0]), 3).await.unwrap().len(), 3);
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_kafka_refuses_is_a_finding() {
    let place = Place::kafka();
    let log = place.open().await;
    log.prepare(1 << 20, &timeline()).await.unwrap();
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
    ours.prepare(1 << 20, &made_for).await.unwrap();
    let theirs = place.open().await;
    assert_eq!(ours.owner().await.unwrap(), Some(Owner::Us));
    assert_eq!(theirs.owner().await.unwrap(), Some(Owner::Server(made_for.system_id)));
    append(&ours, &[insert(&mut History::new(Dice::new(26)), 1)]).await;
    assert_eq!(theirs.owner().await.unwrap(), Some(Owner::Server(timeline().system_id)));
    place.clean(&ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_does_not_say_whose_it_is_is_damaged() {
    let place = Place::kafka();
    let log = place.open().await;
    let topic = log_topic(&place);
    make_topic(&place, &topic, "delete").await;
    forge(&place, &topic, b"head/0", br#"{"version":1,"log":"nobodys"}"#);
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
    let topic = log_topic(&place);
    make_topic(&place, &topic, "delete").await;
    until("the topic", async || log.owner().await.unwrap() == Some(Owner::Nobody)).await;
    assert!(matches!(log.end_cursor().await, Err(LogError::Missing)));
    log.prepare(1 << 20, &timeline()).await.unwrap();
    assert_eq!(log.owner().await.unwrap(), Some(Owner::Us));
    log.end_cursor().await.unwrap();
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_row_arrives_with_the_one_before() {
    let place = Place::kafka();
    let log = place.open().await;
    let row_bytes_max = 16 << 20;
    log.prepare(row_bytes_max, &timeline()).await.unwrap();
    let start = log.end_cursor().await.unwrap();
    let mut history = History::new(Dice::new(25));
    let mut dice = Dice::new(27);
    let mut note = || -> String {
        // They hardly compress.
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
    assert!(watcher.changes == changes_of(&all, &tables(&[0])), "they are other rows");
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
