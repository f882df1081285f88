//! A run: many clients at a limited rate, counts every second, and the proof at the end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::books;
use super::cookies::Jar;
use super::customer::{Common, Customer};
use super::exchange::{Identity, Line, Outcome};
use super::incidents;
use super::ledger::Ledger;
use super::proof;
use super::report::{Counts, Report, Tally};
use crate::shop::catalogue::{Customers, Products};

/// How long the shop may take for its first answer.
const START: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
pub struct Settings {
    /// The shop's URLs. Each leads to the same shop.
    pub proxies: Vec<String>,
    pub clients: u32,
    /// Maximum requests per second, of all clients together.
    pub rate: u32,
    pub lasts: Duration,
    pub ledger: PathBuf,
    /// Where each request that did not go well is written.
    pub incidents: Option<PathBuf>,
    pub seed: u64,
    pub databases: proof::Databases,
}

/// Runs until the time is over or `stop` becomes true, then proves the ledger. `progress` is called every second.
///
/// # Errors
/// When the shop does not answer at the start, the ledger cannot be written or a database cannot be read.
/// The shop's mistakes are in the report.
pub async fn run(
    settings: &Settings,
    stop: watch::Receiver<bool>,
    progress: impl Fn(Duration, &Counts),
) -> anyhow::Result<Report> {
    let common = prepare(settings).await?;
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..settings.clients {
        let identity = if number % 2 == 0 {
            Identity::Cookies(Jar::default())
        } else {
            Identity::Header(format!("client-{number}"))
        };
        let line = Line::new(&turned(&settings.proxies, number), identity, common.tally.clone())?;
        let dice = StdRng::seed_from_u64(settings.seed.wrapping_add(u64::from(number)));
        let client = Customer::new(number, line, dice, common.clone());
        clients.spawn(live(
            client,
            pace(settings),
            delay(settings, number),
            begun + settings.lasts,
            stop.clone(),
        ));
    }
    let (rest, looking) = tokio::sync::watch::channel(false);
    let tally = common.tally.clone();
    let (monolith, orders) = (settings.databases.monolith.clone(), settings.databases.orders.clone());
    let look = tokio::spawn(async move { books::look_on(monolith, orders, &tally, looking).await });
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    clock.tick().await;
    loop {
        tokio::select! {
            _ = clock.tick() => progress(begun.elapsed(), &common.tally.counts()),
            ended = clients.join_next() => match ended {
                Some(result) => result.context("a client failed")??,
                None => break,
            },
        }
    }
    let took = begun.elapsed();
    rest.send_replace(true);
    look.await?;
    progress(took, &common.tally.counts());
    // Not under the lock: the proof waits for databases, and no client writes to the ledger any more.
    let ledger = std::mem::take(&mut *common.ledger());
    let proof = proof::prove(&settings.databases, &ledger).await?;
    Ok(Report::new(common.tally.counts(), proof, took))
}

async fn live(
    mut client: Customer,
    pace: Duration,
    delay: Duration,
    until: Instant,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let start = tokio::time::Instant::now() + delay;
    let mut clock = tokio::time::interval_at(start, pace);
    // A client does not catch up after a slow answer: the rate is a maximum.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
        if Instant::now() >= until {
            return Ok(());
        }
        client.act().await?;
    }
}

fn pace(settings: &Settings) -> Duration {
    Duration::from_secs_f64(f64::from(settings.clients.max(1)) / f64::from(settings.rate.max(1)))
}

/// Spreads the starts of the clients evenly over one pace.
fn delay(settings: &Settings, number: u32) -> Duration {
    pace(settings).mul_f64(f64::from(number) / f64::from(settings.clients.max(1)))
}

async fn prepare(settings: &Settings) -> anyhow::Result<Arc<Common>> {
    let customers: Customers = first(&settings.proxies, "/customers").await?;
    let products: Products = first(&settings.proxies, "/products").await?;
    let customers: Vec<i64> = customers.customers.iter().map(|customer| customer.id).collect();
    let products: Vec<i64> = products.products.iter().map(|product| product.id).collect();
    anyhow::ensure!(
        !customers.is_empty() && !products.is_empty(),
        "the shop is empty: start the monolith with --migrate and some --seed-customers and --seed-products"
    );
    let ledger = Mutex::new(Ledger::append_to(&settings.ledger)?);
    let incidents = settings.incidents.as_deref().map(incidents::begin).transpose()?;
    let tally = Arc::new(Tally::noting(incidents));
    Ok(Arc::new(Common { customers, products, ledger, tally }))
}

/// The addresses in the order of a client: half of the clients that stay at one stay at each of two.
fn turned(proxies: &[String], client: u32) -> Vec<String> {
    let mut own = proxies.to_vec();
    own.rotate_left(client as usize / 2 % proxies.len().max(1));
    own
}

/// Repeats the request for up to [`START`], because the shop may still be starting. These requests are not counted.
async fn first<T: DeserializeOwned>(proxies: &[String], path: &str) -> anyhow::Result<T> {
    let mut line = Line::new(proxies, Identity::Header("start".into()), Arc::new(Tally::default()))?;
    let begun = Instant::now();
    loop {
        let what = match line.send(Method::GET, path, None::<&()>).await {
            Outcome::Answer(answer) if answer.status.is_success() => {
                return serde_json::from_slice(&answer.body).with_context(|| format!("GET {path}"));
            }
            Outcome::Answer(answer) => format!("{}", answer.status),
            Outcome::Failed(what) | Outcome::Deferred(what) => what,
        };
        anyhow::ensure!(
            begun.elapsed() < START,
            "{}{path} does not answer as a shop: {what}. Is it running, and is --proxy right?",
            line.base()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
