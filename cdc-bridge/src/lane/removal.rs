//! A lane's copy is removed: its rows, what is kept about it, its gates.

use super::filled;
use super::halt::Halt;
use super::kept;
use super::plan::LanePlan;
use super::publication;
use super::sink::Sink;
use crate::feed::Feed;
use crate::feed::source::SourceError;
use migrations::control::LaneOrder;
use migrations::stage::Epoch;
use postgres::gate;

/// Undoes `sync start`: the copied rows, what is kept about them, the gates. `begins` is called when there is
/// something to remove.
pub(crate) async fn remove(
    plan: &LanePlan,
    order: &LaneOrder,
    feed: &Feed,
    epoch: Epoch,
    begins: impl FnOnce(),
) -> Result<(), Halt> {
    let client = Sink::enter(plan).await?;
    let Some(filled) = kept::filled(&client, plan).await? else {
        // A copy may have ended before it began. Where nothing is installed, nothing is published.
        let _ = publication::publish(plan, order, feed).await;
        return Ok(());
    };
    begins();
    let source = feed.source.connect("strangler").await.map_err(SourceError::from)?;
    // No chunk of a copy that lost its lock comes after this.
    kept::hold(&client, &plan.id, "").await?;
    filled::give_up(&client, &plan.slice, epoch, &filled).await?;
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
    if kept::filled(&client, plan).await?.is_some() {
        publication::publish(plan, order, feed).await?;
        kept::forget(&client, &plan.id).await?;
    }
    Ok(())
}
