//! The one function that decides what a crossing does next: cutover, rehearsal, rollback, abort, and what is left of them
//! after a crash.
//!
//! [`advance`] is pure and total. It is asked again after every step, by whichever coordinator holds the lease, and by
//! `--dry-run`. What was seen is of one epoch and of one coordinator: one that takes over has seen nothing, and gives up
//! what is not decided yet.

mod dry_run;

pub use dry_run::{Names, dry_run};

use crate::crossing::{Crossing, Digest, Intent, Moment, Preparing};
use crate::gate::{Gate, Side};
use crate::journal::SliceState;
use crate::lsn::{EndLsn, Of, Service};
use crate::stage::{Epoch, Event, Hold, Stage};
use std::fmt;
use std::time::Duration;

/// How long writes may be held, unless the wish says otherwise.
pub const HOLD: Duration = Duration::from_secs(5);
/// How long the way back may take to be made before anything is stopped.
pub const PREPARE: Duration = Duration::from_secs(60);
/// No longer is waited for writes that were sent before the hold: the fence waits for those that are left.
pub const DRAIN: Duration = Duration::from_secs(1);
/// No longer is waited for proxies to take the new table. It is longer than [`crate::control::DOUBT_AFTER`]: one that wakes
/// up later asks before it answers, and one that wakes up earlier has heard by then. The gate refuses what a late one sends.
pub const ACKNOWLEDGE: Duration = Duration::from_secs(2);
/// When a rollback that was due by itself is tried again after it was aborted, at the earliest.
pub const AGAIN: Duration = Duration::from_secs(10);
/// A lane that is further behind would make the hold long.
pub const LAG_MAX: Duration = Duration::from_secs(1);

/// Why a rehearsal that came as far as the decision goes back.
pub const REHEARSED: &str = "rehearsed";

/// What a coordinator does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look whether everything is ready, and hash the tables' shapes.
    Inspect,
    /// Keep vacuums and DDL off both sides' tables until their gates are turned, which they would keep from happening. The side
    /// is the one that owns the slice until now.
    Reserve(Side),
    /// Shut the gate of the side that owns the slice until now, and say so in its change stream.
    Fence(Side),
    /// Open the gate of the side that owns the slice from now on.
    Open(Side),
    /// Compare what changed, and hash the tables' shapes again.
    Compare,
    /// Set the sequences of the side that shall own the slice past those of the side that did.
    Number(Side),
}

/// What is waited for. Nothing is done about it but to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The lane back keeps the service's changes.
    WayBack,
    /// A lane has caught up.
    LittleLag(Side),
    /// No write that was sent before the hold is under way.
    Drained,
    /// The lane from this side has brought everything up to the fence.
    Fence(Side),
    /// The live proxies act on the journal's newest word.
    Acknowledged,
    /// The end of `--for`.
    Deadline,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Do(Step),
    /// Look again when something changed, or then.
    Wait(Awaited, Moment),
    Journal(Event),
    /// Nothing is left to do.
    Done,
}

/// How one lane stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneSeen {
    /// Whether changes flow.
    pub is_following: bool,
    /// Whether it can go on at all without someone's help.
    pub is_broken: bool,
    pub lag: Duration,
    /// The highest epoch whose fence it has passed.
    pub fenced: Option<Epoch>,
    /// Writes that no lane of ours made, found where nobody may write.
    pub foreign: u64,
    /// From where on its changes are kept, for the present way back and no earlier one.
    pub began: Option<EndLsn>,
}

/// How the live proxies stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProxiesSeen {
    pub live: u32,
    /// Those that act on the journal's newest word.
    pub current: u32,
    /// Those that hold at the present epoch and have nothing under way.
    pub drained: u32,
}

/// What came of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    pub differences: u64,
    pub schema: Digest,
}

/// What one coordinator has seen of a slice under its present epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The plan it works by; none of another plan's crossings goes on.
    pub plan: Digest,
    /// When this coordinator saw the slice come to its present stage and epoch; none if it took over from another.
    pub since: Option<Moment>,
    /// The shapes of the tables on both sides, once everything was found ready.
    pub ready: Option<Digest>,
    /// Whether vacuums and DDL are kept off the tables of the side whose gate is to be shut.
    pub is_reserved: bool,
    pub monolith: Option<Gate>,
    pub service: Option<Gate>,
    pub proxies: ProxiesSeen,
    pub forward: LaneSeen,
    pub reverse: LaneSeen,
    pub compared: Option<Compared>,
    /// Whether the sequences of the side that shall own were set.
    pub is_numbered: bool,
    /// Why a step failed for good, in words.
    pub failed: Option<String>,
}

impl Seen {
    pub fn gate(&self, side: Side) -> Option<Gate> {
        match side {
            Side::Monolith => self.monolith,
            Side::Service => self.service,
        }
    }

    /// The lane that reads this side's changes.
    pub fn lane_from(&self, side: Side) -> &LaneSeen {
        match side {
            Side::Monolith => &self.forward,
            Side::Service => &self.reverse,
        }
    }

