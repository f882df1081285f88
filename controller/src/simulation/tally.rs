//! What happened in a world. A simulation in which nothing happens proves nothing.

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) committed: u32,
    pub(super) rolled_back: u32,
    pub(super) aborted: u32,
    /// By the bridge, because the lease had run out.
    pub(super) expired: u32,
    /// A coordinator took another one's crossing over.
    pub(super) taken_over: u32,
    /// A gate or the journal refused who came late.
    pub(super) refused: u32,
    pub(super) crashes: u32,
    pub(super) freezes: u32,
    pub(super) held: u32,
    pub(super) acknowledged: u32,
    /// Writes through a proxy that were refused or broken off.
    pub(super) failed: u32,
}

impl Tally {
    /// Whether each of it happened at least once.
    pub(super) fn has_everything(&self) -> bool {
        let Tally { committed, rolled_back, aborted, expired, taken_over, refused, .. } = *self;
        let Tally { crashes, freezes, held, acknowledged, failed, .. } = *self;
        let all = [committed, rolled_back, aborted, expired, taken_over, refused];
        all.into_iter().chain([crashes, freezes, held, acknowledged, failed]).all(|times| times > 0)
    }

    pub(super) fn of_all(tallies: &[Tally]) -> Tally {
        tallies.iter().fold(Tally::default(), |sum, one| Tally {
            committed: sum.committed + one.committed,
            rolled_back: sum.rolled_back + one.rolled_back,
            aborted: sum.aborted + one.aborted,
            expired: sum.expired + one.expired,
            taken_over: sum.taken_over + one.taken_over,
            refused: sum.refused + one.refused,
            crashes: sum.crashes + one.crashes,
            freezes: sum.freezes + one.freezes,
            held: sum.held + one.held,
            acknowledged: sum.acknowledged + one.acknowledged,
            failed: sum.failed + one.failed,
        })
    }
}
