//! What a lane's condition proves about its slice.

use migrations::control::Condition;
use migrations::journal::SliceState;
use migrations::lane::{Direction, LaneId};
use migrations::stage::{Event, Stage};

/// The event that follows; none where the report is about another copy or proves nothing new.
pub(super) fn event(state: &SliceState, lane: &LaneId, condition: &Condition) -> Option<Event> {
    match condition {
        // Only what comes from the monolith is ever copied.
        _ if lane.direction == Direction::Reverse => None,
        Condition::Copied { attempt, copied_at }
            if *attempt == state.attempt && state.stage == Stage::Copying =>
        {
            Some(Event::CopyCompleted { copied_at: *copied_at })
        }
        Condition::Lost { attempt, why }
            if *attempt == state.attempt
                && matches!(state.stage, Stage::Copying | Stage::Following { .. }) =>
        {
            Some(Event::Evicted { why: why.clone() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::journal::Generation;
    use migrations::lsn::{CommitLsn, Monolith, Of};

    const COPIED_AT: Of<Monolith, CommitLsn> = Of::monolith(CommitLsn(9));
    const FOLLOWING: Stage = Stage::Following { copied_at: COPIED_AT };

    fn event(state: &SliceState, condition: &Condition) -> Option<Event> {
        let slice = || "orders".parse().unwrap();
        assert_eq!(super::event(state, &LaneId::reverse(slice()), condition), None);
        super::event(state, &LaneId::forward(slice()), condition)
    }

    fn state(stage: Stage) -> SliceState {
        SliceState { stage, attempt: Generation(4), ..SliceState::default() }
    }

    #[test]
    fn only_the_present_copy_completes_and_only_once() {
        let copied = |attempt| Condition::Copied { attempt: Generation(attempt), copied_at: COPIED_AT };
        let completed = Some(Event::CopyCompleted { copied_at: COPIED_AT });
        assert_eq!(event(&state(Stage::Copying), &copied(4)), completed);
        assert_eq!(event(&state(Stage::Copying), &copied(3)), None);
        assert_eq!(event(&state(FOLLOWING), &copied(4)), None);
        assert_eq!(event(&state(Stage::Monolith), &copied(4)), None);
    }

    #[test]
    fn a_lost_stream_is_copied_again() {
        let lost = |attempt| Condition::Lost { attempt: Generation(attempt), why: "too much WAL".to_owned() };
        let evicted = Some(Event::Evicted { why: "too much WAL".to_owned() });
        assert_eq!(event(&state(FOLLOWING), &lost(4)), evicted);
        assert_eq!(event(&state(FOLLOWING), &lost(2)), None);
        assert_eq!(event(&state(Stage::Copying), &Condition::Following), None);
    }
}
