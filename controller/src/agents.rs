//! What the agents reported last. Kept in memory only: a controller that restarts hears from each within a second, and
//! until then does not know who lives. All times are of the [`Awake`] clock: nobody falls silent while the controller itself
//! stands still.

use crate::awake::Awake;
use crate::copies::{Copies, Withheld};
use migrations::api::{Acknowledged, AgentStatus};
use migrations::control::{AgentId, AgentKind, LaneReport, Observed, Report};
use migrations::cutover::ProxiesSeen;
use migrations::finding::{Finding, Severity};
use migrations::journal::{Generation, JournalId};
use migrations::lane::Direction;
use migrations::names::{Requests, SliceName};
use migrations::plan::Plan;
use migrations::stage::Epoch;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// An agent that reported within this time is live: it reports twice a second.
const LIVE: Duration = Duration::from_secs(5);
/// A proxy that said that it leaves, and is silent for so long, has ended: it reports twice a second until then.
const LEFT: Duration = Duration::from_secs(2);
/// An agent that has been silent for so long is no longer shown and blocks nothing. An agent that is killed does not sign
/// off, so it must be forgotten at some point.
const SHOWN: Duration = Duration::from_secs(60);
/// So long after the start of this controller every agent that lives has reported: it does so twice a second.
pub(crate) const HEARD_AFTER: Duration = Duration::from_secs(2);
/// More agents than any fleet has. Beyond this number the one that is silent longest is forgotten.
const AGENTS_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Agents {
    pub(crate) clock: Awake,
    seen: Mutex<BTreeMap<AgentId, Seen>>,
    copies: Mutex<Copies>,
    reports: watch::Sender<()>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    at: Instant,
    observed: Observed,
}

impl Agents {
    /// Takes a report. A bridge that copies a slice otherwise than this plan proves nothing of the copy: a route may read a table
    /// that it lacks.
    pub(crate) fn report(&self, observed: Observed, plan: &Plan) {
        let now = self.clock.now();
        if let Report::Bridge(bridge) = &observed.report {
            let mut copies = self.copies();
            let is_ours = |name: &SliceName| {
                let made = bridge.rows.get(name).zip(plan.slices.get(name));
                made.is_none_or(|(rows, slice)| *rows == slice.mapping_hash())
            };
            let forward = bridge.lanes.iter().filter(|(lane, _)| lane.direction == Direction::Forward);
            let forward = forward.filter(|(lane, _)| is_ours(&lane.slice));
            forward.for_each(|(lane, report)| copies.note(&lane.slice, report, now));
        }
        let mut seen = self.lock();
        seen.retain(|_, agent| now.duration_since(agent.at) < SHOWN);
        if seen.len() >= AGENTS_MAX && !seen.contains_key(&observed.agent) {
            let oldest = seen.iter().min_by_key(|(_, agent)| agent.at).map(|(id, _)| id.clone());
            oldest.map(|id| seen.remove(&id));
        }
        let since = seen.get(&observed.agent).map_or(now, |before| before.since);
        seen.insert(observed.agent.clone(), Seen { since, at: now, observed });
        drop(seen);
        self.reports.send_replace(());
    }

    pub(crate) fn reports(&self) -> watch::Receiver<()> {
        self.reports.subscribe()
    }

    /// When the first of the live agents counts as silent, if it does not report before.
    pub(crate) fn next_silence(&self) -> Option<Instant> {
        let first = self.live(&self.lock()).map(|agent| agent.at + LIVE).min();
        first.map(|at| at + self.clock.stood())
    }

    /// Every agent that reported within the last minute.
    pub(crate) fn status(&self, journal: JournalId) -> Vec<AgentStatus> {
        let now = self.clock.now();
        let seen = self.lock();
        let shown = seen.values().filter(|agent| now.duration_since(agent.at) < SHOWN);
        shown
            .filter(|agent| !has_left(agent, now))
            .map(|agent| {
                let silent = now.duration_since(agent.at);
                let observed = agent.observed.clone();
                AgentStatus {
                    agent: observed.agent,
                    address: observed.address,
                    live: silent < LIVE,
                    seen_ms_ago: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
                    generation: observed
                        .acts_on
                        .filter(|(id, _)| *id == journal)
                        .map(|(_, generation)| generation),
                    plan: observed.plan,
                    report: observed.report,
                }
            })
            .collect()
    }

