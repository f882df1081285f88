//! The whole bridge: feeds and lanes, the agent and the port, wired by watch channels.
//!
//! The only place that starts the bridge's parts. Bounded by what it is made of: a flush in flight for each feed, a batch
//! for each lane.

use crate::expiry;
use crate::feed::Feed;
use crate::feed::retention::Reading;
use crate::feed::source::Source;
use crate::feed::status::{Attempt, Order, Status};
use crate::lane::changed::Changed;
use crate::lane::mending::Mending;
use crate::lane::plan::LanePlan;
use crate::lane::state::LaneState;
use crate::lane::{self, Ordered, loss};
use crate::port::{Port, Watched};
use crate::verify::subject::Subject;
use crate::verify::{Runs, Verifier};
use link::handover::{self, NoPlace, Offer, Successor};
use link::{Agent, Link, Told};
use migrations::code::Code;
use migrations::control::{
    AgentKind, BridgeReport, Condition, Desired, FeedReport, LaneOrder, LaneReport, Observed, Report, VERSION,
};
use migrations::finding::Finding;
use migrations::lane::{Direction, LaneId, Right};
use migrations::names::SliceName;
use migrations::plan::Plan;
use migrations::problem::Diagnostic;
use migrations::sql::Database;
use migrations::stage::Stage;
use postgres::Address;
use postgres::clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What was read is written before the bridge ends, unless it takes longer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error("the plan names no database, so there is nothing to bridge")]
    NoDatabase,
    #[error("the bridge cannot listen at {listen}")]
    Listen { listen: String, source: std::io::Error },
    #[error("the folder {folder} cannot be made")]
    Folder { folder: String, source: std::io::Error },
    #[error(transparent)]
    Url(#[from] postgres::ConnectError),
    #[error("the bridge cannot ask its controller")]
    Http(#[from] reqwest::Error),
    #[error("the bridge that runs here keeps its place")]
    Place(#[source] std::io::Error),
    #[error("a part of the bridge ended unexpectedly: {0}")]
    Ended(String),
}

impl Diagnostic for BridgeError {
    fn code(&self) -> Code {
        match self {
            BridgeError::NoDatabase => Code::PlanMissingDatabase,
            BridgeError::Listen { .. } => Code::PartListen,
            BridgeError::Url(error) => error.code(),
            BridgeError::Folder { .. }
            | BridgeError::Http(_)
            | BridgeError::Place(_)
            | BridgeError::Ended(_) => Code::PartFailed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            BridgeError::NoDatabase => "write `database:` under `monolith:`, and a slice with tables",
            BridgeError::Listen { .. } => "stop the other bridge, or change `bridge.listen` in the plan",
            BridgeError::Folder { .. } => "check the disk and the rights of its parent folder",
            BridgeError::Url(error) => return error.remedy(),
            BridgeError::Place(_) => "stop it, then start this one again",
            BridgeError::Http(_) | BridgeError::Ended(_) => "start the bridge again",
        }
        .to_owned()
    }
}

impl BridgeError {
    fn without_place(why: NoPlace, listen: &str) -> Self {
        match why {
            NoPlace::Listen(source) => BridgeError::Listen { listen: listen.to_owned(), source },
            NoPlace::Kept(source) => BridgeError::Place(source),
        }
    }
}

struct Lane {
    plan: LanePlan,
    feed: Feed,
    orders: watch::Sender<Ordered>,
    state: watch::Sender<LaneState>,
    changed: Changed,
    mending: Mending,
}

struct Bridge {
    /// The hash of the plan.
    plan: String,
    feeds: BTreeMap<Database, Feed>,
    lanes: BTreeMap<LaneId, Lane>,
    /// Told when something is to be reported at once.
    news: Arc<Notify>,
}

/// Runs the bridge until `shutdown` comes or another process takes its place. If one runs with this state folder, its place
/// is taken: its listener passes on, and its work ends before this one begins.
pub async fn serve(plan: Plan, link: Link, shutdown: impl Future<Output = ()>) -> Result<(), BridgeError> {
    let bridge = Arc::new(Bridge::of(&plan)?);
    let folder = link.state_dir.clone();
    std::fs::create_dir_all(&folder)
        .map_err(|source| BridgeError::Folder { folder: folder.display().to_string(), source })?;
    let listen = plan.bridge.listen.clone();
    let place = handover::place(&folder, &listen).await;
    let (listener, offer) = place.map_err(|why| BridgeError::without_place(why, &listen))?;
    let address = listener.local_addr().map_or(listen, |address| address.to_string());
    let address = format!("http://{address}");
    let agent = Agent::new(link.clone(), AgentKind::Bridge, rand::random())?;
    let (tell, told) = watch::channel(stored(&agent, &plan));

    let mut parts = JoinSet::new();
    let acts_on =
        |told: &Option<Told>| told.as_ref().map(|told| (told.desired.journal, told.desired.generation));
    parts.spawn(tell_of(told.clone(), bridge.news.clone(), acts_on));
    parts.spawn(pull(agent.clone(), tell));
    let (reporting, held, reporter) = (bridge.clone(), told.clone(), agent.clone());
    parts.spawn(async move {
        let observed = || {
            let held = held.borrow();
            let desired = held.as_ref().map(|told| &told.desired);
            Observed {
                version: VERSION,
                agent: reporter.id().clone(),
                address: Some(address.clone()),
                acts_on: desired.map(|desired| (desired.journal, desired.generation)),
                plan: desired.map(|desired| desired.plan.clone()).unwrap_or_default(),
                report: Report::Bridge(reporting.report(desired)),
            }
        };
        reporter.report(&reporting.news, observed).await;
    });
    let (verifier, runs) = bridge.verifier(&link);
    parts.spawn(runs.run());
    let port = bridge.port(&link, verifier);
    parts.spawn(async move {
        if let Err(why) = axum::serve(listener, port.router()).await {
            tracing::error!("the bridge's port ended: {why}");
        }
    });
    bridge.start_lanes(&mut parts);
    bridge.start_feeds(&plan, &link, &mut parts);
    parts.spawn(expiry::run(plan.monolith.database.clone(), agent, told.clone()));
    let directing = bridge.clone();
    parts.spawn(async move { directing.direct(told).await });
    tokio::select! {
        ended = parts.join_next() => Err(BridgeError::Ended(format!("{ended:?}"))),
        successor = bridge.ended(shutdown, offer) => {
            parts.shutdown().await;
            // It opens the log only now.
            drop(successor);
            Ok(())
        }
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

/// Hands every newer `desired` on, and keeps it.
async fn pull(agent: Agent, tell: watch::Sender<Option<Told>>) {
    let held = tell.borrow().clone();
    let stored = agent.stored();
    let take = |told: Told| {
        // Kept first: after a crash no older orders may be carried out.
        if tell.borrow().as_ref().is_none_or(|held| held.desired != told.desired) {
            stored.write(&told.desired);
        }
        tell.send_replace(Some(told));
        std::future::ready(Ok(()))
    };
    agent.pull(held, take).await;
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

impl Bridge {
    fn of(plan: &Plan) -> Result<Bridge, BridgeError> {
        let lanes = LanePlan::all(plan);
        let mut feeds = BTreeMap::new();
        // A service's without a lane too: an earlier plan may have left a slot there.
        for database in Database::all(plan).into_iter().chain([Database::Monolith]) {
            let source = Source::of(plan, &database).ok_or(BridgeError::NoDatabase)?;
            let name = Address::of(&source.url)?.database().to_owned();
            feeds.insert(database, Feed::new(source, name));
        }
        let lane = |plan: LanePlan| {
            let feed = feeds.get(&plan.feed)?.clone();
            let (orders, state) = (watch::Sender::new(None), watch::Sender::new(LaneState::new()));
            Some((
                plan.id.clone(),
                Lane { plan, feed, orders, state, changed: Changed::default(), mending: Mending::new() },
            ))
        };
        let lanes = lanes.into_iter().filter_map(lane).collect();
        Ok(Bridge { plan: plan.hash.clone(), feeds, lanes, news: Arc::new(Notify::new()) })
    }

    fn verifier(&self, link: &Link) -> (Arc<Verifier>, Runs) {
        let subject = |lane: &Lane| Subject {
            plan: lane.plan.clone(),
            feed: lane.feed.clone(),
            state: lane.state.subscribe(),
            orders: lane.orders.subscribe(),
            changed: lane.changed.clone(),
            mending: lane.mending.clone(),
        };
        let subjects = self.lanes.iter().map(|(id, lane)| (id.clone(), Arc::new(subject(lane))));
        Verifier::new(subjects.collect(), link.state_dir.clone())
    }

    fn port(&self, link: &Link, verifier: Arc<Verifier>) -> Port {
        let watched = self.lanes.iter().map(|(id, lane)| {
            let (feed, tables) = (lane.feed.clone(), lane.plan.sources());
            (id.clone(), Watched { feed, tables, state: lane.state.subscribe() })
        });
        Port {
            token: link.token.clone(),
            feeds: self.feeds.clone(),
            lanes: watched.collect(),
            barriers: tokio::sync::Mutex::new(None),
            verifier,
        }
    }

    fn start_lanes(&self, parts: &mut JoinSet<()>) {
        for lane in self.lanes.values() {
            let (plan, feed) = (lane.plan.clone(), lane.feed.clone());
            let (state, news, changed) = (lane.state.clone(), self.news.clone(), lane.changed.clone());
            let mending = lane.mending.clone();
            parts.spawn(lane::run(
                lane::Context { plan, feed, state, news, changed, mending },
                lane.orders.subscribe(),
            ));
        }
    }

    fn start_feeds(self: &Arc<Self>, plan: &Plan, link: &Link, parts: &mut JoinSet<()>) {
        for (database, feed) in &self.feeds {
            let trouble =
                |status: &Status| (status.finding.clone(), status.holds_nothing, status.lost.clone());
            parts.spawn(tell_of(feed.status.subscribe(), self.news.clone(), trouble));
            let (bridge, feed, database) = (self.clone(), feed.clone(), database.clone());
            let (choice, name, folder) = (plan.log.clone(), plan.name.clone(), link.state_dir.clone());
            parts.spawn(async move {
                feed.run(&choice, &name, &folder, || bridge.readers(&database)).await;
            });
        }
    }

    fn of_feed(&self, database: &Database) -> impl Iterator<Item = (&LaneId, &Lane)> {
        self.lanes.iter().filter(move |(_, lane)| lane.plan.feed == *database)
    }

    /// Waits until the bridge is to end, and closes it. The result waits for the end of this process.
    async fn ended(&self, shutdown: impl Future<Output = ()>, offer: Offer) -> Option<Successor> {
        let successor = tokio::select! {
            () = shutdown => None,
            successor = offer.taken() => Some(successor),
        };
        self.close().await;
        successor
    }

    /// Lets the feeds write what they have read, and confirm it: then the next start reads nothing twice.
    async fn close(&self) {
        for feed in self.feeds.values() {
            feed.orders.send_replace(None);
        }
        let ended = async {
            for feed in self.feeds.values() {
                let _ = feed.status.subscribe().wait_for(|status| status.tables.is_empty()).await;
            }
        };
        if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::warn!(
                "capture did not end in time; what it had in flight is read again at the next start"
            );
        }
    }

    /// Hands every newer `desired` on: to each feed which tables are wanted, to each lane its order. An order that may be
    /// outdated lets lanes go on. It removes nothing: no slot, no log, no rows of a copy.
    async fn direct(&self, mut told: watch::Receiver<Option<Told>>) {
        loop {
            let now = told.borrow_and_update().clone();
            if let Some(Told { desired, is_current }) = now.filter(|told| self.knows_all(&told.desired)) {
                for (database, feed) in &self.feeds {
                    let next = self.order(database, &desired);
                    if is_current || !next.tables.is_empty() {
                        feed.orders.send_if_modified(|held| {
                            let is_new = held.as_ref() != Some(&next);
                            *held = Some(next);
                            is_new
                        });
                    }
                }
                for (id, lane) in &self.lanes {
                    let order = desired.lanes.get(id).filter(|order| is_current || keeps_all(order));
                    lane.orders.send_replace(order.map(|order| (desired.generation, order.clone())));
                }
            }
            if told.changed().await.is_err() {
                return;
            }
        }
    }

    /// If the controller does not know a slice, its plan is another one than ours: nothing is given up.
    fn knows_all(&self, desired: &Desired) -> bool {
        let mut forward = self.lanes.keys().filter(|id| id.direction == Direction::Forward);
        forward.all(|id| desired.lanes.contains_key(id))
    }

    fn order(&self, database: &Database, desired: &Desired) -> Order {
        let lanes = self.of_feed(database).filter_map(|(id, lane)| {
            let order = desired.lanes.get(id)?;
            let tables = lane.plan.wanted(order);
            (!tables.is_empty()).then(|| ((id.clone(), order.attempt), tables))
        });
        Order::of(lanes.collect())
    }

    /// The lanes that may still need what a feed's log holds. A copy that has not begun takes the log's end when it does.
    fn readers(&self, database: &Database) -> Vec<Reading> {
        let Some(feed) = self.feeds.get(database) else { return Vec::new() };
        let mut readers = Vec::new();
        let lost = feed.status.borrow().lost.clone();
        for attempt in attempts(feed).into_iter().filter(|attempt| !lost.contains_key(attempt)) {
            let Some(lane) = self.lanes.get(&attempt.0) else { continue };
            let state = lane.state.borrow().clone();
            let is_copying =
                lane.orders.borrow().as_ref().is_some_and(|(_, order)| order.stage == Stage::Copying);
            let has_begun = matches!(state.condition, Condition::Copying { .. } | Condition::Copied { .. });
            if !is_copying || has_begun {
                let LaneState { durable, cursor, seen, .. } = state;
                readers.push(Reading { lane: attempt, durable, cursor, seen });
            }
        }
        readers
    }

    fn rows(&self) -> BTreeMap<SliceName, String> {
        let slices = self.lanes.values().map(|lane| &lane.plan.slice);
        slices.map(|slice| (slice.name.clone(), slice.mapping_hash())).collect()
    }

    fn report(&self, held: Option<&Desired>) -> BridgeReport {
        let mut findings: Vec<Finding> = self.feeds.values().flat_map(Feed::findings).collect();
        if held.is_some_and(|held| held.plan != self.plan) {
            findings.push(Finding::warning(
                Code::BridgeOtherPlan,
                "the bridge runs another plan than the controller",
                "run `strangler reload`, or start the older of the two again",
            ));
        }
        let feeds = self.feeds.iter().filter_map(|(name, feed)| Some((name.clone(), feed_report(feed)?)));
        let is_told =
            |lane: &Lane| lane.plan.id.direction == Direction::Forward || lane.orders.borrow().is_some();
        let lanes = self.lanes.iter().filter(|(_, lane)| is_told(lane));
        let lanes: BTreeMap<_, _> = lanes.map(|(id, lane)| (id.clone(), lane.report())).collect();
        let reports = lanes.iter().filter_map(|(id, report)| Some((self.lanes.get(id)?, report)));
        findings.extend(reports.flat_map(|(lane, report)| lane.findings(report)));
        BridgeReport {
            holds_nothing: self.feeds.values().all(|feed| feed.status.borrow().holds_nothing),
            feeds: feeds.collect(),
            lanes,
            rows: self.rows(),
            findings,
        }
    }
}

impl Lane {
    /// How it stands. A copy that was given up is reported here, because a lane that is stopped, paused or without its
    /// database would not report it, and the others wait until it is journalled.
    fn report(&self) -> LaneReport {
        // One lock after the other, but for the state's, whose holders take no other.
        let lost = attempts(&self.feed).into_iter().find(|one| one.0 == self.plan.id);
        let status = self.feed.status.borrow();
        let mut report = self.state.borrow().report(&status, clock::now_us());
        if let Some((attempt, why)) = lost.and_then(|one| Some((one.1, status.lost.get(&one)?))) {
            report.condition = Condition::Lost { attempt, why: why.clone() };
            (report.lag_bytes, report.lag_ms, report.lag_unknown) = (None, None, None);
        }
        report
    }

    /// What it says beside how it stands: while the service owns the slice, nothing mends these by itself.
    fn findings(&self, report: &LaneReport) -> Vec<Finding> {
        let Some((_, order)) = self.orders.borrow().clone() else { return Vec::new() };
        let state = self.state.borrow();
        let alarm = state.foreign.as_ref().filter(|_| order.right == Right::Watch);
        let alarm = alarm.map(|foreign| foreign.alarm(&self.plan));
        let lost = match &report.condition {
            Condition::Lost { why, .. } if order.stage.is_at_service() => {
                Some(loss::finding(&self.plan, why, state.passed, state.noted_us))
            }
            _ => None,
        };
        alarm.into_iter().chain(lost).collect()
    }
}

/// The lanes that a feed is asked for.
fn attempts(feed: &Feed) -> Vec<Attempt> {
    feed.orders.borrow().as_ref().map(|order| order.attempts().cloned().collect()).unwrap_or_default()
}

fn feed_report(feed: &Feed) -> Option<FeedReport> {
    let status = feed.status.borrow();
    Some(FeedReport {
        slot: status.slot.clone(),
        timeline: status.timeline.clone()?,
        captured: status.captured,
        lag_bytes: status.lag_bytes(clock::now_us()),
        changes: status.changes,
    })
}

/// Whether carrying an order out leaves what is there: giving a copy or a way back up and beginning a copy do not.
fn keeps_all(order: &LaneOrder) -> bool {
    !matches!(order.stage, Stage::Monolith | Stage::Copying) && order.right != Right::Rest
}
