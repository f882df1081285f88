//! What proxies and the bridge have in common, played: messages from and to controllers, which are slow, get lost, or come
//! twice and out of turn; and restarts, after which only what is on disk is known.

use super::chance::Dice;
use super::world::{Beat, Who, World};
use crate::drive;
use migrations::control::{Desired, Observed, Report};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// As the crate `link` has it.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
const REPORT_PAUSE: Duration = Duration::from_millis(5);
/// A controller that stands still answers no later.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Agent {
    world: Weak<World>,
    pub(super) name: String,
    held: Mutex<Held>,
    dice: Mutex<Option<Dice>>,
    /// What it reported last is outdated.
    pub(super) news: Notify,
    /// It acts on something newer, or is another process now.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    desired: Option<Arc<Desired>>,
    heard: Option<Instant>,
    /// It cannot reach a controller, nor the other way round.
    cut_until: Option<Instant>,
    life: u64,
}

impl Agent {
    pub(super) fn new(world: &Weak<World>, name: &str) -> Agent {
        Agent {
            world: world.clone(),
            name: name.to_owned(),
            held: Mutex::default(),
            dice: Mutex::default(),
            news: Notify::new(),
            changed: Notify::new(),
        }
    }

    pub(super) fn world(&self) -> Arc<World> {
        self.world.upgrade().unwrap()
    }

    /// What it acts on.
    pub(super) fn desired(&self) -> Option<Arc<Desired>> {
        self.held.lock().unwrap().desired.clone()
    }

    /// Which of its processes this is.
    pub(super) fn life(&self) -> u64 {
        self.held.lock().unwrap().life
    }

    /// Whether a controller took a report lately.
    pub(super) fn heard_within(&self, time: Duration) -> bool {
        self.held.lock().unwrap().heard.is_some_and(|heard| heard.elapsed() < time)
    }

    fn is_cut(&self) -> bool {
        self.held.lock().unwrap().cut_until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn roll<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        let mut dice = self.dice.lock().unwrap();
        roll(dice.get_or_insert_with(|| self.world().dice(&self.name)))
    }

    /// How long a message is under way: none if it is lost, two times if it comes twice.
    fn ways(&self) -> Vec<Duration> {
        let faults = self.world().faults();
        self.roll(|dice| {
            let mut ways = Vec::new();
            let times = 1 + usize::from(dice.hits(faults.repeat)) - usize::from(dice.hits(faults.loss));
            for _ in 0..times {
                ways.push(if dice.hits(faults.slow) { dice.ms(20..2_000) } else { dice.ms(0..4) });
            }
            ways
        })
    }

    /// A controller tells what is desired, if the agent lacks it.
    pub(super) fn call(&self, number: usize) {
        let world = self.world();
        let Some(desired) = world.desk(number).and_then(|desk| desk.desired()) else { return };
        let held = self.desired();
        if self.is_cut() || held.is_some_and(|held| !desired.replaces(&held) || desired == *held) {
            return;
        }
        let desired = Arc::new(desired);
        for way in self.ways() {
            let (world, desired, name) = (Arc::clone(&world), Arc::clone(&desired), self.name.clone());
            tokio::spawn(async move {
                world.thaw(Who::Controller(number)).await;
                world.rest(way, Beat::Message).await;
                let agent = world.agents().find(|agent| agent.name == name).unwrap();
                agent.take(desired);
            });
        }
    }

    fn take(&self, desired: Arc<Desired>) {
        let mut held = self.held.lock().unwrap();
        if held.desired.as_ref().is_some_and(|before| !desired.replaces(before) || desired == *before) {
            return;
        }
        self.world().tell(|| format!("{} acts on generation {}", self.name, desired.generation));
        held.desired = Some(desired);
        drop(held);
        self.changed.notify_waiters();
        self.news.notify_one();
    }

    /// Reports for ever, and asks for what is desired, should a call have got lost.
    pub(super) async fn talk(&self, observed: impl Fn() -> (Option<String>, Report)) {
        let world = self.world();
        loop {
            let (address, report) = observed();
            let desired = self.desired();
            let observed = Observed {
                version: migrations::control::VERSION,
                agent: migrations::control::AgentId {
                    kind: match report {
                        Report::Proxy(_) => migrations::control::AgentKind::Proxy,
                        Report::Bridge(_) => migrations::control::AgentKind::Bridge,
                    },
                    name: format!("{}-{}-x", self.name, self.life()),
                },
                address,
                acts_on: desired.as_ref().map(|desired| (desired.journal, desired.generation)),
                plan: desired.map(|desired| desired.plan.clone()).unwrap_or_default(),
                report,
            };
            let preferred = self.roll(|dice| dice.below(2));
            for number in 0..2 {
                if (world.reports_to_all || number == preferred) && !self.is_cut() {
                    self.post(&world, number, &observed);
                    self.call(number);
                }
            }
            sleep(REPORT_PAUSE).await;
            let _ = timeout(REPORT_INTERVAL, self.news.notified()).await;
        }
    }

    fn post(&self, world: &Arc<World>, number: usize, observed: &Observed) {
        for way in self.ways() {
            let (world, observed, name) = (Arc::clone(world), observed.clone(), self.name.clone());
            tokio::spawn(async move {
                world.rest(way, Beat::Message).await;
                if timeout(ANSWER_TIMEOUT, world.thaw(Who::Controller(number))).await.is_err() {
                    return;
                }
                let Some(desk) = world.desk(number) else { return };
                let report = observed.report.clone();
                desk.agents.report(observed, &desk.plan);
                desk.look_for_bridge();
                let agent = world.agents().find(|agent| agent.name == name).unwrap();
                agent.held.lock().unwrap().heard = Some(Instant::now());
                if let Report::Bridge(report) = report {
                    drive::take(&desk, &report).await;
                }
            });
        }
    }

    /// Dies now and then, or is cut off.
    pub(super) async fn suffer(&self) {
        let world = self.world();
        loop {
            sleep(Duration::from_secs(1)).await;
            let faults = world.faults();
            if self.roll(|dice| dice.hits(faults.restart)) {
                world.tell(|| format!("{} dies and starts again", self.name));
                let mut held = self.held.lock().unwrap();
                held.life += 1;
                held.heard = None;
                drop(held);
                self.changed.notify_waiters();
            }
            if self.roll(|dice| dice.hits(faults.cut)) {
                let time = self.roll(|dice| dice.ms(500..8_000));
                world.tell(|| format!("{} is cut off for {} ms", self.name, time.as_millis()));
                self.held.lock().unwrap().cut_until = Some(Instant::now() + time);
            }
        }
    }
}