    /// How long each journal is that live agents act on. A journal that is shorter was set back.
    pub(crate) fn acts_on(&self) -> BTreeMap<JournalId, Generation> {
        let seen = self.lock();
        let mut longest = BTreeMap::new();
        for (journal, generation) in self.live(&seen).filter_map(|agent| agent.observed.acts_on) {
            let held = longest.entry(journal).or_insert(generation);
            *held = generation.max(*held);
        }
        longest
    }

    /// How many live proxies act on one of those generations of that journal, and on that plan. What is beyond the
    /// journal's end was never decided by it.
    pub(crate) fn acknowledged(
        &self,
        journal: JournalId,
        generations: &RangeInclusive<Generation>,
        plan: &str,
    ) -> Acknowledged {
        let now = self.clock.now();
        let seen = self.lock();
        self.serving(&seen).fold(Acknowledged::default(), |mut sum, agent| {
            let acts_on = agent.observed.acts_on;
            let has = acts_on.is_some_and(|(id, held)| id == journal && generations.contains(&held));
            let is_live = now.duration_since(agent.at) < LIVE;
            sum.live += u32::from(is_live);
            sum.have += u32::from(is_live && has && agent.observed.plan == plan);
            sum.silent += u32::from(!is_live);
            sum
        })
    }

    /// How many live proxies let the monolith answer what was taken back in an emergency.
    pub(crate) fn recalling(&self, requests: &Requests) -> Acknowledged {
        let now = self.clock.now();
        let seen = self.lock();
        self.serving(&seen).fold(Acknowledged::default(), |mut sum, agent| {
            let is_live = now.duration_since(agent.at) < LIVE;
            let has =
                matches!(&agent.observed.report, Report::Proxy(proxy) if proxy.recalled.contains(requests));
            sum.live += u32::from(is_live);
            sum.have += u32::from(is_live && has);
            sum.silent += u32::from(!is_live);
            sum
        })
    }

    /// The proxies that take clients now.
    pub(crate) fn proxy_names(&self) -> Vec<String> {
        let seen = self.lock();
        let serving = self.serving(&seen).filter(|agent| !is_leaving(agent));
        serving.map(|agent| agent.observed.agent.name.clone()).collect()
    }

    /// How the live proxies stand to a slice's crossing: those that act on one of these generations, and those that hold
    /// its writes at that epoch with nothing under way.
    pub(crate) fn proxies(
        &self,
        journal: JournalId,
        generations: &RangeInclusive<Generation>,
        plan: &str,
        (slice, epoch): (&SliceName, Option<Epoch>),
    ) -> ProxiesSeen {
        let Acknowledged { live: count, have: current, .. } = self.acknowledged(journal, generations, plan);
        let seen = self.lock();
        let drained = self.live(&seen).filter(|agent| match &agent.observed.report {
            Report::Proxy(proxy) => {
                epoch.is_some_and(|epoch| proxy.slices.get(slice).is_some_and(|one| one.is_drained(epoch)))
            }
            Report::Bridge(_) => false,
        });
        ProxiesSeen { live: count, current, drained: u32::try_from(drained.count()).unwrap_or(u32::MAX) }
    }

    /// How long the writes of the slice's present or last hold waited, in ms: 99 of 100 at each proxy, and the longest.
    pub(crate) fn held_ms(&self, slice: &SliceName) -> (u64, u64) {
        let seen = self.lock();
        let waits = self.live(&seen).filter_map(|agent| match &agent.observed.report {
            Report::Proxy(proxy) => proxy.slices.get(slice),
            Report::Bridge(_) => None,
        });
        waits.fold((0, 0), |(p99, max), one| (p99.max(one.held_ms_p99), max.max(one.held_ms_max)))
    }

