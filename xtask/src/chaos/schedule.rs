//! What breaks when, drawn from a seed. Pure: the same seed gives the same schedule. How long a part takes to come back
//! depends on the machine, so times drift.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    MonolithDatabase,
    ServiceDatabase,
    Kafka,
    Controller,
    Bridge,
    FirstProxy,
    SecondProxy,
    Service,
}

impl Part {
    pub const ALL: [Part; 8] = [
        Part::MonolithDatabase,
        Part::ServiceDatabase,
        Part::Kafka,
        Part::Controller,
        Part::Bridge,
        Part::FirstProxy,
        Part::SecondProxy,
        Part::Service,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::MonolithDatabase => "the monolith's database",
            Part::ServiceDatabase => "the service's database",
            Part::Kafka => "Kafka",
            Part::Controller => "the controller",
            Part::Bridge => "the bridge",
            Part::FirstProxy => "the first proxy",
            Part::SecondProxy => "the second proxy",
            Part::Service => "the service",
        }
    }

    /// From its return until it may be hit again. A part that never gets far would test nothing but its start.
    fn rest(self) -> Duration {
        Duration::from_secs(if self == Part::Kafka { 20 } else { 8 })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// kill -9, and a new start after a while.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Freeze,
}

impl How {
    pub fn word(self) -> &'static str {
        match self {
            How::Kill => "killed",
            How::Freeze => "frozen",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blow {
    /// After the start of the schedule.
    pub at: Duration,
    pub part: Part,
    pub how: How,
    /// Until the new start, or until it goes on.
    pub lasts: Duration,
    /// So long after the beginning of the next move, if one begins soon: writes are held for a fraction of a second, which
    /// a blow at any time would hardly ever meet.
    pub aim: Option<Duration>,
}

/// Between two blows. Two or three parts are often broken at once, and sometimes all are well.
const GAP_MS: std::ops::Range<u64> = 1_000..7_000;
/// Between two blows that belong together, as when a machine with several parts dies.
const SALVO_MS: std::ops::Range<u64> = 0..250;
/// A supervisor starts a killed part again after about a second.
const DOWN_MS: std::ops::Range<u64> = 0..3_000;
/// The lease of a coordinator is 5 s: some outlive it, and some do not.
const FROZEN_MS: std::ops::Range<u64> = 300..7_500;

/// A move is prepared for about a second, and then writes are held.
const AIM_MS: std::ops::Range<u64> = 0..2_500;

pub fn blows(seed: u64, count: u64, parts: &[Part]) -> Vec<Blow> {
    let mut dice = StdRng::seed_from_u64(seed);
    let (mut blows, mut at): (Vec<Blow>, Duration) = (Vec::new(), Duration::ZERO);
    while (blows.len() as u64) < count {
        let gap = if dice.random_bool(0.25) { SALVO_MS } else { GAP_MS };
        at += Duration::from_millis(dice.random_range(gap));
        let is_busy = |part: Part| {
            blows.iter().any(|blow| blow.part == part && blow.at + blow.lasts + part.rest() > at)
        };
        let ready: Vec<Part> = parts.iter().copied().filter(|part| !is_busy(*part)).collect();
        if ready.is_empty() {
            continue;
        }
        let part = ready[dice.random_range(0..ready.len())];
        let how = if dice.random_bool(0.5) { How::Kill } else { How::Freeze };
        let lasts = dice.random_range(if how == How::Kill { DOWN_MS } else { FROZEN_MS });
        let aim = dice.random_range(AIM_MS);
        let aim = dice.random_bool(0.6).then(|| Duration::from_millis(aim));
        blows.push(Blow { at, part, how, lasts: Duration::from_millis(lasts), aim });
    }
    blows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_schedule_and_another_seed_another() {
        let first = blows(7, 100, &Part::ALL);
        assert_eq!(first, blows(7, 100, &Part::ALL));
        assert_ne!(first, blows(8, 100, &Part::ALL));
        assert_eq!(first[..50], blows(7, 50, &Part::ALL)[..], "a longer run begins like a shorter one");
    }

    #[test]
    fn every_part_is_killed_and_frozen_and_rests_in_between() {
        let blows = blows(1, 200, &Part::ALL);
        for part in Part::ALL {
            let own: Vec<&Blow> = blows.iter().filter(|blow| blow.part == part).collect();
            for how in [How::Kill, How::Freeze] {
                assert!(own.iter().any(|blow| blow.how == how), "{part} is never {}", how.word());
            }
            assert!(own.windows(2).all(|two| two[0].at + two[0].lasts + part.rest() <= two[1].at));
        }
        assert!(blows.iter().any(|blow| blow.lasts > Duration::from_secs(5)), "no lease runs out");
    }
}
