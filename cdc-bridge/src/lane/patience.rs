//! When a lane that gets no further stops trying. Pure.

use super::halt::Halt;
use migrations::journal::Generation;
use migrations::lsn::EndLsn;

/// So many tries at one place take about 20 s, with the pauses between them.
const TRIES: u32 = 10;

/// How far a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) attempt: Generation,
    pub(crate) is_copy: bool,
    /// Everything before is durable in the sink.
    pub(crate) passed: EndLsn,
}

#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// Where the last try ended, and how many have ended there.
    last: Option<(Place, u32)>,
}

impl Patience {
    /// The halt as it is told: what was refused too often at one place becomes a stop.
    pub(crate) fn judge(&mut self, place: Place, halt: Halt) -> Halt {
        let Halt::Contended(finding, position) = halt else { return halt };
        let tries = self.last.filter(|(last, _)| *last == place).map_or(0, |(_, tries)| tries) + 1;
        self.last = Some((place, tries));
        if tries < TRIES {
            return Halt::Contended(finding, position);
        }
        // Whoever resumes it wants it to be tried again.
        self.last = None;
        Halt::Stopped(finding, position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(passed: u64) -> Place {
        Place { attempt: Generation(1), is_copy: false, passed: EndLsn(passed) }
    }

    fn stops(patience: &mut Patience, at: Place) -> bool {
        matches!(patience.judge(at, Halt::no_progress("the sink", "busy")), Halt::Stopped(..))
    }

    #[test]
    fn what_is_refused_again_and_again_at_one_place_becomes_a_stop() {
        let mut patience = Patience::default();
        let stopped: Vec<bool> = (0..2 * TRIES).map(|_| stops(&mut patience, place(7))).collect();
        let tenth = |n: u32| n % TRIES == TRIES - 1;
        assert_eq!(stopped, (0..2 * TRIES).map(tenth).collect::<Vec<_>>());
    }

    #[test]
    fn a_lane_that_gets_further_never_stops() {
        let mut patience = Patience::default();
        assert!((0..100).all(|n| !stops(&mut patience, place(n / 5))));
        let copy = Place { is_copy: true, ..place(0) };
        assert!((0..TRIES - 1).all(|_| !stops(&mut patience, copy)));
    }

    #[test]
    fn a_server_that_is_away_is_waited_for_without_end() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            assert!(matches!(patience.judge(place(1), Halt::away("no connection")), Halt::Away(_)));
        }
    }
}
