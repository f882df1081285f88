//! A controller's process, played around the product's own parts: desk, coordinator and the watch over the journal. It
//! dies, forgets everything, and starts again.

use super::connection::Connection;
use super::world::{Who, World};
use crate::coordinator::{self, Line};
use crate::desk::Desk;
use crate::serve::watch_journal;
use crate::store::Store;
use migrations::plan::Secret;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// As `serve` has it.
const GRACE: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);

/// To the bridge's port; nobody uses it here, and it takes long to make.
static LINE: LazyLock<Option<Arc<Line>>> =
    LazyLock::new(|| Line::new(Secret::new("token".to_owned())).map(Arc::new));

/// One life after the other.
pub(super) async fn run(world: Arc<World>, number: usize) {
    let mut dice = world.dice(&format!("controller {number}"));
    for life in 1.. {
        let connection =
            Connection::new(&world, Who::Controller(number), &format!("controller {number}, {life}"));
        let desk = Arc::new(Desk::new(world.plan.clone(), Store::Played(connection)));
        let (ending, ends) = watch::channel(false);
        let mut stops = false;
        let is_crashed = tokio::select! {
            biased;
            () = world.seats[number].crash.notified() => true,
            () = serve(&world, number, &desk, &ends) => false,
            () = async {
                while !stops {
                    sleep(SECOND).await;
                    stops = dice.hits(world.faults().stop);
                }
                ending.send_replace(true);
                sleep(GRACE).await;
            } => false,
        };
        if is_crashed {
            world.databases().tally.crashes += 1;
        }
        world.seat(number, None);
        let pause = if stops { dice.ms(100..1_000) } else { dice.ms(100..9_000) };
        let how = if is_crashed { "dies" } else { "was stopped" };
        world.tell(|| format!("controller {number} {how}, for {} ms", pause.as_millis()));
        sleep(pause).await;
    }
}

/// As `crate::serve` does it. Returns when it was told to end and nothing is left to do.
async fn serve(world: &Arc<World>, number: usize, desk: &Arc<Desk>, ends: &watch::Receiver<bool>) {
    let _ = desk.refresh().await;
    world.seat(number, Some(Arc::clone(desk)));
    let mut tasks = JoinSet::new();
    tasks.spawn(watch_journal(Arc::clone(desk), ends.clone()));
    let timed = Arc::clone(desk);
    tasks.spawn(async move { timed.agents.clock.keep().await });
    tasks.spawn(push(Arc::clone(world), number, Arc::clone(desk)));
    coordinator::run(Arc::clone(desk), LINE.clone(), ends.clone()).await;
}

/// Answers the agents' long polls.
async fn push(world: Arc<World>, number: usize, desk: Arc<Desk>) {
    let mut revisions = desk.revisions();
    loop {
        revisions.mark_unchanged();
        for agent in world.agents() {
            agent.call(number);
        }
        if revisions.changed().await.is_err() {
            return;
        }
    }
}
