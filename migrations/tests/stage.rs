//! The life of a slice and its journal: properties of every legal sequence, and that everything reads back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by falling over")]

use migrations::crossing::{Crossing, Digest, Intent, Moment, Preparing};
use migrations::journal::{BrokenJournal, Entry, Generation, JournalId, SliceState, State};
use migrations::lsn::{CommitLsn, EndLsn, Monolith, Of, Position};
use migrations::names::SliceName;
use migrations::problem::Diagnostic;
use migrations::share::Share;
use migrations::stage::{Epoch, Event, IllegalMove, Owner, Stage};
use proptest::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

fn share() -> impl Strategy<Value = Share> {
    (0u16..=100).prop_map(|percent| format!("{percent}%").parse().unwrap())
}

fn position() -> impl Strategy<Value = Of<Monolith, Position>> {
    (any::<u64>(), any::<u64>())
        .prop_map(|(commit, ordinal)| Of::monolith(Position { commit: CommitLsn(commit), ordinal }))
}

fn moment() -> impl Strategy<Value = Moment> {
    any::<u64>().prop_map(Moment)
}

fn intent() -> impl Strategy<Value = Intent> {
    prop_oneof![
        Just(Intent::Rehearse),
        proptest::option::of(any::<u64>()).prop_map(|for_ms| Intent::Cutover { for_ms })
    ]
}

fn preparing(intent: Intent) -> Preparing {
    Preparing { intent, plan: Digest(7), hold_ms: 5_000, until: Moment(9) }
}

fn crossing(intent: Intent) -> Crossing {
    Crossing { intent, plan: Digest(7), schema: Digest(8), reverse_from: Of::service(EndLsn(9)) }
}

/// Any event, its epoch anywhere near those that are reached.
fn event() -> impl Strategy<Value = Event> {
    let epoch = || (0u64..12).prop_map(Epoch);
    prop_oneof![
        4 => Just(Event::SyncStarted { replace: false }),
        4 => any::<u64>().prop_map(|lsn| Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(lsn)) }),
        1 => "\\PC{0,20}".prop_map(|why| Event::Evicted { why }),
        1 => Just(Event::SyncDropped),
        2 => proptest::collection::btree_map("[a-z]{1,4}".prop_map(|name| name.parse().unwrap()), share(), 0..4)
            .prop_map(|routes| Event::Shared { routes }),
        1 => Just(Event::Paused),
        1 => proptest::option::of(position()).prop_map(|skip| Event::Resumed { skip }),
        5 => intent().prop_map(|intent| Event::CutoverPrepared { preparing: preparing(intent) }),
        5 => (epoch(), intent(), moment())
            .prop_map(|(epoch, intent, until)| Event::CutoverStarted { epoch, crossing: crossing(intent), until }),
        5 => (epoch(), proptest::option::of(moment()))
            .prop_map(|(epoch, returns_at)| Event::CutoverCommitted { epoch, returns_at }),
        2 => (epoch(), "\\PC{0,20}").prop_map(|(epoch, why)| Event::CutoverAborted { epoch, why }),
        5 => epoch().prop_map(|epoch| Event::Released { epoch }),
        5 => (epoch(), moment()).prop_map(|(epoch, until)| Event::RollbackStarted { epoch, until }),
        3 => epoch().prop_map(|epoch| Event::RollbackCommitted { epoch }),
        2 => (epoch(), "\\PC{0,20}", proptest::option::of(moment()))
            .prop_map(|(epoch, why, returns_at)| Event::RollbackAborted { epoch, why, returns_at }),
        1 => Just(Event::Confirmed),
        1 => Just(Event::Completed),
    ]
}

fn stage() -> impl Strategy<Value = Stage> {
    let parts = (any::<u64>(), intent(), proptest::option::of(moment()));
    (0..7, parts).prop_map(|(which, (lsn, intent, returns_at))| {
        let (copied_at, crossing) = (Of::monolith(CommitLsn(lsn)), crossing(intent));
        match which {
            0 => Stage::Monolith,
            1 => Stage::Copying,
            2 => Stage::Following { copied_at },
            3 => Stage::Cutting { copied_at, crossing },
            4 => Stage::Split { copied_at, crossing, returns_at },
            5 => Stage::Returning { copied_at, crossing, returns_at },
            _ => Stage::Retired,
        }
    })
}

