//! A lane as a verification sees it.

use super::kept::Kept;
use crate::feed::Feed;
use crate::lane::Ordered;
use crate::lane::changed::Changed;
use crate::lane::halt::Halt;
use crate::lane::mending::Mending;
use crate::lane::plan::LanePlan;
use crate::lane::state::LaneState;
use migrations::code::Code;
use migrations::control::LaneOrder;
use migrations::finding::Finding;
use migrations::stage::Stage;
use tokio::sync::watch;

/// A lane whose rows can be compared.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) plan: LanePlan,
    pub(crate) feed: Feed,
    pub(crate) state: watch::Receiver<LaneState>,
    pub(crate) orders: watch::Receiver<Ordered>,
    pub(crate) changed: Changed,
    pub(crate) mending: Mending,
}

impl Subject {
    pub(crate) fn order(&self) -> Option<LaneOrder> {
        self.orders.borrow().as_ref().map(|(_, order)| order.clone())
    }

    /// Waits while the slice crosses from one owner to the other. Fails if what is compared is another copy by now, or has
    /// another owner.
    pub(crate) async fn must_stand(&self, kept: &Kept) -> Result<(), Halt> {
        let mut orders = self.orders.clone();
        let calm = orders.wait_for(|ordered| {
            let stage = ordered.as_ref().map(|(_, order)| order.stage);
            !matches!(stage, Some(Stage::Cutting { .. } | Stage::Returning { .. }))
        });
        let order = calm.await.map_err(|_| Halt::away("the lane has ended"))?.clone();
        let is_same = order.is_some_and(|(_, order)| {
            order.stage.owner() == kept.owner && kept.lanes.get(&self.plan.id) == Some(&order.attempt)
        });
        if is_same { Ok(()) } else { Err(Halt::stop(otherwise(&self.plan))) }
    }
}

fn otherwise(plan: &LanePlan) -> Finding {
    let slice = &plan.id.slice;
    Finding::error(
        Code::SliceStage,
        format!("slice {slice} was copied again, or changed its owner, while it was compared"),
        format!("compare it again: `strangler verify {slice} --restart`"),
    )
}
