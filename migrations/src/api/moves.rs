//! From a wish to the event that the journal takes, or to the reason why not and what to do instead.
//!
//! Pure: whoever holds plan and state gets the same answer. Live checks (`doctor`) come before, and the journal's
//! compare-and-swap after.

use super::crossing::{self, CrossingVerb, CrossingWish};
use super::known::{known_slice, likely};
use super::mismatch::lost_its_tables;
use super::{SetShares, SyncWish};
use crate::code::Code;
use crate::control::derive;
use crate::crossing::Moment;
use crate::journal::{Move, SliceState, State};
use crate::names::{RouteName, SliceName};
use crate::plan::{Plan, Route, Slice};
use crate::problem::{Diagnostic, Problem};
use crate::share::Share;
use crate::stage::{Event, IllegalMove, Owner, Stage};
use crate::text::BadText;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A sync verb that is journalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncVerb {
    Start,
    /// Stop applying; capture goes on.
    Pause,
    Resume,
    Drop,
}

impl FromStr for SyncVerb {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        match text {
            "start" => Ok(Self::Start),
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            "drop" => Ok(Self::Drop),
            _ => Err(BadText::new(text, "is not a verb", "")),
        }
    }
}

impl fmt::Display for SyncVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Drop => "drop",
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Wish<'a> {
    Shares(&'a SetShares),
    /// A slice's stream shall start, stop, go on or end.
    Sync(&'a SliceName, SyncVerb, &'a SyncWish),
    /// A slice's writes shall move, now by the journal's clock.
    Cross(&'a SliceName, CrossingVerb, &'a CrossingWish, Moment),
}

/// The move that a wish comes to. Refused as usage where the plan has no such slice or route or the wish makes no
/// sense for it, and as a conflict where the slice's stage does not allow it.
pub fn plan_event(plan: &Plan, state: &State, wish: Wish<'_>) -> Result<Move, Problem> {
    let name = match wish {
        Wish::Shares(shares) => &shares.slice,
        Wish::Sync(slice, ..) | Wish::Cross(slice, ..) => slice,
    };
    let current = state.slice(name);
    let moved = |event| state.plan_move(name, event).map_err(|illegal| conflict(name, wish, illegal));
    if let Wish::Shares(wish) = wish
        && let Some(event) = unplanned(plan, &current, wish)
    {
        return moved(event);
    }
    let slice = known_slice(plan, state, name)?;
    let goes_back = matches!(wish, Wish::Shares(shares) if shares.share == Share::MONOLITH);
    if lost_its_tables(slice, &current) && !goes_back {
        return Err(without_its_tables(slice, &current));
    }
    if derive::gained_tables(slice, &current) && !goes_back {
        return Err(without_a_copy(slice));
    }
    moved(match wish {
        Wish::Shares(shares) => shared(slice, &current, shares)?,
        Wish::Sync(_, verb, wish) => synced(slice, &current, verb, wish)?,
        Wish::Cross(_, verb, wish, now) => crossing::event(plan, state, name, verb, wish, now)?,
    })
}

/// The commands that lead on from where a slice stands; none for one that the plan does not name.
pub fn next_steps(plan: &Plan, slice: &SliceName, state: &State) -> Vec<String> {
    let Some(slice) = plan.slices.get(slice) else { return Vec::new() };
    let (name, state) = (&slice.name, state.slice(&slice.name));
    let own = |commands: &[&str]| -> Vec<String> {
        commands.iter().map(|command| format!("strangler {command} {name}")).collect()
    };
    if lost_its_tables(slice, &state) {
        return Vec::new();
    }
    if derive::gained_tables(slice, &state) {
        return vec![format!("strangler route set {name} monolith")];
    }
    if slice.is_stateless() {
        return share_steps(slice, &state);
    }
    match state.stage {
        _ if state.paused => own(&["sync resume"]),
        Stage::Monolith => own(&["doctor", "sync start"]),
        Stage::Copying => own(&["sync status"]),
        Stage::Cutting { .. } | Stage::Returning { .. } => under_way(name),
        _ if state.preparing.is_some() => under_way(name),
        _ if state.hold.is_some() => vec!["strangler status -w".to_owned()],
        Stage::Following { .. } => {
            let crossing: &[&str] = if slice.may_return() { &["rehearse", "cutover"] } else { &[] };
            let (reads, writes, tail) = (share_steps(slice, &state), own(crossing), own(&["tail"]));
            // When all reads are at the service, the writes come next.
            let is_read = shares(slice, &state).iter().all(|share| *share == Share::SERVICE);
            if is_read { [writes, reads, tail].concat() } else { [reads, writes, tail].concat() }
        }
        Stage::Split { returns_at: Some(_), .. } => own(&["confirm", "rollback"]),
        Stage::Split { .. } => own(&["verify", "complete", "rollback"]),
        Stage::Retired => vec!["strangler journal".to_owned()],
    }
}

