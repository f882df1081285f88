//! When an order asks for something else than what is being done.

use migrations::control::LaneOrder;
use migrations::stage::Stage;

/// Whether an order asks for something else than the one that is carried out. A copy goes on whether it is to be paused
/// afterwards or not: it would have to begin again.
pub fn asks_for_more(now: &LaneOrder, next: &LaneOrder) -> bool {
    match now.stage {
        Stage::Copying => LaneOrder { paused: now.paused, skips: now.skips.clone(), ..next.clone() } != *now,
        _ => next != now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::journal::Generation;
    use migrations::lane::Right;
    use migrations::lsn::{CommitLsn, Of};
    use migrations::stage::Epoch;
    use std::collections::BTreeSet;

    #[test]
    fn a_copy_goes_on_through_a_pause_and_following_does_not() {
        let order = |stage, paused| LaneOrder {
            stage,
            right: Right::Apply(Epoch::default()),
            attempt: Generation(1),
            paused,
            skips: BTreeSet::new(),
            replace: false,
        };
        assert!(!asks_for_more(&order(Stage::Copying, false), &order(Stage::Copying, true)));
        let again = LaneOrder { attempt: Generation(2), ..order(Stage::Copying, false) };
        assert!(asks_for_more(&order(Stage::Copying, false), &again));
        let following = Stage::Following { copied_at: Of::monolith(CommitLsn(1)) };
        assert!(asks_for_more(&order(Stage::Copying, false), &order(following, false)));
        assert!(asks_for_more(&order(following, false), &order(following, true)));
        assert!(!asks_for_more(&order(following, false), &order(following, false)));
    }
}
