//! The monolith's users: a few writers that commit without a pause, and remember what was acknowledged.
//!
//! Each writer has orders of its own, so that it knows what its rows must be. A commit whose answer was lost is looked
//! up when the database is back: its tally row tells.

use lab::Cluster;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::folder::PATIENCE;
use super::house::House;

pub const WRITERS: usize = 2;
/// Nobody writes more than this, however long a test takes.
const TRANSACTIONS_MAX: i64 = 20_000;
const PAUSE: Duration = Duration::from_millis(4);
const RETRY: Duration = Duration::from_millis(100);
/// One transaction in a hundred places so many orders at once.
const BULK: i64 = 400;
/// The first order of writer n is n times this.
const SPAN: i64 = 1_000_000_000;

/// They write until [`Writers::end`].
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: [Arc<AtomicI64>; WRITERS],
    running: Vec<JoinHandle<Ledger>>,
}

impl Writers {
    pub fn start(source: &Cluster, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged: [Arc<AtomicI64>; WRITERS] = Default::default();
        let running = acknowledged.iter().zip(1u32..).map(|(acknowledged, writer)| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            let url = source.url("app", "shop");
            let dice = StdRng::seed_from_u64(seed.wrapping_add(u64::from(writer)));
            let ledger = Ledger { writer: i64::from(writer), ..Ledger::default() };
            tokio::spawn(async move { write(&url, ledger, dice, &stop, &acknowledged).await })
        });
        let running = running.collect();
        Self { stop, acknowledged, running }
    }

    /// Waits until the service's database has everything that is acknowledged by now.
    pub fn await_caught_up(&self, house: &House) {
        let until: Vec<i64> = self.acknowledged.iter().map(|seq| seq.load(Ordering::SeqCst)).collect();
        house.eventually(&format!("transactions {until:?} at the sink"), || {
            let tallies = house.at_sink("SELECT seq FROM tallies ORDER BY writer");
            let passed: Vec<i64> = tallies.lines().filter_map(|line| line.parse().ok()).collect();
            passed.len() == until.len() && passed.iter().zip(&until).all(|(passed, until)| passed >= until)
        });
    }

    /// Stops them, waits until the sink has it all, and compares: the sides with each other, and both with what each
    /// writer was promised.
    pub async fn end(mut self, house: &House) {
        self.stop.store(true, Ordering::SeqCst);
        let mut ledgers = Vec::new();
        for running in self.running.drain(..) {
            ledgers.push(running.await.unwrap());
        }
        self.await_caught_up(house);
        house.assert_equal();
        for ledger in ledgers {
            assert!(ledger.seq > 50, "writer {} came to {} transactions only", ledger.writer, ledger.seq);
            ledger.assert_kept(house);
        }
    }
}

#[derive(Default)]
struct Ledger {
    writer: i64,
    /// Its committed transactions are numbered without gaps.
    seq: i64,
    /// The last number it gave to an order.
    placed: i64,
    orders: BTreeMap<i64, Order>,
}

#[derive(Clone, PartialEq, Debug)]
struct Order {
    hits: i64,
    note: String,
    items: BTreeMap<i64, i64>,
}

impl Ledger {
    fn next_id(&mut self) -> i64 {
        self.placed += 1;
        self.writer * SPAN + self.placed
    }

    fn some_order(&self, dice: &mut StdRng) -> Option<i64> {
        let from = self.writer * SPAN + dice.random_range(0..=self.placed);
        self.orders.range(from..).next().map(|(id, _)| *id)
    }

    /// Changes the ledger as the transaction shall change the database, and writes its SQL.
    fn next(&mut self, dice: &mut StdRng) -> String {
        self.seq += 1;
        let mut sql = String::from("BEGIN;");
        for _ in 0..dice.random_range(1..=4) {
            self.step(dice, &mut sql);
        }
        let (writer, seq) = (self.writer, self.seq);
        let (orders, hits) = (self.orders.len(), self.orders.values().map(|order| order.hits).sum::<i64>());
        write!(
            sql,
            "INSERT INTO stamps VALUES ({writer}, {seq});
             INSERT INTO tallies VALUES ({writer}, {seq}, {orders}, {hits}) ON CONFLICT (writer)
             DO UPDATE SET (seq, orders, hits) = ({seq}, {orders}, {hits}); COMMIT"
        )
        .unwrap();
        sql
    }

