//! An agent against a played controller over real HTTP.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use link::{Agent, Link, Told};
use migrations::code::Code;
use migrations::control::{AgentKind, Desired, Observed, ProxyReport, Report, VERSION};
use migrations::journal::{Generation, JournalId, State as Journal};
use migrations::plan::{Plan, Secret};
use migrations::problem::Problem;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Desk {
    desired: Mutex<Option<serde_json::Value>>,
    observed: Mutex<Vec<Observed>>,
}

struct Controller {
    desk: Arc<Desk>,
    link: Link,
    _folder: tempfile::TempDir,
}

impl Controller {
    async fn start() -> Self {
        let desk = Arc::<Desk>::default();
        let router = Router::new()
            .route("/v1/desired", get(desired))
            .route("/v1/observed", post(observed))
            .with_state(desk.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let controller = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().unwrap();
        let token = Secret::new("right".to_owned());
        let link = Link { controller, token, state_dir: folder.path().to_path_buf() };
        Self { desk, link, _folder: folder }
    }

    fn wants(&self, desired: &Desired) {
        *self.desk.desired.lock().unwrap() = Some(serde_json::to_value(desired).unwrap());
    }

    fn agent(&self) -> Agent {
        Agent::new(self.link.clone(), AgentKind::Proxy, 7).unwrap()
    }

    /// Pulls in the background; what it took comes by the channel. The first `refused` are not taken.
    fn pulls(&self, held: Option<Told>, refused: usize) -> mpsc::UnboundedReceiver<Told> {
        let (tell, told) = mpsc::unbounded_channel();
        let (agent, count) = (self.agent(), Mutex::new(0));
        let stored = agent.stored();
        tokio::spawn(async move {
            let take = |told: Told| {
                *count.lock().unwrap() += 1;
                let is_refused = *count.lock().unwrap() <= refused;
                if !is_refused {
                    stored.write(&told.desired);
                }
                tell.send(told).unwrap();
                ready(if is_refused {
                    Err(Problem::new(Code::ApiUnreadable, "no such upstream", "name another"))
                } else {
                    Ok(())
                })
            };
            agent.pull(held, take).await
        });
        told
    }

    async fn until_stored(&self, generation: u64) {
        let began = Instant::now();
        while self.stored().is_none_or(|stored| stored.generation != Generation(generation)) {
            assert!(began.elapsed() < WAIT, "generation {generation} is not stored: {:?}", self.stored());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn stored(&self) -> Option<Desired> {
        self.agent().stored().read().unwrap()
    }
}

async fn desired(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if !link::bearer::admits(&Secret::new("right".to_owned()), &headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let wait_ms: u64 = query["wait_ms"].parse().unwrap();
    let until = Instant::now() + Duration::from_millis(wait_ms);
    loop {
        let wanted = desk.desired.lock().unwrap().clone();
        if let Some(wanted) = wanted
            && query.get("generation") != Some(&wanted["generation"].to_string())
        {
            return Json(wanted).into_response();
        }
        if Instant::now() >= until {
            return StatusCode::NO_CONTENT.into_response();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn observed(State(desk): State<Arc<Desk>>, Json(observed): Json<Observed>) {
    desk.observed.lock().unwrap().push(observed);
}

fn plan() -> Plan {
    let text = "version: 1\nname: shop\nmonolith: { upstream: 'http://127.0.0.1:4000' }\nservices:\n  orders: { upstream: \
                'http://127.0.0.1:4001' }\nslices:\n  orders:\n    service: orders\n    routes:\n      list: GET /orders\n";
    migrations::plan::check("strangler.yaml", text, &|_| None).unwrap().0
}

fn desired_at(generation: u64) -> Desired {
    let mut journal = Journal::empty(JournalId(uuid::Uuid::nil()));
    journal.generation = Generation(generation);
    Desired::from(&plan(), &journal, None)
}

async fn next(told: &mut mpsc::UnboundedReceiver<Told>) -> Told {
    timeout(WAIT, told.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_agent_takes_what_is_newer_and_keeps_it() {
    let controller = Controller::start().await;
    let mut told = controller.pulls(None, 0);
    controller.wants(&desired_at(3));
    assert_eq!(next(&mut told).await, Told { desired: desired_at(3), is_current: true });
    controller.until_stored(3).await;
    controller.wants(&desired_at(4));
    assert_eq!(next(&mut told).await.desired.generation, Generation(4));
    controller.until_stored(4).await;
    // An older one of the same journal is never taken, e.g. from a controller that reads a lagging replica.
    controller.wants(&desired_at(2));
    assert!(timeout(Duration::from_millis(500), told.recv()).await.is_err());
    assert_eq!(controller.stored().unwrap().generation, Generation(4));
}

#[tokio::test]
async fn what_cannot_be_used_is_asked_for_again_and_not_stored() {
    let controller = Controller::start().await;
    let mut told = controller.pulls(None, 2);
    controller.wants(&desired_at(5));
    for _ in 0..2 {
        assert_eq!(next(&mut told).await.desired.generation, Generation(5));
        assert_eq!(controller.stored(), None);
    }
    next(&mut told).await;
    controller.until_stored(5).await;
}

#[tokio::test]
async fn stored_orders_are_current_once_a_controller_answers() {
    let controller = Controller::start().await;
    let stored = Told { desired: desired_at(6), is_current: false };
    let mut told = controller.pulls(Some(stored), 0);
    controller.wants(&desired_at(6));
    assert_eq!(next(&mut told).await, Told { desired: desired_at(6), is_current: true });
}

#[tokio::test]
async fn words_of_another_version_are_not_taken() {
    let controller = Controller::start().await;
    let mut told = controller.pulls(None, 0);
    let other = serde_json::json!({ "version": VERSION + 1, "generation": 9, "anything": "else" });
    *controller.desk.desired.lock().unwrap() = Some(other.clone());
    assert!(timeout(Duration::from_millis(500), told.recv()).await.is_err());
    std::fs::write(controller.link.state_dir.join("desired.json"), other.to_string()).unwrap();
    assert_eq!(controller.stored(), None);
    std::fs::write(controller.link.state_dir.join("desired.json"), "{ half").unwrap();
    assert!(controller.agent().stored().read().is_err());
}

#[tokio::test]
async fn news_is_reported_at_once() {
    let controller = Controller::start().await;
    let agent = controller.agent();
    let news = Arc::new(Notify::new());
    let (rung, count) = (news.clone(), Arc::new(Mutex::new(0)));
    let failed = count.clone();
    tokio::spawn(async move {
        let observed = || Observed {
            version: VERSION,
            agent: agent.id().clone(),
            address: None,
            acts_on: None,
            plan: String::new(),
            report: Report::Proxy(ProxyReport { failed: *failed.lock().unwrap(), ..ProxyReport::default() }),
        };
        agent.report(&rung, observed).await
    });
    let reported = |failed: u64| {
        let observed = controller.desk.observed.lock().unwrap();
        observed.iter().any(|one| matches!(&one.report, Report::Proxy(report) if report.failed == failed))
    };
    for change in 1..=40 {
        *count.lock().unwrap() = change;
        news.notify_one();
        let began = Instant::now();
        while !reported(change) {
            assert!(began.elapsed() < WAIT, "change {change} is not reported");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
