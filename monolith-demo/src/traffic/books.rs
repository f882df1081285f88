//! Credit and stock, as the databases have them: nothing exceeded or negative at any moment, every saga ended, and the
//! monolith's books equal to the orders, whichever side owns the orders.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_postgres::Client;

use super::report::{Proof, Tally, keep_sample};
use super::tables::{MONOLITH_OPEN, ORDERS_OPEN, Open};
use crate::shop::database::connect;

/// The pause between two looks at a running shop.
const LOOK: Duration = Duration::from_secs(1);
/// The longest look. A database that is down is looked at again later.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// The pause between two looks for the end of all sagas, or for equal books.
const PAUSE: Duration = Duration::from_millis(100);

const STOCK_NEGATIVE: &str = "select count(*) from products where stock < 0";
const BOOKS_EXCEEDED: &str = "select count(*) from \
    (select customer_id from credit_held h group by customer_id having sum(cents) > \
      (select (credit_limit * 100)::bigint from customers c where c.id = h.customer_id)) too_much";

/// Looks at both databases every second until `stop` becomes true. What it sees is counted in `tally`.
pub async fn look_on(
    monolith: String,
    orders: Option<String>,
    tally: &Tally,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        match tokio::time::timeout(LOOK_LIMIT, look(&monolith, orders.as_deref())).await {
            Ok(Ok((exceeded, negative))) => tally.looked(exceeded, negative),
            Ok(Err(error)) => tracing::debug!(error = ?error, "a look at the databases failed"),
            Err(_) => tracing::debug!("a look at the databases took too long"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// How many customers exceed their credit, by the books or by their orders, and how many stocks are negative.
async fn look(monolith: &str, orders: Option<&str>) -> anyhow::Result<(u64, u64)> {
    let db = connect(monolith, "shop-watch").await?;
    let mut exceeded = count(&db, BOOKS_EXCEEDED).await? + count(&db, MONOLITH_OPEN.exceeded).await?;
    let negative = count(&db, STOCK_NEGATIVE).await?;
    if let Some(url) = orders {
        exceeded += count(&connect(url, "shop-watch").await?, ORDERS_OPEN.exceeded).await?;
    }
    Ok((exceeded, negative))
}

/// Waits for the end of all sagas, and counts those that have not ended.
pub async fn find_open_sagas(proof: &mut Proof, orders: &Client, deadline: Instant) -> anyhow::Result<()> {
    let sql = "select id::text, order_id, state, trouble from saga where ended_at is null order by begun_at";
    loop {
        let rows = orders.query(sql, &[]).await.context("could not read the service's sagas")?;
        if rows.is_empty() || Instant::now() >= deadline {
            proof.sagas_open = rows.len() as u64;
            for row in &rows {
                let (id, order): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
                let (state, trouble): (String, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
                keep_sample(&mut proof.proof_samples, || {
                    format!(
                        "open: saga {id} of order {order} in state {state}: {}",
                        trouble.unwrap_or_default()
                    )
                });
            }
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until the books are what the open orders of their owner need, and counts what is different. Orders that are
/// still pending count as open sagas.
pub async fn compare(
    proof: &mut Proof,
    monolith: &Client,
    owner: (&Client, &Open),
    deadline: Instant,
) -> anyhow::Result<()> {
    let books = [
        "select order_id, customer_id, cents from credit_held",
        "select order_id, product_id, qty::bigint from stock_held",
    ];
    let (owner, open) = owner;
    loop {
        let mut wrong = Vec::new();
        for (name, needed, entered) in [("credit", open.credit, books[0]), ("stock", open.stock, books[1])] {
            let (needed, entered) = (entries(owner, needed).await?, entries(monolith, entered).await?);
            wrong.extend(needed.difference(&entered).map(|entry| (name, "not in the books", *entry)));
            wrong.extend(entered.difference(&needed).map(|entry| (name, "without an order", *entry)));
        }
        let pending = count(owner, open.pending).await?;
        if (wrong.is_empty() && pending == 0) || Instant::now() >= deadline {
            proof.sagas_open += pending;
            proof.books_differ = wrong.len() as u64;
            for (name, how, (order, of, amount)) in wrong {
                keep_sample(&mut proof.proof_samples, || {
                    format!("books: {name} of order {order} ({of}: {amount}) is {how}")
                });
            }
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

type Entry = (i64, i64, i64);

async fn entries(db: &Client, sql: &str) -> anyhow::Result<BTreeSet<Entry>> {
    let rows = db.query(sql, &[]).await.context("could not read the books")?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

async fn count(db: &Client, sql: &str) -> anyhow::Result<u64> {
    let count: i64 = db.query_one(sql, &[]).await?.try_get(0)?;
    Ok(u64::try_from(count)?)
}
