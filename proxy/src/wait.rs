//! Where a request waits before anything of it is sent: a read for a barrier, a write for the end of a hold.

use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::hold::Ending;
use crate::request::Requests;
use crate::table::Entry;
use crate::visit::Visit;
use std::time::Instant;

impl Requests {
    /// The one place where a request waits. Its body is unread and nothing of it was sent, so another side may answer
    /// afterwards.
    pub(crate) async fn wait(&self, visit: &mut Visit, exchange: &mut Exchange) -> Result<(), Failure> {
        loop {
            self.be_sure(visit, exchange).await;
            if let Some(wait) = exchange.wait() {
                let has_come = wait.ends().await;
                exchange.resume(has_come);
                continue;
            }
            let Some(traffic) = exchange.traffic() else {
                exchange.stay.end(Ending::Released);
                return Ok(());
            };
            match self.tables.enter(&exchange.live, traffic) {
                Entry::Goes(in_flight) => {
                    exchange.stay.enter(in_flight);
                    return Ok(());
                }
                Entry::Moved(live) => {
                    exchange.place_again(live, &visit.request, self.tag, &self.tables.count);
                }
                Entry::Held => {
                    if let Err(failure) = self.stand(visit, exchange).await {
                        exchange.refuse(failure);
                        return Err(failure);
                    }
                }
            }
        }
    }

    /// Waits while the table that placed it is in doubt, if that may matter.
    async fn be_sure(&self, visit: &Visit, exchange: &mut Exchange) {
        let doubt = &self.tables.doubt;
        while doubt.is_at(Instant::now()) && exchange.needs_right_side() {
            doubt.end().await;
            if let Some(live) = self.tables.live() {
                exchange.place_again(live, &visit.request, self.tag, &self.tables.count);
            }
        }
    }

    /// Keeps a write until its slice is not held and its turn has come.
    async fn stand(&self, visit: &mut Visit, exchange: &mut Exchange) -> Result<(), Failure> {
        let holds = &self.tables.holds;
        let arrived = exchange.arrived.at;
        visit.wire.rest();
        let bytes = (visit.request.bytes() + visit.wire.bytes_at_rest()) as u64;
        let traffic = exchange.traffic().cloned().ok_or(Failure::HoldFull)?;
        let held = exchange.stay.hold(holds, &traffic, bytes).ok_or(Failure::HoldFull)?;
        let (slice, mut call) = (held.traffic.slice.clone(), held.turn());
        loop {
            // The hold may have become another one meanwhile.
            let patience = holds.patience(arrived, self.tables.hold(&slice));
            if patience.is_zero() {
                return Err(Failure::HoldExpired);
            }
            if let Some(turn) = visit.called(&mut call, patience).await? {
                exchange.stay.go(turn);
                return Ok(());
            }
        }
    }
}
