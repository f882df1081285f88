//! The journal in schema `strangler` of the monolith's database. The primary key and the database's own count of
//! entries make the compare-and-swap. The head row changes in the same transaction, and so does the monolith's gate where
//! the entry decides about it. What is refused is the table of `migrations::gate`.

use super::{Draft, Loaded, StoreError};
use migrations::crossing::Moment;
use migrations::journal::{Entry, Generation, JournalId, Move, SliceState, State};
use migrations::names::SliceName;
use migrations::plan::DatabaseUrl;
use migrations::stage::{Epoch, Event};
use postgres::gate::{self, Gate};
use postgres::{Refusal, connect_unplanned, in_words};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Transaction};

/// A question that takes longer has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const PAGE: i64 = 5_000;

const ID: &str =
    "SELECT id, (SELECT coalesce(max(generation), 0) FROM strangler.journal) FROM strangler.journal_id";
const LOAD: &str = "
    SELECT generation, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), actor, reason, slice, event
      FROM strangler.journal WHERE generation > $1 ORDER BY generation LIMIT $2";
const APPEND: &str = "
    INSERT INTO strangler.journal (generation, actor, reason, slice, event)
    SELECT $1::bigint, $2::text, $3::text, $4::text, $5::jsonb
     WHERE (SELECT coalesce(max(generation), 0) FROM strangler.journal) = $1::bigint - 1
    RETURNING generation, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), actor, reason, slice, event";
const TAKE_OVER: &str = "
    INSERT INTO strangler.journal (generation, at, actor, reason, slice, event)
    SELECT $1::bigint, $2::text::timestamptz, $3::text, $4::text, $5::text, $6::jsonb
     WHERE (SELECT coalesce(max(generation), 0) FROM strangler.journal) = $1::bigint - 1";
/// A controller that is frozen between two statements must not keep others from deciding, or from giving up.
const LIMITS: &str = "SET LOCAL idle_in_transaction_session_timeout = '5s'";
/// The head is locked first, by everyone who changes it: `strangler.abort` takes the same locks in the same order.
const LOCK: &str = "SELECT FROM strangler.slice WHERE slice = $1 FOR UPDATE";
/// The lease ends with what it was taken for.
const HEAD: &str = "
    INSERT INTO strangler.slice AS s (slice, stage, epoch, generation, preparing, hold) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (slice) DO UPDATE SET
        stage = excluded.stage, epoch = excluded.epoch, generation = excluded.generation,
        preparing = excluded.preparing, hold = excluded.hold,
        coordinator = CASE WHEN num_nonnulls(excluded.preparing, excluded.hold) > 0 THEN s.coordinator END,
        lease_until = CASE WHEN num_nonnulls(excluded.preparing, excluded.hold) > 0 THEN s.lease_until END";
/// An applier may hold the gate's row; it raises the gate itself when it goes on.
const RAISE: &str = "
    UPDATE strangler.gate SET epoch = greatest(epoch, $2) WHERE slice IN (
        SELECT slice FROM strangler.gate WHERE slice = $1 FOR UPDATE SKIP LOCKED)";
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
const TAKE_LEASE: &str = "
    UPDATE strangler.slice SET coordinator = $2, lease_until = clock_timestamp() + $3::float8 * interval '1 millisecond'
     WHERE slice = $1 AND (coordinator = $2 OR lease_until IS NULL OR lease_until <= clock_timestamp())";

/// The journal's tables, behind one connection that is opened anew after a failure.
#[derive(Debug)]
pub struct JournalTable {
    url: DatabaseUrl,
    session: Mutex<Option<Arc<Mutex<Client>>>>,
}

enum Failure {
    Postgres(tokio_postgres::Error),
    Late,
    Conflict,
    Lost(String),
    Damaged(u64, String),
    /// The cutover's commit without a shut gate before the monolith's tables.
    NotShut(Option<Gate>, Epoch),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Failure::Postgres(error)
    }
}

impl JournalTable {
    pub(crate) fn new(url: DatabaseUrl) -> Self {
        Self { url, session: Mutex::new(None) }
    }

    pub(crate) async fn load(&self, after: Generation) -> Result<Loaded, StoreError> {
        let client = self.client().await?;
        let client = client.lock().await;
        let loaded = within(read(&client, after)).await;
        self.settled(after, loaded).await
    }

    pub(crate) async fn append(&self, expected: Generation, draft: &Draft) -> Result<Entry, StoreError> {
        let client = self.client().await?;
        let mut client = client.lock().await;
        let written = write(&mut client, expected, draft).await;
        self.settled(expected, written).await
    }

