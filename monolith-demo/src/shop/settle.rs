//! The end of a pending order: placed or refused.

use deadpool_postgres::Transaction;

use super::order::Status;
use super::refusal::Refusal;
use super::side::Side;

/// Settles a pending order. An order that was settled before stays as it is.
///
/// # Errors
/// [`Refusal::Absent`] when there is no such order.
pub async fn settle(tx: &Transaction<'_>, side: &Side, order: i64, placed: bool) -> Result<(), Refusal> {
    let status = if placed { Status::Placed } else { Status::Refused };
    let settled = tx.execute(&tx.prepare_cached(side.settle).await?, &[&order, &status.as_str()]).await?;
    if settled == 0 && tx.query_opt(&tx.prepare_cached(side.standing).await?, &[&order]).await?.is_none() {
        return Err(Refusal::no_order(order));
    }
    Ok(())
}
