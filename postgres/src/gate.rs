//! The gate: what a database enforces for a slice at an epoch, by the functions that `install` makes there.
//!
//! Knows how a gate is worked, not when.

use migrations::names::{SliceName, quote_identifier};
use migrations::stage::Epoch;
use tokio_postgres::{Client, Error, Row};

/// Reads a gate as [`Gate::of`] takes it, and keeps it as it is until the transaction's end.
pub const HOLD: &str = "SELECT is_shut, epoch FROM strangler.gate WHERE slice = $1 FOR SHARE";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    pub is_shut: bool,
    pub epoch: Epoch,
}

impl Gate {
    pub fn of(row: &Row) -> Gate {
        Gate { is_shut: row.get(0), epoch: Epoch(u64::try_from(row.get::<_, i64>(1)).unwrap_or_default()) }
    }
}

/// Makes the slice's gate if it is missing: triggers on every table, created disabled, and the gate's row, open
/// at epoch 0. Idempotent.
pub async fn make(client: &Client, slice: &SliceName) -> Result<(), Error> {
    client.batch_execute(&format!("SELECT {}()", function("gate_make", slice))).await
}

/// Shuts or opens the slice's gate. The database refuses an epoch that is lower than one it has seen.
pub async fn set(client: &Client, slice: &SliceName, gate: Gate) -> Result<(), Error> {
    let sql = format!("SELECT {}($1, $2)", function("gate_set", slice));
    client.execute(&sql, &[&gate.is_shut, &(gate.epoch.0 as i64)]).await.map(drop)
}

/// Removes the slice's gate. Idempotent.
pub async fn unmake(client: &Client, slice: &SliceName) -> Result<(), Error> {
    client.batch_execute(&format!("SELECT {}()", function("gate_unmake", slice))).await
}

/// The slice's gate; none if it was never made.
pub async fn read(client: &Client, slice: &SliceName) -> Result<Option<Gate>, Error> {
    ask(client, slice, "").await
}

/// The slice's gate, which nobody else moves until the transaction's end.
pub async fn lock(client: &Client, slice: &SliceName) -> Result<Option<Gate>, Error> {
    ask(client, slice, "FOR UPDATE").await
}

async fn ask(client: &Client, slice: &SliceName, lock: &str) -> Result<Option<Gate>, Error> {
    let sql = format!("SELECT is_shut, epoch FROM strangler.gate WHERE slice = $1 {lock}");
    Ok(client.query_opt(&sql, &[&slice.as_str()]).await?.as_ref().map(Gate::of))
}

fn function(verb: &str, slice: &SliceName) -> String {
    format!("strangler.{}", quote_identifier(&format!("{verb}_{slice}")))
}
