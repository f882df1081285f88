//! Cutover and rollback with the coordinator's part played: the journal and its head, and both gates.

use super::{House, WAIT, slice};
use migrations::control::{Condition, LaneReport};
use migrations::crossing::{Crossing, Digest, Intent, Moment, Preparing};
use migrations::lane::LaneId;
use migrations::lsn::{EndLsn, Of};
use migrations::stage::{Epoch, Event};
use std::time::{Duration, Instant};
use tokio_postgres::{Client, NoTls};

const INTENT: Intent = Intent::Cutover { for_ms: None };
pub const NEVER: Moment = Moment(u64::MAX >> 12);

pub fn prepared() -> Event {
    let preparing = Preparing { intent: INTENT, plan: Digest(1), hold_ms: 5_000, until: NEVER };
    Event::CutoverPrepared { preparing }
}

pub fn started(epoch: Epoch, way_back: EndLsn) -> Event {
    let reverse_from = Of::service(way_back);
    let crossing = Crossing { intent: INTENT, plan: Digest(1), schema: Digest(2), reverse_from };
    Event::CutoverStarted { epoch, crossing, until: NEVER }
}

pub fn there() -> LaneId {
    LaneId::forward(slice())
}

pub fn back() -> LaneId {
    LaneId::reverse(slice())
}

/// A session as a role, which lasts as long as the value.
pub async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl House {
    pub fn epoch(&self) -> Epoch {
        self.journal().slice(&slice()).epoch
    }

    /// Writes an entry as the store does: with its head, and with what else belongs into the same transaction.
    pub fn journal_with(&self, event: Event, sql: &str) {
        let journal = self.journal();
        let after = journal.plan_move(&slice(), event.clone()).unwrap().after;
        let stage = serde_json::to_string(&after.stage).unwrap();
        let (epoch, generation) = (after.epoch, journal.generation.next());
        self.at_source(&format!(
                "BEGIN; INSERT INTO strangler.slice (slice, stage, epoch, generation) VALUES ('orders', '{stage}', {epoch}, \
                 {generation}) ON CONFLICT (slice) DO UPDATE SET stage = excluded.stage, epoch = excluded.epoch, \
                 generation = excluded.generation; {sql}; COMMIT"
            ),
        );
        self.decide(event);
    }

    /// Wishes a cutover, and waits until the way back is kept.
    pub async fn prepare(&self) -> LaneReport {
        self.journal_with(prepared(), "");
        let attempt = self.journal().slice(&slice()).way_back;
        let is_ready = |lane: &LaneReport| {
            lane.condition == Condition::Following && lane.began.is_some_and(|began| began.attempt == attempt)
        };
        self.until_lane(&back(), "ready for the way back", is_ready).await
    }

    /// Stops writes at the monolith and waits until the service has everything. How long it took from the fence's commit
    /// until the controller knew.
    pub async fn cut(&self) -> Duration {
        let began = self.until_lane(&back(), "begun", |lane| lane.began.is_some()).await.began.unwrap().at;
        self.journal_with(started(self.epoch().next(), began), "");
        self.fence(&self.source.url("strangler", "shop"), &there()).await
    }

    /// Decides a cutover. The service may write from here on.
    pub fn commit(&self) {
        let epoch = self.epoch();
        self.journal_with(Event::CutoverCommitted { epoch, returns_at: None }, "");
        self.at_sink(&format!("SELECT strangler.open('orders', {epoch})"));
        self.journal_with(Event::Released { epoch }, "");
    }

    pub async fn cut_over(&self) {
        self.cut().await;
        self.commit();
    }

    /// Stops writes at the service and waits until the monolith has everything.
    pub async fn stop_service(&self) -> Duration {
        self.journal_with(Event::RollbackStarted { epoch: self.epoch().next(), until: NEVER }, "");
        self.fence(&self.sink.url("strangler", "orders"), &back()).await
    }

    /// Decides a rollback. The monolith may write from here on.
    pub fn give_back(&self) {
        let epoch = self.epoch();
        let opens = format!("SELECT strangler.open('orders', {epoch})");
        self.journal_with(Event::RollbackCommitted { epoch }, &opens);
        self.journal_with(Event::Released { epoch }, "");
    }

    pub async fn roll_back(&self) {
        self.stop_service().await;
        self.give_back();
    }

    async fn fence(&self, url: &str, lane: &LaneId) -> Duration {
        let (client, epoch) = (session(url).await, self.epoch());
        client.execute("SELECT strangler.fence('orders', $1)", &[&(epoch.0 as i64)]).await.unwrap();
        let fenced = Instant::now();
        loop {
            if self.report(lane).is_some_and(|lane| lane.fenced == Some(epoch)) {
                return fenced.elapsed();
            }
            assert!(fenced.elapsed() < WAIT, "the fence is not passed: {:?}", self.report(lane));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until a question to one of the databases has this answer.
    pub async fn until_sql(&self, is_source: bool, question: &str, answer: &str) {
        let began = Instant::now();
        loop {
            let found = match is_source {
                true => self.at_source(question),
                false => self.at_sink(question),
            };
            if found == answer {
                return;
            }
            let first = found.lines().zip(answer.lines()).find(|(a, b)| a != b);
            assert!(began.elapsed() < WAIT, "{question}: {} lines, {first:?}", found.lines().count());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
