//! A bridge between real databases, told what to do by a controller that only repeats what the test says.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test fails loudly")]

pub mod crossing;
pub mod one_table;
pub mod orders;
pub mod verification;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use lab::Cluster;
use link::Link;
use migrations::control::{Condition, Desired, LaneOrder, LaneReport, Observed, Report};
use migrations::finding::Finding;
use migrations::journal::{Entry, Generation, JournalId, State as Journal};
use migrations::lane::{Direction, LaneId};
use migrations::lsn::Position;
use migrations::names::SliceName;
use migrations::plan::{Plan, Secret};
use migrations::sql::{self, Database};
use migrations::stage::Event;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

pub const WAIT: Duration = Duration::from_secs(60);

/// What the controller of the test knows.
struct Desk {
    plan: Plan,
    journal: Mutex<Journal>,
    /// Orders that no journal gives yet, and how often they were changed.
    beside: Mutex<(BTreeMap<LaneId, LaneOrder>, u64)>,
    observed: Mutex<Option<Observed>>,
    /// Whether the controller answers nothing.
    is_away: AtomicBool,
}

impl Desk {
    fn desired(&self) -> Desired {
        let (orders, changes) = self.beside.lock().unwrap().clone();
        let mut desired = Desired::from(&self.plan, &self.journal.lock().unwrap(), None);
        desired.generation.0 += changes;
        desired.lanes.extend(orders);
        desired
    }
}

pub struct House {
    pub source: Cluster,
    pub sink: Cluster,
    pub plan: Plan,
    pub folder: tempfile::TempDir,
    desk: Arc<Desk>,
    link: Link,
    bridge: Mutex<Option<JoinHandle<()>>>,
}

pub fn slice() -> SliceName {
    "orders".parse().unwrap()
}

/// The log's part of a plan: the broker of `STRANGLER_TEST_KAFKA`, with topics of its own.
pub fn kafka() -> String {
    let broker = std::env::var("STRANGLER_TEST_KAFKA")
        .expect("STRANGLER_TEST_KAFKA=host:port names a broker; `cargo xtask test` starts one");
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    format!("log: {{ kafka: {{ brokers: '{broker}', topic_prefix: {prefix}, partitions: 2 }} }}")
}

impl House {
    /// Two databases with these tables, `install`ed for this plan; the bridge is not started yet.
    pub async fn new(source_sql: &str, sink_sql: &str, plan: &str) -> House {
        House::new_with("", source_sql, sink_sql, plan).await
    }