    fn step(&mut self, dice: &mut StdRng, sql: &mut String) {
        let writer = self.writer;
        let chosen = self.some_order(dice);
        match (dice.random_range(0..200), chosen) {
            (0, _) => {
                let first = self.next_id();
                self.placed += BULK - 1;
                let last = self.writer * SPAN + self.placed;
                let order = Order { hits: 1, note: "bulk".to_owned(), items: BTreeMap::new() };
                self.orders.extend((first..=last).map(|id| (id, order.clone())));
                write!(
                    sql,
                    "INSERT INTO orders SELECT g, {writer}, 1, 'bulk' FROM generate_series({first}, {last}) g;"
                )
                .unwrap();
            }
            (1..=90, Some(id)) => {
                let Some(order) = self.orders.get_mut(&id) else { return };
                order.hits += 1;
                order.note = format!("hit by {}", self.seq);
                // Relative, so that a change that is applied twice shows.
                write!(sql, "UPDATE orders SET hits = hits + 1, note = '{}' WHERE id = {id};", order.note)
                    .unwrap();
                if let Some((line, qty)) = order.items.iter_mut().next() {
                    *qty += 1;
                    write!(
                        sql,
                        "UPDATE order_items SET qty = qty + 1 WHERE order_id = {id} AND line = {line};"
                    )
                    .unwrap();
                }
            }
            (91..=110, Some(id)) => {
                self.orders.remove(&id);
                write!(sql, "DELETE FROM orders WHERE id = {id};").unwrap();
            }
            // Another number for an order, which only one without items may have.
            (111..=120, Some(id)) if self.orders[&id].items.is_empty() => {
                let (next, order) = (self.next_id(), self.orders.remove(&id));
                self.orders.extend(order.map(|order| (next, order)));
                write!(sql, "UPDATE orders SET id = {next} WHERE id = {id};").unwrap();
            }
            _ => {
                let id = self.next_id();
                let items: BTreeMap<i64, i64> =
                    (1..=dice.random_range(0..4)).map(|line| (line, line * 2)).collect();
                write!(sql, "INSERT INTO orders VALUES ({id}, {writer}, 0, 'new');").unwrap();
                for (line, qty) in &items {
                    write!(sql, "INSERT INTO order_items VALUES ({id}, {line}, {qty});").unwrap();
                }
                self.orders.insert(id, Order { hits: 0, note: "new".to_owned(), items });
            }
        }
    }

    /// The service's database has each acknowledged write, once.
    fn assert_kept(&self, house: &House) {
        let writer = self.writer;
        let rows = |sql: &str| house.at_sink(sql);
        let stamps = rows(&format!("SELECT count(*), max(seq) FROM stamps WHERE writer = {writer}"));
        assert_eq!(stamps, format!("{0}|{0}", self.seq), "writer {writer}'s transactions");
        let orders =
            rows(&format!("SELECT id, hits, remark FROM orders WHERE writer = {writer} ORDER BY id"));
        let promised = self.orders.iter().map(|(id, order)| format!("{id}|{}|{}", order.hits, order.note));
        assert_same(&format!("writer {writer}'s orders"), &orders, promised);
        let (from, to) = (writer * SPAN, (writer + 1) * SPAN);
        let items = rows(&format!(
            "SELECT order_id, line, quantity FROM items WHERE order_id > {from} AND order_id < {to} ORDER BY 1, 2"
        ));
        let promised = self
            .orders
            .iter()
            .flat_map(|(id, order)| order.items.iter().map(move |(line, qty)| format!("{id}|{line}|{qty}")));
        assert_same(&format!("writer {writer}'s items"), &items, promised);
    }
}

