//! Gives up a cutover or a rollback that nobody drives any more: the last resort if no controller is left.
//!
//! The monolith's database decides by its own clock whether a coordinator still holds the lease. So asking too early, or
//! twice, does no harm.

use link::{Agent, Told};
use migrations::names::SliceName;
use migrations::plan::DatabaseUrl;
use migrations::stage::{Epoch, Stage};
use postgres::{connect, gate, in_words};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const INTERVAL: Duration = Duration::from_secs(1);
/// A controller that took no report for so long does not answer.
const SILENCE: Duration = Duration::from_secs(2);
/// Connecting and asking.
const ASK_MAX: Duration = Duration::from_secs(3);

pub(crate) async fn run(monolith: Option<DatabaseUrl>, agent: Agent, told: watch::Receiver<Option<Told>>) {
    loop {
        sleep(INTERVAL).await;
        let Some(monolith) = &monolith else { continue };
        let crossing = told.borrow().as_ref().map(crossing).unwrap_or_default();
        if crossing.is_empty() || agent.heard_within(SILENCE) {
            continue;
        }
        for slice in &crossing {
            match timeout(ASK_MAX, abort(monolith, slice)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(epoch))) => {
                    tracing::error!(%slice, %epoch, "nobody drove the crossing any more, so it was aborted");
                }
                Ok(Err(why)) => {
                    tracing::warn!(%slice, "whether anybody drives the crossing is not known: {why}")
                }
                Err(_) => {
                    tracing::warn!(%slice, "whether anybody drives the crossing is not known: no answer")
                }
            }
        }
    }
}

/// The slices that nobody owns, as far as the bridge was told.
fn crossing(told: &Told) -> BTreeSet<SliceName> {
    let lanes = told.desired.lanes.iter();
    let crossing =
        lanes.filter(|(_, order)| matches!(order.stage, Stage::Cutting { .. } | Stage::Returning { .. }));
    crossing.map(|(lane, _)| lane.slice.clone()).collect()
}

async fn abort(monolith: &DatabaseUrl, slice: &SliceName) -> Result<Option<Epoch>, String> {
    let client = connect(monolith, "strangler abort").await.map_err(|error| error.to_string())?;
    gate::abort_expired(&client, slice).await.map_err(|error| in_words(&error))
}