fn under_way(name: &SliceName) -> Vec<String> {
    vec!["strangler status -w".to_owned(), format!("strangler abort {name}")]
}

/// Of each route that may be shared.
fn shares(slice: &Slice, state: &SliceState) -> Vec<Share> {
    slice.routes.iter().filter(|r| slice.may_share(r)).map(|r| derive::share(slice, r, state)).collect()
}

fn share_steps(slice: &Slice, state: &SliceState) -> Vec<String> {
    let shares = shares(slice, state);
    let set = |share: &str| format!("strangler route set {} {share}", slice.name);
    match (shares.iter().min(), shares.iter().max()) {
        (Some(&low), Some(_)) if low == Share::SERVICE => vec![set("monolith")],
        (Some(_), Some(&high)) if high == Share::MONOLITH => vec![set("10%")],
        (Some(&low), Some(_)) => {
            let more = if low.buckets() < Share::BUCKETS / 2 { "50%" } else { "100%" };
            vec![set(more), set("monolith")]
        }
        _ => Vec::new(),
    }
}

/// Back to the monolith, of a slice that the plan does not name any more: nothing is left to route, and the journal
/// forgets its shares.
fn unplanned(plan: &Plan, state: &SliceState, wish: &SetShares) -> Option<Event> {
    let is_forgotten = !plan.slices.contains_key(&wish.slice) && state.stage == Stage::Monolith;
    let routes = back(state, wish);
    (is_forgotten && !routes.is_empty()).then_some(Event::Shared { routes })
}

/// What a wish takes back of all that the journal has at the service, also routes that the plan does not name any more
/// or that could not be shared now.
fn back(state: &SliceState, wish: &SetShares) -> BTreeMap<RouteName, Share> {
    let wished = |route: &&RouteName| wish.route.as_ref().is_none_or(|name| name == *route);
    let standing = state.shares.keys().filter(wished).filter(|_| wish.share == Share::MONOLITH);
    standing.map(|route| (route.clone(), wish.share)).collect()
}

/// Shared by percent as a slice without tables is, its writes would come to a service whose copy follows the monolith.
fn without_its_tables(slice: &Slice, state: &SliceState) -> Problem {
    let name = &slice.name;
    let message = format!(
        "the journal says that slice {name} is {}, but the plan no longer lists its tables",
        state.stage.name()
    );
    let hint = format!(
        "put its tables back and run `strangler reload`; to end it, run `strangler sync drop {name}` then"
    );
    Problem::new(Code::SliceImpossible, message, hint)
}

/// Copied now, its tables would be emptied of what the service wrote, and its reads would go back without a word.
fn without_a_copy(slice: &Slice) -> Problem {
    let name = &slice.name;
    let message = format!(
        "slice {name} had no tables when its requests were sent to service {}, which has no copy of them",
        slice.service
    );
    Problem::new(Code::SliceShared, message, format!("run `strangler route set {name} monolith` first"))
}

fn shared(slice: &Slice, state: &SliceState, wish: &SetShares) -> Result<Event, Problem> {
    let mut routes = back(state, wish);
    let planned: Vec<&Route> = match &wish.route {
        Some(name) if routes.contains_key(name) => Vec::new(),
        Some(name) => vec![shareable(slice, name)?],
        None => slice.routes.iter().filter(|route| slice.may_share(route)).collect(),
    };
    routes.extend(planned.into_iter().map(|route| (route.name.clone(), wish.share)));
    if routes.is_empty() {
        let message = format!("slice {} has no route that may be shared", slice.name);
        let hint = "writes of a slice with tables move whole, by cutover; mark a route `access: read` if it only reads";
        return Err(Problem::new(Code::SliceImpossible, message, hint));
    }
    let copied = !matches!(state.stage, Stage::Monolith | Stage::Copying);
    if !slice.is_stateless() && !copied && wish.share != Share::MONOLITH {
        let message = format!("the service has no complete copy of the tables of slice {} yet", slice.name);
        let hint = match state.stage {
            Stage::Monolith => format!("run `strangler sync start {}` first", slice.name),
            _ => format!("wait until `strangler sync status {}` says following", slice.name),
        };
        return Err(Problem::new(Code::SliceStage, message, hint));
    }
    Ok(Event::Shared { routes })
}

