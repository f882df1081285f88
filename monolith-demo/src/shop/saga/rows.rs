//! The rows of sagas, in the service's own database. All times are by its clock.

use std::time::Duration;

use deadpool_postgres::{Client, GenericClient};
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::{Saga, State};
use crate::shop::deal::{Deal, Reason};
use crate::shop::refusal::Refusal;

/// Whoever works on a saga has it alone for this long. After a crash it is free again then.
const LEASE: Duration = Duration::from_secs(5);
/// A saga with so many failed tries of one state is stuck: a person should look.
pub const STUCK_ATTEMPTS: i32 = 10;
/// The most sagas in one answer.
const LIST_MAX: i64 = 100;
/// How long a saga that has ended is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

const COLUMNS: &str =
    "id, deal, state, refusal, attempts, extract(epoch from now() - begun_at)::float8 as age";

/// Writes a new saga, for the caller to work on at once.
pub async fn insert(db: &impl GenericClient, id: Uuid, deal: &Deal) -> Result<Saga, Refusal> {
    let state = State::first(deal);
    let sql = "insert into saga (id, order_id, deal, state, due_at) \
               values ($1, $2, $3, $4, now() + make_interval(secs => $5))";
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[&id, &deal.order, &Json(deal), &state.as_str(), &LEASE.as_secs_f64()]).await?;
    Ok(Saga { id, deal: deal.clone(), state, refusal: None, attempts: 0, age: Duration::ZERO })
}

pub async fn read(db: &Client, id: Uuid) -> Result<Option<Saga>, Refusal> {
    let sql = format!("select {COLUMNS} from saga where id = $1");
    db.query_opt(&db.prepare_cached(&sql).await?, &[&id]).await?.as_ref().map(saga).transpose()
}

/// Takes the sagas that are due, longest first, at most `limit`. Nobody else gets them during the lease.
pub async fn take_due(db: &Client, limit: i64) -> Result<Vec<Saga>, Refusal> {
    let sql = format!(
        "update saga set due_at = now() + make_interval(secs => $2) where id in \
           (select id from saga where ended_at is null and due_at <= now() order by due_at limit $1 \
              for update skip locked) \
         returning {COLUMNS}"
    );
    let rows = db.query(&db.prepare_cached(&sql).await?, &[&limit, &LEASE.as_secs_f64()]).await?;
    rows.iter().map(saga).collect()
}

/// Moves a saga on, if it is still where `from` says. Returns whether it was.
pub async fn advance(
    db: &impl GenericClient,
    from: &Saga,
    to: State,
    reason: Option<&Reason>,
) -> Result<bool, Refusal> {
    let sql = "update saga set state = $3, refusal = coalesce($4, refusal), attempts = 0, trouble = null, \
                 due_at = now() + make_interval(secs => $5), \
                 ended_at = case when $3 = 'ended' then now() end \
               where id = $1 and state = $2 and ended_at is null";
    let statement = db.prepare_cached(sql).await?;
    let (was, is) = (from.state.as_str(), to.as_str());
    let moved =
        db.execute(&statement, &[&from.id, &was, &is, &reason.map(Json), &LEASE.as_secs_f64()]).await?;
    Ok(moved == 1)
}

/// Notes a failed try, and when the next one is due.
pub async fn postpone(db: &Client, saga: &Saga, trouble: &str, pause: Duration) -> Result<(), Refusal> {
    let sql = "update saga set attempts = attempts + 1, trouble = left($3, 500), \
                 due_at = now() + make_interval(secs => $4) \
               where id = $1 and state = $2 and ended_at is null";
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[&saga.id, &saga.state.as_str(), &trouble, &pause.as_secs_f64()]).await?;
    Ok(())
}

/// Deletes sagas that ended long ago.
pub async fn prune(db: &Client) -> Result<u64, Refusal> {
    let sql = "delete from saga where ended_at < now() - make_interval(secs => $1)";
    Ok(db.execute(&db.prepare_cached(sql).await?, &[&KEPT.as_secs_f64()]).await?)
}

/// The sagas that have not ended, for people.
#[derive(Debug, Serialize)]
pub struct Unfinished {
    pub count: i64,
    /// How many of them failed so often that a person should look.
    pub stuck: i64,
    /// The oldest of them.
    pub sagas: Vec<Line>,
}

#[derive(Debug, Serialize)]
pub struct Line {
    pub id: Uuid,
    pub order: i64,
    pub state: String,
    pub attempts: i32,
    pub trouble: Option<String>,
    pub age_seconds: f64,
}

pub async fn unfinished(db: &Client) -> Result<Unfinished, Refusal> {
    let sql = "select count(*), count(*) filter (where attempts >= $1) from saga where ended_at is null";
    let counts = db.query_one(&db.prepare_cached(sql).await?, &[&STUCK_ATTEMPTS]).await?;
    let sql = "select id, order_id, state, attempts, trouble, \
                      extract(epoch from now() - begun_at)::float8 as age \
               from saga where ended_at is null order by begun_at limit $1";
    let rows = db.query(&db.prepare_cached(sql).await?, &[&LIST_MAX]).await?;
    let line = |row: &Row| -> Result<Line, Refusal> {
        Ok(Line {
            id: row.try_get("id")?,
            order: row.try_get("order_id")?,
            state: row.try_get("state")?,
            attempts: row.try_get("attempts")?,
            trouble: row.try_get("trouble")?,
            age_seconds: row.try_get("age")?,
        })
    };
    Ok(Unfinished {
        count: counts.try_get(0)?,
        stuck: counts.try_get(1)?,
        sagas: rows.iter().map(line).collect::<Result<_, _>>()?,
    })
}

fn saga(row: &Row) -> Result<Saga, Refusal> {
    let word: &str = row.try_get("state")?;
    let state =
        State::from_word(word).ok_or_else(|| Refusal::Unexpected(format!("a saga in state {word}")))?;
    let Json(deal) = row.try_get("deal")?;
    let refusal: Option<Json<Reason>> = row.try_get("refusal")?;
    let age: f64 = row.try_get("age")?;
    Ok(Saga {
        id: row.try_get("id")?,
        deal,
        state,
        refusal: refusal.map(|Json(reason)| reason),
        attempts: row.try_get("attempts")?,
        age: Duration::from_secs_f64(age.max(0.0)),
    })
}
