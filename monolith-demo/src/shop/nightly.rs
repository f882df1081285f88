//! The shop's nightly job: it cancels orders that nobody paid, straight in the monolith's database.
//!
//! Like the warehouse it goes past every proxy. It is a program of its own, as such jobs often are.

use std::time::Duration;

use deadpool_postgres::Pool;

use super::books;
use super::refusal::Refusal;

/// The most orders of one round.
const BATCH: i64 = 50;
/// How long answered calls to the books are remembered. No saga lives so long, unless a person forgot it.
const CALLS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Cancels placed orders that are older than `age` and unpaid, and gives back their credit and stock.
///
/// # Errors
/// When the database refuses; then nothing is changed. [`Refusal::in_full`] has its words.
pub async fn expire(pool: &Pool, age: Duration) -> Result<usize, Refusal> {
    let mut db = pool.get().await?;
    let tx = db.transaction().await?;
    let sql = "select id from orders \
               where status = 'placed' and placed_at < now() - make_interval(secs => $1) \
                 and not exists (select from payments p where p.order_id = orders.id) \
               order by id limit $2 for update skip locked";
    let rows = tx.query(&tx.prepare_cached(sql).await?, &[&age.as_secs_f64(), &BATCH]).await?;
    let old: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    // Asked again under the locks: a payment may have been committed in between.
    let sql = "update orders set status = 'cancelled', version = version + 1 \
               where id = any($1) and status = 'placed' \
                 and not exists (select from payments p where p.order_id = orders.id) returning id";
    let rows = tx.query(&tx.prepare_cached(sql).await?, &[&old]).await?;
    let expired: Vec<i64> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    books::release_stock(&tx, &expired).await?;
    books::release_credit(&tx, &expired).await?;
    tx.commit().await?;
    Ok(expired.len())
}

/// Forgets answered calls to the books after a long time.
pub async fn forget_calls(pool: &Pool) -> Result<u64, Refusal> {
    let db = pool.get().await?;
    let sql = "delete from calls where at < now() - make_interval(secs => $1)";
    Ok(db.execute(&db.prepare_cached(sql).await?, &[&CALLS_KEPT.as_secs_f64()]).await?)
}
