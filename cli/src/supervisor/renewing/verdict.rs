//! What becomes of a new process, by what is seen of it and of the one before it. Pure.

use std::time::Duration;

/// How long a part may take until it has the place. A new proxy may have to wait for its table.
pub(super) const PLACE_MAX: Duration = Duration::from_secs(90);
/// A process that has taken a place waits this long for the end of the one before it, and then opens its door. One that has
/// not by now cannot, e.g. because the disk is full.
const DOOR_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub(super) has_ended: bool,
    /// Whether it hands the place over itself by now.
    pub(super) has_door: bool,
    pub(super) old_has_door: bool,
    pub(super) old_lives: bool,
    /// Whether the old process could hand its place over when the new one started.
    pub(super) is_offered: bool,
    /// Since its start.
    pub(super) waited: Duration,
    /// How long no process has handed the place over. `None` if one does.
    pub(super) free: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Awaited,
    InPlace,
    /// The old process goes on.
    Failed,
    /// It has ended, and the old process has the place no more.
    Fell,
}

impl Sight {
    pub(super) fn verdict(self) -> Verdict {
        let is_vacant = !self.old_lives || (self.is_offered && !self.old_has_door);
        match (self.has_ended, is_vacant) {
            (true, true) => Verdict::Fell,
            (true, false) => Verdict::Failed,
            _ if self.has_door => Verdict::InPlace,
            (_, true) if self.free.is_some_and(|free| free >= DOOR_MAX) => Verdict::InPlace,
            (_, true) if self.free.is_some() => Verdict::Awaited,
            _ if self.waited < PLACE_MAX => Verdict::Awaited,
            (_, true) => Verdict::Fell,
            (_, false) => Verdict::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A new process that has just started beside an old one.
    const BESIDE: Sight = Sight {
        has_ended: false,
        has_door: false,
        old_has_door: true,
        old_lives: true,
        is_offered: true,
        waited: SECOND,
        free: None,
    };
    const GIVEN: Sight = Sight { old_has_door: false, free: Some(SECOND), ..BESIDE };
    const FIRST: Sight = Sight { old_lives: false, is_offered: false, ..GIVEN };
    /// The old one cannot hand over.
    const LOCKED_OUT: Sight = Sight { is_offered: false, ..GIVEN };

    #[test]
    fn a_process_that_waits_too_long_is_given_up_and_one_that_has_the_place_is_not() {
        let late = |sight| Sight { waited: PLACE_MAX, ..sight };
        let long = |sight| Sight { free: Some(DOOR_MAX), ..late(sight) };
        for (sight, verdict) in [
            (BESIDE, Verdict::Awaited),
            (late(BESIDE), Verdict::Failed),
            (late(LOCKED_OUT), Verdict::Failed),
            (long(LOCKED_OUT), Verdict::Failed),
            (late(GIVEN), Verdict::Awaited),
            (late(FIRST), Verdict::Awaited),
            (long(GIVEN), Verdict::InPlace),
            (long(FIRST), Verdict::InPlace),
            (Sight { has_door: true, free: None, ..GIVEN }, Verdict::InPlace),
            // A process that is not the supervisor's took it.
            (late(Sight { free: None, ..GIVEN }), Verdict::Fell),
        ] {
            assert_eq!(sight.verdict(), verdict, "{sight:?}");
        }
    }

    #[test]
    fn a_process_that_dies_with_the_place_leaves_nobody() {
        for (sight, verdict) in [
            (BESIDE, Verdict::Failed),
            (LOCKED_OUT, Verdict::Failed),
            (GIVEN, Verdict::Fell),
            (FIRST, Verdict::Fell),
            (Sight { old_lives: false, ..BESIDE }, Verdict::Fell),
        ] {
            assert_eq!(Sight { has_ended: true, ..sight }.verdict(), verdict, "{sight:?}");
        }
    }
}