fn assert_same(what: &str, found: &str, promised: impl Iterator<Item = String>) {
    let promised: Vec<String> = promised.collect();
    let found: Vec<&str> = found.lines().collect();
    let differ = found.iter().zip(&promised).find(|(found, promised)| found != promised);
    assert!(
        differ.is_none() && found.len() == promised.len(),
        "{what}: {} of {}, {differ:?}",
        found.len(),
        promised.len()
    );
}

async fn write(
    url: &str,
    mut ledger: Ledger,
    mut dice: StdRng,
    stop: &AtomicBool,
    acknowledged: &AtomicI64,
) -> Ledger {
    let mut client = connected(url).await;
    while !stop.load(Ordering::SeqCst) && ledger.seq < TRANSACTIONS_MAX {
        let (orders, placed) = (ledger.orders.clone(), ledger.placed);
        let sql = ledger.next(&mut dice);
        if let Err(error) = client.batch_execute(&sql).await {
            assert!(!is_a_mistake(&error), "writer {} is refused: {error:?}\n{sql}", ledger.writer);
            // The answer is lost; whether it was committed is asked when the database is back.
            client = connected(url).await;
            if !is_committed(&mut client, url, &ledger).await {
                (ledger.orders, ledger.placed, ledger.seq) = (orders, placed, ledger.seq - 1);
            }
        }
        acknowledged.store(ledger.seq, Ordering::SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
    ledger
}

/// Anything but a server that is down, goes down or comes up: constraint errors, refusals by a gate.
fn is_a_mistake(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| !code.code().starts_with("57P"))
}

async fn is_committed(client: &mut Client, url: &str, ledger: &Ledger) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        let asked =
            client.query_opt("SELECT seq FROM tallies WHERE writer = $1", &[&(ledger.writer as i32)]).await;
        match asked {
            Ok(row) => return row.is_some_and(|row| row.get::<_, i64>(0) == ledger.seq),
            Err(error) => assert!(Instant::now() < until, "the source does not answer: {error}"),
        }
        tokio::time::sleep(RETRY).await;
        *client = connected(url).await;
    }
}

async fn connected(url: &str) -> Client {
    let until = Instant::now() + PATIENCE;
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return client;
            }
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Looks at the service's database all the time: at every instant it is a prefix of each writer's transactions.
pub struct Lookout {
    stop: Arc<AtomicBool>,
    running: JoinHandle<u32>,
}

impl Lookout {
    pub fn start(sink: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, url) = (stop.clone(), sink.url("app", "orders"));
        let running = tokio::spawn(async move {
            let mut looks = 0;
            let mut client = connected(&url).await;
            while !stopped.load(Ordering::SeqCst) {
                match client.query(PREFIX, &[]).await {
                    Ok(rows) => {
                        let broken: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                        assert!(broken.is_empty(), "the sink is no prefix of the source: {broken:?}");
                        looks += 1;
                    }
                    Err(_) => client = connected(&url).await,
                }
                tokio::time::sleep(RETRY).await;
            }
            looks
        });
        Self { stop, running }
    }

    /// Fails if it ever saw what was no prefix.
    pub async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let looks = self.running.await.unwrap();
        assert!(looks > 5, "it could look {looks} times only");
    }
}

/// Every tally that does not agree with the rows beside it.
const PREFIX: &str = "
    SELECT format('%s: stamps %s, orders %s, hits %s', t, s.stamps, o.orders, o.hits) FROM tallies t,
        LATERAL (SELECT count(*) stamps, max(seq) seq FROM stamps WHERE writer = t.writer) s,
        LATERAL (SELECT count(*) orders, coalesce(sum(hits), 0) hits FROM orders WHERE writer = t.writer) o
    WHERE (t.seq, t.seq, t.orders, t.hits) IS DISTINCT FROM (s.stamps, s.seq, o.orders, o.hits)";
