//! The wishes that move writes, and the events they come to.

use super::known::known_slice;
use crate::code::Code;
use crate::crossing::{Intent, Moment, Preparing};
use crate::cutover;
use crate::journal::{SliceState, State};
use crate::names::SliceName;
use crate::plan::{Plan, Slice};
use crate::problem::Problem;
use crate::stage::{Event, Stage};
use crate::text::BadText;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// No hold is shorter than the first, for nothing could be done in it, nor longer than the second, for clients give up.
const HOLD_MIN_MS: u64 = 100;
const HOLD_MAX_MS: u64 = 60_000;
/// The longest time of `--for`: a month.
const FOR_MAX_MS: u64 = 31 * 24 * 3_600_000;

/// A verb that moves writes, or decides about such a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrossingVerb {
    Cutover,
    /// Everything but the decision, and back.
    Rehearse,
    Rollback,
    /// What would return by itself stays.
    Confirm,
    Abort,
    /// Give the way back up, for ever.
    Complete,
}

impl CrossingVerb {
    pub const ALL: [CrossingVerb; 6] =
        [Self::Cutover, Self::Rehearse, Self::Rollback, Self::Confirm, Self::Abort, Self::Complete];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cutover => "cutover",
            Self::Rehearse => "rehearse",
            Self::Rollback => "rollback",
            Self::Confirm => "confirm",
            Self::Abort => "abort",
            Self::Complete => "complete",
        }
    }
}

impl FromStr for CrossingVerb {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        Self::ALL
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| BadText::new(text, "is not a verb", ""))
    }
}

impl fmt::Display for CrossingVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CrossingWish {
    pub actor: String,
    #[serde(default)]
    pub reason: String,
    /// `cutover` only: everything returns after so long, unless it is confirmed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub for_ms: Option<u64>,
    /// How long writes may be held.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold_ms: Option<u64>,
}

/// The event that a wish comes to now.
pub(super) fn event(
    plan: &Plan,
    state: &State,
    name: &SliceName,
    verb: CrossingVerb,
    wish: &CrossingWish,
    now: Moment,
) -> Result<Event, Problem> {
    let slice = known_slice(plan, state, name)?;
    let current = state.slice(name);
    movable(slice)?;
    let hold_ms = hold_ms(wish)?;
    let until = now.after(Duration::from_millis(hold_ms));
    if wish.for_ms.is_some() && verb != CrossingVerb::Cutover {
        let message = format!("`{verb}` has no time after which it is taken back");
        return Err(usage(message, format!("run `strangler cutover {name} --for 10m`")));
    }
    if wish.for_ms.is_some_and(|time| time > FOR_MAX_MS) {
        return Err(usage(
            "`--for` is longer than 31 days".to_owned(),
            "write less, e.g. `--for 10m`".to_owned(),
        ));
    }
    let prepare = |intent| {
        let plan = plan.hash.parse().map_err(|_| usage("the plan has no hash".to_owned(), String::new()))?;
        let preparing = Preparing { intent, plan, hold_ms, until: now.after(cutover::PREPARE) };
        Ok(Event::CutoverPrepared { preparing })
    };
    match verb {
        CrossingVerb::Cutover => prepare(Intent::Cutover { for_ms: wish.for_ms }),
        CrossingVerb::Rehearse => prepare(Intent::Rehearse),
        CrossingVerb::Rollback => Ok(Event::RollbackStarted { epoch: current.epoch.next(), until }),
        CrossingVerb::Confirm => confirm(name, &current),
        CrossingVerb::Abort => abort(name, &current, wish),
        CrossingVerb::Complete => Ok(Event::Completed),
    }
}

fn movable(slice: &Slice) -> Result<(), Problem> {
    if slice.may_return() {
        return Ok(());
    }
    let name = &slice.name;
    if slice.tables.is_empty() {
        let message = format!("slice {name} has no tables that move, so there is nothing to cut over");
        return Err(usage(message, format!("share its routes: `strangler route set {name} 10%`")));
    }
    let message =
        format!("slice {name} has a table with `set` and without `reverse`, so nothing could come back");
    Err(usage(message, "write `reverse:` for it in the plan and run `strangler install`".to_owned()))
}

fn hold_ms(wish: &CrossingWish) -> Result<u64, Problem> {
    let default = u64::try_from(cutover::HOLD.as_millis()).unwrap_or(HOLD_MAX_MS);
    let hold_ms = wish.hold_ms.unwrap_or(default);
    if (HOLD_MIN_MS..=HOLD_MAX_MS).contains(&hold_ms) {
        return Ok(hold_ms);
    }
    let message = format!("writes cannot be held for {hold_ms} ms");
    Err(usage(message, format!("write a time from {HOLD_MIN_MS} ms to {} s", HOLD_MAX_MS / 1000)))
}

fn confirm(name: &SliceName, state: &SliceState) -> Result<Event, Problem> {
    if let Stage::Split { returns_at: None, .. } = state.stage {
        let message = format!("slice {name} does not return by itself: there is nothing to confirm");
        let remedy =
            format!("go back with `strangler rollback {name}`, or end it with `strangler complete {name}`");
        return Err(Problem::new(Code::SliceStage, message, remedy));
    }
    Ok(Event::Confirmed)
}

fn abort(name: &SliceName, state: &SliceState, wish: &CrossingWish) -> Result<Event, Problem> {
    let epoch = state.epoch.next();
    let why = if wish.reason.is_empty() { format!("aborted by {}", wish.actor) } else { wish.reason.clone() };
    match state.stage {
        Stage::Returning { .. } => Ok(Event::RollbackAborted { epoch, why, returns_at: None }),
        Stage::Cutting { .. } => Ok(Event::CutoverAborted { epoch, why }),
        _ if state.preparing.is_some() => Ok(Event::CutoverAborted { epoch, why }),
        Stage::Split { .. } => {
            let message = format!("the cutover of slice {name} is decided: it cannot be aborted any more");
            let remedy = format!("go back with `strangler rollback {name}`, which loses nothing");
            Err(Problem::new(Code::SliceStage, message, remedy))
        }
        _ => {
            let message = format!("nothing is under way for slice {name}");
            Err(Problem::new(Code::SliceStage, message, "`strangler status` shows how it stands"))
        }
    }
}

fn usage(message: String, remedy: String) -> Problem {
    Problem::new(Code::SliceImpossible, message, remedy)
}

/// What a wish would do, step by step.
pub fn dry_run(
    plan: &Plan,
    state: &State,
    name: &SliceName,
    verb: CrossingVerb,
    wish: &CrossingWish,
    now: Moment,
) -> Result<Vec<String>, Problem> {
    let event = event(plan, state, name, verb, wish, now)?;
    let slice = known_slice(plan, state, name)?;
    Ok(cutover::dry_run(plan, slice, &state.slice(name), event, now)?)
}
