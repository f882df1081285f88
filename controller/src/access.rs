//! Looks who reads and writes a slice's tables in the monolith's database, for `writers` and `readers`.

use migrations::access::{AccessSeen, Accesses};
use migrations::code::Code;
use migrations::names::TableName;
use migrations::plan::{Plan, Slice};
use migrations::problem::Problem;
use migrations::sql::{self, Database};
use postgres::access::{self, How};
use postgres::{Refusal, connect, in_words};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Error};

const SETTINGS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '2s'";
/// Sessions are looked at so often. A statement that is shorter may be missed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Different ones that are kept of what sessions did.
const SESSIONS_MAX: usize = 100;
/// The triggers wait up to 100 ms for the tables' writers, as a gate does.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Who writes the slice's tables. With `observe` its writers are noted for that time, or until `ended`.
pub async fn writers(
    plan: &Plan,
    slice: &Slice,
    observe: Option<Duration>,
    forget: bool,
    ended: impl Future<Output = ()>,
) -> Result<Accesses, Problem> {
    let client = open(plan).await?;
    let refused = |error: &Error| refused(plan, error);
    if forget {
        access::forget(&client, &slice.name).await.map_err(|error| refused(&error))?;
    }
    let watched = match observe {
        Some(time) => Some(watch(&client, slice, time).await.map_err(|error| refused(&error))?),
        None => {
            again(|| access::end_what_is_over(&client, &slice.name))
                .await
                .map_err(|error| refused(&error))?;
            None
        }
    };
    let sessions = sample(&client, slice, How::Writes, observe.unwrap_or(LOOK_EVERY), ended).await;
    if let Some(until) = watched {
        again(|| access::unwatch(&client, &slice.name, &until)).await.map_err(|error| refused(&error))?;
    }
    let looking = async {
        let mut accesses = known(&client, slice).await?;
        // What the triggers noted says more than a session that was met.
        let is_noted = |session: &AccessSeen| accesses.seen.iter().any(|one| is_same(one, session));
        let sessions: Vec<AccessSeen> = sessions?.into_iter().filter(|one| !is_noted(one)).collect();
        accesses.seen.extend(sessions);
        Ok(accesses)
    };
    looking.await.map_err(|error| refused(&error))
}

/// Who reads the slice's tables: sessions are looked at for this time, or until `ended`.
pub async fn readers(
    plan: &Plan,
    slice: &Slice,
    time: Duration,
    ended: impl Future<Output = ()>,
) -> Result<Accesses, Problem> {
    let client = open(plan).await?;
    let looking = async {
        let mut seen = sample(&client, slice, How::Reads, time, ended).await?;
        let statements = access::statements(&client, &moved(slice), How::Reads).await?;
        let has_statements = statements.is_some();
        seen.extend(statements.into_iter().flatten());
        Ok(Accesses { seen, was_watched: false, has_statements })
    };
    looking.await.map_err(|error| refused(plan, &error))
}

/// What is on record about a slice's writers.
pub(crate) async fn known(client: &Client, slice: &Slice) -> Result<Accesses, Error> {
    let (mut seen, was_watched) = access::noted(client, &slice.name).await?;
    let statements = access::statements(client, &moved(slice), How::Writes).await?;
    let has_statements = statements.is_some();
    seen.extend(statements.into_iter().flatten());
    Ok(Accesses { seen, was_watched, has_statements })
}

fn moved(slice: &Slice) -> BTreeSet<TableName> {
    slice.tables.iter().map(|table| table.from.clone()).collect()
}

async fn open(plan: &Plan) -> Result<Client, Problem> {
    let Some(url) = Database::Monolith.url(plan) else {
        let hint = "write its URL under `database:` in the plan";
        return Err(Problem::new(Code::SourceNoUrl, "the plan gives the monolith's database no URL", hint));
    };
    let client = connect(url, "strangler writers").await?;
    client.batch_execute(SETTINGS).await.map_err(|error| refused(plan, &error))?;
    Ok(client)
}

fn refused(plan: &Plan, error: &Error) -> Problem {
    Problem::new(
        Code::SourceRefuses,
        format!("the monolith's database does not let us look: {}", in_words(error)),
        format!(
            "if it is busy, ask again; otherwise run `{}`. Triggers that are on note nothing once their time is over",
            sql::install_command(plan)
        ),
    )
}

async fn watch(client: &Client, slice: &Slice, time: Duration) -> Result<String, Error> {
    again(|| access::watch(client, &slice.name, time)).await
}

/// Tries what waits for locks several times.
async fn again<T, F: Future<Output = Result<T, Error>>>(work: impl Fn() -> F) -> Result<T, Error> {
    for _ in 1..TRIES {
        match work().await {
            Err(error) if Refusal::of(&error).may_pass() => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
    work().await
}

async fn sample(
    client: &Client,
    slice: &Slice,
    how: How,
    time: Duration,
    ended: impl Future<Output = ()>,
) -> Result<Vec<AccessSeen>, Error> {
    let (tables, end) = (moved(slice), Instant::now() + time);
    let mut seen: Vec<AccessSeen> = Vec::new();
    tokio::pin!(ended);
    while Instant::now() < end {
        for one in access::sessions(client, &tables, how).await? {
            if let Some(known) = seen.iter_mut().find(|known| is_same(known, &one)) {
                known.times += 1;
            } else if seen.len() < SESSIONS_MAX {
                seen.push(one);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = &mut ended => break,
        }
    }
    Ok(seen)
}

/// Whether both are of one application at one table.
fn is_same(one: &AccessSeen, other: &AccessSeen) -> bool {
    (&one.role, &one.application, &one.table) == (&other.role, &other.application, &other.table)
}
