//! The words that controller, proxies and bridges speak, versioned: what is *desired*, and what was *observed*.
//!
//! Agents pull: each keeps one long-poll of [`Desired`] open and posts [`Observed`]. Knows nothing of HTTP.

pub(crate) mod derive;

use crate::code::Code;
pub use derive::share;

use crate::fared::RouteFared;
use crate::finding::Finding;
use crate::journal::{Generation, JournalId};
use crate::lane::{LaneId, Right};
use crate::lsn::{CommitLsn, EndLsn, Monolith, Of, Position, Timeline};
use crate::names::{Requests, RouteName, ServiceName, SliceName, TableName};
use crate::pattern::{Access, Pattern};
use crate::plan::Sticky;
use crate::share::Share;
use crate::sql::Database;
use crate::stage::{Epoch, Hold, Stage};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The version of these words. An agent that reads another one stops with a clear error.
pub const VERSION: u32 = 3;
/// A proxy that stood still for longer may have missed that a slice moved. It doubts its table until a controller says
/// that nothing newer is desired.
pub const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// A proxy lets a service that follows answer reads only while a controller has said within this time that its table is the
/// newest. Otherwise the monolith answers.
pub const LEASE: Duration = Duration::from_secs(3);
/// So long may a controller not know what another one decided: it reads the journal every second.
const NEWS_WITHIN: Duration = Duration::from_secs(2);
/// So long after a slice is followed no longer, no proxy reads from the service's copy, whoever it is and whatever it heard.
pub const READERS_LEAVE: Duration = LEASE.saturating_add(NEWS_WITHIN).saturating_add(Duration::from_secs(1));

/// What the controller wants to be so: one document for proxies and bridges alike, complete in itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// [`VERSION`].
    pub version: u32,
    pub journal: JournalId,
    /// How long that journal was. Of one journal, agents ignore a lower generation than they have.
    pub generation: Generation,
    /// A hash of the plan's meaning; it changes when the plan was edited and the controller restarted.
    pub plan: String,
    /// For proxies: who answers what.
    pub table: Table,
    /// For bridges: what each lane does.
    pub lanes: BTreeMap<LaneId, LaneOrder>,
    /// Where the live bridge serves barriers, e.g. `http://127.0.0.1:7402`; none is known before it reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
}

impl Desired {
    /// Whether an agent that has `held` takes this one: not of the same journal and older.
    pub fn replaces(&self, held: &Desired) -> bool {
        self.journal != held.journal || self.generation >= held.generation
    }
}

/// Who answers which request: the proxy's whole knowledge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The monolith's addresses, each `http://host:port` or `https://host:port`.
    pub monolith: Vec<String>,
    pub services: BTreeMap<ServiceName, Vec<String>>,
    /// Every route of every slice; what matches none goes to the monolith.
    pub routes: Vec<TableRoute>,
    /// Slices whose writes are held.
    pub holds: BTreeMap<SliceName, Hold>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableRoute {
    pub slice: SliceName,
    pub route: RouteName,
    #[serde(rename = "match")]
    pub pattern: Pattern,
    pub access: Access,
    pub service: ServiceName,
    pub share: Share,
    pub sticky: Sticky,
    /// Whether the slice has tables that are copied after the monolith, so that a client who just wrote must
    /// read from the monolith until a barrier has passed.
    pub follows: bool,
    /// Whether the service owns the slice's tables. What the monolith has of them is behind, or no longer followed at all,
    /// so it answers no read of the slice.
    #[serde(default)]
    pub leads: bool,
    /// Whether the monolith answers it whatever becomes of the slice, as it answers what matches no route.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub pinned: bool,
    /// Whether the monolith answers a read that the service answered with 5xx, as long as the service does not lead.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub falls_back: bool,
}

