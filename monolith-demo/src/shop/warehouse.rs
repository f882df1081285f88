//! The monolith's background job: it fills the shelves, advances orders, and places subscriptions.
//!
//! The job writes to the same tables as requests do, but straight to the database and past every proxy. Such a writer
//! is easily forgotten when a slice moves out. When the database refuses it, it says so and lives on.

use std::time::{Duration, Instant};

use deadpool_postgres::{Pool, Transaction};
use rand::RngExt as _;
use tokio::sync::watch;

use super::books;
use super::deal::{Deal, What};
use super::money::Cents;
use super::order::Line;
use super::refusal::Refusal;

/// How many orders advance per step and tick.
const BATCH: i64 = 4;
/// One subscription is placed every so many ticks.
const SUBSCRIPTION_TICKS: u64 = 5;
/// A stock below this is refilled.
const SHELF_MIN: i32 = 100;
/// How many pieces one filling brings.
const SHELF_FILL: i32 = 500;
/// The same trouble is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    /// How many products were refilled.
    pub filled: u64,
    pub packed: u64,
    pub shipped: u64,
    pub delivered: u64,
    pub subscriptions: u64,
}

/// Works every `interval` until `stop` becomes true. A failed tick is told, and the next one comes.
pub async fn run(pool: Pool, interval: Duration, mut stop: watch::Receiver<bool>) {
    let mut clock = tokio::time::interval(interval);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    let mut told: Option<(String, Instant)> = None;
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        count += 1;
        match tick(&pool, count.is_multiple_of(SUBSCRIPTION_TICKS)).await {
            Ok(done) => {
                told = None;
                let Tick { filled, packed, shipped, delivered, subscriptions } = done;
                if done != Tick::default() {
                    tracing::info!(filled, packed, shipped, delivered, subscriptions, "warehouse");
                }
            }
            Err(refusal) => {
                let why = refusal.in_full();
                if told.as_ref().is_none_or(|(last, at)| *last != why || at.elapsed() >= TELL_AGAIN) {
                    tracing::warn!("the warehouse could not work, and will try again: {why}");
                    told = Some((why, Instant::now()));
                }
            }
        }
    }
}

/// One round of work: each step is one transaction. The shelves need no order, so they are filled in any case.
pub async fn tick(pool: &Pool, subscribe: bool) -> Result<Tick, Refusal> {
    let mut db = pool.get().await?;
    let filled = fill(&db).await?;
    let tx = db.transaction().await?;
    let delivered = advance(&tx, "shipped", "delivered", "").await?;
    books::release_credit(&tx, &delivered).await?;
    tx.commit().await?;
    let tx = db.transaction().await?;
    let shipped = advance(&tx, "packed", "shipped", "").await?;
    books::ship_stock(&tx, &shipped).await?;
    tx.commit().await?;
    let tx = db.transaction().await?;
    let packed = advance(&tx, "placed", "packed", "[packed]").await?;
    tx.commit().await?;
    let subscriptions = if subscribe { place_subscription(&mut db).await? } else { 0 };
    let [packed, shipped, delivered] = [packed, shipped, delivered].map(|orders| orders.len() as u64);
    Ok(Tick { filled, packed, shipped, delivered, subscriptions })
}

async fn fill(db: &deadpool_postgres::Client) -> Result<u64, Refusal> {
    // Locked by number first, as the books do.
    let sql = "with low as materialized \
                 (select id from products where stock < $1 order by id for no key update) \
               update products p set stock = p.stock + $2 from low where p.id = low.id";
    Ok(db.execute(&db.prepare_cached(sql).await?, &[&SHELF_MIN, &SHELF_FILL]).await?)
}

/// Moves the oldest orders to their next status, and adds `remark` to their notes. Returns their numbers.
async fn advance(tx: &Transaction<'_>, from: &str, to: &str, remark: &str) -> Result<Vec<i64>, Refusal> {
    let sql = format!(
        "update orders set status = '{to}', version = version + 1, \
           note = case when $2 = '' then note else left(concat_ws(' ', note, $2), 500) end \
         where id in (select id from orders where status = '{from}' order by id limit $1 \
                      for update skip locked) returning id"
    );
    let rows = tx.query(&tx.prepare_cached(&sql).await?, &[&BATCH, &remark]).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// A random customer orders one piece of a random product, if credit and stock allow it.
async fn place_subscription(db: &mut deadpool_postgres::Client) -> Result<u64, Refusal> {
    let (customer, product): (f64, f64) = {
        let mut dice = rand::rng();
        (dice.random(), dice.random())
    };
    let tx = db.transaction().await?;
    let sql = "with c as (select id from customers where id >= (select (min(id) + (max(id) - min(id)) * $1::float8)::bigint \
                                                    from customers) order by id limit 1), \
                    p as (select id, price from products where id >= (select (min(id) + (max(id) - min(id)) * $2::float8)::bigint \
                                                    from products) order by id limit 1) \
               insert into orders (customer_id, note, total) \
               select c.id, 'subscription', p.price from c, p \
               returning id, customer_id, (total * 100)::bigint, (select p.id from p)";
    let Some(row) = tx.query_opt(&tx.prepare_cached(sql).await?, &[&customer, &product]).await? else {
        return Ok(0);
    };
    let order: i64 = row.try_get(0)?;
    let (customer, total, product) = (row.try_get(1)?, Cents(row.try_get(2)?), row.try_get(3)?);
    let sql = "insert into order_items (order_id, product_id, qty, price) \
               select $1, $2, 1, total from orders where id = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&order, &product]).await?;
    let what = What::Place { customer, total, pieces: vec![Line { product, qty: 1 }] };
    match books::enter(&tx, &Deal { order, what }).await {
        Ok(()) => tx.commit().await?,
        Err(Refusal::Business { .. }) => return Ok(0),
        Err(other) => return Err(other),
    }
    Ok(1)
}
