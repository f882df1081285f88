//! The bridge, played: both lanes, and the last resort if no controller drives a crossing any more.

use super::agent::Agent;
use super::connection::Connection;
use super::world::{Who, World};
use migrations::control::{BridgeReport, Desired, Report};
use migrations::gate::Side;
use migrations::lane::{Direction, LaneId};
use migrations::stage::{Epoch, Stage};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::sleep;

/// As `expiry` has them.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) agent: Agent,
}

impl Bridge {
    pub(super) fn new(world: &Weak<World>) -> Bridge {
        Bridge { agent: Agent::new(world, "bridge") }
    }

    /// Whether it has heard of an epoch.
    pub(super) fn knows(&self, epoch: Epoch) -> bool {
        let desired = self.agent.desired();
        desired.is_some_and(|desired| {
            let holds = &desired.table.holds;
            holds.values().any(|hold| hold.epoch >= epoch)
        })
    }

    /// Reads, applies, and rests a little, for ever.
    pub(super) async fn lane(&self, direction: Direction) {
        let world = self.agent.world();
        let id = LaneId { slice: world.slice.clone(), direction };
        let connection = Connection::new(&world, Who::Bridge, &format!("{direction} lane"));
        loop {
            let rest =
                self.agent.roll(|dice| if dice.hits(0.02) { dice.ms(100..900) } else { dice.ms(4..25) });
            sleep(rest).await;
            let order = self.agent.desired().and_then(|desired| desired.lanes.get(&id).cloned());
            let Some(order) = order else { continue };
            if !world.databases().is_waiting(direction, &order) {
                continue;
            }
            let sink = if direction == Direction::Forward { Side::Service } else { Side::Monolith };
            let changes = self.agent.roll(|dice| 1 + dice.below(20));
            let asked = connection
                .ask(sink, "lane", move |databases, now| databases.lane(now, direction, &order, changes))
                .await;
            if asked.is_ok_and(|came_on| came_on) {
                self.agent.news.notify_one();
            }
        }
    }

    /// Gives up what nobody drives any more.
    pub(super) async fn expire(&self) {
        let world = self.agent.world();
        let connection = Connection::new(&world, Who::Bridge, "expiry");
        loop {
            sleep(EXPIRY_INTERVAL).await;
            let is_crossing = self.agent.desired().is_some_and(|desired| is_crossing(&desired));
            if is_crossing && !self.agent.heard_within(SILENCE) {
                let abort = |databases: &mut super::database::Databases, now| databases.abort(now, None);
                let _ = connection.ask(Side::Monolith, "abort what nobody drives", abort).await;
            }
        }
    }

    pub(super) fn observed(&self) -> (Option<String>, Report) {
        let world = self.agent.world();
        let now = world.now();
        let mut databases = world.databases();
        let lanes = [Direction::Forward, Direction::Reverse].map(|direction| {
            let id = LaneId { slice: world.slice.clone(), direction };
            (id, databases.report(now, direction))
        });
        let report = BridgeReport { lanes: lanes.into(), ..BridgeReport::default() };
        (Some("http://bridge:7402".to_owned()), Report::Bridge(report))
    }
}

fn is_crossing(desired: &Desired) -> bool {
    let stages = desired.lanes.values().map(|order| order.stage);
    stages.into_iter().any(|stage| matches!(stage, Stage::Cutting { .. } | Stage::Returning { .. }))
}
