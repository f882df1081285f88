//! Sessions in both databases of a slice that are ready before its writes are held. Logging in takes time, and so does
//! the first use of the gate's functions in a session: many times what later uses take. A vacuum that yields takes a second.

use super::hands;
use super::reservation::Reservation;
use super::sequences::{self, Pair};
use super::trouble::Trouble;
use migrations::gate::Side;
use migrations::names::SliceName;
use migrations::plan::{Plan, Slice};
use postgres::gate;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// A rollback is wished for when something is wrong: it begins soon, ready or not. An autovacuum yields after one second.
pub(super) const READY_MAX: Duration = Duration::from_secs(3);
/// A crossing begins within moments after its sessions are ready, or another controller drives it.
const KEPT: Duration = Duration::from_secs(10);

/// What the next crossing of a slice need not wait for.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(super) monolith: Client,
    pub(super) service: Client,
    /// For the tables whose gate is to open.
    pub(super) opening: Client,
    /// What is numbered anew at the monolith.
    pub(super) pairs: Vec<Pair>,
}

/// At most one for each slice.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<BTreeMap<SliceName, (Instant, Ready)>>);

impl Ready {
    /// For a crossing to the monolith.
    pub(crate) async fn to_return(plan: &Plan, slice: &Slice) -> Result<Ready, Trouble> {
        let open = |side| hands::open(plan, slice, side);
        let (monolith, service, opening) =
            futures_util::try_join!(open(Side::Monolith), open(Side::Service), open(Side::Monolith))?;
        warm(&monolith, &service, &slice.name).await;
        let pairs = sequences::pairs(slice, Side::Monolith, &monolith, &service).await?;
        // An autovacuum that yielded comes back after a while. The locks are not kept: another controller may drive the
        // rollback.
        let yielded = async |client, side| {
            let reserved = Reservation::take(client, slice, side, READY_MAX).await?;
            match reserved.give_up().await {
                Some(client) => Ok(client),
                None => open(side).await,
            }
        };
        let (service, opening) =
            futures_util::try_join!(yielded(service, Side::Service), yielded(opening, Side::Monolith))?;
        Ok(Ready { monolith, service, opening, pairs })
    }
}

/// Makes the sessions' first use of both gates quick. Writers go on meanwhile, so no lock is taken: a rehearsal would stall
/// them, longest while a vacuum keeps the lock from it.
pub(super) async fn warm(monolith: &Client, service: &Client, slice: &SliceName) {
    let one = async |client: &Client| {
        gate::warm(client, slice).await?;
        gate::read(client, slice).await.map(drop)
    };
    if let Err(error) = futures_util::try_join!(one(monolith), one(service)) {
        tracing::info!(%slice, error = postgres::in_words(&error), "a session is not warm");
    }
}

impl Spare {
    pub(crate) fn keep(&self, slice: &SliceName, ready: Ready) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(slice.clone(), (Instant::now(), ready));
    }

    /// Older ones are dropped.
    pub(super) fn take(&self, slice: &SliceName) -> Option<Ready> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, ready) = kept.remove(slice)?;
        (since.elapsed() < KEPT).then_some(ready)
    }
}