    fn is_at(&self, side: Side, gate: Gate) -> bool {
        self.gate(side) == Some(gate)
    }

    /// What makes a crossing hopeless, whatever the step. `lanes` are those that it cannot do without.
    fn hopeless(&self, plan: Digest, lanes: &[Side]) -> Option<String> {
        if let Some(why) = &self.failed {
            return Some(why.clone());
        }
        if plan != self.plan {
            return Some("the plan was edited meanwhile".to_owned());
        }
        if self.reverse.foreign > 0 {
            return Some("someone wrote to the service's tables".to_owned());
        }
        let broken = lanes.iter().find(|side| self.lane_from(**side).is_broken)?;
        Some(format!("the lane from the {broken} stopped"))
    }
}

/// A cutover needs both lanes. A rollback needs the one back, and mends the other: the slice can be copied again then.
const fn needed(from: Side) -> &'static [Side] {
    match from {
        Side::Monolith => &[Side::Monolith, Side::Service],
        Side::Service => &[Side::Service],
    }
}

/// What comes next for a slice.
pub fn advance(state: &SliceState, seen: &Seen, now: Moment) -> Next {
    if let Some(preparing) = state.preparing {
        return prepare(state, preparing, seen, now);
    }
    match (state.stage, state.hold) {
        (Stage::Cutting { crossing, .. }, Some(hold)) => cut(crossing, hold, seen, now),
        (Stage::Returning { crossing, .. }, Some(hold)) => {
            match stop(Side::Service, crossing, hold, seen, now) {
                Stopping::Next(next) => next,
                Stopping::GivenUp(why) => Next::Journal(stay(state, why, now)),
                Stopping::Stopped => Next::Journal(Event::RollbackCommitted { epoch: hold.epoch }),
            }
        }
        (Stage::Split { .. }, Some(hold)) => release(Side::Service, hold, seen, now),
        (_, Some(hold)) => release(Side::Monolith, hold, seen, now),
        (Stage::Split { returns_at: Some(due), .. }, None) => come_back(state, due, seen, now),
        (_, None) => Next::Done,
    }
}

fn prepare(state: &SliceState, preparing: Preparing, seen: &Seen, now: Moment) -> Next {
    let abort = |why: String| Next::Journal(Event::CutoverAborted { epoch: state.epoch.next(), why });
    if let Some(why) = seen.hopeless(preparing.plan, needed(Side::Monolith)) {
        return abort(why);
    }
    let Some(schema) = seen.ready else {
        return if now < preparing.until { Next::Do(Step::Inspect) } else { abort(late(Awaited::WayBack)) };
    };
    let wait = |awaited| {
        if now < preparing.until { Next::Wait(awaited, preparing.until) } else { abort(late(awaited)) }
    };
    let Some(began) = seen.reverse.began.filter(|_| seen.reverse.is_following) else {
        return wait(Awaited::WayBack);
    };
    for side in [Side::Monolith, Side::Service] {
        let lane = seen.lane_from(side);
        if !lane.is_following || lane.lag > LAG_MAX {
            return wait(Awaited::LittleLag(side));
        }
    }
    if !seen.is_reserved {
        let is_late = now >= preparing.until;
        return if is_late {
            abort(no_time(Step::Reserve(Side::Monolith)))
        } else {
            Next::Do(Step::Reserve(Side::Monolith))
        };
    }
    let Preparing { intent, plan, .. } = preparing;
    let reverse_from: Of<Service, EndLsn> = Of::service(began);
    Next::Journal(Event::CutoverStarted {
        epoch: state.epoch.next(),
        crossing: Crossing { intent, plan, schema, reverse_from },
        until: now.after(Duration::from_millis(preparing.hold_ms)),
    })
}

fn cut(crossing: Crossing, hold: Hold, seen: &Seen, now: Moment) -> Next {
    let abort = |why: String| Next::Journal(Event::CutoverAborted { epoch: hold.epoch.next(), why });
    match stop(Side::Monolith, crossing, hold, seen, now) {
        Stopping::Next(next) => next,
        Stopping::GivenUp(why) => abort(why),
        Stopping::Stopped => match crossing.intent {
            Intent::Rehearse => abort(REHEARSED.to_owned()),
            Intent::Cutover { for_ms } => Next::Journal(Event::CutoverCommitted {
                epoch: hold.epoch,
                returns_at: for_ms.map(|time| now.after(Duration::from_millis(time))),
            }),
        },
    }
}

/// A rollback is given up. What was to return by itself still is; what a person wanted waits for a person.
pub fn stay(state: &SliceState, why: String, now: Moment) -> Event {
    let due = match state.stage {
        Stage::Returning { returns_at, .. } => returns_at,
        _ => None,
    };
    let returns_at = due.map(|due| due.max(now.after(AGAIN)));
    Event::RollbackAborted { epoch: state.epoch.next(), why, returns_at }
}

enum Stopping {
    Next(Next),
    GivenUp(String),
    /// Nobody writes, both sides are equal, and the new owner may begin.
    Stopped,
}

