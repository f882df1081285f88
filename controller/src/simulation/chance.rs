//! Chance: dice that fall the same way for the same seed, and how often something goes wrong in a world.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::ops::Range;
use std::time::Duration;

/// Each actor has dice of its own. So the order in which actors are polled changes nobody's luck.
#[derive(Debug)]
pub(super) struct Dice(StdRng);

impl Dice {
    pub(super) fn of(seed: u64, actor: &str) -> Dice {
        let mut number = seed ^ 0xcbf2_9ce4_8422_2325;
        for byte in actor.bytes() {
            number = (number ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Dice(StdRng::seed_from_u64(number))
    }

    pub(super) fn hits(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.0.random_bool(chance)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0.random_range(0..end)
    }

    pub(super) fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.0.random_range(range))
    }

    fn up_to(&mut self, most: f64) -> f64 {
        // Half of the worlds have nothing of a fault, so that faults are met alone, too.
        if self.hits(0.5) { 0.0 } else { self.0.random_range(0.0..most) }
    }
}

/// How often something goes wrong: chances for each question to a database, for each message, or for each second.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// A question or a message is slow.
    pub(super) slow: f64,
    /// A question or a message is lost.
    pub(super) loss: f64,
    /// A database does what it is asked, and its answer is lost.
    pub(super) lost_answer: f64,
    /// A question takes longer than anyone waits.
    pub(super) hang: f64,
    /// A message comes twice.
    pub(super) repeat: f64,
    /// A controller dies after a question to a database.
    pub(super) crash: f64,
    /// A controller stands still at a question to a database.
    pub(super) freeze: f64,
    /// Each second, a controller is stopped in order.
    pub(super) stop: f64,
    /// Each second, an agent dies and starts again.
    pub(super) restart: f64,
    /// Each second, an agent is cut off from all controllers.
    pub(super) cut: f64,
    /// Each second, a database is out of reach.
    pub(super) outage: f64,
    /// How far an agent's clock is wrong, in ms.
    pub(super) skew: u64,
}

impl Faults {
    pub(super) fn of(dice: &mut Dice) -> Faults {
        Faults {
            slow: dice.up_to(0.3),
            loss: dice.up_to(0.06),
            lost_answer: dice.up_to(0.06),
            hang: dice.up_to(0.02),
            repeat: dice.up_to(0.3),
            crash: dice.up_to(0.05),
            freeze: dice.up_to(0.03),
            stop: dice.up_to(0.05),
            restart: dice.up_to(0.1),
            cut: dice.up_to(0.06),
            outage: dice.up_to(0.05),
            skew: if dice.hits(0.5) { 0 } else { 300 },
        }
    }
}
