//! Killed with -9 at a random moment while the monolith is written to: each part, each database, the broker. It goes on
//! by itself, and in the end both sides are equal, row by row, with every acknowledged write there once.
//!
//! The moments are random; a failed run prints its seed, and `STRANGLER_TEST_SEED` repeats it.

// Tests fail by panicking, and print their seeds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "crash/emergency.rs"]
mod emergency;
#[path = "crash/eviction.rs"]
mod eviction;
mod folder;
#[path = "crash/house.rs"]
mod house;
#[path = "crash/luck.rs"]
mod luck;
#[path = "crash/reload.rs"]
mod reload;
#[path = "crash/shop.rs"]
mod shop;
#[path = "crash/writers.rs"]
mod writers;

use house::{House, Log};
use lab::Broker;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use shop::Clerk;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use writers::{Lookout, Writers};

const ROUNDS: usize = 3;

struct Chance {
    seed: u64,
    dice: StdRng,
}

impl Chance {
    fn new() -> Self {
        let given = std::env::var("STRANGLER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(rand::random);
        eprintln!("STRANGLER_TEST_SEED={seed}");
        Self { seed, dice: StdRng::seed_from_u64(seed) }
    }

    /// Waits until a moment that nobody foresees.
    async fn moment(&mut self, longest_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.dice.random_range(0..longest_ms))).await;
    }
}

/// Kills by `kill` again and again while writes go on. `kill` also brings back what nobody else does.
async fn goes_on(house: &House, mut kill: impl FnMut(&House, &mut Chance)) {
    let mut chance = Chance::new();
    let writers = Writers::start(&house.source, chance.seed);
    let lookout = Lookout::start(&house.sink);
    for _ in 0..ROUNDS {
        chance.moment(1500).await;
        kill(house, &mut chance);
        writers.await_caught_up(house);
    }
    chance.moment(500).await;
    writers.end(house).await;
    lookout.end().await;
    house.eventually("a bridge that follows", || {
        house.status()["slices"]["orders"]["lanes"]["forward"]["condition"]["condition"] == "following"
    });
}

fn pause(chance: &mut Chance) {
    std::thread::sleep(Duration::from_millis(chance.dice.random_range(100..800)));
}

/// Also in the middle of the first copy.
async fn goes_on_after_the_bridges_death(log: Log) {
    let house = House::new(&log);
    house.ok(&["up", "--detach"]);
    let mut chance = Chance::new();
    let writers = Writers::start(&house.source, chance.seed);
    house.ok(&["sync", "start", "orders", "--detach"]);
    chance.moment(600).await;
    house.kill("bridge");
    house.eventually("a copy in spite of it", || house.status()["slices"]["orders"]["stage"] == "following");
    writers.await_caught_up(&house);
    let lookout = Lookout::start(&house.sink);
    for _ in 0..ROUNDS {
        chance.moment(1500).await;
        house.kill("bridge");
        writers.await_caught_up(&house);
    }
    writers.end(&house).await;
    lookout.end().await;
    house.ok(&["sync", "drop", "orders", "--yes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_goes_on_over_the_embedded_log() {
    goes_on_after_the_bridges_death(Log::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_goes_on_over_kafka() {
    goes_on_after_the_bridges_death(Log::shared_kafka()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_goes_on() {
    let house = House::following(&Log::Embedded);
    house.ok(&["route", "set", "orders", "100%"]);
    goes_on(&house, |house, _| {
        house.kill("controller");
        house.eventually("a controller", || house.status()["slices"].is_object());
        let routes = house.ok(&["route", "list", "--output", "json"]);
        assert!(routes.contains(r#""route":"show""#) && routes.contains(r#""share":"service""#), "{routes}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_source_database_goes_on() {
    let house = House::following(&Log::Embedded);
    goes_on(&house, |house, chance| {
        house.source.kill();
        pause(chance);
        house.source.restart();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sink_database_goes_on() {
    let house = House::following(&Log::Embedded);
    goes_on(&house, |house, chance| {
        house.sink.kill();
        pause(chance);
        house.sink.restart();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_goes_on() {
    let mut broker = Broker::start(None).unwrap();
    let house = House::following(&Log::kafka(broker.address()));
    goes_on(&house, |_, chance| {
        broker.kill();
        pause(chance);
        broker.restart().unwrap();
    })
    .await;
}

/// Clients place orders through the proxy, and read them at once; reads are at the service.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_goes_on() {
    let mut chance = Chance::new();
    let house = shop::reading_at_the_service().await;

    let stop = Arc::new(AtomicBool::new(false));
    let clerks = (1..=3).map(|clerk| tokio::spawn(at_work(house.proxy, clerk * 1_000_000, stop.clone())));
    let clerks: Vec<_> = clerks.collect();
    for _ in 0..ROUNDS {
        chance.moment(1500).await;
        house.kill("proxy");
        house.eventually("a proxy", || std::net::TcpStream::connect(("127.0.0.1", house.proxy)).is_ok());
        chance.moment(500).await;
    }
    stop.store(true, Ordering::SeqCst);
    for clerk in clerks {
        let clerk = clerk.await.unwrap();
        assert!(clerk.acknowledged.len() > 20, "only {} orders", clerk.acknowledged.len());
        assert!(clerk.by_service > 20, "the service answered {} times", clerk.by_service);
        let here = |id: &i64| house.at_sink(&format!("SELECT hits FROM orders WHERE id = {id}"));
        house.eventually("the last order at the service", || {
            clerk.acknowledged.last().is_none_or(|id| here(id) == "1")
        });
        let placed = house.at_source("SELECT id FROM orders WHERE writer = -1 AND hits = 1");
        let placed: std::collections::BTreeSet<i64> = placed.lines().map(|id| id.parse().unwrap()).collect();
        assert!(clerk.acknowledged.iter().all(|id| placed.contains(id)), "an acknowledged order is lost");
    }
    let doubled = house.at_source("SELECT count(*) FROM orders WHERE writer = -1 AND hits > 1");
    assert_eq!(doubled, "0", "an order was sent twice");
    house.eventually("all orders at the service", || {
        let count = "SELECT count(*) FROM orders";
        house.at_source(count) == house.at_sink(count)
    });
    house.assert_equal();
}

async fn at_work(proxy: u16, first: i64, stop: Arc<AtomicBool>) -> Clerk {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let (mut clerk, mut cookies) = (Clerk::default(), String::new());
    for id in first..first + 2000 {
        // On a loaded machine barriers pass late, and the monolith answers most.
        if stop.load(Ordering::SeqCst) && clerk.acknowledged.len() > 20 && clerk.by_service > 20 {
            break;
        }
        clerk.place_and_read(proxy, &http, id, &mut cookies).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        clerk.read(proxy, &http, 1 + id % 1000, &mut cookies).await;
    }
    clerk
}
