//! What holds mean for one request: its place while it is held, its turn, and that it counts as in flight.

use super::traffic::{InFlight, Traffic};
use super::{Ending, Going, Held, Holds, Turn};
use crate::connection::Connection;
use crate::relay;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Stay {
    /// How long it was held, once that has ended.
    pub(crate) waited: Option<Duration>,
    held: Option<Held>,
    going: Option<Going>,
    in_flight: Option<InFlight>,
}

impl Stay {
    /// Holds it with the writes of a slice. A place that it has is kept. `None` if there is no room.
    pub(crate) fn hold(&mut self, holds: &Arc<Holds>, traffic: &Arc<Traffic>, bytes: u64) -> Option<&Held> {
        self.going = None;
        if !self.held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.traffic, traffic)) {
            self.held = holds.take_in(traffic, bytes);
        }
        self.held.as_ref()
    }

    /// Its turn has come.
    pub(crate) fn go(&mut self, turn: Turn) {
        self.going = Some(turn.begin());
    }

    /// It may be sent from now on.
    pub(crate) fn enter(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
        self.end(Ending::Released);
    }

    pub(crate) fn end(&mut self, ending: Ending) {
        self.waited = self.held.take().map(|held| held.end(ending));
    }

    pub(crate) fn note_answer(&mut self) {
        self.going = None;
    }

    /// Its client left. The upstream works on, and a hold must not miss that. Of too many such, the latest are not waited
    /// for: reads need connections, too.
    pub(crate) fn outlive_client(&mut self, upstream: Connection, patience: Duration) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let Some(place) = upstream.outlive() else {
            tracing::warn!(slice = %in_flight.0.slice, "many clients leave their writes; no more of those are waited for");
            return;
        };
        tokio::spawn(async move {
            relay::outlast(upstream, patience).await;
            drop((in_flight, place));
        });
    }

    /// Resolves when its slice is held. Never, if it is not a write of a slice.
    pub(crate) fn is_stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let traffic = self.in_flight.as_ref().map(|InFlight(traffic)| traffic.clone());
        async move {
            match traffic {
                Some(traffic) => traffic.is_stopped().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Its upgraded connection was closed by a hold.
    pub(crate) fn note_cut(&self, client: IpAddr) {
        if let Some(InFlight(traffic)) = &self.in_flight {
            tracing::info!(slice = %traffic.slice, %client, "an upgraded connection was closed: writes are held");
            traffic.counters.upgrades_closed.inc();
        }
    }
}
