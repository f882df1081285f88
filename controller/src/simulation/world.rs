//! A world: its clock, what goes wrong in it, and what everyone in it can reach.

use super::agent::Agent;
use super::bridge::Bridge;
use super::chance::{Dice, Faults};
use super::database::Databases;
use super::proxy::Proxy;
use super::{Blow, Course, Mutant};
use crate::desk::Desk;
use migrations::crossing::Moment;
use migrations::gate::Side;
use migrations::names::SliceName;
use migrations::plan::Plan;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// By the databases' clock a world begins then.
const BEGINNING: Moment = Moment(1_000_000);
/// For so long things go wrong.
pub(super) const FAULTS_LAST: Duration = Duration::from_secs(30);

const PLAN: &str = r#"
version: 1
name: shop
monolith: { upstream: "http://127.0.0.1:1", database: "postgres://a@b/monolith" }
services: { orders: { upstream: "http://127.0.0.1:2", database: "postgres://a@b/orders" } }
slices:
  orders: { service: orders, routes: { place: "POST /orders" }, tables: [public.orders] }
"#;

static PARSED: LazyLock<Plan> =
    LazyLock::new(|| migrations::plan::check("plan.yaml", PLAN, &|_| None).unwrap().0);

/// Who stands at an end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Controller(usize),
    Bridge,
    Person,
}

/// At which milliseconds something happens: so nothing that a database does coincides with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    Database = 0,
    Message = 1,
}

/// A controller, from outside.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// None while it is down.
    desk: Mutex<Option<Arc<Desk>>>,
    frozen_until: Mutex<Option<Instant>>,
    pub(super) crash: Notify,
    /// What it does for others dies with it.
    tasks: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) course: Course,
    pub(super) plan: Plan,
    pub(super) slice: SliceName,
    pub(super) seats: [Seat; 2],
    pub(super) bridge: Bridge,
    pub(super) proxies: [Proxy; 2],
    /// Whether agents report to all controllers, or to one of them.
    pub(super) reports_to_all: bool,
    began: Instant,
    faults: Faults,
    databases: Mutex<Databases>,
    outages: Mutex<[Option<Instant>; 2]>,
    questions: Mutex<u64>,
    told: Mutex<Vec<String>>,
}

impl World {
    pub(super) fn new(course: Course) -> Arc<World> {
        let mut dice = Dice::of(course.seed, "faults");
        let faults = if course.is_calm() { Faults::default() } else { Faults::of(&mut dice) };
        let plan = PARSED.clone();
        let slice: SliceName = "orders".parse().unwrap();
        let mut skew = || {
            let most = faults.skew as usize;
            if most == 0 { 0 } else { dice.below(2 * most) as i64 - most as i64 }
        };
        let skews = [skew(), skew()];
        let reports_to_all = course.is_calm() || dice.hits(0.5);
        Arc::new_cyclic(|world: &Weak<World>| World {
            course,
            slice: slice.clone(),
            seats: [Seat::default(), Seat::default()],
            bridge: Bridge::new(world),
            proxies: [0, 1].map(|number| Proxy::new(world, number, skews[number])),
            reports_to_all,
            began: Instant::now(),
            faults,
            databases: Mutex::new(Databases::new(slice, course.mutant)),
            outages: Mutex::default(),
            questions: Mutex::default(),
            told: Mutex::default(),
            plan,
        })
    }

    pub(super) fn dice(&self, actor: &str) -> Dice {
        Dice::of(self.course.seed, actor)
    }

    pub(super) fn is_mutant(&self, mutant: Mutant) -> bool {
        self.course.mutant == Some(mutant)
    }

    /// The time by the databases' clock.
    pub(super) fn now(&self) -> Moment {
        BEGINNING.after(self.began.elapsed())
    }

    pub(super) fn has_faults(&self) -> bool {
        self.began.elapsed() < FAULTS_LAST
    }

    pub(super) fn faults(&self) -> Faults {
        if self.has_faults() { self.faults } else { Faults::default() }
    }

    pub(super) fn databases(&self) -> MutexGuard<'_, Databases> {
        self.databases.lock().unwrap()
    }

    /// Rests at least so long, up to the next millisecond of that beat.
    pub(super) async fn rest(&self, time: Duration, beat: Beat) {
        let ms = u64::try_from((self.began.elapsed() + time).as_millis()).unwrap();
        let ms = ms + u64::from(ms % 2 != beat as u64);
        sleep_until(self.began + Duration::from_millis(ms)).await;
    }

    /// Lasts until a controller moves again.
    pub(super) async fn thaw(&self, who: Who) {
        let Who::Controller(number) = who else { return };
        loop {
            let until = *self.seats[number].frozen_until.lock().unwrap();
            let Some(until) = until.filter(|until| *until > Instant::now()) else { return };
            sleep_until(until).await;
        }
    }

    pub(super) fn freeze(&self, number: usize, time: Duration) {
        self.databases().tally.freezes += 1;
        self.tell(|| format!("controller {number} stands still for {} ms", time.as_millis()));
        *self.seats[number].frozen_until.lock().unwrap() = Some(Instant::now() + time);
    }

    pub(super) fn cut_off(&self, side: Side, time: Duration) {
        self.tell(|| format!("the {side}'s database is out of reach for {} ms", time.as_millis()));
        self.outages.lock().unwrap()[side as usize] = Some(Instant::now() + time);
    }

    pub(super) fn is_away(&self, side: Side) -> bool {
        self.outages.lock().unwrap()[side as usize].is_some_and(|until| until > Instant::now())
    }

    /// Counts a controller's question to a database. What this course wants to happen now.
    pub(super) fn counts(&self) -> Option<Blow> {
        let mut questions = self.questions.lock().unwrap();
        *questions += 1;
        self.course.blow.filter(|(at, _)| at == &*questions).map(|(_, blow)| blow)
    }

    pub(super) fn questions(&self) -> u64 {
        *self.questions.lock().unwrap()
    }

    pub(super) fn desk(&self, number: usize) -> Option<Arc<Desk>> {
        self.seats[number].desk.lock().unwrap().clone()
    }

    /// A controller is up, or down: then what it did for others is over, too.
    pub(super) fn seat(&self, number: usize, desk: Option<Arc<Desk>>) {
        let seat = &self.seats[number];
        seat.tasks.lock().unwrap().drain(..).for_each(|task| task.abort());
        *seat.desk.lock().unwrap() = desk;
    }

    /// A controller does something for someone else.
    pub(super) fn serve(&self, number: usize, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.seats[number].tasks.lock().unwrap();
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(work).abort_handle());
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.course.is_told {
            let at = self.began.elapsed().as_secs_f64();
            self.told.lock().unwrap().push(format!("{at:7.3} s  {}", what()));
        }
    }

    pub(super) fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

impl World {
    pub(super) fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.proxies.iter().map(|proxy| &proxy.agent).chain(std::iter::once(&self.bridge.agent))
    }
}