    /// A proxy that may still send requests to the service, with how long it has been silent. Its last report acts on
    /// `shared`, the last generation at which requests went there, or on an older one. A proxy is gone if a new one
    /// started at its address.
    pub(crate) fn left_behind(&self, journal: JournalId, shared: Generation) -> Option<(String, Duration)> {
        let now = self.clock.now();
        let seen = self.lock();
        let is_proxy = |agent: &&Seen| agent.observed.agent.kind == AgentKind::Proxy;
        let acts = |agent: &&Seen| {
            let acts_on = agent.observed.acts_on;
            acts_on.is_some_and(|(id, held)| id != journal || held <= shared)
        };
        let remembered = seen.values().filter(|agent| now.duration_since(agent.at) < SHOWN);
        let remembered = remembered.filter(|agent| !has_left(agent, now));
        let mut behind = remembered.filter(is_proxy).filter(acts);
        let one = behind.find(|agent| !seen.values().any(|other| took_the_place(other, agent)))?;
        Some((one.observed.agent.name.clone(), now.duration_since(one.at)))
    }

    /// Where the live bridge serves; the one that reported last, should there be two.
    pub(crate) fn bridge(&self) -> Option<String> {
        let seen = self.lock();
        let bridges = self.live(&seen).filter(|agent| agent.observed.agent.kind == AgentKind::Bridge);
        let addressed = bridges.filter_map(|agent| Some((weight(agent), agent.observed.address.clone()?)));
        addressed.max_by_key(|(weight, _)| *weight).map(|(_, address)| address)
    }

    /// That the live bridge runs another plan than the controller: what it copies is not what was asked for.
    pub(crate) fn other_plan(&self) -> Option<Finding> {
        let seen = self.lock();
        let bridges = self.live(&seen).filter_map(|agent| match &agent.observed.report {
            Report::Bridge(bridge) => Some((weight(agent), bridge)),
            Report::Proxy(_) => None,
        });
        let (_, bridge) = bridges.max_by_key(|(weight, _)| *weight)?;
        bridge.other_plan().map(|finding| Finding { severity: Severity::Error, ..finding.clone() })
    }

    pub(crate) fn lanes(&self, slice: &SliceName) -> BTreeMap<Direction, LaneReport> {
        let seen = self.lock();
        let reports = self.live(&seen).filter_map(|agent| match &agent.observed.report {
            Report::Bridge(bridge) => {
                let lanes = bridge.lanes.iter().filter(|(lane, _)| lane.slice == *slice);
                let lanes: BTreeMap<_, _> = lanes.map(|(lane, report)| (lane.direction, report)).collect();
                (!lanes.is_empty()).then(|| (weight(agent), lanes))
            }
            Report::Proxy(_) => None,
        });
        let lanes = reports.max_by_key(|(weight, _)| *weight).map(|(_, lanes)| lanes).unwrap_or_default();
        lanes.into_iter().map(|(direction, report)| (direction, report.clone())).collect()
    }