fn slices() -> [SliceName; 3] {
    ["orders", "stock", "billing"].map(|name| name.parse().unwrap())
}

/// Wishes in any order: those that are legal become a journal, the way a controller writes one.
fn journal() -> impl Strategy<Value = (Vec<Entry>, State, Vec<State>)> {
    proptest::collection::vec((0usize..3, event()), 20..120).prop_map(|wishes| {
        let mut state = State::empty(JournalId(Uuid::nil()));
        let (mut entries, mut states) = (Vec::new(), vec![state.clone()]);
        for (at, event) in wishes {
            let entry = entry(state.generation.next(), slices()[at].clone(), event);
            if state.apply(&entry).is_ok() {
                entries.push(entry);
                states.push(state.clone());
            }
        }
        (entries, state, states)
    })
}

fn entry(generation: Generation, slice: SliceName, event: Event) -> Entry {
    Entry {
        generation,
        at: "2026-01-01T00:00:00Z".into(),
        actor: "a@b".into(),
        reason: String::new(),
        slice,
        event,
    }
}

proptest! {
    #[test]
    fn every_stage_has_one_owner_and_only_the_decision_changes_it(stage in stage(), event in event()) {
        let owner = stage.owner();
        let Ok(after) = stage.after(&event) else { return Ok(()) };
        match (owner, after.owner()) {
            (a, b) if a == b => {}
            // Ownership is laid down first, and taken up by whoever it was decided for.
            (Owner::Monolith | Owner::Service, Owner::Nobody) | (Owner::Nobody, Owner::Monolith | Owner::Service) => {}
            (from, to) => prop_assert!(false, "{from} hands over to {to} directly"),
        }
        if let (Stage::Retired, _) = (stage, after) {
            prop_assert!(false, "nothing follows retired");
        }
    }

    #[test]
    fn a_move_under_an_epoch_that_is_not_in_force_is_refused(stage in stage(), event in event(), epoch in 0u64..12) {
        let before = SliceState { stage, epoch: Epoch(epoch), ..SliceState::default() };
        let after = before.after(Generation(1), &event);
        let Some(got) = event.epoch() else { return Ok(()) };
        match after {
            Ok(after) => prop_assert!(got >= before.epoch && after.epoch == got),
            Err(IllegalMove::StaleEpoch { .. }) => prop_assert!(stage.after(&event).is_ok()),
            Err(IllegalMove::Stage { .. }) => {}
        }
        let in_force = if event.raises_epoch() { got > before.epoch } else { got == before.epoch };
        prop_assert_eq!(event.check_epoch(before.epoch).is_ok(), in_force);
    }

    #[test]
    fn epochs_never_fall_and_each_start_and_abort_raises_them((entries, _, states) in journal()) {
        for (at, entry) in entries.iter().enumerate() {
            let (before, after) = (states[at].slice(&entry.slice), states[at + 1].slice(&entry.slice));
            prop_assert!(after.epoch >= before.epoch);
            if entry.event.raises_epoch() {
                prop_assert!(after.epoch > before.epoch, "{:?} from {:?}", entry.event, before);
            }
        }
    }

    #[test]
    fn writes_are_held_while_nobody_owns_the_slice_and_at_its_present_epoch((_, _, states) in journal()) {
        for state in states.iter().flat_map(|state| state.slices.values()) {
            prop_assert!(state.stage.owner() != Owner::Nobody || state.hold.is_some(), "{state:?}");
            prop_assert!(state.hold.is_none_or(|hold| hold.epoch == state.epoch), "{state:?}");
            prop_assert!(state.preparing.is_none() || matches!(state.stage, Stage::Following { .. }), "{state:?}");
        }
    }

    #[test]
    fn a_replayed_journal_is_the_state_that_wrote_it((entries, state, _) in journal()) {
        let replayed = State::replay(JournalId(Uuid::nil()), &entries);
        prop_assert_eq!(replayed.as_ref(), Ok(&state));
        let text = serde_json::to_string(&entries).unwrap();
        let read: Vec<Entry> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(State::replay(JournalId(Uuid::nil()), &read), Ok(state.clone()));
        let read: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        prop_assert_eq!(read, state);
    }

    #[test]
    fn a_gap_a_double_and_a_foreign_entry_are_refused((entries, _, _) in journal(), at in any::<prop::sample::Index>()) {
        if entries.len() < 2 {
            return Ok(());
        }
        let at = at.index(entries.len() - 1);
        let mut gap = entries.clone();
        gap.remove(at);
        let found = State::replay(JournalId(Uuid::nil()), &gap);
        prop_assert!(matches!(found, Err(BrokenJournal::Gap { .. })), "{found:?}");
        let mut double = entries.clone();
        double.insert(at, entries[at].clone());
        let found = State::replay(JournalId(Uuid::nil()), &double);
        prop_assert!(matches!(found, Err(BrokenJournal::Gap { .. })), "{found:?}");
    }

    #[test]
    fn an_illegal_entry_is_refused_and_changes_nothing((_, state, _) in journal(), event in event()) {
        let slice = slices()[0].clone();
        let legal = state.slice(&slice).after(state.generation.next(), &event).is_ok();
        let mut next = state.clone();
        let applied = next.apply(&entry(state.generation.next(), slice, event));
        prop_assert_eq!(applied.is_ok(), legal);
        if !legal {
            let illegal = matches!(applied, Err(BrokenJournal::Illegal { .. }));
            prop_assert!(illegal);
            prop_assert_eq!(next, state);
        }
    }

    #[test]
    fn entries_and_stages_read_back_from_json(event in event(), stage in stage(), generation in any::<u64>()) {
        let entry = entry(Generation(generation), slices()[1].clone(), event);
        let read: Entry = serde_json::from_str(&serde_json::to_string(&entry).unwrap()).unwrap();
        prop_assert_eq!(read, entry);
        let read: Stage = serde_json::from_str(&serde_json::to_string(&stage).unwrap()).unwrap();
        prop_assert_eq!(read, stage);
    }

    #[test]
    fn shares_count_only_where_the_stage_lets_them(stage in stage(), share in share()) {
        let route = "list".parse().unwrap();
        let state = SliceState { stage, shares: BTreeMap::from([(route, share)]), ..SliceState::default() };
        let route = "list".parse().unwrap();
        let expected = if stage.is_at_service() { Share::SERVICE } else { share };
        prop_assert_eq!(state.share(&route), expected);
    }
}

