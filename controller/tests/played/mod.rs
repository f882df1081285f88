//! Controllers that can be killed, on real databases, with the agents' part played: a proxy and a bridge that do what they are
//! told, but for their manners.

#![allow(dead_code, reason = "each test program uses only a part of it")]

use crate::world::{self, World};
use axum::routing::post;
use axum::{Json, Router};
use migrations::api::{CrossingReport, SliceStatus, Status};
use migrations::control::{
    AgentId, AgentKind, Began, BridgeReport, Condition, Desired, LaneOrder, LaneReport, Observed,
    ProxyReport, Report, SliceTraffic, VERSION,
};
use migrations::journal::Entry;
use migrations::lane::{Direction, LaneId, Right};
use migrations::lsn::EndLsn;
use migrations::plan::{Plan, Secret};
use migrations::problem::Problem;
use migrations::stage::Epoch;
use migrations::verify::{CompareAnswer, CompareRequest, Difference, How, Listed, RowKey};
use postgres::gate;
use reqwest::StatusCode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// What the played agents do.
#[derive(Debug, Clone)]
pub struct Manners {
    /// Writes that were sent before the hold, and do not end.
    pub in_flight: u64,
    /// A controller with which no agent speaks.
    pub alone: Option<usize>,
    /// Whether the proxy takes what is desired, or stays with what it has.
    pub proxy_listens: bool,
    pub bridge_lives: bool,
    /// Whether a lane reports the fences that it reads.
    pub fences_pass: bool,
    /// A fence that the forward lane reports whatever it reads.
    pub fence_said: Option<Epoch>,
    /// Whether the service's changes are kept.
    pub way_back: bool,
    pub reverse_lag_ms: u64,
    /// Writes of others to the service.
    pub foreign: u64,
}

const GOOD: Manners = Manners {
    in_flight: 0,
    alone: None,
    proxy_listens: true,
    bridge_lives: true,
    fences_pass: true,
    fence_said: None,
    way_back: true,
    reverse_lag_ms: 0,
    foreign: 0,
};

/// A controller in a runtime of its own.
pub struct Controller {
    pub base: String,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    _folder: TempDir,
}

impl Controller {
    fn start(plan: &Plan) -> Controller {
        let mut plan = plan.clone();
        // Another address is no other plan.
        plan.controller.listen = format!("127.0.0.1:{}", lab::free_port().unwrap());
        let base = format!("http://{}", plan.controller.listen);
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async { drop(stopped.await) };
        let serving =
            controller::serve(plan, Secret::new("right".to_owned()), folder.path().to_owned(), until);
        runtime.spawn(serving);
        Controller { base, runtime: Some(runtime), stop: Some(stop), _folder: folder }
    }

