//! What the agents reported last. Kept in memory only: a controller that restarts hears from each within a second, and
//! until then does not know who lives.

use migrations::api::{Acknowledged, AgentStatus};
use migrations::control::{AgentId, AgentKind, Observed, Report, StreamReport};
use migrations::finding::{Finding, Severity};
use migrations::journal::{Generation, JournalId};
use migrations::names::SliceName;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An agent that reported within this time is live: it reports every second.
const LIVE: Duration = Duration::from_secs(5);
/// An agent that has been silent for so long is not shown any more.
const SHOWN: Duration = Duration::from_secs(60);
/// More agents than any fleet has; beyond it the longest silent one is forgotten.
const AGENTS_MAX: usize = 1_000;

/// The last report of every agent.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    seen: Mutex<BTreeMap<AgentId, Seen>>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    observed: Observed,
}

impl Agents {
    /// Takes a report in.
    pub(crate) fn report(&self, observed: Observed) {
        let now = Instant::now();
        let mut seen = self.lock();
        seen.retain(|_, agent| now.duration_since(agent.at) < SHOWN);
        if seen.len() >= AGENTS_MAX && !seen.contains_key(&observed.agent) {
            let oldest = seen.iter().min_by_key(|(_, agent)| agent.at).map(|(id, _)| id.clone());
            oldest.map(|id| seen.remove(&id));
        }
        seen.insert(observed.agent.clone(), Seen { at: now, observed });
    }

    /// Every agent that reported within the last minute.
    pub(crate) fn status(&self, journal: JournalId) -> Vec<AgentStatus> {
        let now = Instant::now();
        let seen = self.lock();
        let shown = seen.values().filter(|agent| now.duration_since(agent.at) < SHOWN);
        shown
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
                    report: observed.report,
                }
            })
            .collect()
    }

    /// The entries of each journal that live agents act on: a journal that is shorter was set back.
    pub(crate) fn acts_on(&self) -> BTreeMap<JournalId, Generation> {
        let seen = self.lock();
        let mut longest = BTreeMap::new();
        for (journal, generation) in live(&seen).filter_map(|agent| agent.observed.acts_on) {
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
        let seen = self.lock();
        let proxies = live(&seen).filter(|agent| agent.observed.agent.kind == AgentKind::Proxy);
        proxies.fold(Acknowledged::default(), |mut sum, agent| {
            let acts_on = agent.observed.acts_on;
            let has = acts_on.is_some_and(|(id, held)| id == journal && generations.contains(&held));
            sum.live += 1;
            sum.have += u32::from(has && agent.observed.plan == plan);
            sum
        })
    }

    /// Where the live bridge serves; the one that reported last, should there be two.
    pub(crate) fn bridge(&self) -> Option<String> {
        let seen = self.lock();
        let bridges = live(&seen).filter(|agent| agent.observed.agent.kind == AgentKind::Bridge);
        let addressed = bridges.filter_map(|agent| Some((weight(agent), agent.observed.address.clone()?)));
        addressed.max_by_key(|(weight, _)| *weight).map(|(_, address)| address)
    }

    /// That the live bridge runs another plan than the controller: what it copies is not what was asked for.
    pub(crate) fn other_plan(&self) -> Option<Finding> {
        let seen = self.lock();
        let bridges = live(&seen).filter_map(|agent| match &agent.observed.report {
            Report::Bridge(bridge) => Some((weight(agent), bridge)),
            Report::Proxy(_) => None,
        });
        let (_, bridge) = bridges.max_by_key(|(weight, _)| *weight)?;
        bridge.other_plan().map(|finding| Finding { severity: Severity::Error, ..finding.clone() })
    }

    /// How the live bridge says a slice's stream stands.
    pub(crate) fn stream(&self, slice: &SliceName) -> Option<StreamReport> {
        let seen = self.lock();
        let reports = live(&seen).filter_map(|agent| match &agent.observed.report {
            Report::Bridge(bridge) => bridge.streams.get(slice).map(|stream| (weight(agent), stream)),
            Report::Proxy(_) => None,
        });
        reports.max_by_key(|(weight, _)| *weight).map(|(_, stream)| stream.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AgentId, Seen>> {
        // A panic elsewhere leaves the map whole: each change of it is one call.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of two bridges the one that captures counts, not a second one that was fenced out; else who spoke last.
fn weight(agent: &Seen) -> (bool, Instant) {
    let captures = matches!(&agent.observed.report, Report::Bridge(bridge) if bridge.capture.is_some());
    (captures, agent.at)
}

fn live(seen: &BTreeMap<AgentId, Seen>) -> impl Iterator<Item = &Seen> {
    let now = Instant::now();
    seen.values().filter(move |agent| now.duration_since(agent.at) < LIVE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::control::{ProxyReport, VERSION};
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
            agents.lock().insert(observed.agent.clone(), Seen { at, observed: observed.clone() });
        }
        agents
    }

    #[test]
    fn what_the_journal_does_not_hold_acknowledges_nothing() {
        let agents =
            heard(&[(proxy("a-1-0", Some((JOURNAL, 11))), 0), (proxy("b-1-0", Some((JOURNAL, 12))), 0)]);
        let have = |last| agents.acknowledged(JOURNAL, &(Generation(11)..=Generation(last)), "").have;
        assert_eq!((have(11), have(12)), (1, 2));
    }
}
