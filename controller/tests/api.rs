//! The API over real HTTP, with the journal in a file; and `sync start` with the journal in a database.
//!
//! Long because the API is one, and each of its answers is tried.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on shall fail")]

mod world;

use lab::Cluster;
use migrations::api::{Outcome, Status};
use migrations::code::Code;
use migrations::control::{
    AgentId, AgentKind, BridgeReport, Condition, Confirmed, Desired, LaneReport, Observed, ProxyReport,
    Report, VERSION,
};
use migrations::finding::Finding;
use migrations::journal::{Entry, Generation, JournalId};
use migrations::lsn::{CommitLsn, Of};
use migrations::plan::{Plan, Secret};
use migrations::problem::Problem;
use migrations::share::Share;
use migrations::sql::Database;
use migrations::stage::Stage;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;

const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:1" }
services: { orders: { upstream: "http://127.0.0.1:2" } }
controller: { listen: "127.0.0.1:PORT" }
slices: { orders: { service: orders, routes: { show: "GET /orders/{id}", place: "POST /orders" } } }
"#;

struct Running {
    base: String,
    http: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), controller::ServeError>>,
}

impl Running {
    async fn start(plan: Plan, state_dir: &Path) -> Running {
        let base = format!("http://{}", plan.controller.listen);
        let (stop, stopped) = oneshot::channel();
        let until = async { drop(stopped.await) };
        let token = Secret::new("right".to_owned());
        let task = tokio::spawn(controller::serve(plan, token, state_dir.to_owned(), until));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for _ in 0..200 {
            if http.get(format!("{base}/healthz")).send().await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Running { base, http, stop: Some(stop), task }
    }

    async fn with_file(folder: &Path) -> Running {
        let plan = world::plan(&PLAN.replace("PORT", &lab::free_port().unwrap().to_string()));
        Self::start(plan, folder).await
    }

    /// One with a journal of its own.
    async fn alone() -> (TempDir, Running) {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::with_file(folder.path()).await;
        (folder, running)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth("right");
        let request = body.into_iter().fold(request, |request, body| request.json(&body));
        request.timeout(Duration::from_secs(60)).send().await.unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Response {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn refusal(&self, path: &str, body: Value) -> (StatusCode, Problem) {
        refused(self.post(path, body).await).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.ask(Method::GET, path, None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }

    async fn share(&self, share: &str) -> Outcome {
        let wish = json!({ "slice": "orders", "share": share, "actor": "ann", "reason": "because" });
        let answer = self.post("/v1/shares", wish).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json().await.unwrap()
    }

    async fn report(&self, observed: &Observed) {
        let answer = self.post("/v1/observed", serde_json::to_value(observed).unwrap()).await;
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    fn poll(
        &self,
        desired: &Desired,
        wait_ms: u64,
    ) -> tokio::task::JoinHandle<(StatusCode, Option<Desired>, Duration)> {
        let path = format!(
            "{}/v1/desired?journal={}&generation={}&plan={}&wait_ms={wait_ms}",
            self.base, desired.journal.0, desired.generation, desired.plan
        );
        let request = self.http.get(path).bearer_auth("right");
        tokio::spawn(async move {
            let began = Instant::now();
            let answer = request.send().await.unwrap();
            let status = answer.status();
            (status, answer.json().await.ok(), began.elapsed())
        })
    }

    async fn end(mut self) {
        self.stop.take().map(|stop| stop.send(()));
        tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap().unwrap();
    }
}

fn ann() -> Value {
    json!({ "actor": "ann" })
}

async fn refused(answer: Response) -> (StatusCode, Problem) {
    (answer.status(), answer.json().await.unwrap())
}

fn proxy(name: &str, acts_on: Option<(JournalId, Generation)>, plan: &str) -> Observed {
    Observed {
        version: VERSION,
        agent: AgentId { kind: AgentKind::Proxy, name: name.to_owned() },
        address: None,
        acts_on,
        plan: plan.to_owned(),
        report: Report::Proxy(ProxyReport::default()),
    }
}

fn bridge(address: &str, condition: Option<Condition>) -> Observed {
    let lane = condition.map(LaneReport::caught_up);
    let lanes = lane.into_iter().map(|lane| ("orders/forward".parse().unwrap(), lane)).collect();
    Observed {
        version: VERSION,
        agent: AgentId { kind: AgentKind::Bridge, name: "b".to_owned() },
        address: Some(address.to_owned()),
        acts_on: None,
        plan: String::new(),
        report: Report::Bridge(BridgeReport { lanes, ..BridgeReport::default() }),
    }
}

fn of_another_plan(mut observed: Observed) -> Observed {
    if let Report::Bridge(report) = &mut observed.report {
        report.findings.push(Finding::warning(Code::BridgeOtherPlan, "another plan", "start it again"));
    }
    observed
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_opens_and_every_refusal_says_what_to_do() {
    let (_folder, api) = Running::alone().await;
    for request in [
        api.http.get(format!("{}/v1/status", api.base)),
        api.http.get(format!("{}/v1/status", api.base)).bearer_auth("wrong"),
    ] {
        let (status, refusal) = refused(request.send().await.unwrap()).await;
        assert_eq!((status, refusal.exit()), (StatusCode::UNAUTHORIZED, 1));
        assert!(refusal.remedy.contains("STRANGLER_TOKEN"));
    }
    assert_eq!(api.ask(Method::GET, "/v1/nothing", None).await.status(), StatusCode::NOT_FOUND);
    for (method, path, body) in [
        (Method::GET, "/v1/slices/ordres/doctor", None),
        (Method::POST, "/v1/slices/ordres/sync/start", Some(ann())),
        (Method::POST, "/v1/shares", Some(json!({ "slice": "ordres", "share": "10%", "actor": "ann" }))),
    ] {
        let (status, refusal) = refused(api.ask(method, path, body).await).await;
        assert_eq!((status, refusal.exit()), (StatusCode::UNPROCESSABLE_ENTITY, 2), "{path}");
        assert_eq!(refusal.remedy, "did you mean orders?", "{path}");
    }
    let (_, refusal) = api.refusal("/v1/slices/Orders/sync/drop", ann()).await;
    assert!(refusal.exit() == 2 && refusal.message.contains("is not a name"), "{refusal:?}");
    let (status, refusal) = api.refusal("/v1/shares", json!({ "slice": "orders" })).await;
    assert_eq!((status, refusal.exit()), (StatusCode::UNPROCESSABLE_ENTITY, 2));
    let wish = json!({ "slice": "orders", "route": "shwo", "share": "10%", "actor": "ann" });
    let (status, refusal) = api.refusal("/v1/shares", wish).await;
    assert_eq!((status, refusal.exit()), (StatusCode::UNPROCESSABLE_ENTITY, 2));
    let (status, refusal) = api.refusal("/v1/slices/orders/sync/start", ann()).await;
    assert_eq!((status, refusal.exit()), (StatusCode::UNPROCESSABLE_ENTITY, 2), "{refusal:?}");
    let (status, refusal) = api.refusal("/v1/slices/orders/cutover", ann()).await;
    assert_eq!((status, refusal.exit()), (StatusCode::UNPROCESSABLE_ENTITY, 2), "{refusal:?}");
    assert!(refusal.message.contains("no tables that move"), "{refusal:?}");
    let sideways = api.post("/v1/slices/orders/sideways", ann()).await;
    assert_eq!(refused(sideways).await.0, StatusCode::NOT_FOUND);
    let mut odd = proxy("p", None, "");
    odd.version = 99;
    let answer = api.post("/v1/observed", serde_json::to_value(&odd).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_journalled_and_survives_a_restart() {
    let (folder, api) = Running::alone().await;
    let outcome = api.share("25%").await;
    assert_eq!(
        (outcome.generation, outcome.proxies.live, outcome.stage),
        (Generation(1), 0, Stage::Monolith)
    );
    assert!(!outcome.next_steps.is_empty());
    api.end().await;
    let api = Running::with_file(folder.path()).await;
    let status: Status = api.get("/v1/status").await;
    assert_eq!(status.generation, Generation(1));
    let slice = status.slices.values().next().unwrap();
    assert!(slice.routes.iter().all(|route| route.share == "25%".parse::<Share>().unwrap()), "{slice:?}");
    let entries: Vec<Entry> = api.get("/v1/journal?after=0").await;
    assert_eq!((entries.len(), entries[0].actor.as_str(), entries[0].reason.as_str()), (1, "ann", "because"));
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_is_woken_by_a_decision_and_by_nothing_else() {
    let (_folder, api) = Running::alone().await;
    let first: Desired = api.get("/v1/desired").await;
    assert_eq!(first.generation, Generation(0));
    let (status, _, waited) = api.poll(&first, 300).await.unwrap();
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(waited >= Duration::from_millis(290), "{waited:?}");

    let waiting = api.poll(&first, 20_000);
    let journal = tokio::spawn(
        api.http.get(format!("{}/v1/journal?after=0&wait_ms=20000", api.base)).bearer_auth("right").send(),
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    api.share("10%").await;
    let (status, second, waited) = waiting.await.unwrap();
    let second = second.unwrap();
    assert!(status == StatusCode::OK && waited < Duration::from_secs(2), "{status} {waited:?}");
    assert_eq!(second.generation, Generation(1));
    let entries: Vec<Entry> = journal.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(entries.len(), 1);

    let mut other_plan = second.clone();
    other_plan.plan = "0".to_owned();
    assert_eq!(
        api.poll(&other_plan, 20_000).await.unwrap().0,
        StatusCode::OK,
        "another plan is news at once"
    );

    let waiting = api.poll(&second, 20_000);
    tokio::time::sleep(Duration::from_millis(100)).await;
    api.report(&bridge("http://127.0.0.1:7402", None)).await;
    let (_, third, waited) = waiting.await.unwrap();
    assert_eq!(third.unwrap().bridge.as_deref(), Some("http://127.0.0.1:7402"));
    assert!(waited < Duration::from_secs(2), "{waited:?}");

    let waiting = api.poll(&second, 20_000);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    api.end().await;
    assert!(began.elapsed() < Duration::from_secs(4), "an open poll does not hold the end up");
    drop(waiting.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_another_controller_wakes_too() {
    let folder = tempfile::tempdir().unwrap();
    let one = Running::with_file(folder.path()).await;
    // Both serve: each has a folder of its own, with the same journal.
    let beside = tempfile::tempdir().unwrap();
    std::fs::hard_link(folder.path().join("journal.jsonl"), beside.path().join("journal.jsonl")).unwrap();
    let other = Running::with_file(beside.path()).await;
    let first: Desired = one.get("/v1/desired").await;
    let waiting = one.poll(&first, 20_000);
    other.share("10%").await;
    let (status, _, waited) = waiting.await.unwrap();
    // The other one decides 2 s after its start at the latest, and its entry is read within another second.
    assert!(status == StatusCode::OK && waited < Duration::from_secs(5), "{status} {waited:?}");
    assert_eq!(one.share("20%").await.generation, Generation(2));
    one.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_cannot_hand_over_serves() {
    let folder = tempfile::tempdir().unwrap();
    // As if the folder were full.
    std::fs::create_dir_all(folder.path().join("handover")).unwrap();
    let one = Running::with_file(folder.path()).await;
    assert_eq!(one.share("10%").await.generation, Generation(1));
    one.end().await;
    let next = Running::with_file(folder.path()).await;
    assert_eq!(next.share("20%").await.generation, Generation(2), "the place is free again");
    next.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_done_when_every_live_proxy_has_it() {
    let (_folder, api) = Running::alone().await;
    let now: Desired = api.get("/v1/desired").await;
    let at = |generation| Some((now.journal, Generation(generation)));
    api.report(&proxy("quick", at(0), &now.plan)).await;
    api.report(&proxy("slow", at(0), &now.plan)).await;
    let slow = Duration::from_millis(500);
    let decided = api.poll(&now, 20_000);
    let (outcome, began) = tokio::join!(api.share("10%"), async {
        decided.await.unwrap();
        let began = Instant::now();
        api.report(&proxy("quick", at(1), &now.plan)).await;
        tokio::time::sleep(slow).await;
        api.report(&proxy("slow", at(1), &now.plan)).await;
        began
    });
    assert!(began.elapsed() >= slow, "it waited for the slow one");
    assert_eq!((outcome.proxies.live, outcome.proxies.have), (2, 2));
    let status: Status = api.get("/v1/status").await;
    assert_eq!(status.agents.len(), 2);
    assert!(status.agents.iter().all(|agent| agent.live && agent.generation == Some(Generation(1))));
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_read_through_several_proxies_only_if_the_plan_says_how_clients_come() {
    let told = async |line: &str, proxies: &[&str], share: &str| {
        let folder = tempfile::tempdir().unwrap();
        let plan = PLAN
            .replace("PORT", &lab::free_port().unwrap().to_string())
            .replace("service: orders, routes", "service: orders, tables: [public.orders], routes")
            .replace(
                "upstream: \"http://127.0.0.1:2\"",
                "upstream: \"http://127.0.0.1:2\", database: postgres://a@127.0.0.1:1/b",
            )
            .replace(
                "upstream: \"http://127.0.0.1:1\"",
                "upstream: \"http://127.0.0.1:1\", database: postgres://a@127.0.0.1:1/a",
            );
        let api = Running::start(world::plan(&format!("{plan}{line}")), folder.path()).await;
        for name in proxies {
            api.report(&proxy(name, None, "")).await;
        }
        let wish = json!({ "slice": "orders", "share": share, "actor": "ann" });
        let (_, problem) = api.refusal("/v1/shares", wish).await;
        api.end().await;
        problem
    };
    let (one, two) = (&["a-1-0"][..], &["a-1-0", "b-1-0"][..]);
    let refused = told("", two, "10%").await;
    assert_eq!(refused.code, Code::ProxySeveral);
    assert!(refused.message.contains("a-1-0, b-1-0"), "{refused:?}");
    // What is refused here is refused for another reason: the copy does not follow.
    for (line, proxies, share) in [
        ("", one, "10%"),
        ("", two, "monolith"),
        ("proxy: { consistency: session }", two, "10%"),
        ("proxy: { consistency: strong }", two, "10%"),
    ] {
        let other = told(line, proxies, share).await;
        assert_ne!(other.code, Code::ProxySeveral, "{line} {proxies:?} {share}: {other:?}");
    }
}

/// It may count on that for a while, so it must be so.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_reports_is_told_whether_it_acts_on_the_newest() {
    let (_folder, api) = Running::alone().await;
    let now: Desired = api.get("/v1/desired").await;
    let told = async |generation, plan: &str| {
        let observed = proxy("a-1-0", Some((now.journal, Generation(generation))), plan);
        api.post("/v1/observed", serde_json::to_value(observed).unwrap()).await.status()
    };
    assert_eq!(told(0, &now.plan).await, StatusCode::NO_CONTENT);
    assert_eq!(told(0, "another").await, StatusCode::ACCEPTED);
    api.share("10%").await;
    assert_eq!(told(0, &now.plan).await, StatusCode::ACCEPTED);
    assert_eq!(told(1, &now.plan).await, StatusCode::NO_CONTENT);
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn right_after_a_start_proxies_that_are_still_to_report_are_waited_for() {
    let (_folder, api) = Running::alone().await;
    let now: Desired = api.get("/v1/desired").await;
    let at = |generation| Some((now.journal, Generation(generation)));
    let decided = api.poll(&now, 20_000);
    let (outcome, ()) = tokio::join!(api.share("10%"), async {
        api.report(&proxy("early", at(0), &now.plan)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        api.report(&proxy("late", at(0), &now.plan)).await;
        decided.await.unwrap();
        api.report(&proxy("early", at(1), &now.plan)).await;
        api.report(&proxy("late", at(1), &now.plan)).await;
    });
    assert_eq!((outcome.proxies.live, outcome.proxies.have), (2, 2));
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_is_followed_only_when_the_systems_are_ready() {
    let cluster = Cluster::start();
    for database in ["monolith", "service"] {
        cluster.database(database);
        cluster.sql(database, "CREATE TABLE orders (id int PRIMARY KEY, note text)");
    }
    cluster.sql("service", "INSERT INTO orders VALUES (1, 'not ours')");
    let text = PLAN
        .replace("PORT", &lab::free_port().unwrap().to_string())
        .replace(
            "127.0.0.1:1\"",
            &format!("127.0.0.1:1\", database: \"{}\"", world::url(&cluster, "strangler", "monolith")),
        )
        .replace(
            "127.0.0.1:2\"",
            &format!("127.0.0.1:2\", database: \"{}\"", world::url(&cluster, "strangler", "service")),
        )
        .replace("service: orders, routes", "service: orders, tables: [public.orders], routes");
    let plan = world::plan(&format!("{text}limits: {{ max_staleness: 2s }}"));
    let folder = tempfile::tempdir().unwrap();
    let api = Running::start(plan.clone(), folder.path()).await;

    // Before install there is no journal: agents and people are told so.
    let (status, refusal) = refused(api.ask(Method::GET, "/v1/status", None).await).await;
    assert!(
        status == StatusCode::SERVICE_UNAVAILABLE && refusal.remedy.contains("strangler install"),
        "{refusal:?}"
    );
    assert_eq!(api.ask(Method::GET, "/v1/desired", None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let admin = [("monolith", "monolith"), ("orders", "service")]
        .map(|(part, database)| (part.to_owned(), world::url(&cluster, "postgres", database)));
    controller::install(&plan, &admin.into_iter().collect(), &mut |_| {}).await.unwrap();

    let start = |replace: bool| json!({ "actor": "ann", "replace": replace });
    let (status, refusal) = api.refusal("/v1/slices/orders/sync/start", start(false)).await;
    assert_eq!((status, refusal.exit()), (StatusCode::UNPROCESSABLE_ENTITY, 3));
    let errors: Vec<_> = refusal.findings.iter().filter(|f| f.is_error()).map(|f| f.code).collect();
    assert_eq!(errors, [Code::SinkNotEmpty], "{refusal:#?}");
    a_bridge_with_another_plan_is_not_asked(&api, start(true)).await;
    let started = api.post("/v1/slices/orders/sync/start", start(true)).await;
    assert_eq!(started.status(), StatusCode::OK);
    let outcome: Outcome = started.json().await.unwrap();
    assert_eq!((outcome.stage, outcome.generation), (Stage::Copying, Generation(1)));
    let (status, refusal) = api.refusal("/v1/slices/orders/sync/start", start(true)).await;
    assert_eq!((status, refusal.exit()), (StatusCode::CONFLICT, 4), "{refusal:?}");

    report_copies(&api).await;
    let status: Status = api.get("/v1/status").await;
    let slice = status.slices.values().next().unwrap();
    assert_eq!(
        (slice.stage, status.generation),
        (Stage::Following { copied_at: Of::monolith(CommitLsn(77)) }, Generation(2))
    );
    assert!(slice.forward().is_some());
    reads_are_said_to_wait_while_the_stream_stands(&api).await;
    an_old_copy_is_withheld_until_it_follows_again(&api).await;
    let lost = Condition::Lost { attempt: Generation(1), why: "too much WAL".to_owned() };
    api.report(&bridge("http://127.0.0.1:7402", Some(lost))).await;
    let entries: Vec<Entry> = api.get("/v1/journal?after=5").await;
    assert_eq!((entries[0].actor.as_str(), entries[0].event.name()), ("bridge", "evicted"));

    // A database that goes away is said, and what was known is still told to the agents.
    cluster.kill();
    let status: Status = api.get("/v1/status").await;
    assert!(status.findings.iter().any(|f| f.code.as_str().starts_with("journal.")), "{:?}", status.findings);
    let known: Desired = api.get("/v1/desired").await;
    assert_eq!(known.generation, Generation(6));
    let (status, ..) = api.poll(&known, 0).await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "nobody can say that nothing is newer");
    let drop = api.post("/v1/slices/orders/sync/drop", ann()).await;
    assert_eq!(drop.status(), StatusCode::SERVICE_UNAVAILABLE);
    cluster.restart();
    let drop = api.post("/v1/slices/orders/sync/drop", ann()).await;
    assert_eq!(drop.status(), StatusCode::OK, "it goes on by itself");
    nothing_is_emptied_that_a_proxy_may_still_read(&api, start(true)).await;
    api.end().await;
}

/// Reads were at the service until generation 4.
async fn nothing_is_emptied_that_a_proxy_may_still_read(api: &Running, start: Value) {
    let now: Desired = api.get("/v1/desired").await;
    api.report(&proxy("shop-7-a", Some((now.journal, Generation(4))), &now.plan)).await;
    let (status, refusal) = api.refusal("/v1/slices/orders/sync/start", start.clone()).await;
    assert_eq!((status, refusal.exit()), (StatusCode::CONFLICT, 4), "{refusal:?}");
    assert!(refusal.message.contains("proxy shop-7-a"), "{refusal:?}");
    api.report(&proxy("shop-7-a", Some((now.journal, Generation(5))), &now.plan)).await;
    let started = api.post("/v1/slices/orders/sync/start", start).await;
    assert_eq!(started.status(), StatusCode::OK);
}

/// Neither another copy nor one by another plan counts, and the right one counts once.
async fn report_copies(api: &Running) {
    let copied = |attempt| {
        let condition =
            Condition::Copied { attempt: Generation(attempt), copied_at: Of::monolith(CommitLsn(77)) };
        bridge("http://127.0.0.1:7402", Some(condition))
    };
    api.report(&copied(9)).await;
    api.report(&of_another_plan(copied(1))).await;
    assert_eq!(api.get::<Status>("/v1/status").await.generation, Generation(1));
    api.report(&copied(1)).await;
    api.report(&copied(1)).await;
}

/// It still runs the plan of yesterday, and would copy by it.
async fn a_bridge_with_another_plan_is_not_asked(api: &Running, start: serde_json::Value) {
    api.report(&of_another_plan(bridge("http://127.0.0.1:7402", None))).await;
    let (status, refusal) = api.refusal("/v1/slices/orders/sync/start", start).await;
    assert_eq!(
        (status, world::codes_of(&refusal.findings)),
        (StatusCode::UNPROCESSABLE_ENTITY, vec![Code::BridgeOtherPlan])
    );
    api.report(&bridge("http://127.0.0.1:7402", None)).await;
    // A second one that is fenced out has no say, whatever it runs.
    let mut first = bridge("http://127.0.0.1:7402", None);
    if let Report::Bridge(report) = &mut first.report {
        let capture = json!({
            "slot": "s", "timeline": { "system_id": "1", "timeline": 1 }, "captured": "0/0", "lag_bytes": 0, "changes": 0,
        });
        report.feeds.insert(Database::Monolith, serde_json::from_value(capture).unwrap());
    }
    api.report(&first).await;
    let mut second = of_another_plan(bridge("http://127.0.0.1:7403", None));
    second.agent.name = "c".to_owned();
    api.report(&second).await;
}

async fn reads_are_said_to_wait_while_the_stream_stands(api: &Running) {
    let address = "http://127.0.0.1:7402";
    let codes = |outcome: &Outcome| world::codes_of(&outcome.findings);
    api.report(&bridge(address, Some(Condition::Following))).await;
    let outcome = api.share("10%").await;
    assert_eq!(
        (codes(&outcome), outcome.next_steps[0].as_str()),
        (Vec::new(), "strangler route set orders 50%")
    );
    let finding = Finding::error(Code::SinkRefusedRow, "no", "mend it");
    api.report(&bridge(address, Some(Condition::Stopped { finding, position: None }))).await;
    let outcome = api.share("20%").await;
    assert_eq!(codes(&outcome), [Code::ReadsWait]);
    assert_eq!(outcome.next_steps[0], "strangler sync status orders");
    let status: Status = api.get("/v1/status").await;
    let slice = status.slices.values().next().unwrap();
    assert_eq!(slice.next_steps[0], "strangler sync status orders");
    assert!(slice.withheld && world::codes_of(&status.findings).contains(&Code::ReadsWithheld), "{status:?}");
    assert_eq!(codes(&api.share("monolith").await), []);
}

/// Who reports and acts on the newest hears which copies must not be read.
async fn an_old_copy_is_withheld_until_it_follows_again(api: &Running) {
    let now: Desired = api.get("/v1/desired").await;
    let withheld = async |condition: Condition, lag_ms: u64| {
        let mut observed = bridge("http://127.0.0.1:7402", Some(condition));
        (observed.acts_on, observed.plan) = (Some((now.journal, now.generation)), now.plan.clone());
        let Report::Bridge(report) = &mut observed.report else { unreachable!() };
        report.lanes.values_mut().for_each(|lane| lane.lag_ms = Some(lag_ms));
        let answer = api.post("/v1/observed", serde_json::to_value(observed).unwrap()).await;
        match answer.status() {
            StatusCode::NO_CONTENT => false,
            _ => answer.json::<Confirmed>().await.unwrap().withheld.len() == 1,
        }
    };
    let finding = Finding::error(Code::SinkRefusedRow, "no", "mend it");
    let stopped = Condition::Stopped { finding, position: None };
    assert!(withheld(stopped.clone(), 0).await, "stopped");
    assert!(!withheld(Condition::Following, 0).await, "it follows again");
    assert!(withheld(stopped, 0).await, "stopped again");
    assert!(!withheld(Condition::Following, 0).await);
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert!(withheld(Condition::Following, 60_000).await, "far behind");
    assert!(withheld(Condition::Following, 1_500).await, "not far enough within the bound");
    assert!(!withheld(Condition::Following, 500).await);
    assert!(!withheld(Condition::Paused, 0).await, "still young");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let status: Status = api.get("/v1/status").await;
    assert!(status.slices.values().all(|slice| slice.withheld), "the bridge is silent: {status:?}");
    let unknown = async || {
        let status: Status = api.get("/v1/status").await;
        status.slices.values().next().unwrap().lag_unknown.clone()
    };
    assert_eq!(unknown().await, None);
    let mut blind = bridge("http://127.0.0.1:7402", Some(Condition::Following));
    let Report::Bridge(report) = &mut blind.report else { unreachable!() };
    report.lanes.values_mut().for_each(|lane| lane.lag_unknown = Some("capture does not run".to_owned()));
    api.report(&blind).await;
    assert_eq!(unknown().await.as_deref(), Some("capture does not run"));
    tokio::time::sleep(Duration::from_millis(5_100)).await;
    assert_eq!(unknown().await.as_deref(), Some("no live bridge reports it"));
}

async fn with_its_journal_in_a_database() -> (Cluster, Plan) {
    let cluster = Cluster::start_with("");
    cluster.database("shop");
    let url = world::url(&cluster, "strangler", "shop");
    let text = PLAN.replace("PORT", &lab::free_port().unwrap().to_string());
    let text = text.replace(
        "upstream: \"http://127.0.0.1:1\"",
        &format!("upstream: \"http://127.0.0.1:1\", database: \"{url}\""),
    );
    let plan = world::plan(&text);
    let admin = [("monolith".to_owned(), world::url(&cluster, "postgres", "shop"))].into();
    controller::install(&plan, &admin, &mut |_| {}).await.unwrap();
    (cluster, plan)
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_emergency_a_slice_comes_back_without_the_journal_which_learns_of_it_afterwards() {
    let (cluster, plan) = with_its_journal_in_a_database().await;
    let folder = tempfile::tempdir().unwrap();
    let api = Running::start(plan.clone(), folder.path()).await;
    let wish = |emergency: bool, share: &str| json!({ "slice": "orders", "share": share, "emergency": emergency, "actor": "ann", "reason": "it burns" });
    let given = api.post("/v1/shares", wish(false, "service")).await;
    assert_eq!(given.status(), StatusCode::OK);
    let now: Desired = api.get("/v1/desired").await;
    let report = async |recalls: bool| {
        let observed = recalling(&now, recalls.then_some("orders"));
        api.post("/v1/observed", serde_json::to_value(observed).unwrap()).await
    };
    let recalled = async || match report(false).await {
        answer if answer.status() == StatusCode::OK => {
            answer.json::<Confirmed>().await.unwrap().recalled.len()
        }
        _ => 0,
    };
    assert_eq!(recalled().await, 0);
    cluster.stop().unwrap();
    let (_, refusal) = api.refusal("/v1/shares", wish(false, "monolith")).await;
    assert!(refusal.remedy.contains("--emergency"), "{refusal:?}");
    let (_, refusal) = api.refusal("/v1/shares", wish(true, "service")).await;
    assert_eq!(refusal.exit(), 2, "only back: {refusal:?}");
    let taken =
        async { api.post("/v1/shares", wish(true, "monolith")).await.json::<Outcome>().await.unwrap() };
    let obeyed = async {
        while recalled().await != 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        report(true).await
    };
    let (outcome, _) = tokio::join!(taken, obeyed);
    assert_eq!((outcome.proxies.live, outcome.proxies.have), (1, 1));
    assert_eq!(world::codes_of(&outcome.findings), [Code::ReadsRecalled]);
    let status: Status = api.get("/v1/status").await;
    assert!(status.slices.values().all(|slice| slice.withheld), "{status:?}");

    // Another controller of this folder keeps to it, and the journal hears of it when it is back.
    api.end().await;
    cluster.restart();
    let api = Running::start(plan, folder.path()).await;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let entries: Vec<Entry> = api.get("/v1/journal").await;
        let last = entries.last().unwrap();
        if last.generation == Generation(2) {
            assert_eq!((last.actor.as_str(), last.reason.as_str()), ("ann", "in an emergency: it burns"));
            break;
        }
        assert!(Instant::now() < until, "the journal never heard of it");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status: Status = api.get("/v1/status").await;
    assert!(
        status.slices.values().all(|slice| slice.routes.iter().all(|route| route.share == Share::MONOLITH))
    );
    let until = Instant::now() + Duration::from_secs(5);
    while std::fs::read_to_string(folder.path().join("recalled.json")).unwrap() != "{}" {
        assert!(Instant::now() < until, "it is kept for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A proxy's report that acts on the newest, and obeys what was taken back.
fn recalling(now: &Desired, recalled: Option<&str>) -> Observed {
    let mut observed = proxy("a-1-0", Some((now.journal, now.generation)), &now.plan);
    if let Report::Proxy(proxy) = &mut observed.report {
        proxy.recalled = recalled.map(|one| one.parse().unwrap()).into_iter().collect();
    }
    observed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_starts_without_the_journal_takes_a_route_back_by_what_it_remembers() {
    let (cluster, plan) = with_its_journal_in_a_database().await;
    let [folder, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let api = Running::start(plan.clone(), folder.path()).await;
    let now: Desired = {
        api.share("service").await;
        api.get("/v1/desired").await
    };
    let remembered = folder.path().join("remembered.json");
    let until = Instant::now() + Duration::from_secs(10);
    while !std::fs::read_to_string(&remembered).is_ok_and(|text| text.contains("\"generation\":1")) {
        assert!(Instant::now() < until, "nothing is remembered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cluster.stop().unwrap();
    api.end().await;
    let wish =
        json!({ "slice": "orders", "route": "show", "share": "monolith", "emergency": true, "actor": "ann" });

    // A controller of another folder has never read the journal.
    let api = Running::start(plan.clone(), other.path()).await;
    let (_, refusal) = api.refusal("/v1/shares", wish.clone()).await;
    assert_eq!(refusal.code, Code::JournalUnreachable, "{refusal:?}");
    api.end().await;

    let api = Running::start(plan.clone(), folder.path()).await;
    let heard = async |recalled: Option<&str>| {
        let observed = serde_json::to_value(recalling(&now, recalled)).unwrap();
        let answer = api.post("/v1/observed", observed).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "it cannot say what is newest");
        answer.json::<Confirmed>().await.map(|said| said.recalled).unwrap_or_default()
    };
    assert!(heard(None).await.is_empty());
    let taken = async { api.post("/v1/shares", wish.clone()).await.json::<Outcome>().await.unwrap() };
    let obeyed = async {
        while heard(None).await != ["orders.show".parse().unwrap()].into() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        heard(Some("orders.show")).await
    };
    let (outcome, _) = tokio::join!(taken, obeyed);
    assert_eq!((outcome.proxies.live, outcome.proxies.have), (1, 1));

    // Another controller decided meanwhile, and a proxy knows.
    api.report(&proxy("b-2-0", Some((now.journal, Generation(2))), &now.plan)).await;
    let (_, refusal) = api.refusal("/v1/shares", wish).await;
    assert!(refusal.message.contains("later decisions"), "{refusal:?}");

    cluster.restart();
    let until = Instant::now() + Duration::from_secs(20);
    let share = async |name: &str| {
        let answer = api.ask(Method::GET, "/v1/status", None).await;
        let status = answer.json::<Status>().await.ok()?;
        let mut routes = status.slices.into_values().flat_map(|slice| slice.routes);
        routes.find(|route| route.name.as_str() == name).map(|route| (route.share, route.recalled))
    };
    while share("show").await != Some((Share::MONOLITH, false)) {
        assert!(Instant::now() < until, "the journal never heard of it");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(share("place").await, Some((Share::SERVICE, false)), "the other route stays where it was");
    api.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_set_back_is_not_believed_until_it_has_a_new_id() {
    let (folder, api) = Running::alone().await;
    api.share("10%").await;
    let path = folder.path().join("journal.jsonl");
    let older = std::fs::read_to_string(&path).unwrap();
    api.share("20%").await;
    std::fs::write(&path, &older).unwrap();
    let wish = json!({ "slice": "orders", "share": "30%", "actor": "ann" });
    let (_, refusal) = api.refusal("/v1/shares", wish).await;
    assert!(refusal.exit() == 1 && refusal.message.contains("has 1 entries and had 2"), "{refusal:?}");
    assert!(refusal.remedy.contains("first line of journal.jsonl"), "{refusal:?}");
    let status: Status = api.get("/v1/status").await;
    assert_eq!(world::codes_of(&status.findings), [Code::JournalRewound]);
    assert_eq!(status.generation, Generation(2), "what was known is still told");

    // A controller that starts on it knows no better, but for the agents.
    api.end().await;
    let api = Running::with_file(folder.path()).await;
    let status: Status = api.get("/v1/status").await;
    assert_eq!((status.generation, status.findings), (Generation(1), Vec::new()));
    api.report(&proxy("p", Some((status.journal, Generation(2))), "")).await;
    let status: Status = api.get("/v1/status").await;
    assert_eq!(world::codes_of(&status.findings), [Code::JournalRewound]);
    // The proxy would ignore what is decided, and yet be counted: it acts on more.
    let wish = json!({ "slice": "orders", "share": "30%", "actor": "ann" });
    let (_, refusal) = api.refusal("/v1/shares", wish).await;
    assert!(refusal.exit() == 1 && refusal.message.contains("has 1 entries and had 2"), "{refusal:?}");

    let first: Desired = api.get("/v1/desired").await;
    let other = first.journal.0.to_string().replace(|c: char| c != '-', "7");
    std::fs::write(&path, older.replace(&first.journal.0.to_string(), &other)).unwrap();
    assert_eq!(api.share("30%").await.generation, Generation(2));
    let desired: Desired = api.get("/v1/desired").await;
    assert!(desired.journal != first.journal && desired.replaces(&first));
    api.end().await;
}