impl TableRoute {
    /// Whether the service answers reads with a copy of the monolith's rows.
    pub fn reads_a_copy(&self) -> bool {
        self.follows && !self.pinned && self.access == Access::Read && self.share != Share::MONOLITH
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneOrder {
    pub stage: Stage,
    pub right: Right,
    /// Which copy is followed, or which way back is kept: what belongs to another one is begun anew.
    pub attempt: Generation,
    pub paused: bool,
    /// Changes that are left out by the operator's choice: places in the stream that the lane reads.
    pub skips: BTreeSet<Position>,
    /// Whether the copy may empty sink tables whose rows strangler did not bring.
    pub replace: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentId {
    pub kind: AgentKind,
    /// Unique among its kind: host and process, new at each start; a proxy's is `HOST-PID-TAG`.
    pub name: String,
}

impl AgentId {
    /// The host in a proxy's name.
    pub fn host(&self) -> &str {
        self.name.rsplitn(3, '-').nth(2).unwrap_or(&self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentKind {
    Proxy,
    Bridge,
}

/// What an agent saw, posted every second or when something changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// [`VERSION`].
    pub version: u32,
    pub agent: AgentId,
    /// Where it can be reached by its peers and by `strangler tail`, if it listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The journal and generation it acts on; none before the first `desired`.
    pub acts_on: Option<(JournalId, Generation)>,
    /// The hash of the plan in that `desired`.
    pub plan: String,
    pub report: Report,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    Proxy(ProxyReport),
    Bridge(BridgeReport),
}

/// Counters of a proxy since its start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyReport {
    /// Requests answered, by upstream (`monolith` or a service's name).
    pub answered: BTreeMap<String, u64>,
    /// Requests that got a 502, 503 or 504 of our own making.
    pub failed: u64,
    /// Upstream addresses that fail their health checks now.
    pub unhealthy: Vec<String>,
    /// Whether it does not know yet of some address: it has just started, or the address is new.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_checking: bool,
    /// The slices whose writes wait or are under way.
    pub slices: BTreeMap<SliceName, SliceTraffic>,
    /// Whether it takes no new connections, and ends with what is under way.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_leaving: bool,
    /// What it lets the monolith answer, because a controller said that it was taken back ([`Confirmed`]).
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub recalled: BTreeSet<Requests>,
    /// Whether it lately threw away what a balancer says of clients, because the plan does not trust it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub ignores_forwarded: bool,
    /// Where clients come by TLS, e.g. `https://0.0.0.0:8443`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub https: Option<String>,
    /// What is wrong with the proxy itself.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub findings: Vec<Finding>,
    /// How far `fared` reaches back.
    #[serde(default)]
    pub window_ms: u64,
    /// How requests fared lately. Of many routes, those with the most failures and requests.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub fared: Vec<RouteFared>,
}

/// The writes of a slice at one proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceTraffic {
    /// The hold that the proxy acts on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub holds: Option<Epoch>,
    /// Writes that wait.
    pub held: u64,
    /// Writes that were sent to either side and are not ended.
    pub in_flight: u64,
    /// 99 of 100 writes waited no longer in the hold that is acted on, or in the last one: milliseconds.
    pub held_ms_p99: u64,
    /// The longest wait of a write in that hold: milliseconds.
    pub held_ms_max: u64,
}

impl SliceTraffic {
    /// Whether nothing that was sent before the hold is still under way.
    pub fn is_drained(&self, epoch: Epoch) -> bool {
        self.holds == Some(epoch) && self.in_flight == 0
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BridgeReport {
    /// The databases that are captured; none while no slice is followed.
    pub feeds: BTreeMap<Database, FeedReport>,
    /// Each lane that is ordered, or would be by the bridge's plan.
    pub lanes: BTreeMap<LaneId, LaneReport>,
    /// By slice, a hash of what its rows are made of and by in the bridge's plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rows: BTreeMap<SliceName, String>,
    /// What is wrong with the bridge as a whole.
    pub findings: Vec<Finding>,
    /// Whether nothing is to be captured, and neither a slot nor a log of ours is left.
    pub holds_nothing: bool,
}

impl BridgeReport {
    /// That the bridge runs another plan than the controller, if it does.
    pub fn other_plan(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.code == Code::BridgeOtherPlan)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedReport {
    /// The replication slot that keeps WAL for us.
    pub slot: String,
    pub timeline: Timeline,
    /// Everything before is durable in the log.
    pub captured: EndLsn,
    /// Source WAL that is not yet durable in the log; none while the source is not heard of.
    pub lag_bytes: Option<u64>,
    /// Changes captured since the bridge's start.
    pub changes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    pub condition: Condition,
    /// Source WAL that is not yet durable in the sink; none while that is unknown, or before the lane follows.
    pub lag_bytes: Option<u64>,
    /// The age of the oldest commit that is not yet durable in the sink, 0 when there is none; none like `lag_bytes`.
    pub lag_ms: Option<u64>,
    /// Why the lag of a lane that follows is unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lag_unknown: Option<String>,
    /// Changes applied since the bridge's start.
    pub changes: u64,
    /// Changes that a lane without the right to apply has found since the bridge's start, and that no lane of ours wrote.
    pub foreign: u64,
    /// The highest epoch whose fence the sink has passed: it has everything that was written before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fenced: Option<Epoch>,
    /// From where on the lane's changes are kept, once that is so; only a lane back has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub began: Option<Began>,
}

impl LaneReport {
    /// Of a lane that has applied everything.
    pub fn caught_up(condition: Condition) -> Self {
        Self {
            condition,
            lag_bytes: Some(0),
            lag_ms: Some(0),
            lag_unknown: None,
            changes: 0,
            foreign: 0,
            fenced: None,
            began: None,
        }
    }
}

/// Where a lane back began, and for which order: what it kept for an earlier one is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    pub attempt: Generation,
    pub at: EndLsn,
}

/// What a lane does now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "condition", rename_all = "kebab-case")]
pub enum Condition {
    /// Nothing: the slice's stage asks for nothing.
    Idle,
    /// It waits for something outside to come back, e.g. a database; it tries again by itself.
    Waiting {
        finding: Finding,
    },
    Copying {
        rows: u64,
        /// Rows there are, as the source's planner estimates.
        rows_estimated: u64,
    },
    /// The first copy of this attempt is whole.
    Copied {
        attempt: Generation,
        copied_at: Of<Monolith, CommitLsn>,
    },
    Following,
    /// Tables that came into the plan are copied beside those that it follows.
    Adding {
        /// In the source's database.
        tables: BTreeSet<TableName>,
        rows: u64,
        rows_estimated: u64,
        /// Why it has not begun, if the source's database makes it wait.
        #[serde(skip_serializing_if = "Option::is_none")]
        waits: Option<String>,
    },
    Paused,
    /// It cannot be kept and must be copied again.
    Lost {
        attempt: Generation,
        why: String,
    },
    /// It stands at a change it cannot apply, or at a danger, until someone mends it.
    Stopped {
        finding: Finding,
        /// The change it stands at, in the stream that the lane reads, for `sync resume --skip`.
        #[serde(skip_serializing_if = "Option::is_none")]
        position: Option<Position>,
    },
}

/// The controller's answer to a report that acts on the newest; it is empty if both sets are. It counts until another one.
/// A controller that cannot say what the newest is confirms nothing (202), but its answer may have `recalled` too, which is
/// then added to what the proxy has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// [`VERSION`].
    pub version: u32,
    /// No proxy reads from the copies of these slices: they are too old.
    pub withheld: BTreeSet<SliceName>,
    /// Taken back in an emergency. The monolith answers reads of a slice that follows, and everything of one without tables.
    /// What the service owns stays at the service.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub recalled: BTreeSet<Requests>,
}

impl Confirmed {
    /// Nothing is withheld, and nothing was taken back.
    pub fn nothing() -> Confirmed {
        Confirmed { version: VERSION, withheld: BTreeSet::new(), recalled: BTreeSet::new() }
    }
}

/// A proxy's question to the bridge: has the sink passed everything committed by now?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierRequest {
    /// [`VERSION`].
    pub version: u32,
    pub slice: SliceName,
}

/// The bridge's answer, given only when the sink has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierAnswer {
    /// [`VERSION`].
    pub version: u32,
}
