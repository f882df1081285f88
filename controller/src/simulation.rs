//! The simulation: two controllers, two proxies, a bridge, two databases, clients and people, in a time of its own. One
//! seed is one world, in which everything that may go wrong goes wrong at random: controllers die after any step or
//! stand still for longer than their lease, questions and answers get lost, messages are late, doubled or out of turn.
//!
//! Desk, coordinator, lease, agents' reports and everything that they ask of `migrations` are the product's own. Databases,
//! network, agents and clock are played. What must hold in each state, and at the end, is in `database.rs`.

mod agent;
mod bridge;
mod chance;
mod connection;
mod controller;
mod database;
mod lane;
mod people;
mod proxy;
mod tally;
mod world;

pub(crate) use connection::Connection;

use migrations::lane::Direction;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tally::Tally;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use world::World;

/// How often a world is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// So long after the last fault everything must be settled, and stay so.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
const STAYS_SETTLED: Duration = Duration::from_secs(2);

/// What is broken on purpose. The product has none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mutant {
    /// Gates take any epoch.
    NoEpoch,
    /// Everyone gets the lease, and the journal takes any entry.
    NoLeaseNoCompareAndSwap,
    /// The fence does not wait for writers.
    NoBarrier,
    /// A lane applies what the other lane wrote.
    NoDirection,
    /// A proxy holds writes until it hears otherwise.
    EndlessHold,
    /// A proxy sends a write again whose answer was lost.
    SendsTwice,
}

/// What happens to a controller whose question a database has just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Dies,
    /// For longer than its lease. The answer waits for it.
    StandsStill,
    LosesTheAnswer,
}

/// What decides everything that happens in a world.
#[derive(Debug, Clone, Copy)]
struct Course {
    seed: u64,
    mutant: Option<Mutant>,
    /// Nothing goes wrong but this, at one of the controllers' questions to databases.
    blow: Option<(u64, Blow)>,
    is_told: bool,
}

impl Course {
    fn of(seed: u64) -> Course {
        Course { seed, mutant: None, blow: None, is_told: false }
    }

    /// Whether nothing goes wrong at random.
    fn is_calm(self) -> bool {
        self.blow.is_some() || self.seed.is_multiple_of(8)
    }
}

/// What became of a world.
struct Ending {
    broken: Option<String>,
    tally: Tally,
    questions: u64,
    told: Vec<String>,
}

fn live(course: Course) -> Ending {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let world = World::new(course);
        let broken = watch(&world).await;
        let tally = world.databases().tally;
        Ending { broken, tally, questions: world.questions(), told: world.told() }
    })
}

/// What must never be, or nothing if the world comes to a good end.
async fn watch(world: &Arc<World>) -> Option<String> {
    let mut house = JoinSet::new();
    for number in 0..2 {
        house.spawn(controller::run(Arc::clone(world), number));
    }
    for number in 0..3 {
        let world = Arc::clone(world);
        house.spawn(async move { world.agents().nth(number).unwrap().suffer().await });
    }
    for number in 0..2 {
        let world = Arc::clone(world);
        house.spawn(async move {
            let proxy = &world.proxies[number];
            proxy.agent.talk(|| proxy.observed()).await;
        });
    }
    let bridge = Arc::clone(world);
    house.spawn(async move { bridge.bridge.agent.talk(|| bridge.bridge.observed()).await });
    let bridge = Arc::clone(world);
    house.spawn(async move { bridge.bridge.expire().await });
    for direction in [Direction::Forward, Direction::Reverse] {
        let world = Arc::clone(world);
        house.spawn(async move { world.bridge.lane(direction).await });
    }
    let mut users = JoinSet::new();
    users.spawn(people::write(Arc::clone(world)));
    users.spawn(people::wish(Arc::clone(world)));
    users.spawn(people::outages(Arc::clone(world)));
    let ending = async {
        while world.has_faults() {
            sleep(LOOK).await;
            if let Some(broken) = world.databases().broken.clone() {
                return Some(broken);
            }
        }
        users.shutdown().await;
        world.tell(|| "nothing goes wrong any more, and nobody wishes anything".to_owned());
        let failed = world.databases().tally.failed;
        if failed > 0 && world.course.is_calm() && world.course.blow.is_none() {
            return Some(format!("{failed} writes failed, and nothing went wrong"));
        }
        settles(world).await
    };
    tokio::select! {
        biased;
        // All of them run for ever.
        ended = house.join_next() => Some(format!("a played part broke: {ended:?}")),
        broken = ending => broken,
    }
}

async fn settles(world: &World) -> Option<String> {
    let end = Instant::now() + SETTLED_WITHIN;
    let mut settled: Option<Instant> = None;
    loop {
        sleep(LOOK).await;
        if let Some(broken) = world.databases().broken.clone() {
            return Some(broken);
        }
        let unsettled = world.databases().unsettled();
        let unsettled = unsettled.or_else(|| {
            let behind = world.proxies.iter().position(|proxy| !proxy.is_settled())?;
            Some(format!("proxy {behind} holds writes, or acts on an old table"))
        });
        let now = Instant::now();
        match unsettled {
            None if now.duration_since(*settled.get_or_insert(now)) >= STAYS_SETTLED => return None,
            None => {}
            Some(why) if now >= end => return Some(format!("I3: it does not settle: {why}")),
            Some(_) => settled = None,
        }
    }
}

/// A number from the environment.
fn given(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|value| value.parse().ok())
}

