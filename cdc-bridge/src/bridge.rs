//! The whole bridge: one capture, one stream per slice, the agent and the port, wired by watch channels.
//!
//! The only place that starts the bridge's parts. Bounded by what it is made of: a flush in flight, a batch per stream.

use crate::feed::capture;
use crate::feed::retention::{self, Reading};
use crate::feed::source::Source;
use crate::feed::status;
use crate::lane::{self, Ordered, state::State};
use crate::log::{Log, LogError};
use crate::port::{Port, Watched};
use link::{Agent, Link, Told};
use migrations::code::Code;
use migrations::control::{
    AgentKind, BridgeReport, Condition, Desired, FeedReport, LaneOrder, LaneReport, Observed, Report, VERSION,
};
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lane::LaneId;
use migrations::names::{SliceName, TableName};
use migrations::plan::{LogChoice, Plan, Slice};
use migrations::sql::Database;
use migrations::stage::Stage;
use postgres::Address;
use postgres::clock;
use rows::envelope::Context;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::mem::discriminant;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const OPEN_RETRY: Duration = Duration::from_secs(2);
/// What was read is written before the bridge ends, unless it takes longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the bridge did not start or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The plan has nothing for a bridge to do.
    #[error(
        "the plan names no database, so there is nothing to bridge; give `monolith.database` and a slice with tables"
    )]
    NoDatabase,
    /// The port is taken or not allowed.
    #[error(
        "the bridge cannot listen on {listen}: {source}; another bridge may run, or set `bridge.listen` in the plan"
    )]
    Listen {
        /// The address.
        listen: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// Its folder cannot be made.
    #[error("the folder {folder} cannot be made: {source}; free the place or its rights")]
    Folder {
        /// Which.
        folder: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The source's URL cannot be used.
    #[error(transparent)]
    Url(#[from] postgres::ConnectError),
    /// Nobody could be asked.
    #[error("the bridge cannot ask its controller: {0}; start it again")]
    Http(#[from] reqwest::Error),
    /// A part of it ended.
    #[error("a part of the bridge ended unexpectedly: {0}; it is started again")]
    Ended(String),
}

/// One slice's channels.
struct Lane {
    orders: watch::Sender<Ordered>,
    state: watch::Receiver<State>,
    tables: BTreeSet<TableName>,
}

/// All slices' channels, and capture's.
struct Lanes {
    slices: BTreeMap<SliceName, Lane>,
    orders: watch::Sender<Option<status::Order>>,
    capture: watch::Sender<status::Status>,
}

/// What is told to the controller before the log is open.
#[derive(Default)]
struct Opening {
    trouble: Option<Finding>,
}

/// Runs the bridge until `shutdown`.
pub async fn serve(plan: Plan, link: Link, shutdown: impl Future<Output = ()>) -> Result<(), BridgeError> {
    let source = Source::of(&plan).ok_or(BridgeError::NoDatabase)?;
    let folder = link.state_dir.clone();
    std::fs::create_dir_all(&folder)
        .map_err(|source| BridgeError::Folder { folder: folder.display().to_string(), source })?;
    let listen = plan.bridge.listen.clone();
    let listener = tokio::net::TcpListener::bind(&listen)
        .await
        .map_err(|source| BridgeError::Listen { listen: listen.clone(), source })?;
    let address = listener.local_addr().map_or(listen, |address| address.to_string());
    let address = format!("http://{address}");
    let agent = Agent::new(link.clone(), AgentKind::Bridge, rand::random())?;
    let (lanes, contexts) = lanes(&plan);
    let lanes = Arc::new(lanes);
    let opening = Arc::new(Mutex::new(Opening::default()));
    let (tell, told) = watch::channel(stored(&agent, &plan));
    let news = Arc::new(Notify::new());

    let mut parts = JoinSet::new();
    lanes.watch(&news, &told, &mut parts);
    let puller = agent.clone();
    parts.spawn(async move {
        let held = tell.borrow().clone();
        let take = |told| {
            tell.send_replace(Some(told));
            std::future::ready(Ok::<(), Infallible>(()))
        };
        puller.pull(held, take).await;
    });
    let (reported, opened, plan_hash, held) =
        (lanes.clone(), opening.clone(), plan.hash.clone(), told.clone());
    parts.spawn(async move {
        let observed = || {
            let held = held.borrow();
            let desired = held.as_ref().map(|told| &told.desired);
            Observed {
                version: VERSION,
                agent: agent.id().clone(),
                address: Some(address.clone()),
                acts_on: desired.map(|desired| (desired.journal, desired.generation)),
                plan: desired.map(|desired| desired.plan.clone()).unwrap_or_default(),
                report: Report::Bridge(reported.report(&opened, &plan_hash, desired)),
            }
        };
        agent.report(&news, observed).await;
    });
    let closing = lanes.clone();
    let work = run(plan, link, source, listener, told, lanes, contexts, opening);
    let shutdown = async {
        shutdown.await;
        closing.close().await;
    };
    tokio::select! {
        ended = work => ended,
        ended = parts.join_next() => Err(BridgeError::Ended(format!("{ended:?}"))),
        () = shutdown => Ok(()),
    }
}

/// What was wanted before the restart, unless the plan was edited since: then the controller says what it wants now.
fn stored(agent: &Agent, plan: &Plan) -> Option<Told> {
    match agent.stored().read() {
        Ok(Some(desired)) if desired.plan == plan.hash => Some(Told { desired, is_current: false }),
        Ok(Some(_)) => {
            tracing::warn!(
                "the plan was edited: nothing is captured or applied until the controller answers"
            );
            None
        }
        Ok(None) => None,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the stored orders are not used; the controller gives them again");
            None
        }
    }
}

type Contexts = Vec<(Slice, migrations::plan::DatabaseUrl, watch::Receiver<Ordered>, watch::Sender<State>)>;

fn lanes(plan: &Plan) -> (Lanes, Contexts) {
    let mut slices = BTreeMap::new();
    let mut contexts = Vec::new();
    for slice in plan.slices.values().filter(|slice| !slice.is_stateless()) {
        let Some(sink) = plan.services.get(&slice.service).and_then(|service| service.database.clone())
        else {
            continue;
        };
        let (orders, told) = watch::channel(None);
        let (tell, state) = watch::channel(State::new());
        let tables = slice.all_tables().map(|table| table.from.clone()).collect();
        slices.insert(slice.name.clone(), Lane { orders, state, tables });
        contexts.push((slice.clone(), sink, told, tell));
    }
    let lanes = Lanes {
        slices,
        orders: watch::Sender::new(None),
        capture: watch::Sender::new(status::Status::default()),
    };
    (lanes, contexts)
}

#[allow(clippy::too_many_arguments, reason = "it is the wiring itself, called once")]
async fn run(
    plan: Plan,
    link: Link,
    source: Source,
    listener: tokio::net::TcpListener,
    told: watch::Receiver<Option<Told>>,
    lanes: Arc<Lanes>,
    contexts: Contexts,
    opening: Arc<Mutex<Opening>>,
) -> Result<(), BridgeError> {
    let database = Address::of(&source.url)?.database().to_owned();
    let log = open(&plan, &database, &link, &opening).await;
    let port = Port {
        token: link.token.clone(),
        source: source.clone(),
        log: log.clone(),
        context: context(&plan, &database),
        capture: lanes.capture.subscribe(),
        slices: lanes.watched(),
        barriers: tokio::sync::Mutex::new(None),
    };
    let mut parts = JoinSet::new();
    parts.spawn(async move {
        if let Err(why) = axum::serve(listener, port.router()).await {
            tracing::error!("the bridge's port ended: {why}");
        }
    });
    for (slice, sink, orders, state) in contexts {
        let (source, log, capture) = (source.clone(), log.clone(), lanes.capture.subscribe());
        let wanted = lanes.orders.subscribe();
        parts.spawn(lane::run(lane::Context { slice, source, log, sink, wanted, capture }, orders, state));
    }
    let (orders, status) = (lanes.orders.subscribe(), lanes.capture.clone());
    parts.spawn(capture::guard_wal(source.clone(), log.clone(), orders.clone(), status.clone()));
    let every = lanes.slices.values().flat_map(|lane| lane.tables.iter().cloned()).collect();
    parts.spawn(capture::run(source, log.clone(), every, orders, status));
    let directed = lanes.clone();
    parts.spawn(async move { directed.direct(told).await });
    parts.spawn(async move {
        let orders = lanes.orders.subscribe();
        retention::run(&log, orders, &lanes.capture, || lanes.readers()).await;
    });
    let ended = parts.join_next().await;
    Err(BridgeError::Ended(format!("{ended:?}")))
}

/// What events say of the source: the prefix is the topics' where there are topics, else the plan's name.
fn context(plan: &Plan, database: &str) -> Context {
    let (prefix, schemas) = match &plan.log {
        LogChoice::Kafka { topic_prefix, schemas, .. } => (topic_prefix.clone(), *schemas),
        _ => (plan.name.to_string(), false),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Context { prefix, database: database.to_owned(), version, schemas }
}

/// Opens the log, as often as it takes.
async fn open(plan: &Plan, database: &str, link: &Link, opening: &Mutex<Opening>) -> Log {
    loop {
        let opened: Result<Log, LogError> = Log::open(&plan.log, &plan.name, database, &link.state_dir).await;
        let why = match opened {
            Ok(log) => {
                if let Ok(mut opening) = opening.lock() {
                    opening.trouble = None;
                }
                tracing::info!("{} is open", log.describe());
                return log;
            }
            Err(why) => why,
        };
        tracing::warn!("{why}");
        if let Ok(mut opening) = opening.lock() {
            opening.trouble = Some(why.finding().unwrap_or_else(|| waits(why.to_string())));
        }
        sleep(OPEN_RETRY).await;
    }
}

/// Whether carrying an order out leaves the rows that are there: giving a copy up and beginning one do not.
fn keeps_rows(order: &LaneOrder) -> bool {
    order.stage.is_captured() && order.stage != Stage::Copying
}

fn order_of<'d>(desired: &'d Desired, slice: &SliceName) -> Option<&'d LaneOrder> {
    desired.lanes.get(&LaneId::forward(slice.clone()))
}

fn waits(why: String) -> Finding {
    Finding::warning(Code::BridgeWaits, why, "it is tried again by itself")
}

/// Notifies `news` whenever what `of` returns is another one.
async fn tell_of<T, K: PartialEq>(mut seen: watch::Receiver<T>, news: Arc<Notify>, of: impl Fn(&T) -> K) {
    let mut last = of(&seen.borrow_and_update());
    while seen.changed().await.is_ok() {
        let now = of(&seen.borrow_and_update());
        if now != last {
            last = now;
            news.notify_one();
        }
    }
    // A part that ends ends the bridge; what is watched ends with it.
    std::future::pending().await
}

impl Lanes {
    /// Notifies `news` when a stream does something else, capture has another trouble, or other orders came.
    fn watch(&self, news: &Arc<Notify>, told: &watch::Receiver<Option<Told>>, parts: &mut JoinSet<()>) {
        for lane in self.slices.values() {
            parts.spawn(tell_of(lane.state.clone(), news.clone(), |state| discriminant(&state.condition)));
        }
        let trouble =
            |status: &status::Status| (status.finding.clone(), status.holds_nothing, status.lost.clone());
        parts.spawn(tell_of(self.capture.subscribe(), news.clone(), trouble));
        let acts_on =
            |told: &Option<Told>| told.as_ref().map(|told| (told.desired.journal, told.desired.generation));
        parts.spawn(tell_of(told.clone(), news.clone(), acts_on));
    }

    fn watched(&self) -> BTreeMap<SliceName, Watched> {
        let watched = |lane: &Lane| Watched { tables: lane.tables.clone(), state: lane.state.clone() };
        self.slices.iter().map(|(name, lane)| (name.clone(), watched(lane))).collect()
    }

    /// Lets capture write what it has read, and confirm it: then the next start reads nothing twice.
    async fn close(&self) {
        self.orders.send_replace(None);
        let mut capture = self.capture.subscribe();
        let ended = capture.wait_for(|status| status.tables.is_empty());
        if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::warn!(
                "capture did not end in time; what it had in flight is read again at the next start"
            );
        }
    }

    /// Hands every newer `desired` on: to capture which tables are wanted, to each stream its order. Words that may have
    /// been overtaken let streams go on, and take nothing away: neither slot and log, nor rows of a copy.
    async fn direct(&self, mut told: watch::Receiver<Option<Told>>) {
        loop {
            let now = told.borrow_and_update().clone();
            // A slice that the controller does not know is no slice to give up: its plan is another one than ours.
            let knows_all =
                |told: &Told| self.slices.keys().all(|name| order_of(&told.desired, name).is_some());
            if let Some(Told { desired, is_current }) = now.filter(knows_all) {
                let next = self.order(&desired);
                if is_current || !next.tables.is_empty() {
                    self.orders.send_if_modified(|held| {
                        let is_new = held.as_ref() != Some(&next);
                        *held = Some(next);
                        is_new
                    });
                }
                for (name, lane) in &self.slices {
                    let order = order_of(&desired, name).filter(|order| is_current || keeps_rows(order));
                    lane.orders.send_replace(order.map(|order| (desired.generation, order.clone())));
                }
            }
            if told.changed().await.is_err() {
                return;
            }
        }
    }

    fn order(&self, desired: &Desired) -> status::Order {
        let mut order = status::Order::default();
        for (name, lane) in &self.slices {
            let Some(wanted) = order_of(desired, name).filter(|wanted| wanted.stage.is_captured()) else {
                continue;
            };
            order.tables.extend(lane.tables.iter().cloned());
            order.attempts.insert((name.clone(), wanted.attempt));
        }
        order
    }

    /// The lanes that may still need what the log holds. A copy that has not begun takes the log's end when it does.
    fn readers(&self) -> Vec<Reading> {
        let mut readers = Vec::new();
        for (name, attempt) in self.attempts() {
            let Some(lane) = self.slices.get(&name) else { continue };
            let state = lane.state.borrow().clone();
            let is_copying =
                lane.orders.borrow().as_ref().is_some_and(|(_, order)| order.stage == Stage::Copying);
            let has_begun = matches!(state.condition, Condition::Copying { .. } | Condition::Copied { .. });
            if !is_copying || has_begun {
                let State { durable, cursor, seen, .. } = state;
                readers.push(Reading { name, attempt, durable, cursor, seen });
            }
        }
        readers
    }

    fn attempts(&self) -> BTreeSet<(SliceName, Generation)> {
        self.orders.borrow().as_ref().map(|order| order.attempts.clone()).unwrap_or_default()
    }

    /// How a slice's stream stands. A copy that was given up is told here, because a stream that is stopped, paused or
    /// without its database would not tell it, and the others wait until it is journalled.
    fn stream(&self, name: &SliceName, lane: &Lane, status: &status::Status) -> LaneReport {
        let mut report = lane.state.borrow().report(status, clock::now_us());
        let current = self.attempts();
        let mine =
            |lost: &&status::Lost| lost.attempts.iter().any(|one| one.0 == *name && current.contains(one));
        if let Some(lost) = status.lost.as_ref().filter(mine)
            && let Some((_, attempt)) = current.iter().find(|one| one.0 == *name)
        {
            report.condition = Condition::Lost { attempt: *attempt, why: lost.why.clone() };
        }
        report
    }

    fn report(&self, opening: &Mutex<Opening>, plan: &str, held: Option<&Desired>) -> BridgeReport {
        let status = self.capture.borrow().clone();
        let mut findings: Vec<Finding> = status.finding.clone().into_iter().collect();
        let trouble = opening.lock().ok().and_then(|opening| opening.trouble.clone());
        findings
            .extend(trouble.or_else(|| status.trouble.clone().filter(|_| findings.is_empty()).map(waits)));
        if held.is_some_and(|held| held.plan != plan) {
            findings.push(Finding::warning(
                Code::BridgeOtherPlan,
                "the bridge runs another plan than the controller",
                "start the older of the two again: `strangler down`, `strangler up`",
            ));
        }
        BridgeReport {
            holds_nothing: status.holds_nothing,
            feeds: status
                .timeline
                .clone()
                .map(|timeline| FeedReport {
                    slot: status.slot.clone(),
                    timeline,
                    captured: status.captured,
                    lag_bytes: status.server_end.bytes_since(status.captured),
                    changes: status.changes,
                })
                .map(|report| (Database::Monolith, report))
                .into_iter()
                .collect(),
            lanes: self
                .slices
                .iter()
                .map(|(name, lane)| (LaneId::forward(name.clone()), self.stream(name, lane, &status)))
                .collect(),
            findings,
        }
    }
}
