//! What a lane does next: its order against what its sink keeps and what its feed captures. Pure.

use super::addition;
use super::halt::Halt;
use super::kept::Kept;
use super::plan::LanePlan;
use migrations::control::LaneOrder;
use migrations::journal::Generation;
use migrations::lane::{Direction, Right};
use migrations::names::TableName;
use migrations::stage::{Epoch, Stage};
use rows::progress::LogId;
use std::collections::BTreeSet;

#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing is asked.
    Rest,
    /// Remove the copied rows and everything that was made for them.
    Remove(Epoch),
    /// Forget how far the lane was. Its rows are their owner's.
    Forget,
    /// Read what the sink keeps.
    Look,
    /// Wait until the feed captures the lane's tables, without keeping the sink to ourselves meanwhile.
    AwaitCapture,
    Copy {
        epoch: Epoch,
        /// The sink tables whose rows are an earlier copy's.
        filled: BTreeSet<TableName>,
        /// Whether that copy was whole, so that someone may read it.
        is_read: bool,
    },
    /// Say that the copy is whole.
    Copied,
    /// Begin where the feed's log ends: the rows are there already.
    Begin,
    /// Stay where the sink is.
    Pause,
    /// Copy the tables that came into the plan, beside those that are followed.
    Add,
    /// Go on from where the sink is.
    Follow,
    Halt(Halt),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) log: &'a LogId,
    /// Whether the feed was seen to capture all of the lane's tables.
    pub(crate) is_captured: bool,
    /// What the sink keeps; none before anyone has looked.
    pub(crate) kept: Option<Option<&'a Kept>>,
}

pub(crate) fn next(plan: &LanePlan, order: &LaneOrder, seen: Seen<'_>) -> Next {
    match plan.id.direction {
        Direction::Forward => forward(plan, order, seen),
        Direction::Reverse => reverse(plan, order, seen),
    }
}

fn forward(plan: &LanePlan, order: &LaneOrder, seen: Seen<'_>) -> Next {
    match (order.stage, order.right) {
        // No copy was ever begun, or the copy was dropped; only what the sink keeps tells the two apart.
        (Stage::Monolith, Right::Apply(epoch)) if order.attempt == Generation(0) => Next::Remove(epoch),
        (Stage::Copying, Right::Apply(epoch)) => copy(plan, order, epoch, seen),
        (Stage::Monolith | Stage::Copying, _) => Next::Rest,
        // Without reference tables nothing is left to follow.
        _ if plan.wanted(order).is_empty() => Next::Rest,
        _ => match seen.kept {
            None => Next::Look,
            // Either capture has just found that the old log's changes are lost, or someone removed that log. The log
            // may also be another bridge's.
            Some(Some(kept)) if kept.log != *seen.log && !seen.is_captured => Next::AwaitCapture,
            Some(kept) => follow(plan, order, kept, seen),
        },
    }
}

fn copy(plan: &LanePlan, order: &LaneOrder, epoch: Epoch, seen: Seen<'_>) -> Next {
    if !seen.is_captured {
        return Next::AwaitCapture;
    }
    match seen.kept {
        None => Next::Look,
        Some(Some(kept)) if is_of(kept, order) && kept.is_made_by(plan) => Next::Copied,
        Some(kept) => Next::Copy {
            epoch,
            filled: kept.map(|kept| migrations::filled::ours(&plan.slice, &kept.filled)).unwrap_or_default(),
            is_read: kept.is_some_and(|kept| kept.copied_at.is_some()),
        },
    }
}

/// There is no copy on the way back: until the service may write, the lane may begin anew.
fn reverse(plan: &LanePlan, order: &LaneOrder, seen: Seen<'_>) -> Next {
    if order.right == Right::Rest {
        return Next::Forget;
    }
    match (order.stage, seen.kept) {
        (Stage::Monolith | Stage::Copying | Stage::Retired, _) => Next::Forget,
        (_, None) => Next::Look,
        (Stage::Following { .. } | Stage::Cutting { .. }, Some(kept))
            if !kept.is_some_and(|kept| is_of(kept, order) && kept.log == *seen.log) =>
        {
            if seen.is_captured {
                Next::Begin
            } else {
                Next::AwaitCapture
            }
        }
        (_, Some(kept)) => follow(plan, order, kept, seen),
    }
}