#[test]
fn an_entry_is_one_flat_object() {
    let intent = Intent::Cutover { for_ms: None };
    let event = Event::CutoverStarted { epoch: Epoch(3), crossing: crossing(intent), until: Moment(5) };
    let entry = entry(Generation(7), slices()[0].clone(), event);
    let expected = concat!(
        r#"{"generation":7,"at":"2026-01-01T00:00:00Z","actor":"a@b","reason":"","slice":"orders","event":"cutover-started","#,
        r#""epoch":3,"intent":"cutover","plan":"0000000000000007","schema":"0000000000000008","reverse_from":"0/9","until":5}"#
    );
    assert_eq!(serde_json::to_string(&entry).unwrap(), expected);
}

/// The installed `strangler.abort` writes the same: it takes the evidence away, or the deadline.
#[test]
fn an_abort_goes_back_to_the_stage_before_with_nothing_of_the_crossing() {
    let copied_at = Of::monolith(CommitLsn(5));
    let crossing = crossing(Intent::Cutover { for_ms: Some(5) });
    let json = |stage: Stage| serde_json::to_value(stage).unwrap();
    let abort = Event::CutoverAborted { epoch: Epoch(1), why: String::new() };
    let back = Stage::Cutting { copied_at, crossing }.after(&abort).unwrap();
    assert_eq!(json(back), serde_json::json!({ "stage": "following", "copied_at": "0/5" }));
    let abort = Event::RollbackAborted { epoch: Epoch(1), why: String::new(), returns_at: None };
    let returning = Stage::Returning { copied_at, crossing, returns_at: Some(Moment(9)) };
    let mut expected = json(returning);
    expected["stage"] = "split".into();
    expected.as_object_mut().unwrap().remove("returns_at");
    assert_eq!(json(returning.after(&abort).unwrap()), expected);
}

fn told(events: &[Event]) -> Result<SliceState, IllegalMove> {
    (1..).zip(events).try_fold(SliceState::default(), |state, (at, event)| state.after(Generation(at), event))
}