/// From the start of the hold to the moment before the decision. `from` is the side that owned the slice.
fn stop(from: Side, crossing: Crossing, hold: Hold, seen: &Seen, now: Moment) -> Stopping {
    let Some(since) = seen.since else {
        return Stopping::GivenUp("the coordinator that began it went away".to_owned());
    };
    if let Some(why) = seen.hopeless(crossing.plan, needed(from)) {
        return Stopping::GivenUp(why);
    }
    let next = steps(from, crossing, hold, since, seen, now);
    match next {
        Stopping::Next(Next::Wait(awaited, _)) if now >= hold.until => Stopping::GivenUp(late(awaited)),
        Stopping::Next(Next::Do(step)) if now >= hold.until => Stopping::GivenUp(no_time(step)),
        Stopping::Stopped if now >= hold.until => {
            Stopping::GivenUp("there was no time left to decide".to_owned())
        }
        next => next,
    }
}

fn steps(from: Side, crossing: Crossing, hold: Hold, since: Moment, seen: &Seen, now: Moment) -> Stopping {
    // A cutover did it before writes were held.
    if !seen.is_reserved {
        return Stopping::Next(Next::Do(Step::Reserve(from)));
    }
    let drained_by = since.after(DRAIN).min(hold.until);
    if seen.proxies.drained < seen.proxies.live && now < drained_by {
        return Stopping::Next(Next::Wait(Awaited::Drained, drained_by));
    }
    if !seen.is_at(from, Gate { epoch: hold.epoch, is_shut: true }) {
        return Stopping::Next(Next::Do(Step::Fence(from)));
    }
    if seen.lane_from(from).fenced.is_none_or(|fenced| fenced < hold.epoch) {
        return Stopping::Next(Next::Wait(Awaited::Fence(from), hold.until));
    }
    match seen.compared {
        None => return Stopping::Next(Next::Do(Step::Compare)),
        Some(Compared { schema, .. }) if schema != crossing.schema => {
            return Stopping::GivenUp("a table was altered meanwhile".to_owned());
        }
        Some(Compared { differences: 1.., .. }) => {
            return Stopping::GivenUp("the two sides differ; `strangler verify` shows where".to_owned());
        }
        Some(Compared { .. }) => {}
    }
    if !seen.is_numbered {
        return Stopping::Next(Next::Do(Step::Number(from.other())));
    }
    Stopping::Stopped
}

/// After the decision there is only forward: the proxies hear of it, the new owner's gate opens, what they hold goes. Until
/// a gate opens both sides are equal, so no proxy that hears late reads anything old.
fn release(to: Side, hold: Hold, seen: &Seen, now: Moment) -> Next {
    // One who took over does not know for how long the proxies were told, so they get the whole time again.
    let known_by = seen.since.unwrap_or(now).after(ACKNOWLEDGE);
    if seen.proxies.current < seen.proxies.live && now < known_by {
        return Next::Wait(Awaited::Acknowledged, known_by);
    }
    if !seen.is_at(to, Gate { epoch: hold.epoch, is_shut: false }) {
        return Next::Do(Step::Open(to));
    }
    Next::Journal(Event::Released { epoch: hold.epoch })
}

/// The time of `--for` is over. If the way back is not ready, the service serves on.
fn come_back(state: &SliceState, due: Moment, seen: &Seen, now: Moment) -> Next {
    if now < due {
        return Next::Wait(Awaited::Deadline, due);
    }
    if let Err(awaited) = may_return(seen) {
        return Next::Wait(awaited, now.after(AGAIN));
    }
    Next::Journal(Event::RollbackStarted { epoch: state.epoch.next(), until: now.after(HOLD) })
}

/// Whether a rollback would find everything on the way back, or what it would have to wait for.
pub fn may_return(seen: &Seen) -> Result<(), Awaited> {
    let lane = &seen.reverse;
    if lane.is_broken || !lane.is_following || lane.lag > LAG_MAX {
        return Err(Awaited::LittleLag(Side::Service));
    }
    Ok(())
}

fn no_time(step: Step) -> String {
    format!("there was no time left to {step}")
}

fn late(awaited: Awaited) -> String {
    format!("it took too long until {awaited}")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Inspect => f.write_str("look whether everything is ready"),
            Step::Reserve(_) => f.write_str("keep vacuums and DDL off the tables"),
            Step::Fence(side) => write!(f, "shut the {side}'s gate"),
            Step::Open(side) => write!(f, "open the {side}'s gate"),
            Step::Compare => f.write_str("compare what changed"),
            Step::Number(side) => write!(f, "set the {side}'s sequences"),
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::WayBack => f.write_str("the way back is kept"),
            Awaited::LittleLag(side) => write!(f, "the lane from the {side} has caught up"),
            Awaited::Drained => f.write_str("the writes under way have ended"),
            Awaited::Fence(side) => write!(f, "everything that the {side} wrote has arrived"),
            Awaited::Acknowledged => f.write_str("the proxies know"),
            Awaited::Deadline => f.write_str("the time is over"),
        }
    }
}
