//! The plan as meant: what [`check`] made of the YAML, complete and consistent.
//!
//! Only `check` builds these; whoever holds a [`Plan`] need not look for mistakes again. Nothing here reads a
//! file or the environment: both are arguments.

mod check;
mod environment;
mod fingerprint;
mod kafka;
mod publish;
mod sql;
mod tls;
mod tree;
mod written;

pub use check::check;
pub use kafka::{KafkaOption, KafkaOptions};
pub use publish::{Decimals, Publish, Skipped, Times};
pub use tls::{CertificateFiles, TlsSettings};

use crate::crossing::Moment;
use crate::finding::Finding;
use crate::gate::Side;
use crate::names::{PlanName, RouteName, ServiceName, SliceName, TableName};
use crate::pattern::{Access, Pattern};
use crate::stage::Hold;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// Its name: part of the names of slot, publication and topics.
    pub name: PlanName,
    pub monolith: Monolith,
    pub services: BTreeMap<ServiceName, Service>,
    pub log: LogChoice,
    pub proxy: ProxySettings,
    pub controller: ControllerSettings,
    pub bridge: BridgeSettings,
    /// What leaves, in the plan's order of names.
    pub slices: BTreeMap<SliceName, Slice>,
    pub accept: BTreeSet<Acceptance>,
    pub limits: Limits,
    /// A hash of the plan's meaning without its secrets, 16 hexadecimal digits.
    pub hash: String,
}

#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Monolith {
    /// Its addresses, at least one.
    pub upstreams: Vec<Upstream>,
    /// Its database by strangler's own role; none in a plan that only routes.
    pub database: Option<DatabaseUrl>,
}

#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Service {
    /// Its addresses, at least one.
    pub upstreams: Vec<Upstream>,
    /// Its database by strangler's own role; needed by slices with tables.
    pub database: Option<DatabaseUrl>,
}

/// One address of the monolith or a service: `http://host:port` or `https://host:port`, without a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Upstream {
    pub tls: bool,
    pub host: String,
    pub port: u16,
}

impl Upstream {
    /// `host:port`. An IPv6 address is written in brackets (RFC 3986, 3.2.2) and kept without.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{open}{}{close}:{}", self.host, self.port)
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// A `postgres://` URL. It holds a password, so it is shown without one.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub(crate) fn new(url: String) -> Self {
        Self(url)
    }

    /// The whole URL, password included: for connecting, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL without its password and without parameters.
    pub fn redacted(&self) -> String {
        let bare = self.0.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = bare.split_once("://") else { return "postgres://…".to_owned() };
        match rest.rsplit_once('@') {
            Some((user, place)) => {
                let user = user.split(':').next().unwrap_or_default();
                format!("{scheme}://{user}@{place}")
            }
            None => format!("{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({})", self.redacted())
    }
}

/// Where changes are kept between capture and apply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogChoice {
    Embedded {
        /// It never grows beyond this; a slice that would fill it is evicted.
        bytes_max: u64,
    },
    Kafka {
        /// `host:port`, several with commas.
        brokers: String,
        /// The monolith's prefix; tables' topics are `<prefix>.<schema>.<table>`.
        topic_prefix: String,
        /// Partitions of a topic that we create.
        partitions: u16,
        /// Replicas of a topic that we create.
        replication: u16,
        /// What the tables' topics hold; none: there are none.
        publish: Option<Publish>,
        /// The log never grows beyond this; a slice that would fill it is evicted.
        bytes_max: u64,
        options: KafkaOptions,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxySettings {
    /// Where clients connect, `address:port`.
    pub listen: String,
    /// None: clients come by plain HTTP only.
    pub tls: Option<TlsSettings>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served, `address:port`.
    pub admin: String,
    /// Testers who know this may choose the side with a header; none: nobody may.
    pub override_secret: Option<Secret>,
    /// Whether `X-Forwarded-*` of the client are believed (a load balancer of ours stands in front) or replaced.
    pub trust_forwarded: bool,
    /// Path that an upstream answers with 2xx when it is well; none: a TCP connection is enough.
    pub health_path: Option<String>,
    /// The `Host` of that question; none: the upstream's address.
    pub health_host: Option<String>,
    pub connect_timeout_ms: u64,
    /// Waiting for the next byte of an upstream, ms.
    pub read_timeout_ms: u64,
    /// What is under way when the proxy ends, or another process takes its place, has this long to end, ms.
    pub drain_ms: u64,
    /// Request and response bodies beyond this many bytes are refused; none: streamed without a bound.
    pub body_bytes_max: Option<u64>,
    /// A longer head, of a request or of an answer, is refused.
    pub head_bytes_max: u64,
    /// Clients' connections at one time; none: as many as the limit of open files allows.
    pub connections_max: Option<u64>,
    pub reuse: Reuse,
    pub hold: HoldBounds,
    /// None: the plan is for one proxy.
    pub consistency: Option<Consistency>,
    /// Whether a request passes whose path other servers read as another route.
    pub takes_ambiguous_paths: bool,
}

/// Whose requests a connection to an upstream serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Those of the client connection for which it was opened.
    Own,
    /// Everyone's, one after the other.
    Shared,
}