/// What is kept must be of this copy, and read from this log.
fn follow(plan: &LanePlan, order: &LaneOrder, kept: Option<&Kept>, seen: Seen<'_>) -> Next {
    let lost = |why: &str| Next::Halt(Halt::Lost(why.to_owned()));
    match kept {
        None => lost("the sink's database knows nothing of the copy"),
        Some(kept) if !is_of(kept, order) => {
            lost("the sink's database holds another copy than the journal says")
        }
        // A deleted log whose slot still lives was refused before; without a slot only a new copy helps.
        Some(kept) if kept.log != *seen.log => lost("the log that the slice was following is gone"),
        // Rows of a table that came later were never copied, and older rows do not know of a changed mapping.
        Some(kept) if !kept.is_made_by(plan) && !addition::is_due(plan, order, kept) => {
            Next::Halt(Halt::Stopped(Box::new(kept.other_mapping(plan)), None))
        }
        Some(_) if order.paused => Next::Pause,
        Some(kept) => match (order.right, kept.unsettled(order)) {
            (Right::Apply(_), Some(foreign)) => {
                Next::Halt(Halt::Stopped(Box::new(foreign.unsettled(plan)), Some(foreign.last)))
            }
            _ if kept.is_made_by(plan) => Next::Follow,
            _ if seen.is_captured => Next::Add,
            _ => Next::AwaitCapture,
        },
    }
}

fn is_of(kept: &Kept, order: &LaneOrder) -> bool {
    kept.attempt == order.attempt && kept.copied_at.is_some()
}