    /// The same with a source database that is made with these options.
    pub async fn new_with(options: &str, source_sql: &str, sink_sql: &str, plan: &str) -> House {
        let _ = tracing_subscriber::fmt().with_env_filter("cdc_bridge=info").with_test_writer().try_init();
        let (source, sink) = (Cluster::start(), Cluster::start());
        for (cluster, name, ddl) in [(&source, "shop", source_sql), (&sink, "orders", sink_sql)] {
            let options = if name == "shop" { options } else { "" };
            cluster.sql("postgres", &format!("CREATE DATABASE {name} {options}"));
            cluster.sql("postgres", "CREATE ROLE app LOGIN");
            cluster.sql(name, &format!("GRANT ALL ON SCHEMA public TO app; SET ROLE app; {ddl}"));
        }
        let port = lab::free_port().unwrap();
        let text = format!(
            "{plan}\nbridge: {{ listen: 127.0.0.1:{port} }}\n\
             monolith: {{ upstream: 'http://127.0.0.1:9', database: '{}' }}\n\
             services: {{ orders: {{ upstream: 'http://127.0.0.1:9', database: '{}' }} }}\n",
            source.url("strangler", "shop"),
            sink.url("strangler", "orders")
        );
        let (plan, _) = migrations::plan::check("test.yaml", &text, &|_| None)
            .unwrap_or_else(|findings| panic!("{findings:#?}"));
        for database in Database::all(&plan) {
            let (cluster, name) = match &database {
                Database::Monolith => (&source, "shop"),
                Database::Service(_) => (&sink, "orders"),
            };
            let steps = sql::install(&plan, &database).unwrap();
            let script: Vec<String> = steps.into_iter().map(|step| step.sql).collect();
            cluster.sql(name, &format!("BEGIN; {}; COMMIT", script.join(";\n")));
        }
        let journal = Journal::empty(JournalId(uuid::Uuid::new_v4()));
        let desk = Arc::new(Desk {
            plan: plan.clone(),
            journal: Mutex::new(journal),
            beside: Mutex::default(),
            observed: Mutex::new(None),
            is_away: AtomicBool::new(false),
        });
        let controller = listen(desk.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let link =
            Link { controller, token: Secret::new("t".to_owned()), state_dir: folder.path().join("bridge") };
        House { source, sink, plan, folder, desk, link, bridge: Mutex::new(None) }
    }

    /// [`House::new`] whose bridge runs and whose slice follows.
    pub async fn following(source_sql: &str, sink_sql: &str, plan: &str) -> House {
        let house = House::new(source_sql, sink_sql, plan).await;
        house.start();
        house.follow().await;
        house
    }

    /// Runs SQL at the monolith as the superuser.
    pub fn at_source(&self, sql: &str) -> String {
        self.source.sql("shop", sql)
    }

    /// Runs SQL at the service as the superuser.
    pub fn at_sink(&self, sql: &str) -> String {
        self.sink.sql("orders", sql)
    }

    /// Starts the bridge; it runs until [`House::stop`].
    pub fn start(&self) {
        let (plan, link) = (self.plan.clone(), self.link.clone());
        let running = tokio::spawn(async move {
            loop {
                let ended = cdc_bridge::serve(plan.clone(), link.clone(), std::future::pending()).await;
                eprintln!("bridge ended: {ended:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        *self.bridge.lock().unwrap() = Some(running);
    }

    /// Drops the bridge wherever it is; nothing is finished or closed in order. What it said is forgotten.
    pub async fn stop(&self) {
        let running = self.bridge.lock().unwrap().take();
        if let Some(running) = running {
            running.abort();
            let _ = running.await;
        }
        self.forget();
    }

    /// Forgets what was reported, so that what is waited for next was said afterwards.
    pub fn forget(&self) {
        *self.desk.observed.lock().unwrap() = None;
    }

    pub fn decide(&self, event: Event) {
        decide(&self.desk, slice(), event);
    }

    /// Decides about another slice than [`slice`].
    pub fn decide_for(&self, slice: &str, event: Event) {
        decide(&self.desk, slice.parse().unwrap(), event);
    }

    /// The controller dies.
    pub fn go_away(&self) {
        self.desk.is_away.store(true, Ordering::SeqCst);
    }

    /// Orders a lane that no journal orders yet.
    pub fn order(&self, lane: LaneId, order: LaneOrder) {
        let mut beside = self.desk.beside.lock().unwrap();
        beside.0.insert(lane, order);
        beside.1 += 1;
    }

    /// Starts the copy and waits until the slice follows.
    pub async fn follow(&self) {
        self.decide(Event::SyncStarted { replace: false });
        self.until("following", |report| report.condition == Condition::Following).await;
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&LaneReport) -> bool) -> LaneReport {
        self.until_lane(&LaneId::forward(slice()), what, wanted).await
    }

    pub async fn until_lane(
        &self,
        lane: &LaneId,
        what: &str,
        wanted: impl Fn(&LaneReport) -> bool,
    ) -> LaneReport {
        let began = Instant::now();
        loop {
            let report = self.report(lane);
            if let Some(report) = report.as_ref().filter(|report| wanted(report)) {
                return report.clone();
            }
            assert!(began.elapsed() < WAIT, "not {what}: {:?}", self.report(lane));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the lane has stopped; why, and where.
    pub async fn stopped(&self, lane: &LaneId) -> (Finding, Option<Position>) {
        let is_stopped = |report: &LaneReport| matches!(report.condition, Condition::Stopped { .. });
        match self.until_lane(lane, "stopped", is_stopped).await.condition {
            Condition::Stopped { finding, position } => (finding, position),
            other => unreachable!("{other:?}"),
        }
    }

    /// The copy that the slice has or gets.
    pub fn attempt(&self) -> Generation {
        self.journal().slice(&slice()).attempt
    }

    /// How the bridge finds its controller, for a second one.
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    pub fn journal(&self) -> Journal {
        self.desk.journal.lock().unwrap().clone()
    }

    /// Waits until what any bridge says of itself, as text, is as wanted.
    pub async fn until_agent(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let began = Instant::now();
        loop {
            let observed = self.desk.observed.lock().unwrap().clone();
            let said = format!("{:?}", observed.as_ref().map(|observed| &observed.report));
            if wanted(&said) {
                return;
            }
            assert!(began.elapsed() < WAIT, "not {what}: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn report(&self, lane: &LaneId) -> Option<LaneReport> {
        match &self.desk.observed.lock().unwrap().as_ref()?.report {
            Report::Bridge(report) => report.lanes.get(lane).cloned(),
            Report::Proxy(_) => None,
        }
    }

    /// Whether a barrier passes that is asked for now.
    pub async fn passes(&self) -> bool {
        let url = format!("http://{}/v1/barrier", self.plan.bridge.listen);
        let body = serde_json::json!({ "version": 1, "slice": "orders" });
        let asked = reqwest::Client::new().post(&url).bearer_auth("t").json(&body).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Asks the bridge for a barrier and waits for it, however often that takes.
    pub async fn barrier(&self) {
        let began = Instant::now();
        while !self.passes().await {
            assert!(
                began.elapsed() < WAIT,
                "no barrier passes: {:?}",
                self.report(&LaneId::forward(slice()))
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Compares two queries' rows after a barrier.
    pub async fn same(&self, at_source: &str, at_sink: &str) {
        self.barrier().await;
        let (left, right) = (self.at_source(at_source), self.at_sink(at_sink));
        if left != right {
            let differ: Vec<_> = left.lines().zip(right.lines()).filter(|(a, b)| a != b).take(5).collect();
            let counts = (left.lines().count(), right.lines().count());
            panic!("{at_source}: {counts:?} rows, first differences {differ:#?}");
        }
    }
}

fn decide(desk: &Desk, slice: SliceName, event: Event) {
    let mut journal = desk.journal.lock().unwrap();
    let entry = Entry {
        generation: journal.generation.next(),
        at: String::new(),
        actor: "test".to_owned(),
        reason: String::new(),
        slice,
        event,
    };
    journal.apply(&entry).unwrap();
}

async fn listen(desk: Arc<Desk>) -> String {
    let router = Router::new()
        .route("/v1/desired", get(desired))
        .route("/v1/observed", post(observed))
        .with_state(desk);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn desired(
    State(desk): State<Arc<Desk>>,
    axum::extract::Query(query): axum::extract::Query<std::collections::BTreeMap<String, String>>,
) -> axum::response::Response {
    use axum::response::IntoResponse;
    let held: Option<u64> = query.get("generation").and_then(|held| held.parse().ok());
    if desk.is_away.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let wait_ms: u64 = query.get("wait_ms").and_then(|wait| wait.parse().ok()).unwrap_or(0);
    for _ in 0..=wait_ms.min(10_000) / 10 {
        let desired = desk.desired();
        if held != Some(desired.generation.0) {
            return Json(desired).into_response();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    StatusCode::NO_CONTENT.into_response()
}

/// Does what the real controller does with a bridge's report: completes a copy, evicts what is lost.
async fn observed(State(desk): State<Arc<Desk>>, Json(observed): Json<Observed>) -> StatusCode {
    if desk.is_away.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY;
    }
    if let Report::Bridge(report) = &observed.report {
        for (lane, report) in report.lanes.iter().filter(|(lane, _)| lane.direction == Direction::Forward) {
            let state = desk.journal.lock().unwrap().slice(&lane.slice);
            let current = |attempt: &Generation| *attempt == state.attempt;
            match &report.condition {
                Condition::Copied { attempt, copied_at }
                    if current(attempt) && state.stage.name() == "copying" =>
                {
                    decide(&desk, lane.slice.clone(), Event::CopyCompleted { copied_at: *copied_at });
                }
                Condition::Lost { attempt, why }
                    if current(attempt) && matches!(state.stage.name(), "copying" | "following") =>
                {
                    decide(&desk, lane.slice.clone(), Event::Evicted { why: why.clone() });
                }
                _ => {}
            }
        }
    }
    *desk.observed.lock().unwrap() = Some(observed);
    StatusCode::OK
}