fn shareable<'s>(slice: &'s Slice, name: &RouteName) -> Result<&'s Route, Problem> {
    let Some(route) = slice.route(name) else {
        let names = slice.routes.iter().map(|route| route.name.as_str());
        let message = format!("slice {} has no route {name}", slice.name);
        return Err(Problem::new(Code::SliceUnknown, message, likely(name.as_str(), names, "routes")));
    };
    if slice.may_share(route) {
        return Ok(route);
    }
    if route.is_pinned {
        let message = format!("the plan keeps {}.{name} ({}) at the monolith", slice.name, route.pattern);
        let hint = "take `side: monolith` out of the route in the plan, and run `strangler reload`";
        return Err(Problem::new(Code::SliceImpossible, message, hint));
    }
    let message = format!(
        "{}.{name} ({}) writes the slice's tables, and their writes are never shared: they move whole, by cutover",
        slice.name, route.pattern
    );
    let hint = format!(
        "share the reads: `strangler route set {} 10%`; or mark it `access: read` if it only reads",
        slice.name
    );
    Err(Problem::new(Code::SliceImpossible, message, hint))
}

fn synced(slice: &Slice, state: &SliceState, verb: SyncVerb, wish: &SyncWish) -> Result<Event, Problem> {
    if slice.is_stateless() {
        let message = format!("slice {} has no tables, so there is nothing to sync", slice.name);
        return Err(Problem::new(
            Code::SliceImpossible,
            message,
            format!("share its routes: `strangler route set {} 10%`", slice.name),
        ));
    }
    if wish.skip.is_some() && verb != SyncVerb::Resume {
        let hint = format!("run `strangler sync resume {} --skip POSITION`", slice.name);
        return Err(Problem::new(Code::SliceImpossible, format!("`sync {verb}` cannot skip a change"), hint));
    }
    if wish.replace && verb != SyncVerb::Start {
        let hint = format!("run `strangler sync start {} --replace`", slice.name);
        return Err(Problem::new(Code::SliceImpossible, format!("`sync {verb}` cannot replace rows"), hint));
    }
    match verb {
        SyncVerb::Drop if is_shared(slice, state) => {
            let message = format!(
                "some reads of slice {} are at service {}, and dropping the copy empties its tables",
                slice.name, slice.service
            );
            Err(Problem::new(
                Code::SliceShared,
                message,
                format!("run `strangler route set {} monolith` first", slice.name),
            ))
        }
        SyncVerb::Start => Ok(Event::SyncStarted { replace: wish.replace }),
        SyncVerb::Pause if state.paused => {
            let message = format!("slice {} is paused already", slice.name);
            Err(Problem::new(
                Code::SliceStage,
                message,
                format!("go on with `strangler sync resume {}`", slice.name),
            ))
        }
        SyncVerb::Pause => Ok(Event::Paused),
        SyncVerb::Resume => Ok(Event::Resumed { skip: wish.skip }),
        SyncVerb::Drop => Ok(Event::SyncDropped),
    }
}

/// Whether the service answers requests although the monolith owns the tables.
fn is_shared(slice: &Slice, state: &SliceState) -> bool {
    let is_shared = |route| derive::share(slice, route, state) > Share::MONOLITH;
    state.stage.owner() == Owner::Monolith && slice.routes.iter().any(is_shared)
}

fn conflict(slice: &SliceName, wish: Wish<'_>, illegal: IllegalMove) -> Problem {
    let asked = match wish {
        Wish::Shares(_) => "route set".to_owned(),
        Wish::Sync(_, verb, _) => format!("sync {verb}"),
        Wish::Cross(_, verb, ..) => verb.to_string(),
    };
    match illegal {
        IllegalMove::Stage { stage, .. } => Problem::new(
            Code::SliceStage,
            format!("slice {slice} is in stage {stage}, where `{asked}` is not possible"),
            illegal.remedy(),
        ),
        IllegalMove::StaleEpoch { .. } => illegal.into(),
    }
}
