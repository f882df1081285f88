//! What a bridge publishes to other programs: all of it, in each key's order, and nothing waits for it.
//!
//! Needs Postgres (in PATH or by `STRANGLER_PG_BIN`) and the broker of `STRANGLER_TEST_KAFKA`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::orders::{self, plan};
use house::{House, WAIT, kafka};
use migrations::code::Code;
use migrations::plan::LogChoice;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

struct Kafka {
    config: ClientConfig,
    prefix: String,
}

impl Kafka {
    fn of(house: &House) -> Kafka {
        let LogChoice::Kafka { brokers, topic_prefix, .. } = &house.plan.log else { panic!("not in Kafka") };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "test").set("auto.offset.reset", "error");
        Kafka { config, prefix: topic_prefix.clone() }
    }

    fn topic(&self) -> String {
        format!("{}.public.orders", self.prefix)
    }

    async fn make_topic(&self, settings: &[(&str, &str)]) {
        let topic = self.topic();
        let new = NewTopic::new(&topic, 2, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (name, value)| new.set(name, value));
        let admin: AdminClient<DefaultClientContext> = self.config.create().unwrap();
        admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// All records of the orders' topic, partition by partition.
    fn records(&self) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = self.config.create().unwrap();
        let (mut places, mut left) = (TopicPartitionList::new(), 0);
        for partition in 0..2 {
            let bounds = consumer.fetch_watermarks(&self.topic(), partition, Duration::from_secs(10));
            let Ok((from, to)) = bounds else { continue };
            places.add_partition_offset(&self.topic(), partition, Offset::Offset(from)).unwrap();
            left += to - from;
        }
        consumer.assign(&places).unwrap();
        let (mut found, began) = (Vec::new(), Instant::now());
        while (found.len() as i64) < left && began.elapsed() < WAIT {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                found.push(message.detach());
            }
        }
        found.sort_by_key(|message| (message.partition(), message.offset()));
        found
    }

    /// What a consumer has that takes every record of the topic, by key: the note of each order.
    fn consumed(&self) -> BTreeMap<i64, String> {
        let mut rows = BTreeMap::new();
        for message in self.records() {
            let key: Value = serde_json::from_slice(message.key().unwrap()).unwrap();
            let id = key["id"].as_i64().unwrap();
            match message.payload().map(|value| serde_json::from_slice::<Value>(value).unwrap()) {
                Some(value) if value["op"] != "d" => {
                    let note = value["after"]["note"].as_str().unwrap_or_default().to_owned();
                    rows.insert(id, note);
                }
                // A delete, and its tombstone.
                _ => drop(rows.remove(&id)),
            }
        }
        rows
    }

    async fn until_consumed(&self, house: &House) {
        let sql = "SELECT id || ' ' || coalesce(note, '') FROM orders WHERE id > 500 ORDER BY id";
        let began = Instant::now();
        loop {
            let consumed = self.consumed().into_iter().map(|(id, note)| format!("{id} {note}"));
            let (consumed, wanted) = (consumed.collect::<Vec<_>>().join("\n"), house.at_source(sql));
            if consumed == wanted {
                return;
            }
            assert!(began.elapsed() < WAIT, "{} of {} bytes", consumed.len(), wanted.len());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

async fn house() -> House {
    let plan = format!("{}\n{}", plan(""), kafka());
    House::new(orders::SOURCE, orders::SINK, &plan).await
}

fn insert(house: &House, ids: std::ops::RangeInclusive<u32>, note: &str) {
    let (first, last) = (ids.start(), ids.end());
    house.at_source(&format!(
        "INSERT INTO orders SELECT g, 1, g, {note} FROM generate_series({first}, {last}) g"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_published_also_by_a_bridge_that_is_killed() {
    let house = house().await;
    let kafka = Kafka::of(&house);
    // Other programs may want only the last of each key.
    kafka.make_topic(&[("cleanup.policy", "compact")]).await;
    house.start();
    house.follow().await;
    for round in 0..6_u32 {
        let first = 1000 * (round + 1);
        insert(&house, first..=first + 400, "'first ' || g");
        house.at_source(&format!("UPDATE orders SET note = 'then ' || id WHERE id > {first} AND id % 3 = 0"));
        house.at_source(&format!("DELETE FROM orders WHERE id > {first} AND id % 5 = 0"));
        house.at_source(&format!(
            "UPDATE orders SET id = id + 500 WHERE id BETWEEN {first} AND {}",
            first + 9
        ));
        tokio::time::sleep(Duration::from_millis(u64::from(300 * round))).await;
        house.stop().await;
        house.start();
    }
    house.same(orders::AT_SOURCE, orders::AT_SINK).await;
    kafka.until_consumed(&house).await;
    let records = kafka.records();
    let strange = records.iter().find(|record| {
        let headers = record.headers().into_iter().flat_map(rdkafka::message::Headers::iter);
        headers.into_iter().any(|header| !header.key.starts_with("__debezium."))
    });
    assert!(strange.is_none(), "{strange:?}");
    assert!(records.iter().any(|record| record.partition() == 1), "a topic's partitions are used");
    // The place is one that Kafka's own tools show.
    let group = format!("strangler.{}.publish", kafka.prefix);
    let consumer: BaseConsumer = kafka.config.clone().set("group.id", group).create().unwrap();
    let began = Instant::now();
    loop {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&format!("strangler.{}.log", kafka.prefix), 0);
        let place = consumer.committed_offsets(asked, WAIT).unwrap().elements()[0].offset();
        if matches!(place, Offset::Offset(at) if at > 0) {
            break;
        }
        assert!(began.elapsed() < WAIT, "{place:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_refuses_a_record_holds_no_slice_back_and_loses_nothing() {
    let house = house().await;
    let kafka = Kafka::of(&house);
    kafka.make_topic(&[("max.message.bytes", "200000")]).await;
    house.start();
    house.follow().await;
    insert(&house, 1000..=1100, "'small ' || g");
    let random = "(SELECT string_agg(md5((g * 100000 + n)::text), '') FROM generate_series(1, 20000) n)";
    insert(&house, 1101..=1101, random);
    insert(&house, 1102..=1200, "'behind it ' || g");
    house.same(orders::AT_SOURCE, orders::AT_SINK).await;
    house.until_agent("told of it", |report| report.contains(Code::PublishStopped.as_str())).await;
    house.same(orders::AT_SOURCE, orders::AT_SINK).await;
    let admin: AdminClient<DefaultClientContext> = kafka.config.create().unwrap();
    let topic = kafka.topic();
    let larger = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "1000000");
    admin.alter_configs([&larger], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    kafka.until_consumed(&house).await;
    house.until_agent("well again", |report| !report.contains(Code::PublishStopped.as_str())).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_sends_its_inserts_and_nothing_else() {
    let outbox = "CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, \
                  aggregateid text NOT NULL, type text NOT NULL, payload jsonb);";
    let log = kafka().replace("partitions: 2", "publish: { outbox: public.outbox }");
    let plan = format!("{}\n{log}", plan("      - public.outbox\n"));
    let (source, sink) = (format!("{}{outbox}", orders::SOURCE), format!("{}{outbox}", orders::SINK));
    let house = House::following(&source, &sink, &plan).await;
    let kafka = Kafka::of(&house);
    let kind = format!("order-{}", kafka.prefix);
    let payload = "jsonb_build_object('n', g)";
    house.at_source(&format!(
        "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) SELECT '{kind}', g % 3, 'placed', {payload} \
         FROM generate_series(1, 30) g; UPDATE outbox SET type = 'changed'; DELETE FROM outbox;"
    ));
    insert(&house, 1000..=1000, "'behind it'");
    kafka.until_consumed(&house).await;
    let topic = format!("outbox.event.{kind}");
    let consumer: BaseConsumer = kafka.config.create().unwrap();
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(&topic, 0, Offset::Offset(0)).unwrap();
    consumer.assign(&place).unwrap();
    let (_, left) = consumer.fetch_watermarks(&topic, 0, WAIT).unwrap();
    assert_eq!(left, 30);
    for n in 1..=30 {
        let message = consumer.poll(WAIT).unwrap().unwrap().detach();
        assert_eq!(message.key().unwrap(), (n % 3).to_string().as_bytes());
        let value: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        assert_eq!(value, serde_json::json!({ "n": n }));
        let headers = message.headers().unwrap();
        let id = rdkafka::message::Headers::iter(headers).find(|header| header.key == "id").unwrap();
        assert_eq!(id.value.unwrap().len(), 36, "{id:?}");
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_come_although_nothing_changes() {
    let log = kafka().replace("partitions: 2", "publish: { heartbeat.interval.ms: 1000 }");
    let house = House::following(orders::SOURCE, orders::SINK, &format!("{}\n{log}", plan(""))).await;
    let kafka = Kafka::of(&house);
    let topic = format!("__debezium-heartbeat.{}", kafka.prefix);
    let consumer: BaseConsumer = kafka.config.create().unwrap();
    let began = Instant::now();
    while !consumer.fetch_watermarks(&topic, 0, WAIT).is_ok_and(|(_, end)| end >= 3) {
        assert!(began.elapsed() < WAIT, "no heartbeats");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(&topic, 0, Offset::Offset(0)).unwrap();
    consumer.assign(&place).unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let message = consumer.poll(WAIT).unwrap().unwrap().detach();
        let key: Value = serde_json::from_slice(message.key().unwrap()).unwrap();
        assert_eq!(key, serde_json::json!({ "serverName": kafka.prefix }));
        let value: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let at = value["ts_ms"].as_i64().unwrap();
        assert!(at >= last + 1000, "{at} after {last}");
        last = at;
    }
    house.stop().await;
}
