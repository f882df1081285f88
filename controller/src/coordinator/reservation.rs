//! Keeps vacuums and DDL off a slice's tables until its gate is turned: an open transaction with a lock that writers do not
//! mind. The gate is turned inside it. A running autovacuum yields to such a lock, but only after `deadlock_timeout`, and a new
//! one passes the table by. The short tries of a fence would never outlast it, and writes wait for a gate that opens.

use super::trouble::Trouble;
use migrations::gate::Side;
use migrations::names::SliceName;
use migrations::plan::Slice;
use migrations::stage::Epoch;
use postgres::{Refusal, gate};
use std::time::Duration;
use tokio_postgres::{Client, Error};

/// A coordinator that stalls keeps nobody's vacuum waiting for longer: the server ends its session.
const IDLE_MAX: &str = "4s";

#[derive(Debug)]
pub(super) struct Reservation {
    client: Client,
}

#[derive(Debug)]
pub(super) enum Turned {
    Yes(Client),
    /// Nothing was changed, and the reservation stands.
    No(Reservation, Trouble),
}

impl Reservation {
    /// Waits for a running autovacuum to yield. Whoever else holds the tables is named.
    pub(super) async fn take(
        client: Client,
        slice: &Slice,
        side: Side,
        patience: Duration,
    ) -> Result<Reservation, Trouble> {
        let tables: Vec<String> = slice.tables.iter().map(|table| table.name_at(side).quoted()).collect();
        let take = format!(
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_MAX}'; SET LOCAL lock_timeout = {}; \
             LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE; SAVEPOINT reserved",
            patience.as_millis(),
            tables.join(", ")
        );
        let Err(error) = client.batch_execute(&take).await else { return Ok(Reservation { client }) };
        let trouble = Trouble::of(&error);
        if !Refusal::of(&error).may_pass() || client.batch_execute("ROLLBACK").await.is_err() {
            return Err(trouble);
        }
        match holders(&client, &tables).await {
            Ok(Some(holders)) => Err(Trouble::Again(format!("the tables are held by {holders}"))),
            Ok(None) | Err(_) => Err(trouble),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.client.is_closed()
    }

    /// Shuts the gate and ends the reservation, in one commit.
    pub(super) async fn fence(self, slice: &SliceName, epoch: Epoch) -> Result<Turned, Trouble> {
        let fenced = gate::fence(&self.client, slice, epoch).await;
        self.end(fenced).await
    }

    /// Opens the gate and ends the reservation, in one commit.
    pub(super) async fn open(self, slice: &SliceName, epoch: Epoch) -> Result<Turned, Trouble> {
        let opened = gate::open(&self.client, slice, epoch).await;
        self.end(opened).await
    }

    async fn end(self, turned: Result<(), Error>) -> Result<Turned, Trouble> {
        let Err(error) = turned else {
            self.client.batch_execute("COMMIT").await.map_err(|error| Trouble::of(&error))?;
            return Ok(Turned::Yes(self.client));
        };
        let trouble = Trouble::of(&error);
        match self.client.batch_execute("ROLLBACK TO reserved").await {
            Ok(()) => Ok(Turned::No(self, trouble)),
            Err(_) => Err(trouble),
        }
    }

    /// The connection, if it still serves.
    pub(super) async fn give_up(self) -> Option<Client> {
        self.client.batch_execute("ROLLBACK").await.ok().map(|()| self.client)
    }
}

/// Who keeps the lock from us, with the statement that ends it.
async fn holders(client: &Client, tables: &[String]) -> Result<Option<String>, Error> {
    let row = client
        .query_one(
            "SELECT string_agg(DISTINCT format('process %s (%s; end it with SELECT pg_cancel_backend(%s))', l.pid, \
                 coalesce(nullif(left(a.query, 60), ''), a.backend_type, 'unknown'), l.pid), ', ') \
             FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) \
             WHERE l.granted AND l.pid <> pg_backend_pid() AND l.locktype = 'relation' \
                 AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
                 AND l.relation IN (SELECT r.rel FROM strangler.relations($1::text[]::regclass[]) AS r)",
            &[&tables],
        )
        .await?;
    row.try_get(0)
}