impl Reuse {
    pub fn word(self) -> &'static str {
        match self {
            Reuse::Own => "own",
            Reuse::Shared => "shared",
        }
    }
}

/// What keeps a client from reading older data than it has seen, while reads are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Each proxy remembers its own clients, so each client must stay at one proxy.
    Session,
    /// Each shared read waits for a barrier that began after it arrived.
    Strong,
}

impl Consistency {
    pub fn word(self) -> &'static str {
        match self {
            Consistency::Session => "session",
            Consistency::Strong => "strong",
        }
    }
}

/// What one proxy keeps of writes while their slice is held. What goes beyond is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldBounds {
    pub writes_max: u64,
    /// Heads, and what clients sent after them.
    pub bytes_max: u64,
    /// How long one write waits, ms.
    pub wait_ms_max: u64,
}

impl Default for HoldBounds {
    /// Room for 1 000 writes/s in the time that one waits. Many clients give up after 30 s; a cutover holds for a fraction
    /// of a second.
    fn default() -> Self {
        Self { writes_max: 10_000, bytes_max: 64 << 20, wait_ms_max: 10_000 }
    }
}

impl HoldBounds {
    /// How much longer a write may wait that has waited for so long. A second hold never gives it more than the bound.
    pub fn patience(&self, waited: Duration, hold: Option<Hold>, now: Moment) -> Duration {
        let bound = Duration::from_millis(self.wait_ms_max).saturating_sub(waited);
        hold.map_or(bound, |hold| bound.min(hold.until.since(now)))
    }
}

/// A secret text: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text that must not be shown from here on.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself: for comparing, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ControllerSettings {
    /// Where the API is served, `address:port`; loopback by default.
    pub listen: String,
}

#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BridgeSettings {
    /// Where barriers, `tail` and `/metrics` are served, `address:port`; loopback by default.
    pub listen: String,
}

/// What a client is recognised by, so that a share keeps it on one side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sticky {
    /// Our own cookie; the address where a client keeps no cookies.
    #[default]
    Own,
    /// A cookie of the application; without it as `Own`.
    Cookie(String),
    /// A request header; without it as `Own`.
    Header(String),
}

/// Routes and tables that leave together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Slice {
    pub name: SliceName,
    pub service: ServiceName,
    /// Its routes, in the plan's order.
    pub routes: Vec<Route>,
    pub tables: Vec<Table>,
    /// Tables that the service only reads: copied and followed, never gated.
    pub reference: Vec<Table>,
    pub sticky: Sticky,
    /// Whether the monolith answers reads that the service answers with 5xx, until a cutover.
    pub falls_back_on_5xx: bool,
    /// Who else writes its tables, and what becomes of them.
    pub writers: BTreeMap<String, WriterFate>,
    /// What user triggers of sink tables do when changes are applied.
    pub triggers: BTreeMap<String, TriggerFate>,
}

impl Slice {
    /// Whether it is pure routing.
    pub fn is_stateless(&self) -> bool {
        self.tables.is_empty() && self.reference.is_empty()
    }