/// Whether an order asks for something else than the one that is carried out. A copy goes on whether it is to be paused
/// afterwards or not: it would have to begin again. A lane that may apply, or only watch, goes on when just the epoch is
/// another one: clients wait while writes cross over.
pub(crate) fn asks_for_more(now: &LaneOrder, next: &LaneOrder) -> bool {
    let same_right = matches!(
        (now.right, next.right),
        (Right::Apply(_), Right::Apply(_)) | (Right::Watch, Right::Watch) | (Right::Rest, Right::Rest)
    );
    match (now.stage, next.stage) {
        (Stage::Copying, _) => {
            LaneOrder { paused: now.paused, skips: now.skips.clone(), ..next.clone() } != *now
        }
        (
            Stage::Following { .. } | Stage::Cutting { .. },
            Stage::Following { .. } | Stage::Cutting { .. },
        )
        | (Stage::Split { .. } | Stage::Returning { .. }, Stage::Split { .. } | Stage::Returning { .. })
            if same_right =>
        {
            LaneOrder { stage: now.stage, right: now.right, ..next.clone() } != *now
        }
        _ => next != now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::border::{Border, Foreign};
    use crate::log::Cursor;
    use migrations::crossing::{Crossing, Digest, Intent};
    use migrations::lsn::{CommitLsn, EndLsn, Of, Position, Timeline};

    const PLAN: &str = "{ version: 1, name: shop, monolith: { upstream: 'http://a:1', database: 'postgres://s@h/a' }, \
        services: { orders: { upstream: 'http://b:1', database: 'postgres://s@h/b' } }, \
        slices: { orders: { service: orders, routes: { list: GET /orders }, tables: [public.orders] } } }";

    fn plans() -> [LanePlan; 2] {
        plans_of(PLAN)
    }

    fn plans_of(text: &str) -> [LanePlan; 2] {
        let (plan, _) = migrations::plan::check("plan.yaml", text, &|_| None).unwrap();
        LanePlan::all(&plan).try_into().unwrap()
    }

    fn forward_of(text: &str) -> LanePlan {
        let [forward, _] = plans_of(text);
        forward
    }

    fn order(stage: Stage) -> LaneOrder {
        LaneOrder {
            stage,
            right: Right::Apply(Epoch(3)),
            attempt: Generation(1),
            paused: false,
            skips: BTreeSet::new(),
            replace: false,
        }
    }

    fn following() -> Stage {
        Stage::Following { copied_at: Of::monolith(CommitLsn(5)) }
    }

    fn crossing() -> Crossing {
        let intent = Intent::Cutover { for_ms: None };
        Crossing { intent, plan: Digest(1), schema: Digest(2), reverse_from: Of::service(EndLsn(3)) }
    }

    fn cutting() -> Stage {
        Stage::Cutting { copied_at: Of::monolith(CommitLsn(5)), crossing: crossing() }
    }

    fn split() -> Stage {
        Stage::Split { copied_at: Of::monolith(CommitLsn(5)), crossing: crossing(), returns_at: None }
    }

    fn returning() -> Stage {
        Stage::Returning { copied_at: Of::monolith(CommitLsn(5)), crossing: crossing(), returns_at: None }
    }

    fn kept(plan: &LanePlan) -> Kept {
        Kept {
            log: LogId("log".to_owned()),
            timeline: Timeline { system_id: "7".to_owned(), timeline: 1 },
            attempt: Generation(1),
            copied_at: Some(CommitLsn(5)),
            position: Position::default(),
            passed: EndLsn(9),
            cursor: Cursor("log@1".to_owned()),
            shapes: [].into(),
            mapping: plan.slice.mapping_hash(),
            captured: [].into(),
            filled: ["public.orders".parse().unwrap()].into(),
            border: Border::default(),
            foreign: None,
            noted_us: 0,
        }
    }

    /// What is next where the feed's log is `log`.
    fn told(plan: &LanePlan, order: &LaneOrder, is_captured: bool, kept: Option<Option<&Kept>>) -> String {
        let log = LogId("log".to_owned());
        let next = next(plan, order, Seen { log: &log, is_captured, kept });
        let told = format!("{next:?}");
        told.split([' ', '{']).next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_copy_waits_for_capture_before_it_looks_at_the_sink() {
        let [plan, _] = plans();
        let copying = order(Stage::Copying);
        assert_eq!(told(&plan, &copying, false, None), "AwaitCapture");
        assert_eq!(told(&plan, &copying, true, None), "Look");
        assert_eq!(told(&plan, &copying, true, Some(None)), "Copy");
    }

    #[test]
    fn a_copy_is_made_once_for_each_attempt_and_mapping() {
        let [plan, _] = plans();
        let copying = order(Stage::Copying);
        let whole = kept(&plan);
        assert_eq!(told(&plan, &copying, true, Some(Some(&whole))), "Copied");
        let partly = Kept { copied_at: None, ..whole.clone() };
        let earlier = Kept { attempt: Generation(0), ..whole.clone() };
        let otherwise = Kept { mapping: "other".to_owned(), ..whole };
        for (kept, was_read) in [(&partly, false), (&earlier, true), (&otherwise, true)] {
            let log = LogId("log".to_owned());
            let seen = Seen { log: &log, is_captured: true, kept: Some(Some(kept)) };
            let Next::Copy { filled, is_read, .. } = next(&plan, &copying, seen) else { panic!("{kept:?}") };
            assert_eq!((filled.len(), is_read), (1, was_read), "{kept:?}");
        }
    }

    #[test]
    fn only_what_belongs_to_the_copy_and_to_the_log_is_followed() {
        let [plan, _] = plans();
        let order = order(following());
        let ours = kept(&plan);
        assert_eq!(told(&plan, &order, false, None), "Look");
        assert_eq!(told(&plan, &order, false, Some(Some(&ours))), "Follow");
        assert_eq!(told(&plan, &order, false, Some(None)), "Halt(Lost(\"the");
        let earlier = Kept { attempt: Generation(0), ..ours.clone() };
        assert_eq!(told(&plan, &order, false, Some(Some(&earlier))), "Halt(Lost(\"the");
        let otherwise = Kept { mapping: "other".to_owned(), ..ours.clone() };
        assert_eq!(told(&plan, &order, false, Some(Some(&otherwise))), "Halt(Stopped(Finding");
        let elsewhere = Kept { log: LogId("other".to_owned()), ..ours.clone() };
        assert_eq!(told(&plan, &order, false, Some(Some(&elsewhere))), "AwaitCapture");
        assert_eq!(told(&plan, &order, true, Some(Some(&elsewhere))), "Halt(Lost(\"the");
        let paused = LaneOrder { paused: true, ..order };
        assert_eq!(told(&plan, &paused, false, Some(Some(&ours))), "Pause");
    }

    #[test]
    fn only_tables_that_came_into_the_plan_are_added_and_only_where_nobody_else_writes_them() {
        let [mut before, back] = plans();
        let relation = |table: &str| {
            let identity = rows::change::ReplicaIdentity::Default;
            (
                table.parse().unwrap(),
                rows::change::Relation { table: table.parse().unwrap(), identity, columns: Vec::new() },
            )
        };
        let kept = Kept { shapes: [relation("public.orders")].into(), ..kept(&before) };
        let with = |tables: &str| forward_of(&PLAN.replace("tables: [public.orders]", tables));
        let follows = order(following());
        let retired = LaneOrder { right: Right::Watch, ..order(Stage::Retired) };
        let stopped = "Halt(Stopped(Finding";
        let moved = with("tables: [public.orders, public.notes]");
        let read = with("tables: [public.orders], reference: [public.prices]");
        let all = with("tables: [public.orders, public.notes], reference: [public.prices]");
        let both = with("tables: [{ from: public.orders, drop: [flags] }], reference: [public.prices]");
        for (plan, order, is_captured, expected) in [
            (&moved, &follows, false, "AwaitCapture"),
            (&moved, &follows, true, "Add"),
            (&read, &follows, true, "Add"),
            (&read, &retired, true, "Add"),
            (&all, &retired, true, stopped),
            (&both, &follows, true, stopped),
            (&read, &LaneOrder { paused: true, ..follows.clone() }, true, "Pause"),
            (&read, &LaneOrder { right: Right::Watch, ..order(split()) }, true, stopped),
            (&read, &order(cutting()), true, stopped),
        ] {
            assert_eq!(
                told(plan, order, is_captured, Some(Some(&kept))),
                expected,
                "{:?} {order:?}",
                plan.tables
            );
        }
        before.slice.tables.clear();
        assert_eq!(kept.added(&before), None, "a table that went");
        assert_eq!(
            told(&back, &follows, true, Some(Some(&Kept { mapping: String::new(), ..kept.clone() }))),
            stopped
        );
    }

    #[test]
    fn rows_are_removed_only_before_the_first_copy_and_with_the_right_to_apply() {
        let [plan, _] = plans();
        let dropped = LaneOrder { attempt: Generation(0), ..order(Stage::Monolith) };
        assert_eq!(told(&plan, &dropped, false, None), "Remove(Epoch(3))");
        assert_eq!(told(&plan, &order(Stage::Monolith), false, None), "Rest");
        let watching = LaneOrder { right: Right::Watch, ..dropped };
        assert_eq!(told(&plan, &watching, false, None), "Rest");
        assert_eq!(
            told(&plan, &LaneOrder { right: Right::Watch, ..order(Stage::Retired) }, false, None),
            "Rest"
        );
        assert_eq!(
            told(&plan, &LaneOrder { right: Right::Watch, ..order(Stage::Copying) }, true, None),
            "Rest"
        );
    }

    #[test]
    fn the_way_back_begins_without_a_copy_and_only_before_the_service_writes() {
        let [_, plan] = plans();
        let ours = kept(&plan);
        assert_eq!(told(&plan, &order(following()), false, None), "Look");
        assert_eq!(told(&plan, &order(following()), false, Some(None)), "AwaitCapture");
        assert_eq!(told(&plan, &order(following()), true, Some(None)), "Begin");
        let earlier = Kept { attempt: Generation(0), ..ours.clone() };
        assert_eq!(told(&plan, &order(following()), true, Some(Some(&earlier))), "Begin");
        assert_eq!(told(&plan, &order(following()), false, Some(Some(&ours))), "Follow");
        assert_eq!(told(&plan, &order(split()), true, Some(None)), "Halt(Lost(\"the");
        assert_eq!(told(&plan, &order(split()), false, Some(Some(&ours))), "Follow");
        for stage in [Stage::Monolith, Stage::Copying, Stage::Retired] {
            assert_eq!(told(&plan, &order(stage), false, None), "Forget");
        }
        let resting = LaneOrder { right: Right::Rest, ..order(following()) };
        assert_eq!(told(&plan, &resting, false, Some(Some(&ours))), "Forget");
    }

    #[test]
    fn a_copy_goes_on_through_a_pause_and_following_does_not() {
        let paused = |stage| LaneOrder { paused: true, ..order(stage) };
        assert!(!asks_for_more(&order(Stage::Copying), &paused(Stage::Copying)));
        let again = LaneOrder { attempt: Generation(2), ..order(Stage::Copying) };
        assert!(asks_for_more(&order(Stage::Copying), &again));
        assert!(asks_for_more(&order(Stage::Copying), &order(following())));
        assert!(asks_for_more(&order(following()), &paused(following())));
        assert!(!asks_for_more(&order(following()), &order(following())));
    }

    #[test]
    fn another_epoch_alone_does_not_end_what_a_lane_does() {
        let raised = |stage| LaneOrder { right: Right::Apply(Epoch(4)), ..order(stage) };
        let watching = |stage| LaneOrder { right: Right::Watch, ..order(stage) };
        assert!(!asks_for_more(&order(following()), &raised(cutting())));
        assert!(!asks_for_more(&order(split()), &raised(returning())));
        assert!(!asks_for_more(&watching(split()), &watching(returning())));
        assert!(asks_for_more(&order(cutting()), &watching(split())));
        assert!(asks_for_more(&watching(cutting()), &order(split())));
        assert!(asks_for_more(&watching(split()), &watching(Stage::Retired)));
        let skipping = LaneOrder { skips: [Position::default()].into(), ..raised(cutting()) };
        assert!(asks_for_more(&order(following()), &skipping));
    }

    #[test]
    fn nothing_is_applied_before_somebody_looked_at_the_writes_of_others() {
        let [plan, _] = plans();
        let last = Position { commit: CommitLsn(7), ordinal: 2 };
        let table = "public.orders".parse().unwrap();
        let foreign = Foreign { count: 2, table, first: Position::default(), last };
        let kept = Kept { foreign: Some(foreign), ..kept(&plan) };
        let watching = LaneOrder { right: Right::Watch, ..order(split()) };
        assert_eq!(told(&plan, &watching, false, Some(Some(&kept))), "Follow");
        assert_eq!(told(&plan, &order(following()), false, Some(Some(&kept))), "Halt(Stopped(Finding");
        let settled = LaneOrder { skips: [last].into(), ..order(following()) };
        assert_eq!(told(&plan, &settled, false, Some(Some(&kept))), "Follow");
    }

    #[test]
    fn a_retired_slice_still_follows_its_reference_tables_and_nothing_else() {
        let text =
            PLAN.replace("tables: [public.orders]", "tables: [public.orders], reference: [public.customers]");
        let [plan, back] = plans_of(&text);
        let retired = LaneOrder { right: Right::Watch, ..order(Stage::Retired) };
        assert_eq!(plan.wanted(&retired), ["public.customers".parse().unwrap()].into());
        assert_eq!(told(&plan, &retired, false, Some(Some(&kept(&plan)))), "Follow");
        let resting = LaneOrder { right: Right::Rest, ..retired };
        assert!(back.wanted(&resting).is_empty());
        assert_eq!(told(&back, &resting, false, None), "Forget");
    }
}
