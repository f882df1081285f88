//! A log that was deleted while a bridge ran, or that belongs to others, does not count as the known one.

use crate::history::{History, flush, tables, timeline};
use crate::kafka_only::{admin, append, insert, log_topic, make_topic, topics, until};
use crate::place::Place;
use cdc_bridge::log::{Log, LogError, Owner};
use lab::Dice;
use migrations::sql::Database;
use rdkafka::admin::AdminOptions;

async fn delete_topic(place: &Place, topic: &str) {
    admin(place).delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    until("without the topic", async || topics(place, topic) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_deleted_under_a_bridge_is_another_one_afterwards() {
    let place = Place::kafka();
    let log = place.ready().await;
    let mut history = History::new(Dice::new(27));
    append(&log, &[insert(&mut history, 1), insert(&mut history, 2)]).await;
    let (before, cursor) = (log.id(), log.end_cursor().await.unwrap());
    let mut writer = log.writer().await.unwrap();
    let topic = log_topic(&place);
    delete_topic(&place, &topic).await;
    assert_eq!(log.owner().await.unwrap(), None);
    assert_ne!(log.id(), before);
    let late = writer.append(flush(&[insert(&mut history, 3)])).await;
    assert!(late.is_err(), "{late:?}");
    log.prepare(1 << 20, &timeline()).await.unwrap();
    append(&log, &[insert(&mut history, 4)]).await;
    let refused = log.reader(tables(&[0]), &cursor).await;
    assert!(matches!(refused, Err(LogError::Trimmed)), "{refused:?}");
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_a_broker_made_again_under_a_writer_promises_nothing() {
    let place = Place::kafka();
    let log = place.ready().await;
    let mut history = History::new(Dice::new(28));
    let mut writer = log.writer().await.unwrap();
    for id in 1..4 {
        writer.append(flush(&[insert(&mut history, id)])).await.unwrap();
    }
    let topic = log_topic(&place);
    delete_topic(&place, &topic).await;
    make_topic(&place, &topic, "delete").await;
    let late = writer.append(flush(&[insert(&mut history, 4)])).await;
    assert!(late.is_err(), "{late:?}");
    // Its records were refused or went into the new topic. Either way that is not the log.
    let found = log.owner().await;
    let is_damaged = matches!(&found, Err(LogError::Damaged { why, .. }) if why.contains("was deleted"));
    assert!(is_damaged || matches!(found, Ok(Some(Owner::Nobody))), "{found:?}");
    delete_topic(&place, &topic).await;
    place.clean(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_another_plan_or_database_of_the_same_server_is_not_ours() {
    let place = Place::kafka();
    let ours = place.ready().await;
    for (plan, database) in [("another", "shopdb"), (place.plan.as_str(), "elsewhere")] {
        let theirs = Log::open(
            &place.choice,
            &plan.parse().unwrap(),
            &Database::Monolith,
            database,
            place.folder.path(),
        )
        .await
        .unwrap();
        let owner = theirs.owner().await.unwrap();
        assert!(
            matches!(&owner, Some(Owner::Other(whose)) if whose.contains("database shopdb")),
            "{owner:?}"
        );
    }
    place.clean(&ours).await;
}