    /// Fills an empty journal with the entries of another, whole or not at all.
    pub(crate) async fn take_over(&self, entries: &[Entry], state: &State) -> Result<(), StoreError> {
        let client = self.client().await?;
        let mut client = client.lock().await;
        let taken = within(take_over(&mut client, entries, state)).await;
        self.settled(Generation(0), taken).await
    }

    pub(crate) async fn now(&self) -> Result<Moment, StoreError> {
        let client = self.client().await?;
        let client = client.lock().await;
        let row = within(async { Ok(client.query_one(NOW, &[]).await?) }).await;
        let row = self.settled(Generation(0), row).await?;
        Ok(Moment(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default()))
    }

    pub(crate) async fn take_lease(
        &self,
        slice: &SliceName,
        coordinator: &str,
        time: Duration,
    ) -> Result<bool, StoreError> {
        self.lease(TAKE_LEASE, &[&slice.as_str(), &coordinator, &milliseconds(time)]).await
    }

    async fn lease(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let client = client.lock().await;
        let had = within(async { Ok(client.execute(sql, values).await?) }).await;
        Ok(self.settled(Generation(0), had).await? > 0)
    }

    async fn client(&self) -> Result<Arc<Mutex<Client>>, StoreError> {
        let mut held = self.session.lock().await;
        if let Some(client) = held.as_ref() {
            return Ok(Arc::clone(client));
        }
        // The journal's text depends on no setting, and its URL may lead through a pooler.
        let opened = connect_unplanned(self.url.expose(), &self.url.redacted(), "strangler controller").await;
        let client = Arc::new(Mutex::new(opened.map_err(StoreError::Unreachable)?.client));
        *held = Some(Arc::clone(&client));
        Ok(client)
    }

    /// After any failure but a lost race the connection is thrown away: the next question opens another.
    async fn settled<T>(&self, expected: Generation, outcome: Result<T, Failure>) -> Result<T, StoreError> {
        let failure = match outcome {
            Ok(value) => return Ok(value),
            Err(Failure::Conflict) => return Err(StoreError::Conflict(expected)),
            Err(failure) => failure,
        };
        *self.session.lock().await = None;
        let refused = |why: String, remedy: &str| StoreError::Refused { why, remedy: remedy.to_owned() };
        Err(match failure {
            Failure::Conflict => StoreError::Conflict(expected),
            Failure::Late => refused(
                format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
                "look at the monolith's database, then ask again",
            ),
            Failure::Lost(why) => StoreError::Uncertain { why },
            Failure::Damaged(place, why) => StoreError::Damaged { place, why },
            Failure::NotShut(gate, epoch) => refused(
                match gate {
                    Some(gate) => format!("the monolith's gate is {gate}, not shut at epoch {epoch}"),
                    None => "the monolith has no gate".to_owned(),
                },
                "abort the cutover: `strangler abort`",
            ),
            Failure::Postgres(error) => match error.code() {
                Some(code) if *code == SqlState::UNIQUE_VIOLATION => StoreError::Conflict(expected),
                _ if matches!(Refusal::of(&error), Refusal::NotInstalled | Refusal::NoRight) => refused(
                    in_words(&error),
                    "run `strangler install` with an administrator's URL for each database, which makes the journal",
                ),
                _ => {
                    let hint = error.as_db_error().and_then(|server| server.hint());
                    refused(
                        in_words(&error),
                        hint.unwrap_or("look at the monolith's database, then ask again"),
                    )
                }
            },
        })
    }
}

async fn within<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(ANSWER_TIMEOUT, work).await.unwrap_or(Err(Failure::Late))
}

async fn read(client: &Client, after: Generation) -> Result<Loaded, Failure> {
    let head = client
        .query_opt(ID, &[])
        .await?
        .ok_or_else(|| Failure::Damaged(0, "strangler.journal_id holds no row".to_owned()))?;
    let journal = JournalId(head.get(0));
    let length = u64::try_from(head.get::<_, i64>(1)).unwrap_or_default();
    let mut entries: Vec<Entry> = Vec::new();
    let mut last = number(after.0);
    loop {
        let rows = client.query(LOAD, &[&last, &PAGE]).await?;
        for row in &rows {
            entries.push(entry(row)?);
            last = row.get(0);
        }
        // A shorter page is the journal's end, so the loop is bounded by its length.
        if number(rows.len() as u64) < PAGE {
            // It may have grown since its length was asked for.
            let last = entries.last().map_or(Generation(0), |entry| entry.generation);
            return Ok(Loaded { journal, length: last.max(Generation(length)), entries });
        }
    }
}

