//! The words of the controller's API for people and programs: what the CLI asks and what it shows.
//!
//! Paths (all under a bearer token): `GET /v1/status`, `GET /v1/journal?after=N&wait_ms=N`, `POST /v1/shares`,
//! `POST /v1/slices/{slice}/sync/{start|pause|resume|drop}`, `GET /v1/slices/{slice}/doctor`,
//! `POST /v1/slices/{slice}/{cutover|rehearse|rollback|confirm|abort|complete}` (with `?dry_run=true`: the steps),
//! `GET /v1/slices/{slice}/crossing`, `POST /v1/slices/{slice}/reconcile` and `POST /v1/reconcile`, `POST /v1/plan` (whether an
//! edited plan may be taken); for agents
//! `GET /v1/desired?journal=ID&generation=N&plan=HASH&wait_ms=N` (204 when nothing is newer) and `POST /v1/observed`.

mod crossing;
mod known;
mod mismatch;
mod moves;
mod reload;
mod report;

pub use crossing::{CrossingVerb, CrossingWish, dry_run};
pub use known::known_slice;
pub use mismatch::mismatches;
pub use moves::{SyncVerb, Wish, next_steps, plan_event};
pub use reload::Outline;
pub use report::{CrossingEnd, CrossingReport, Phase, Reconciled};

use crate::control::{AgentId, LaneReport, Report};
use crate::crossing::{Moment, Preparing};
use crate::finding::Finding;
use crate::gate::Side;
use crate::journal::{Generation, JournalId};
use crate::lane::Direction;
use crate::lsn::{Monolith, Of, Position};
use crate::names::{RouteName, SliceName};
use crate::pattern::{Access, Pattern};
use crate::share::Share;
use crate::stage::{Epoch, Hold, Owner, Stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything there is to know, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub plan: String,
    /// The hash of the plan that the controller runs.
    #[serde(default)]
    pub plan_hash: String,
    pub journal: JournalId,
    pub generation: Generation,
    /// The controller's clock, for what is left of a hold and of `--for`.
    pub now: Moment,
    /// Every slice of the plan.
    pub slices: BTreeMap<SliceName, SliceStatus>,
    /// How the requests fared that match no route.
    #[serde(default)]
    pub unmatched: Vec<RouteTraffic>,
    /// Every agent that reported within the last minute.
    pub agents: Vec<AgentStatus>,
    /// What is wrong now, e.g. a journal that cannot be reached.
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SliceStatus {
    /// The stage of its life, with its evidence.
    #[serde(flatten)]
    pub stage: Stage,
    pub epoch: Epoch,
    pub owner: Owner,
    /// A cutover or a rehearsal that is being prepared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preparing: Option<Preparing>,
    /// Writes wait at the proxies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<Hold>,
    /// Whether it has tables, so that its writes move by cutover only.
    pub has_tables: bool,
    pub routes: Vec<RouteStatus>,
    /// Whether the monolith answers its reads for now, whatever their share: the copy is too old.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub withheld: bool,
    /// Its lanes, as the live bridge reported last; none without tables or without a bridge.
    pub lanes: BTreeMap<Direction, LaneReport>,
    /// Why nobody knows how far the side that does not own the slice is behind, if nobody does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lag_unknown: Option<String>,
    /// The commands that lead on from here.
    pub next_steps: Vec<String>,
}

/// The direction that brings a slice's changes to the side that does not own it.
pub fn leading(stage: Stage) -> Option<Direction> {
    match stage {
        Stage::Split { .. } | Stage::Returning { .. } => Some(Direction::Reverse),
        Stage::Monolith | Stage::Copying | Stage::Following { .. } | Stage::Cutting { .. } => {
            Some(Direction::Forward)
        }
        Stage::Retired => None,
    }
}

impl SliceStatus {
    /// The lane that brings its changes to the side that does not own it.
    pub fn lane(&self) -> Option<&LaneReport> {
        leading(self.stage).and_then(|direction| self.lanes.get(&direction))
    }

    /// The lane from the monolith to the service.
    pub fn forward(&self) -> Option<&LaneReport> {
        self.lanes.get(&Direction::Forward)
    }

    /// The lane from the service to the monolith.
    pub fn reverse(&self) -> Option<&LaneReport> {
        self.lanes.get(&Direction::Reverse)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteStatus {
    pub name: RouteName,
    #[serde(rename = "match")]
    pub pattern: Pattern,
    pub access: Access,
    /// How much of it goes to the service.
    pub share: Share,
    /// Whether the plan keeps it at the monolith.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub pinned: bool,
    /// Whether the monolith answers it for now, whatever its share: somebody took it back in an emergency.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub recalled: bool,
    /// How its requests fared lately, by the sides that got some.
    #[serde(default)]
    pub traffic: Vec<RouteTraffic>,
}

/// How requests fared at a side in the last half to whole minute, at all live proxies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteTraffic {
    pub side: Side,
    pub per_second: f64,
    pub requests: u64,
    /// Those that the side answered with 5xx.
    pub errors: u64,
    /// Those that the side did not answer.
    pub unanswered: u64,
    /// 99 of 100 took no longer, within a class of times. None if that is more than 30 s.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p99_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    pub agent: AgentId,
    /// Where it listens for its peers.
    pub address: Option<String>,
    /// Whether it reported within the last few seconds.
    pub live: bool,
    pub seen_ms_ago: u64,
    /// The generation it acts on, if it is of the present journal.
    pub generation: Option<Generation>,
    /// The hash of the plan that it acts on.
    #[serde(default)]
    pub plan: String,
    pub report: Report,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetShares {
    pub slice: SliceName,
    /// One route; left out: all of the slice's routes that may be shared.
    pub route: Option<RouteName>,
    pub share: Share,
    /// Back to the monolith also while the journal cannot be written: it learns of it afterwards.
    #[serde(default)]
    pub emergency: bool,
    pub actor: String,
    #[serde(default)]
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncWish {
    pub actor: String,
    #[serde(default)]
    pub reason: String,
    /// `resume` only: the change to leave out for ever.
    pub skip: Option<Of<Monolith, Position>>,
    /// `start` only: empty the sink's tables although rows of others stand in them.
    #[serde(default)]
    pub replace: bool,
}

/// What came of a wish: where the slice stands now and what to do next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub slice: SliceName,
    #[serde(flatten)]
    pub stage: Stage,
    pub epoch: Epoch,
    pub owner: Owner,
    /// Writes wait at the proxies.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<Hold>,
    /// The journal's length after the wish.
    pub generation: Generation,
    /// Proxies that are live, and how many of them act on that generation already.
    pub proxies: Acknowledged,
    /// What is doubtful but did not stop the wish.
    #[serde(default)]
    pub findings: Vec<Finding>,
    pub next_steps: Vec<String>,
}

/// How many of the live agents have what was decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub live: u32,
    /// Those of them that act on it.
    pub have: u32,
    /// Proxies that were live a minute ago and may serve on by an older table.
    #[serde(default)]
    pub silent: u32,
}
