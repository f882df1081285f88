//! Those who use the house, played: clients who write, jobs that write past the proxies, and people who wish.

use super::connection::Connection;
use super::database::Write;
use super::proxy::Answer;
use super::world::{Beat, Who, World};
use crate::desk::Desk;
use crate::reconcile::{Deed, deed, is_due};
use crate::store::Draft;
use migrations::api::{CrossingVerb, CrossingWish, Wish, plan_event};
use migrations::gate::{Act, Side};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// So many rows are written.
const ROWS: usize = 8;
/// How often a writer that queues behind a fence looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(4);

impl World {
    /// A client's transaction in a database. Whether it is committed.
    pub(super) async fn execute(&self, side: Side, write: Write, work: Duration) -> bool {
        loop {
            let begun = if self.is_away(side) { Some(false) } else { self.databases().begin(side) };
            match begun {
                Some(true) => break,
                Some(false) => return false,
                None => self.rest(LOOK_AGAIN, Beat::Database).await,
            }
        }
        self.rest(work, Beat::Database).await;
        let now = self.now();
        self.databases().commit(now, side, write);
        true
    }
}

/// Writes come one after the other and do not wait for each other.
pub(super) async fn write(world: Arc<World>) {
    let mut dice = world.dice("writers");
    // A proxy without a table is not ready.
    sleep(Duration::from_secs(1)).await;
    for number in 1.. {
        sleep(dice.ms(5..45)).await;
        let write = Write { number, row: u8::try_from(dice.below(ROWS)).unwrap() };
        let (proxy, work, who) = (dice.below(2), dice.ms(1..40), dice.below(100));
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let past = match who {
                0..15 => Some(Side::Monolith),
                15..18 => Some(Side::Service),
                _ => None,
            };
            let Some(side) = past else {
                let answer = world.proxies[proxy].write(write).await;
                if answer != Answer::Committed {
                    world.databases().tally.failed += 1;
                    world.tell(|| format!("write {number} through proxy {proxy}: {answer:?}"));
                }
                return;
            };
            world.rest(Duration::ZERO, Beat::Database).await;
            if world.execute(side, write, work).await {
                world.databases().acknowledge(write);
            }
        });
    }
}

/// People wish this and that, of either controller.
pub(super) async fn wish(world: Arc<World>) {
    let mut dice = world.dice("people");
    loop {
        sleep(dice.ms(200..4_000)).await;
        let calm = world.course.is_calm();
        let hold_ms = if calm { 5_000 } else { 200 + dice.below(5_000) as u64 };
        let number = dice.below(2);
        let verb = match dice.below(22) {
            0..9 => CrossingVerb::Cutover,
            9..11 => CrossingVerb::Rehearse,
            11..15 => CrossingVerb::Rollback,
            15..17 => CrossingVerb::Confirm,
            17..19 => CrossingVerb::Abort,
            19 => {
                abort_by_hand(&world).await;
                continue;
            }
            _ => {
                if let Some(desk) = world.desk(number) {
                    let asked = Arc::clone(&world);
                    world.serve(number, async move { reconcile(&asked, &desk).await });
                }
                continue;
            }
        };
        let for_ms = dice.hits(0.5).then(|| 300 + dice.below(9_000) as u64);
        let wish = CrossingWish {
            actor: "a person".to_owned(),
            reason: String::new(),
            for_ms: for_ms.filter(|_| verb == CrossingVerb::Cutover),
            hold_ms: Some(hold_ms),
        };
        if let Some(desk) = world.desk(number) {
            let asked = Arc::clone(&world);
            world.serve(number, async move { cross(&asked, &desk, verb, wish).await });
        }
    }
}

/// As the API takes it, but for the look at live systems.
async fn cross(world: &World, desk: &Desk, verb: CrossingVerb, wish: CrossingWish) {
    let Ok(now) = desk.store().now().await else { return };
    let decided = desk.decide(|state| {
        let asked = Wish::Cross(&world.slice, verb, &wish, now);
        let decided = plan_event(&desk.plan, state, asked)?;
        Ok(Some(Draft { actor: wish.actor.clone(), reason: String::new(), decided }))
    });
    match decided.await {
        Ok((state, _)) => world.tell(|| format!("a person: {verb}, at generation {}", state.generation)),
        Err(problem) => world.tell(|| format!("a person: {verb}, refused: {}", problem.message)),
    }
}

/// As `crate::reconcile` does it, gate by gate: what it read may be old when it acts.
async fn reconcile(world: &Arc<World>, desk: &Desk) {
    let connection = Connection::new(world, Who::Person, "a person who reconciles");
    let (Ok(state), Some(slice)) = (desk.present().await, desk.plan.slices.get(&world.slice)) else { return };
    let state = state.slice(&world.slice);
    if !is_due(slice, &state) {
        return;
    }
    for side in [Side::Monolith, Side::Service] {
        let Ok(seen) = connection.gate(side).await else { continue };
        let act = match deed(slice, &state, side, seen) {
            Deed::Fence => Act::Fence(state.epoch),
            Deed::Open => Act::Open(state.epoch),
            Deed::Nothing | Deed::Tell(_) => continue,
        };
        let turned = connection.turn(side, act).await;
        world.tell(|| format!("a person reconciles the {side}'s gate: {turned:?}"));
    }
}

/// `SELECT strangler.abort(…)`, with no process of ours in between.
async fn abort_by_hand(world: &Arc<World>) {
    let connection = Connection::new(world, Who::Person, "a person's session");
    let epoch = world.databases().head().epoch;
    let aborting = move |databases: &mut super::database::Databases, now| databases.abort(now, Some(epoch));
    let _ = connection.ask(Side::Monolith, "strangler.abort", aborting).await;
}

/// Databases that are out of reach for a while.
pub(super) async fn outages(world: Arc<World>) {
    let mut dice = world.dice("outages");
    loop {
        sleep(Duration::from_secs(1)).await;
        for side in [Side::Monolith, Side::Service] {
            if dice.hits(world.faults().outage) {
                world.cut_off(side, dice.ms(300..6_000));
            }
        }
    }
}
