//! A proxy, played: it sends writes where its table says, or holds them, for as long as the product's own bound says.

use super::Mutant;
use super::agent::Agent;
use super::database::Write;
use super::world::{Beat, World};
use migrations::control::{ProxyReport, Report, SliceTraffic};
use migrations::crossing::Moment;
use migrations::gate::Side;
use migrations::share::Share;
use migrations::stage::Hold;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

/// A wait ends up to a millisecond late.
const TICK: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) agent: Agent,
    /// How far its clock is wrong, in ms.
    skew: i64,
    traffic: Mutex<Traffic>,
}

#[derive(Debug, Default)]
struct Traffic {
    life: u64,
    held: u64,
    in_flight: u64,
    held_ms_max: u64,
}

/// Where a write goes now.
enum Way {
    To(Side),
    Held(Hold),
    Nowhere,
}

/// How it went for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Committed,
    /// Refused at a gate, or no database to ask.
    Failed,
    /// It waited for too long.
    Expired,
    /// The proxy died: nothing is known of the write.
    BrokenOff,
}

impl Proxy {
    pub(super) fn new(world: &Weak<World>, number: usize, skew: i64) -> Proxy {
        let agent = Agent::new(world, &format!("proxy{number}"));
        Proxy { agent, skew, traffic: Mutex::default() }
    }

    /// Now, by its own clock.
    fn now(&self) -> Moment {
        Moment(self.agent.world().now().0.saturating_add_signed(self.skew))
    }

    fn way(&self) -> Way {
        let world = self.agent.world();
        let Some(desired) = self.agent.desired() else { return Way::Nowhere };
        let table = &desired.table;
        match (table.holds.get(&world.slice), table.routes.first()) {
            (Some(hold), _) => Way::Held(*hold),
            (None, Some(route)) if route.share == Share::SERVICE => Way::To(Side::Service),
            (None, _) => Way::To(Side::Monolith),
        }
    }

    /// What it counts; nothing that an earlier process of it counted.
    fn count(&self, count: impl FnOnce(&mut Traffic)) {
        let life = self.agent.life();
        let mut traffic = self.traffic.lock().unwrap();
        if traffic.life != life {
            *traffic = Traffic { life, ..Traffic::default() };
        }
        count(&mut traffic);
    }

    /// A client's write: held while its slice is, and sent once.
    pub(super) async fn write(&self, write: Write) -> Answer {
        let (life, arrived) = (self.agent.life(), Instant::now());
        let mut is_held = false;
        let answer = loop {
            let mut changed = std::pin::pin!(self.agent.changed.notified());
            changed.as_mut().enable();
            if self.agent.life() != life {
                break Answer::BrokenOff;
            }
            match self.way() {
                Way::Nowhere => break Answer::Failed,
                Way::To(side) => {
                    if is_held {
                        self.let_go(arrived);
                    }
                    return self.send(side, write, life).await;
                }
                Way::Held(hold) => {
                    if !std::mem::replace(&mut is_held, true) {
                        self.count(|traffic| traffic.held += 1);
                        self.agent.world().databases().tally.held += 1;
                    }
                    let bounds = self.agent.world().plan.proxy.hold;
                    let mut patience = bounds.patience(arrived.elapsed(), Some(hold), self.now());
                    if self.agent.world().is_mutant(Mutant::EndlessHold) {
                        patience = Duration::from_secs(3_600);
                    }
                    if patience.is_zero() || timeout(patience, changed).await.is_err() {
                        break Answer::Expired;
                    }
                }
            }
        };
        if is_held {
            self.let_go(arrived);
        }
        answer
    }

    /// A write is parked no longer than its own bound, nor when every hold that the journal ever knew is over.
    fn let_go(&self, arrived: Instant) {
        self.count(|traffic| {
            traffic.held = traffic.held.saturating_sub(1);
            let waited = u64::try_from(arrived.elapsed().as_millis()).unwrap();
            traffic.held_ms_max = traffic.held_ms_max.max(waited);
        });
        self.agent.news.notify_one();
        let (world, waited) = (self.agent.world(), arrived.elapsed());
        let (now, bound) = (world.now(), Duration::from_millis(world.plan.proxy.hold.wait_ms_max));
        let mut databases = world.databases();
        let until = databases.held_until.after(Duration::from_millis(self.skew.unsigned_abs()) + TICK);
        if waited > bound + TICK || waited > TICK && now > until {
            databases.breaks(format!("I5: a write was parked for {waited:?} until {now:?}, not {until:?}"));
        }
    }

    /// Sends a write. The upstream works on, should the proxy die.
    async fn send(&self, side: Side, write: Write, life: u64) -> Answer {
        let world = self.agent.world();
        self.count(|traffic| traffic.in_flight += 1);
        let (done, ended) = oneshot::channel();
        let (there, work, back) = self.agent.roll(|dice| {
            let long = dice.hits(0.02);
            (dice.ms(0..3), if long { dice.ms(50..1_500) } else { dice.ms(1..30) }, dice.ms(0..3))
        });
        let (lost_answer, sends_twice) = (world.faults().lost_answer, world.is_mutant(Mutant::SendsTwice));
        let is_lost = self.agent.roll(|dice| dice.hits(lost_answer));
        let upstream = Arc::clone(&world);
        tokio::spawn(async move {
            upstream.rest(there, Beat::Database).await;
            let mut is_committed = upstream.execute(side, write, work).await;
            if is_lost && sends_twice {
                is_committed = upstream.execute(side, write, work).await;
            }
            upstream.rest(back, Beat::Database).await;
            // Where the answer is lost, the client hears of a failure, and the write stands.
            let _ = done.send(is_committed && (!is_lost || sends_twice));
        });
        let mut ended = std::pin::pin!(ended);
        let is_committed = loop {
            let mut changed = std::pin::pin!(self.agent.changed.notified());
            changed.as_mut().enable();
            if self.agent.life() != life {
                return Answer::BrokenOff;
            }
            tokio::select! {
                biased;
                is_committed = &mut ended => break is_committed.unwrap_or(false),
                () = changed => {}
            }
        };
        if self.agent.life() != life {
            return Answer::BrokenOff;
        }
        self.count(|traffic| traffic.in_flight -= 1);
        self.agent.news.notify_one();
        if is_committed {
            world.databases().acknowledge(write);
            return Answer::Committed;
        }
        Answer::Failed
    }

    pub(super) fn observed(&self) -> (Option<String>, Report) {
        let world = self.agent.world();
        let hold = match self.way() {
            Way::Held(hold) => Some(hold.epoch),
            Way::To(_) | Way::Nowhere => None,
        };
        let mut traffic = SliceTraffic { holds: hold, ..SliceTraffic::default() };
        self.count(|counted| {
            traffic.held = counted.held;
            traffic.in_flight = counted.in_flight;
            traffic.held_ms_max = counted.held_ms_max;
        });
        let slices = [(world.slice.clone(), traffic)].into();
        let report = ProxyReport { slices, ..ProxyReport::default() };
        (Some(format!("http://{}:8080", self.agent.name)), Report::Proxy(report))
    }

    /// Whether nothing waits, and it acts on the newest word.
    pub(super) fn is_settled(&self) -> bool {
        let mut is_idle = false;
        self.count(|traffic| is_idle = traffic.held == 0);
        let length = self.agent.world().databases().ledger.length;
        is_idle && self.agent.desired().is_some_and(|desired| desired.generation == length)
    }
}