    /// As with -9: nothing of it runs on, and nothing is said. A runtime that is only told to stop may still decide.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let ending = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(30)));
            ending.join().unwrap();
        }
    }

    pub fn stop_in_order(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct House {
    pub world: World,
    pub controllers: Vec<Controller>,
    pub manners: Arc<Mutex<Manners>>,
    pub http: reqwest::Client,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for House {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl House {
    /// A slice that follows, and so many controllers.
    pub async fn new(controllers: usize) -> House {
        let mut world = World::new("").await;
        let routes = r#"routes: { show: "GET /orders/{id}", place: "POST /orders" }"#;
        world.plan = world.plan_with(r#"routes: { show: "GET /orders/{id}" }"#, routes);
        world.install().await;
        follow(&world).await;
        let controllers: Vec<_> = (0..controllers).map(|_| Controller::start(&world.plan)).collect();
        let manners = Arc::new(Mutex::new(GOOD));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (comparing, bridge) = compares(&world).await;
        let played = Played {
            bridge,
            bases: controllers.iter().map(|controller| controller.base.clone()).collect(),
            http: http.clone(),
            monolith: world.client("strangler", "monolith").await,
            service: world.client("strangler", "service").await,
            manners: Arc::clone(&manners),
        };
        let played = tokio::spawn(played.run());
        let house = House { world, controllers, manners, http, tasks: [played, comparing] };
        for n in 0..house.controllers.len() {
            house.until(n, "the agents are heard", |_| true).await;
        }
        house
    }

    pub fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    /// Asks for a crossing verb; the answer whatever it is.
    pub async fn wish(&self, n: usize, verb: &str, wish: Value) -> (StatusCode, Value) {
        let path = format!("{}/v1/slices/orders/{verb}", self.controllers[n].base);
        let request = self.http.post(path).bearer_auth("right").json(&wish);
        let answer = request.timeout(Duration::from_secs(60)).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    pub async fn granted(&self, verb: &str, wish: Value) -> Value {
        let (status, answer) = self.wish(0, verb, wish).await;
        assert_eq!(status, StatusCode::OK, "{verb}: {answer}");
        answer
    }

    pub async fn refused(&self, verb: &str, wish: Value) -> Problem {
        let (status, answer) = self.wish(0, verb, wish).await;
        assert!(!status.is_success(), "{verb}: {answer}");
        serde_json::from_value(answer).unwrap()
    }

    pub async fn get<T: serde::de::DeserializeOwned>(&self, n: usize, path: &str) -> T {
        let asked = self.http.get(format!("{}{path}", self.controllers[n].base)).bearer_auth("right");
        asked.timeout(Duration::from_secs(30)).send().await.unwrap().json().await.unwrap()
    }

    pub async fn status(&self, n: usize) -> Status {
        self.get(n, "/v1/status").await
    }

    pub async fn report(&self, n: usize) -> CrossingReport {
        self.get::<Option<CrossingReport>>(n, "/v1/slices/orders/crossing").await.expect("a crossing")
    }

    /// Kills the controller that drives the crossing, whichever of the two that is; the other one.
    pub async fn kill_the_coordinator(&mut self) -> usize {
        for _ in 0..1500 {
            let epoch = self.status(0).await.slices[&self.world.slice].epoch;
            for n in 0..2 {
                let report: Option<CrossingReport> = self.get(n, "/v1/slices/orders/crossing").await;
                if report.is_some_and(|report| report.epoch == epoch) {
                    self.controllers[n].kill();
                    return 1 - n;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nobody drives: {:#?}", self.journal(0).await);
    }

    pub async fn journal(&self, n: usize) -> Vec<Entry> {
        self.get(n, "/v1/journal").await
    }

    pub async fn events(&self, n: usize) -> Vec<&'static str> {
        self.journal(n).await.iter().skip(2).map(|entry| entry.event.name()).collect()
    }

    /// Waits until the slice stands so, as controller `n` says.
    pub async fn until(&self, n: usize, what: &str, is_so: impl Fn(&SliceStatus) -> bool) -> SliceStatus {
        for _ in 0..1500 {
            let path = format!("{}/v1/status", self.controllers[n].base);
            let asked =
                self.http.get(path).bearer_auth("right").timeout(Duration::from_secs(20)).send().await;
            if let Ok(answer) = asked
                && let Ok(status) = answer.json::<Status>().await
                && !status.agents.is_empty()
                && let Some(slice) = status.slices.get(&self.world.slice)
                && is_so(slice)
            {
                return slice.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {what}: {:#?} {:#?}", self.status(n).await, self.journal(n).await);
    }

    pub async fn until_stage(&self, n: usize, stage: &str) -> SliceStatus {
        let is_so = |slice: &SliceStatus| {
            slice.stage.name() == stage && slice.hold.is_none() && slice.preparing.is_none()
        };
        self.until(n, stage, is_so).await
    }

    /// The gate's epoch and whether it is shut.
    pub fn gate(&self, database: &str) -> String {
        self.world.cluster.sql(database, "SELECT epoch || ' ' || is_shut FROM strangler.gate")
    }

    pub async fn until_gate(&self, database: &str, gate: &str) {
        for _ in 0..1500 {
            if self.gate(database) == gate {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the gate of {database} is {} and never {gate}", self.gate(database));
    }

    /// The SQLSTATE with which the application's write is refused on one side.
    pub async fn write(&self, database: &str) -> Option<String> {
        let column = if database == "monolith" { "total" } else { "total_cents" };
        let app = self.world.client("app", database).await;
        let refused = world::refusal(&app, "SET lock_timeout = '5s'").await;
        assert_eq!(refused, None);
        // It leaves no row, for nothing brings it over here.
        let write = format!("BEGIN; INSERT INTO orders (customer_id, {column}) VALUES (1, 100); ROLLBACK");
        world::refusal(&app, &write).await
    }

    /// Whoever owns the slice may write, and the other side may not.
    pub async fn only_writes(&self, owner: &str) {
        let other = if owner == "monolith" { "service" } else { "monolith" };
        assert_eq!(self.write(owner).await, None, "the {owner} owns");
        assert_eq!(self.write(other).await.as_deref(), Some("STR01"), "the {other} does not");
    }
}

/// As a copy leaves it: gates on both sides, the same rows, and the journal's word.
async fn follow(world: &World) {
    world.make_gates().await;
    let filled = r#"INSERT INTO strangler.stream (slice, direction, filled) VALUES ('orders', 'forward', '["public.customers", "public.items", "public.orders"]')"#;
    world.service(filled);
    let rows = "INSERT INTO orders (customer_id, total) SELECT n, n FROM generate_series(1, 40) n";
    world.client("app", "monolith").await.batch_execute(rows).await.unwrap();
    let rows = "INSERT INTO orders (id, customer_id, total_cents) SELECT n, n, n * 100 FROM generate_series(1, 40) n";
    world.client("strangler", "service").await.batch_execute(rows).await.unwrap();
    world::Decider::of(world).await.decide_all(world::followed()).await;
}

/// The bridge's port, which compares by counting; and where it is.
async fn compares(world: &World) -> (JoinHandle<()>, String) {
    let monolith = world.client("strangler", "monolith").await;
    let service = world.client("strangler", "service").await;
    let both = Arc::new((monolith, service));
    let compare = async move |Json(request): Json<CompareRequest>| {
        let count = async |client: &Client| -> u64 {
            let row = client.query_one("SELECT count(*)::text FROM orders", &[]).await.unwrap();
            row.get::<_, &str>(0).parse().unwrap()
        };
        let (here, there) = (count(&both.0).await, count(&both.1).await);
        let first = Difference {
            row: RowKey { table: "public.orders".parse().unwrap(), key: BTreeMap::new() },
            how: How::Missing,
        };
        let mut differences = Listed::default();
        (0..here.abs_diff(there)).for_each(|_| differences.push(first.clone(), 1));
        let why = "no verification was completed".to_owned();
        Json(CompareAnswer {
            version: VERSION,
            epoch: request.epoch,
            compared: here,
            complete: false,
            incomplete_because: Some(why),
            differences,
        })
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/compare", post(compare));
    (tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }), address)
}

/// The agents.
struct Played {
    bridge: String,
    bases: Vec<String>,
    http: reqwest::Client,
    monolith: Client,
    service: Client,
    manners: Arc<Mutex<Manners>>,
}

impl Played {
    async fn run(self) {
        let mut held: Option<Desired> = None;
        let mut at_proxy: Option<Desired> = None;
        loop {
            for base in &self.bases {
                if let Some(desired) = self.desired(base).await
                    && held.as_ref().is_none_or(|held| desired.replaces(held))
                {
                    held = Some(desired);
                }
            }
            let manners = self.manners.lock().unwrap().clone();
            if manners.proxy_listens {
                at_proxy = held.clone();
            }
            if let (Some(held), Some(at_proxy)) = (&held, &at_proxy) {
                let mut reports = vec![proxy(at_proxy, &manners)];
                if manners.bridge_lives {
                    reports.push(self.bridge(held, &manners).await);
                }
                for (n, base) in self.bases.iter().enumerate() {
                    if manners.alone == Some(n) {
                        continue;
                    }
                    for report in &reports {
                        let posting = self.http.post(format!("{base}/v1/observed")).bearer_auth("right");
                        drop(posting.timeout(Duration::from_secs(2)).json(report).send().await);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }

    async fn desired(&self, base: &str) -> Option<Desired> {
        let asked = self.http.get(format!("{base}/v1/desired")).bearer_auth("right");
        asked.timeout(Duration::from_secs(2)).send().await.ok()?.json().await.ok()
    }

    async fn bridge(&self, desired: &Desired, manners: &Manners) -> Observed {
        let mut lanes = BTreeMap::new();
        for (lane, order) in &desired.lanes {
            lanes.insert(lane.clone(), self.lane(lane, order, manners).await);
        }
        let report = BridgeReport { lanes, ..BridgeReport::default() };
        observed(AgentKind::Bridge, "shop-2-b", &self.bridge, desired, Report::Bridge(report))
    }

    /// A lane raises its sink's gate, and reads the fence of its source.
    async fn lane(&self, lane: &LaneId, order: &LaneOrder, manners: &Manners) -> LaneReport {
        let is_forward = lane.direction == Direction::Forward;
        let (source, sink) =
            if is_forward { (&self.monolith, &self.service) } else { (&self.service, &self.monolith) };
        if let Right::Apply(epoch) = order.right
            && let Some(gate) = gate::read(sink, &lane.slice).await.unwrap()
            && gate.is_shut
            && gate.epoch < epoch
        {
            // Someone may open it at the same moment.
            let _ = gate::raise(sink, &lane.slice, epoch).await;
        }
        let fence = gate::read(source, &lane.slice).await.unwrap().filter(|gate| gate.is_shut);
        let is_moving = ["cutting", "split", "returning"].contains(&order.stage.name());
        let fenced = fence.map(|gate| gate.epoch).filter(|_| manners.fences_pass && is_moving);
        let is_kept = manners.way_back && order.right != Right::Rest;
        LaneReport {
            lag_ms: Some(if is_forward { 0 } else { manners.reverse_lag_ms }),
            foreign: if is_forward { 0 } else { manners.foreign },
            fenced: if is_forward { manners.fence_said.or(fenced) } else { fenced },
            began: (!is_forward && is_kept).then_some(Began { attempt: order.attempt, at: EndLsn(9) }),
            ..LaneReport::caught_up(if is_forward || is_kept {
                Condition::Following
            } else {
                Condition::Idle
            })
        }
    }
}

fn proxy(desired: &Desired, manners: &Manners) -> Observed {
    let traffic = |(slice, hold): (&migrations::names::SliceName, &migrations::stage::Hold)| {
        let traffic = SliceTraffic {
            holds: Some(hold.epoch),
            held: 3,
            in_flight: manners.in_flight,
            held_ms_p99: 5,
            held_ms_max: 7,
        };
        (slice.clone(), traffic)
    };
    let mut slices: BTreeMap<_, _> = desired.table.holds.iter().map(traffic).collect();
    // What waited last is still told.
    let idle = SliceTraffic { held_ms_p99: 5, held_ms_max: 7, ..SliceTraffic::default() };
    slices.entry("orders".parse().unwrap()).or_insert(idle);
    let report = ProxyReport { slices, ..ProxyReport::default() };
    observed(AgentKind::Proxy, "shop-1-a", "http://127.0.0.1:8080", desired, Report::Proxy(report))
}

fn observed(kind: AgentKind, name: &str, address: &str, desired: &Desired, report: Report) -> Observed {
    Observed {
        version: VERSION,
        agent: AgentId { kind, name: name.to_owned() },
        address: Some(address.to_owned()),
        acts_on: Some((desired.journal, desired.generation)),
        plan: desired.plan.clone(),
        report,
    }
}