const SEEDS: u64 = 1_000;
/// Names the one world that is to be lived, and how many there are to be otherwise.
const SEED: &str = "STRANGLER_TEST_SEED";
const WORLDS: &str = "STRANGLER_TEST_SEEDS";
/// Of what happened before a bad end.
const LINES_SHOWN: usize = 400;

/// What happened last, and how to see it again.
fn failed(course: Course, ending: &Ending) -> String {
    let told = live(Course { is_told: true, ..course }).told;
    // One world that was asked for is told from its beginning.
    let shown = if given(SEED).is_some() { told.len() } else { LINES_SHOWN };
    let last = told[told.len().saturating_sub(shown)..].join("\n");
    let (seed, broken) = (course.seed, ending.broken.as_deref().unwrap_or_default());
    match (course.blow, course.mutant) {
        (None, None) => {
            format!("{last}\nseed {seed}: {broken}\nagain: cargo xtask simulate --seed {seed}")
        }
        (blow, mutant) => format!("{last}\nseed {seed} with {blow:?}, {mutant:?}: {broken}"),
    }
}

/// Lives all worlds of these seeds, on every core. The first that comes to a bad end is returned.
fn first_broken(courses: &[Course]) -> (Vec<Tally>, Option<(Course, Ending)>) {
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found = std::sync::Mutex::new((Vec::new(), None));
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let at = usize::try_from(next.fetch_add(1, SeqCst)).unwrap();
                    let Some(course) = courses.get(at) else { return };
                    let ending = live(*course);
                    let mut found = found.lock().unwrap();
                    found.0.push(ending.tally);
                    if ending.broken.is_some() {
                        found.1.get_or_insert((*course, ending));
                        next.store(u64::MAX / 2, SeqCst);
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn no_world_comes_to_a_bad_end() {
    let seeds: Vec<u64> = match given(SEED) {
        Some(seed) => vec![seed],
        None => (0..given(WORLDS).unwrap_or(SEEDS)).collect(),
    };
    let courses: Vec<Course> = seeds.into_iter().map(Course::of).collect();
    let (tallies, broken) = first_broken(&courses);
    if let Some((course, ending)) = broken {
        panic!("{}", failed(course, &ending));
    }
    let tally = Tally::of_all(&tallies);
    println!("{} worlds: {tally:?}", courses.len());
    if courses.len() >= 100 {
        assert!(tally.has_everything(), "some of it never happened: {tally:?}");
    }
}

/// One of the calm worlds in which writes go over and back more than once is lived again and again, with the blow at
/// another step of a controller.
fn bears_at_every_step(which: usize, blow: Blow) {
    let calm = (0..SEEDS).step_by(8).map(|seed| (seed, live(Course::of(seed))));
    let mut lively = calm.filter(|(_, calm)| calm.tally.committed > 1 && calm.tally.rolled_back > 1);
    let (seed, calm) = lively.nth(which).unwrap();
    let after = |question| Course { blow: Some((question, blow)), ..Course::of(seed) };
    let courses: Vec<Course> = (1..=calm.questions).map(after).collect();
    if let (_, Some((course, ending))) = first_broken(&courses) {
        panic!("{}", failed(course, &ending));
    }
}

#[test]
fn a_controller_may_die_after_every_single_step() {
    bears_at_every_step(0, Blow::Dies);
}

#[test]
fn a_controller_may_stand_still_after_every_single_step() {
    bears_at_every_step(1, Blow::StandsStill);
}

#[test]
fn the_answer_to_every_single_step_may_be_lost() {
    bears_at_every_step(2, Blow::LosesTheAnswer);
}

#[test]
fn one_seed_is_one_world() {
    for seed in 1..48 {
        let told = || live(Course { is_told: true, ..Course::of(seed) }).told;
        let (first, second) = (told(), told());
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert_eq!(differs.map(|at| (&first[at], &second[at])), None, "seed {seed}");
        assert!(first.len() == second.len() && first.len() > 100, "seed {seed}");
    }
}

/// In some world the mutant breaks one of these invariants.
fn caught(mutant: Mutant, invariants: &[&str]) {
    let courses: Vec<Course> =
        (1..SEEDS).map(|seed| Course { mutant: Some(mutant), ..Course::of(seed) }).collect();
    let (tallies, broken) = first_broken(&courses);
    let Some((course, ending)) = broken else { panic!("{mutant:?} was not noticed in {SEEDS} worlds") };
    let what = ending.broken.as_deref().unwrap_or_default();
    assert!(invariants.iter().any(|one| what.starts_with(one)), "{}", failed(course, &ending));
    println!("{mutant:?} is caught by world {} of {}: {what}", course.seed, tallies.len());
}

#[test]
fn mutant_gates_without_epoch_are_caught() {
    caught(Mutant::NoEpoch, &["I1", "I6"]);
}

#[test]
fn mutant_lease_and_compare_and_swap_ignored_are_caught() {
    // What two coordinators write over each other is no journal any more, so nobody can go on.
    caught(Mutant::NoLeaseNoCompareAndSwap, &["I1", "I2", "I3", "I6"]);
}

#[test]
fn mutant_fence_that_waits_for_no_writer_is_caught() {
    caught(Mutant::NoBarrier, &["I2"]);
}

#[test]
fn mutant_lane_that_ignores_direction_is_caught() {
    caught(Mutant::NoDirection, &["I7"]);
}

#[test]
fn mutant_hold_that_is_not_released_is_caught() {
    caught(Mutant::EndlessHold, &["I5"]);
}

#[test]
fn mutant_proxy_that_sends_a_write_twice_is_caught() {
    caught(Mutant::SendsTwice, &["I4"]);
}