    /// Live proxies, and silent ones that nobody took the place of: they may serve on.
    fn serving<'a>(&self, seen: &'a BTreeMap<AgentId, Seen>) -> impl Iterator<Item = &'a Seen> + use<'a> {
        let now = self.clock.now();
        let proxies = seen.values().filter(|agent| agent.observed.agent.kind == AgentKind::Proxy);
        proxies.filter(move |agent| {
            let silent = now.duration_since(agent.at);
            !has_left(agent, now)
                && (silent < LIVE
                    || silent < SHOWN && !seen.values().any(|other| took_the_place(other, agent)))
        })
    }

    /// Why the copy of a followed slice must not be read for now, if it must not.
    pub(crate) fn withheld(&self, slice: &SliceName, max: Duration) -> Option<Withheld> {
        let forward = self.lanes(slice).remove(&Direction::Forward);
        self.copies().judge(slice, forward.as_ref(), self.clock.now(), max)
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live<'a>(&self, seen: &'a BTreeMap<AgentId, Seen>) -> impl Iterator<Item = &'a Seen> + use<'a> {
        let now = self.clock.now();
        seen.values().filter(move |agent| now.duration_since(agent.at) < LIVE && !has_left(agent, now))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Seen>> {
        // A panic elsewhere leaves the map whole: each change of it is one call.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a proxy started at the host and address of another one after that one's last report. Two cannot listen there
/// at once.
fn took_the_place(new: &Seen, old: &Seen) -> bool {
    let place = |agent: &Seen| (agent.observed.agent.host().to_owned(), agent.observed.address.clone());
    new.observed.agent.kind == old.observed.agent.kind && new.since > old.at && place(new) == place(old)
}

fn is_leaving(agent: &Seen) -> bool {
    matches!(&agent.observed.report, Report::Proxy(proxy) if proxy.is_leaving)
}

fn has_left(agent: &Seen, now: Instant) -> bool {
    is_leaving(agent) && now.duration_since(agent.at) >= LEFT
}

/// Of two bridges the one that captures counts; if none or both capture, the one that reported last.
fn weight(agent: &Seen) -> (bool, Instant) {
    let captures = matches!(&agent.observed.report, Report::Bridge(bridge) if !bridge.feeds.is_empty());
    (captures, agent.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::control::{BridgeReport, Condition, ProxyReport, VERSION};
    use migrations::lane::LaneId;
    use uuid::Uuid;

    const JOURNAL: JournalId = JournalId(Uuid::nil());

    fn proxy(name: &str, acts_on: Option<(JournalId, u64)>) -> Observed {
        Observed {
            version: VERSION,
            agent: AgentId { kind: AgentKind::Proxy, name: name.to_owned() },
            address: Some("http://0.0.0.0:8080".to_owned()),
            acts_on: acts_on.map(|(journal, generation)| (journal, Generation(generation))),
            plan: String::new(),
            report: Report::Proxy(ProxyReport::default()),
        }
    }

    /// Agents that were heard of so many seconds ago.
    fn heard(proxies: &[(Observed, u64)]) -> Agents {
        let agents = Agents::default();
        for (observed, ago) in proxies {
            let at = Instant::now().checked_sub(Duration::from_secs(*ago)).unwrap();
            agents.lock().insert(observed.agent.clone(), Seen { since: at, at, observed: observed.clone() });
        }
        agents
    }

    #[test]
    fn a_bridge_that_copies_other_tables_proves_nothing_of_a_copy() {
        let text = "{ version: 1, name: shop, monolith: { upstream: 'http://a:1', database: 'postgres://s@h/a' }, services: \
            { orders: { upstream: 'http://b:1', database: 'postgres://s@h/b' } }, slices: { orders: { service: orders, routes: \
            { list: GET /orders }, tables: [public.orders] } } }";
        let (plan, _) = migrations::plan::check("plan.yaml", text, &|_| None).unwrap();
        let slice: SliceName = "orders".parse().unwrap();
        let withheld = |rows: &str| {
            let lane = LaneReport::caught_up(Condition::Following);
            let report = BridgeReport {
                lanes: [(LaneId::forward(slice.clone()), lane)].into(),
                rows: [(slice.clone(), rows.to_owned())].into(),
                ..BridgeReport::default()
            };
            let agent = AgentId { kind: AgentKind::Bridge, name: "one".to_owned() };
            let observed = Observed { agent, report: Report::Bridge(report), ..proxy("a", None) };
            let agents = Agents::default();
            agents.report(observed, &plan);
            agents.withheld(&slice, Duration::from_secs(60))
        };
        assert_eq!(withheld(&plan.slices[&slice].mapping_hash()), None);
        assert_eq!(withheld("another"), Some(Withheld::Unknown));
    }

    #[test]
    fn what_the_journal_does_not_hold_acknowledges_nothing() {
        let agents =
            heard(&[(proxy("a-1-0", Some((JOURNAL, 11))), 0), (proxy("b-1-0", Some((JOURNAL, 12))), 0)]);
        let have = |last| agents.acknowledged(JOURNAL, &(Generation(11)..=Generation(last)), "").have;
        assert_eq!((have(11), have(12)), (1, 2));
    }

    #[test]
    fn a_proxy_that_may_still_send_reads_is_named() {
        let behind = |proxies: &[(Observed, u64)]| {
            heard(proxies).left_behind(JOURNAL, Generation(7)).map(|(name, _)| name)
        };
        let named = Some("a-1-0".to_owned());
        assert_eq!(behind(&[(proxy("a-1-0", Some((JOURNAL, 7))), 0)]), named, "live, but not yet so far");
        assert_eq!(behind(&[(proxy("a-1-0", Some((JOURNAL, 7))), 50)]), named, "silent");
        assert_eq!(
            behind(&[(proxy("a-1-0", Some((JournalId(Uuid::max()), 9))), 0)]),
            named,
            "of another journal"
        );
        assert_eq!(behind(&[(proxy("a-1-0", Some((JOURNAL, 8))), 50)]), None);
        assert_eq!(behind(&[(proxy("a-1-0", None), 0)]), None, "it serves nothing yet");
        assert_eq!(behind(&[(proxy("a-1-0", Some((JOURNAL, 7))), 61)]), None, "forgotten");
        assert_eq!(behind(&[]), None);
    }

    #[test]
    fn a_silent_proxy_is_counted_until_it_is_replaced_or_forgotten() {
        let known = |proxies: &[(Observed, u64)]| {
            let agents = heard(proxies);
            let proxies = agents.acknowledged(JOURNAL, &(Generation(7)..=Generation(7)), "");
            assert_eq!(agents.proxy_names().len() as u32, proxies.live + proxies.silent);
            (proxies.live, proxies.have, proxies.silent)
        };
        let one = |name: &str| proxy(name, Some((JOURNAL, 7)));
        assert_eq!(known(&[(one("a-1-0"), 0), (one("b-1-0"), 0)]), (2, 2, 0));
        assert_eq!(known(&[(one("a-1-0"), 0), (one("b-1-0"), 12)]), (1, 1, 1));
        assert_eq!(known(&[(one("a-1-0"), 0), (one("b-1-0"), 61)]), (1, 1, 0), "forgotten");
        assert_eq!(known(&[(one("a-2-0"), 0), (one("a-1-0"), 12)]), (1, 1, 0), "started again");
    }

    #[test]
    fn a_proxy_that_leaves_counts_until_it_is_silent_and_is_no_second_one() {
        let leaving = |name: &str| {
            let report = Report::Proxy(ProxyReport { is_leaving: true, ..ProxyReport::default() });
            Observed { report, ..proxy(name, Some((JOURNAL, 7))) }
        };
        let known = |ago: u64| {
            let agents = heard(&[(leaving("a-1-0"), ago), (proxy("b-2-0", Some((JOURNAL, 8))), 0)]);
            let proxies = agents.acknowledged(JOURNAL, &(Generation(8)..=Generation(8)), "");
            let is_behind = agents.left_behind(JOURNAL, Generation(7)).is_some();
            (
                agents.proxy_names().len(),
                proxies.live,
                proxies.silent,
                agents.status(JOURNAL).len(),
                is_behind,
            )
        };
        assert_eq!(known(1), (1, 2, 0, 2, true), "what is under way may still read");
        assert_eq!(known(3), (1, 1, 0, 1, false), "it has ended");
    }

    #[test]
    fn a_proxy_is_gone_when_another_took_its_place() {
        let behind = |old: &str, new: &str, since: u64| {
            let proxies = [(proxy(old, Some((JOURNAL, 7))), 9), (proxy(new, Some((JOURNAL, 8))), since)];
            heard(&proxies).left_behind(JOURNAL, Generation(7)).is_some()
        };
        assert!(!behind("my-host-1-a", "my-host-2-b", 3), "started again");
        assert!(behind("my-host-1-a", "my-host-2-b", 20), "a second one beside it");
        assert!(behind("my-host-1-a", "my-2-b", 3), "another host");
    }
}
