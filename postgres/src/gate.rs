//! The gate: what a database enforces for a slice at an epoch, by the functions that `install` makes there.
//!
//! Knows how a gate is worked, not when.

pub use migrations::gate::Gate;
use migrations::names::SliceName;
use migrations::stage::Epoch;
use tokio_postgres::{Client, Error, Row};

/// Reads a gate as [`of`] takes it, and keeps it as it is until the transaction's end.
pub const HOLD: &str = "SELECT is_shut, epoch FROM strangler.gate WHERE slice = $1 FOR SHARE";

/// Reads a row of [`HOLD`].
pub fn of(row: &Row) -> Gate {
    Gate { is_shut: row.get(0), epoch: Epoch(u64::try_from(row.get::<_, i64>(1)).unwrap_or_default()) }
}

/// Makes what is missing of the slice's gate: its row, at this epoch, and the triggers of tables and partitions that are
/// new. The monolith's is made open, a service's shut. What is there already stays as it is. Idempotent.
pub async fn make(client: &Client, slice: &SliceName, epoch: Epoch) -> Result<(), Error> {
    ask(client, "gate_make($1, $2)", slice, epoch).await
}

/// Shuts the slice's gate, and leaves the fence's message in the database's own stream of changes. The monolith's shuts
/// only while the head says that the slice is cutting at this epoch.
pub async fn fence(client: &Client, slice: &SliceName, epoch: Epoch) -> Result<(), Error> {
    ask(client, "fence($1, $2)", slice, epoch).await
}

/// Opens the slice's gate. The monolith's opens only while the head says that the monolith owns the slice.
pub async fn open(client: &Client, slice: &SliceName, epoch: Epoch) -> Result<(), Error> {
    ask(client, "open($1, $2)", slice, epoch).await
}

/// Raises the epoch of a shut gate.
pub async fn raise(client: &Client, slice: &SliceName, epoch: Epoch) -> Result<(), Error> {
    ask(client, "gate_raise($1, $2)", slice, epoch).await
}

/// Tries whether the gate could be shut and opened now, and leaves it as it is. Stalls writers meanwhile: up to 100 ms where
/// a lock is not to be had.
pub async fn rehearse(client: &Client, slice: &SliceName) -> Result<(), Error> {
    client.execute("SELECT strangler.rehearse_gate($1)", &[&slice.as_str()]).await.map(drop)
}

/// Makes this session's first use of the gate quick. Locks nothing, and tries nothing.
pub async fn warm(client: &Client, slice: &SliceName) -> Result<(), Error> {
    client.execute("SELECT strangler.gate_ask($1, 'warm', NULL)", &[&slice.as_str()]).await.map(drop)
}

/// Removes the slice's gate. Idempotent.
pub async fn unmake(client: &Client, slice: &SliceName) -> Result<(), Error> {
    client.execute("SELECT strangler.gate_unmake($1)", &[&slice.as_str()]).await.map(drop)
}

/// Gives up the cutover, its preparation or the rollback of this epoch, in the monolith's database. The epoch after it.
pub async fn abort(client: &Client, slice: &SliceName, epoch: Epoch) -> Result<Epoch, Error> {
    let sql = "SELECT strangler.abort($1, $2)";
    let row = client.query_one(sql, &[&slice.as_str(), &number(epoch)]).await?;
    Ok(Epoch(u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default()))
}

/// Gives up what nobody drives any more, by the database's clock. None where there is nothing of the kind.
pub async fn abort_expired(client: &Client, slice: &SliceName) -> Result<Option<Epoch>, Error> {
    let row = client.query_one("SELECT strangler.abort_expired($1)", &[&slice.as_str()]).await?;
    let raised: Option<i64> = row.try_get(0)?;
    Ok(raised.map(|epoch| Epoch(u64::try_from(epoch).unwrap_or_default())))
}

/// The slice's gate; none if it was never made.
pub async fn read(client: &Client, slice: &SliceName) -> Result<Option<Gate>, Error> {
    find(client, slice, "").await
}

/// The slice's gate, which nobody else moves until the transaction's end.
pub async fn lock(client: &Client, slice: &SliceName) -> Result<Option<Gate>, Error> {
    find(client, slice, "FOR UPDATE").await
}

async fn find(client: &Client, slice: &SliceName, lock: &str) -> Result<Option<Gate>, Error> {
    let sql = format!("SELECT is_shut, epoch FROM strangler.gate WHERE slice = $1 {lock}");
    Ok(client.query_opt(&sql, &[&slice.as_str()]).await?.as_ref().map(of))
}

async fn ask(client: &Client, function: &str, slice: &SliceName, epoch: Epoch) -> Result<(), Error> {
    let sql = format!("SELECT strangler.{function}");
    client.execute(&sql, &[&slice.as_str(), &number(epoch)]).await.map(drop)
}

/// Postgres has no unsigned numbers; epochs stay far below the half of them.
fn number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}