/// A slice's life up to a cutover that is prepared.
fn prepared() -> Vec<Event> {
    vec![
        Event::SyncStarted { replace: false },
        Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(5)) },
        Event::CutoverPrepared { preparing: preparing(Intent::Cutover { for_ms: None }) },
    ]
}

#[test]
fn a_whole_circle_keeps_the_way_back_and_the_hold_as_long_as_they_are_needed() {
    let crossing = crossing(Intent::Cutover { for_ms: None });
    let mut events = prepared();
    let circle = [
        (Event::CutoverStarted { epoch: Epoch(1), crossing, until: Moment(5) }, true, true),
        (Event::CutoverCommitted { epoch: Epoch(1), returns_at: None }, true, true),
        (Event::Released { epoch: Epoch(1) }, true, false),
        (Event::RollbackStarted { epoch: Epoch(2), until: Moment(9) }, true, true),
        (Event::RollbackAborted { epoch: Epoch(3), why: String::new(), returns_at: None }, true, true),
        (Event::Released { epoch: Epoch(3) }, true, false),
        (Event::RollbackStarted { epoch: Epoch(4), until: Moment(9) }, true, true),
        (Event::RollbackCommitted { epoch: Epoch(4) }, false, true),
        (Event::Released { epoch: Epoch(4) }, false, false),
    ];
    for (event, has_way_back, is_held) in circle {
        events.push(event.clone());
        let state = told(&events).unwrap();
        assert_eq!((state.has_way_back(), state.hold.is_some()), (has_way_back, is_held), "{event:?}");
    }
}

#[test]
fn a_crossing_begins_only_where_none_is_and_nothing_else_is_decided_meanwhile() {
    let refused = |more: &[Event]| {
        let events: Vec<_> = prepared().into_iter().chain(more.iter().cloned()).collect();
        told(&events).is_err_and(|error| matches!(error, IllegalMove::Stage { .. }))
    };
    let crossing = crossing(Intent::Rehearse);
    let started = |epoch| Event::CutoverStarted { epoch: Epoch(epoch), crossing, until: Moment(5) };
    let aborted = |epoch| Event::CutoverAborted { epoch: Epoch(epoch), why: "late".into() };
    assert!(refused(&[prepared()[2].clone()]), "a second one");
    assert!(refused(&[Event::SyncDropped]) && refused(&[Event::Paused]));
    assert!(!refused(&[started(1)]) && !refused(&[aborted(1)]));
    assert!(refused(&[aborted(1), started(2)]), "not prepared");
    assert!(refused(&[aborted(1), aborted(2)]), "nothing to abort");
    assert!(!refused(&[aborted(1), prepared()[2].clone(), started(2)]), "the next one is not hindered");
    let committed = Event::CutoverCommitted { epoch: Epoch(1), returns_at: None };
    let back = Event::RollbackStarted { epoch: Epoch(2), until: Moment(5) };
    assert!(refused(&[started(1), committed.clone(), back]), "not released yet");
    assert!(refused(&[started(1), committed, Event::Completed]), "not released yet");
}

#[test]
fn a_new_copy_forgets_the_shares_and_skips_of_the_old_one() {
    let list = || "list".parse().unwrap();
    let shared = Event::Shared { routes: BTreeMap::from([(list(), "25%".parse().unwrap())]) };
    let skip = Event::Resumed { skip: Some(Of::monolith(Position::default())) };
    let events = [
        Event::SyncStarted { replace: false },
        Event::CopyCompleted { copied_at: Of::monolith(CommitLsn(5)) },
        shared,
        skip,
        Event::Evicted { why: "disk".into() },
    ];
    let mut state = SliceState::default();
    for (at, event) in (1..).zip(&events) {
        state = state.after(Generation(at), event).unwrap();
    }
    assert_eq!(state.attempt, Generation(5));
    assert!(state.shares.is_empty() && state.skips.is_empty());
    assert_eq!(state.share(&list()), Share::MONOLITH);
}

#[test]
fn a_refused_move_says_what_can_be_done_instead() {
    let error =
        Stage::Copying.after(&Event::CutoverAborted { epoch: Epoch(1), why: String::new() }).unwrap_err();
    assert!(matches!(error, IllegalMove::Stage { stage: "copying", event: "cutover-aborted", .. }));
    assert!(error.remedy().contains("strangler sync status"));
}