async fn write(client: &mut Client, expected: Generation, draft: &Draft) -> Result<Entry, Failure> {
    let (transaction, entry) = within(prepare(client, expected, draft)).await?;
    // Up to here a failure writes nothing. From here on only the server's own words say so.
    match tokio::time::timeout(ANSWER_TIMEOUT, transaction.commit()).await {
        Ok(Ok(())) => Ok(entry),
        Ok(Err(error)) if error.as_db_error().is_some() => Err(Failure::Postgres(error)),
        Ok(Err(error)) => Err(Failure::Lost(in_words(&error))),
        Err(_) => Err(Failure::Lost("no answer to the commit".to_owned())),
    }
}

async fn take_over(client: &mut Client, entries: &[Entry], state: &State) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    for entry in entries {
        let generation = entry.generation.0;
        let event = json(generation, &entry.event)?;
        let slice = entry.slice.as_str();
        let values: [&(dyn ToSql + Sync); 6] =
            [&number(generation), &entry.at, &entry.actor, &entry.reason, &slice, &event];
        if transaction.execute(TAKE_OVER, &values).await? == 0 {
            return Err(Failure::Conflict);
        }
    }
    for (slice, head) in &state.slices {
        let last = entries.iter().rfind(|entry| entry.slice == *slice);
        let generation = last.map_or(state.generation, |entry| entry.generation).0;
        write_head(&transaction, slice, head, generation).await?;
    }
    Ok(transaction.commit().await?)
}

fn json(place: u64, value: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::Damaged(place, error.to_string()))
}

async fn prepare<'a>(
    client: &'a mut Client,
    expected: Generation,
    draft: &Draft,
) -> Result<(Transaction<'a>, Entry), Failure> {
    let Move { slice, event, after } = &draft.decided;
    let generation = expected.next().0;
    let written = json(generation, event)?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(LIMITS).await?;
    transaction.query_opt(LOCK, &[&slice.as_str()]).await?;
    let row = transaction
        .query_opt(APPEND, &[&number(generation), &draft.actor, &draft.reason, &slice.as_str(), &written])
        .await?
        .ok_or(Failure::Conflict)?;
    write_head(&transaction, slice, after, generation).await?;
    turn_gate(&transaction, slice, event).await?;
    let entry = entry(&row)?;
    Ok((transaction, entry))
}

async fn write_head(
    transaction: &Transaction<'_>,
    slice: &SliceName,
    head: &SliceState,
    generation: u64,
) -> Result<(), Failure> {
    let (stage, epoch) = (json(generation, &head.stage)?, number(head.epoch.0));
    let preparing = head.preparing.map(|preparing| json(generation, &preparing)).transpose()?;
    let hold = head.hold.map(|hold| json(generation, &hold)).transpose()?;
    let values: [&(dyn ToSql + Sync); 6] =
        [&slice.as_str(), &stage, &epoch, &number(generation), &preparing, &hold];
    transaction.execute(HEAD, &values).await?;
    Ok(())
}

/// What a decision does to the monolith's gate, after the head says so.
async fn turn_gate(transaction: &Transaction<'_>, slice: &SliceName, event: &Event) -> Result<(), Failure> {
    let client = transaction.client();
    match event {
        Event::CutoverCommitted { epoch, .. } => {
            let found = client.query_opt(gate::HOLD, &[&slice.as_str()]).await?.as_ref().map(gate::of);
            let shut = Gate { is_shut: true, epoch: *epoch };
            if found == Some(shut) { Ok(()) } else { Err(Failure::NotShut(found, *epoch)) }
        }
        Event::CutoverAborted { epoch, .. } | Event::RollbackCommitted { epoch } => {
            Ok(gate::open(client, slice, *epoch).await?)
        }
        Event::RollbackAborted { epoch, .. } => {
            client.execute(RAISE, &[&slice.as_str(), &number(epoch.0)]).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn entry(row: &Row) -> Result<Entry, Failure> {
    let generation = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    let damaged = |why: String| Failure::Damaged(generation, why);
    Ok(Entry {
        generation: Generation(generation),
        at: row.get(1),
        actor: row.get(2),
        reason: row.get(3),
        slice: row
            .get::<_, &str>(4)
            .parse()
            .map_err(|error: migrations::text::BadText| damaged(error.to_string()))?,
        event: serde_json::from_value(row.get::<_, Value>(5)).map_err(|error| damaged(error.to_string()))?,
    })
}

/// Postgres has no unsigned numbers; generations and epochs stay far below the half of them.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
