//! The monolith's inner door, for the shop's own programs: calls to its books, each with the caller's key.
//!
//! A call that comes again gets the same answer and does nothing again. The key is stored in the transaction of what
//! the call does. This door has an address of its own, which no customer reaches.

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::routing::put;
use axum::{Json, Router};
use deadpool_postgres::Transaction;
use tokio_postgres::types::Json as Jsonb;

use super::deal::{Act, Call, Reason, Verdict};
use super::refusal::Refusal;
use super::settle::settle;
use super::{Shop, books};

/// The longest key.
const KEY_BYTES_MAX: usize = 100;

pub fn routes() -> Router<Shop> {
    Router::new().route("/calls/{key}", put(call))
}

async fn call(
    State(shop): State<Shop>,
    key: Result<Path<String>, PathRejection>,
    call: Result<Json<Call>, JsonRejection>,
) -> Result<Json<Verdict>, Refusal> {
    Ok(Json(shop.answer_call(&key?.0, &call?.0).await?))
}

impl Shop {
    /// Does what the call says, unless a call with this key was answered before.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for a bad key, [`Refusal::Business`] `key` when the key was used for something else. What
    /// the rules of the trade forbid is a [`Verdict`].
    async fn answer_call(&self, key: &str, call: &Call) -> Result<Verdict, Refusal> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains('\0') {
            return Err(Refusal::Malformed(format!("key: 1 to {KEY_BYTES_MAX} bytes")));
        }
        let mut db = self.pool.get().await?;
        let mut tx = db.transaction().await?;
        // Waits for another transaction with the same key.
        let sql = "insert into calls (key, what) values ($1, $2) on conflict (key) do nothing";
        if tx.execute(&tx.prepare_cached(sql).await?, &[&key, &Jsonb(call)]).await? == 0 {
            return known(&tx, key, call).await;
        }
        if let Some(undone) = call.act.undoes() {
            let never = Verdict::Refused(Reason::new("undone", "the order was given up"));
            let sql = "insert into calls (key, answer) values ($1, $2) on conflict (key) do nothing";
            tx.execute(&tx.prepare_cached(sql).await?, &[&undone, &Jsonb(never)]).await?;
        }
        let verdict = self.carry_out(&mut tx, call).await?;
        let sql = "update calls set answer = $2 where key = $1";
        tx.execute(&tx.prepare_cached(sql).await?, &[&key, &Jsonb(&verdict)]).await?;
        tx.commit().await?;
        Ok(verdict)
    }

    /// Does what the call says. A refused call changes nothing.
    async fn carry_out(&self, tx: &mut Transaction<'_>, call: &Call) -> Result<Verdict, Refusal> {
        let inner = tx.transaction().await?;
        let order = call.order;
        let done = match &call.act {
            Act::ReserveCredit { customer, amount } => {
                books::reserve_credit(&inner, order, *customer, *amount).await
            }
            Act::ReserveStock { pieces } => books::reserve_stock(&inner, order, pieces).await,
            Act::ReleaseStock { .. } => books::release_stock(&inner, &[order]).await,
            Act::ReleaseCredit { .. } => books::release_credit(&inner, &[order]).await,
            Act::PayCredit { amount } => books::pay_credit(&inner, order, *amount).await,
            Act::Settle { placed } => settle(&inner, &self.side, order, *placed).await,
        };
        let reason = match done {
            Ok(()) => {
                inner.commit().await?;
                return Ok(Verdict::Done);
            }
            Err(Refusal::Business { code, message }) => Reason::new(&code, message),
            Err(absent @ Refusal::Absent { .. }) => Reason::new("absent", absent.to_string()),
            Err(other) => return Err(other),
        };
        inner.rollback().await?;
        Ok(Verdict::Refused(reason))
    }
}

/// The answer to a call that was answered before.
async fn known(tx: &Transaction<'_>, key: &str, call: &Call) -> Result<Verdict, Refusal> {
    let sql = "select what is null or what = $2, answer from calls where key = $1";
    let row = tx.query_one(&tx.prepare_cached(sql).await?, &[&key, &Jsonb(call)]).await?;
    if !row.try_get::<_, bool>(0)? {
        return Err(Refusal::business("key", format!("the key {key} was used for another call")));
    }
    let Jsonb(verdict) = row.try_get(1)?;
    Ok(verdict)
}
