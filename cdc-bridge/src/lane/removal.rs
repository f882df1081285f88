//! A lane's copy is removed: its rows, what is kept about it, its gates, its topics.
//!
//! It waits until capture has let go of what is removed.

use super::filled;
use super::halt::Halt;
use super::kept::{self, Origin};
use super::plan::LanePlan;
use super::publication;
use super::sink::Sink;
use crate::feed::Feed;
use crate::feed::source::SourceError;
use crate::log::{Log, Owner};
use migrations::control::LaneOrder;
use migrations::names::TableName;
use migrations::stage::Epoch;
use postgres::gate;
use std::collections::BTreeSet;

/// Undoes `sync start`: the copied rows, what is kept about them, the gates, the topics. `begins` is called when there is
/// something to remove.
pub(crate) async fn remove(
    plan: &LanePlan,
    order: &LaneOrder,
    feed: &Feed,
    log: &Log,
    epoch: Epoch,
    begins: impl FnOnce(),
) -> Result<(), Halt> {
    let client = Sink::enter(plan).await?;
    let Some(origin) = kept::origin(&client, plan).await? else {
        // A copy may have ended before it began. Where nothing is installed, nothing is published.
        let _ = publication::publish(plan, order, feed).await;
        return Ok(());
    };
    begins();
    let source = feed.source.connect("strangler").await.map_err(SourceError::from)?;
    // No chunk of a copy that lost its lock comes after this.
    kept::hold(&client, &plan.id, "").await?;
    filled::give_up(&client, &plan.slice, epoch, &origin.filled).await?;
    let own = released(plan, feed).await?;
    if is_filled_from(log, &origin).await? {
        log.forget(&own).await?;
    }
    publication::publish(plan, order, feed).await?;
    for client in [&source, &client] {
        gate::unmake(client, &plan.slice.name).await.map_err(Halt::of)?;
    }
    kept::forget(&client, &plan.id).await?;
    Ok(())
}

/// Removes what is kept about a lane that brought no copy.
pub(crate) async fn forget(plan: &LanePlan, order: &LaneOrder, feed: &Feed) -> Result<(), Halt> {
    let client = Sink::enter(plan).await?;
    if kept::origin(&client, plan).await?.is_some() {
        publication::publish(plan, order, feed).await?;
        kept::forget(&client, &plan.id).await?;
    }
    Ok(())
}

/// Whether the present log is the one that the slice was filled from, or its successor. The plan may name a log of others
/// by now.
async fn is_filled_from(log: &Log, origin: &Origin) -> Result<bool, Halt> {
    let is_known = origin.log == log.id();
    Ok(match log.owner().await? {
        None | Some(Owner::Nobody | Owner::Us) => true,
        Some(Owner::Server(filled_from)) => is_known || filled_from == origin.system_id,
        Some(Owner::Unknown | Owner::Other(_)) => is_known,
    })
}

/// The lane's tables that no other lane of the feed follows. The feed is told before the lanes are.
fn unshared(plan: &LanePlan, feed: &Feed) -> Result<BTreeSet<TableName>, Halt> {
    match &*feed.orders.borrow() {
        Some(wanted) => Ok(plan.sources().difference(&wanted.tables).cloned().collect()),
        None => Err(Halt::away("the bridge is ending")),
    }
}

/// Waits until capture writes none of the tables that only this lane needed, and says which these are: what capture has
/// in flight would wait for a topic that is gone. A table that another lane begins to follow meanwhile is no longer
/// waited for.
async fn released(plan: &LanePlan, feed: &Feed) -> Result<BTreeSet<TableName>, Halt> {
    let (mut status, mut wanted) = (feed.status.subscribe(), feed.orders.subscribe());
    loop {
        wanted.mark_unchanged();
        let own = unshared(plan, feed)?;
        tokio::select! {
            free = status.wait_for(|status| status.touched.is_disjoint(&own)) => {
                free.map(drop).map_err(|_| Halt::away("capture has ended"))?;
                return Ok(own);
            }
            more = wanted.changed() => more.map_err(|_| Halt::away("the bridge is ending"))?,
        }
    }
}