    /// All its tables, those that move first.
    pub fn all_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().chain(&self.reference)
    }

    /// The same slice with only some of its tables.
    #[must_use]
    pub fn only(&self, is_meant: impl Fn(&Table) -> bool) -> Slice {
        let mut part = self.clone();
        part.tables.retain(&is_meant);
        part.reference.retain(&is_meant);
        part
    }

    /// Whether its tables can come back from the service after a cutover: it has tables that move, and each has a way back.
    pub fn may_return(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(Table::has_way_back)
    }

    /// A hash of its tables and of how their rows become the service's. A copy made under another one is another copy.
    pub fn mapping_hash(&self) -> String {
        fingerprint::of_rows(self)
    }

    pub fn route(&self, name: &RouteName) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == *name)
    }

    /// Whether a route's requests may be shared by percent: reads, and without tables writes, unless it is pinned.
    pub fn may_share(&self, route: &Route) -> bool {
        !route.is_pinned && (route.access == Access::Read || self.is_stateless())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    pub name: RouteName,
    pub pattern: Pattern,
    pub access: Access,
    /// It stays at the monolith, whatever becomes of the slice.
    pub is_pinned: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    pub from: TableName,
    pub to: TableName,
    /// Source column → sink column.
    pub rename: BTreeMap<String, String>,
    /// Source columns that the sink has not.
    pub drop: BTreeSet<String>,
    /// Sink column ← SQL over source columns, run by the sink database.
    pub set: BTreeMap<String, SqlExpression>,
    /// Source column ← SQL over sink columns: the way back.
    pub reverse: BTreeMap<String, SqlExpression>,
}

impl Table {
    pub fn name_at(&self, side: Side) -> &TableName {
        match side {
            Side::Monolith => &self.from,
            Side::Service => &self.to,
        }
    }

    /// Whether the plan says how the service's rows become the monolith's again.
    pub fn has_way_back(&self) -> bool {
        self.set.is_empty() || !self.reverse.is_empty()
    }

    /// The sink column that takes a source column's value as it is; none where the column is dropped or
    /// its place is taken by expressions (a `set` of the same name, or a `reverse` that makes it anew).
    pub fn sink_column<'t>(&'t self, source: &'t str) -> Option<&'t str> {
        if self.drop.contains(source) || self.reverse.contains_key(source) {
            return None;
        }
        let sink = self.rename.get(source).map_or(source, String::as_str);
        (!self.set.contains_key(sink)).then_some(sink)
    }

    /// The source columns that the plan names and that nothing at the sink is made of: their values belong into no log. A
    /// dropped column that a `set` reads is none of them.
    pub fn left_out(&self) -> BTreeSet<String> {
        let mut named = self.hidden();
        named.extend(self.reverse.keys().cloned());
        named.retain(|column| self.set.values().all(|set| !set.columns.contains(column)));
        named
    }

    /// The source columns that are dropped, or masked by a `set` in their place: other programs do not see them, although a
    /// `set` may read them.
    pub fn hidden(&self) -> BTreeSet<String> {
        let renamed = self.rename.iter().filter(|(_, sink)| self.set.contains_key(*sink));
        let masked = renamed.map(|(source, _)| source).chain(self.set.keys());
        let mut named: BTreeSet<String> = masked.chain(&self.drop).cloned().collect();
        named.retain(|column| self.sink_column(column).is_none());
        named
    }

    /// The way back: source and sink exchanged, with `reverse` in the place of `set`.
    pub fn reversed(&self) -> Table {
        let is_taken = |column: &&String| self.rename.values().any(|renamed| renamed == *column);
        Table {
            from: self.to.clone(),
            to: self.from.clone(),
            rename: self.rename.iter().map(|(from, to)| (to.clone(), from.clone())).collect(),
            // A column of the service's own may have the name of one that did not go there.
            drop: self.drop.iter().filter(|column| !is_taken(column)).cloned().collect(),
            set: self.reverse.clone(),
            reverse: self.set.clone(),
        }
    }
}

/// One SQL expression of the plan, parsed by `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqlExpression {
    pub text: String,
    pub columns: BTreeSet<String>,
}

/// What becomes of another writer at a cutover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WriterFate {
    /// It will write at the service.
    Moved,
    /// It will be switched off.
    Disabled,
    Accepted,
}

impl WriterFate {
    /// As the plan writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Disabled => "disabled",
            Self::Accepted => "accepted",
        }
    }
}

/// What a user trigger of a sink table does when changes are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TriggerFate {
    Fire,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acceptance {
    /// A failover of the monolith's database may lose a commit.
    AsyncFailover,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The bridge gives the slot up once it keeps more WAL than this, in bytes.
    pub wal_kept_bytes_max: u64,
    /// A row larger than this stops the slices that have its table, with a finding, in bytes.
    pub row_bytes_max: u64,
    /// A copy that is older than this is not read.
    pub staleness_ms_max: u64,
}

/// The checked plan and warnings, or every finding.
pub type Checked = Result<(Plan, Vec<Finding>), Vec<Finding>>;
