//! The monolith's background job: it advances orders, keeps the stock, and places subscriptions.
//!
//! The job writes to the same tables as requests do, but straight to the database and past every proxy. Such a writer
//! is easily forgotten when a slice moves out.

use std::time::Duration;

use deadpool_postgres::Pool;
use rand::RngExt as _;
use tokio::sync::watch;

use super::refusal::Refusal;

/// How many orders advance per step and tick.
const BATCH: i64 = 4;
/// One subscription is placed every so many ticks.
const SUBSCRIPTION_TICKS: u64 = 5;
/// A stock below this is refilled.
const SHELF_MIN: i32 = 100;
/// How many pieces one filling brings.
const SHELF_FILL: i32 = 500;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick {
    pub packed: u64,
    pub shipped: u64,
    pub delivered: u64,
    pub subscriptions: u64,
}

/// Works every `interval` until `stop` becomes true. A failed tick is logged.
pub async fn run(pool: Pool, interval: Duration, mut stop: watch::Receiver<bool>) {
    let mut clock = tokio::time::interval(interval);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        count += 1;
        match tick(&pool, count.is_multiple_of(SUBSCRIPTION_TICKS)).await {
            Ok(done) if done == Tick::default() => {}
            Ok(Tick { packed, shipped, delivered, subscriptions }) => {
                tracing::info!(packed, shipped, delivered, subscriptions, "warehouse");
            }
            Err(error) => tracing::warn!(error = ?error, "the warehouse failed and will try again"),
        }
    }
}

/// One round of work: each step is one transaction.
pub async fn tick(pool: &Pool, subscribe: bool) -> Result<Tick, Refusal> {
    let mut db = pool.get().await?;
    let delivered = advance(&db, "shipped", "delivered", "").await?;
    let tx = db.transaction().await?;
    let sql = "update orders set status = 'shipped', version = version + 1 where id in \
               (select id from orders where status = 'packed' order by id limit $1 for update skip locked) \
               returning id";
    let rows = tx.query(&tx.prepare_cached(sql).await?, &[&BATCH]).await?;
    let shipped: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    // Stock never becomes negative. Low stock is refilled by the same statement.
    let sql = "update products p set stock = case when p.stock - s.qty < $2 \
                 then greatest(p.stock - s.qty, 0) + $3 else p.stock - s.qty end \
               from (select product_id, sum(qty)::int as qty from order_items \
                      where order_id = any($1) group by product_id) s where p.id = s.product_id";
    tx.execute(&tx.prepare_cached(sql).await?, &[&shipped, &SHELF_MIN, &SHELF_FILL]).await?;
    tx.commit().await?;
    let packed = advance(&db, "placed", "packed", "[packed]").await?;
    let subscriptions = if subscribe { place_subscription(&mut db).await? } else { 0 };
    Ok(Tick { packed, shipped: shipped.len() as u64, delivered, subscriptions })
}

/// Moves the oldest orders to their next status, and adds `remark` to their notes.
async fn advance(db: &deadpool_postgres::Client, from: &str, to: &str, remark: &str) -> Result<u64, Refusal> {
    let sql = format!(
        "update orders set status = '{to}', version = version + 1, \
           note = case when $2 = '' then note else left(concat_ws(' ', note, $2), 500) end \
         where id in (select id from orders where status = '{from}' order by id limit $1 \
                      for update skip locked)"
    );
    Ok(db.execute(&db.prepare_cached(&sql).await?, &[&BATCH, &remark]).await?)
}

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
               select c.id, 'subscription', p.price from c, p returning id, \
                 (select p.id from p) as product";
    let Some(row) = tx.query_opt(&tx.prepare_cached(sql).await?, &[&customer, &product]).await? else {
        return Ok(0);
    };
    let (order, product): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let sql = "insert into order_items (order_id, product_id, qty, price) \
               select $1, $2, 1, total from orders where id = $1";
    tx.execute(&tx.prepare_cached(sql).await?, &[&order, &product]).await?;
    tx.commit().await?;
    Ok(1)
}
