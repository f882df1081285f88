//! When which part was broken, and which failures of requests and commands that explains. Nothing else explains any.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::schedule::{How, Part};

/// A part that answers again has clients whose connections are not made anew yet, and the proxies look at their upstreams
/// every 2 s.
const AFTERWARDS_MS: u64 = 3_000;
/// Held writes go on only when the crossing is decided or given up, and the proxies know. A lease runs out after 5 s, and
/// the journal's database, the controller and the bridge must all have found each other again.
const HOLDS_END_MS: u64 = 15_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    pub part: Part,
    pub how: How,
    /// In milliseconds since 1970.
    pub from_ms: u64,
    /// When the part answered again; none if it has not yet.
    pub until_ms: Option<u64>,
}

impl Outage {
    /// Whether something that was under way from `from_ms` to `until_ms` met it, or what it left for `after_ms`.
    pub fn meets(&self, from_ms: u64, until_ms: u64, after_ms: u64) -> bool {
        let end = self.until_ms.map_or(u64::MAX, |end| end.saturating_add(after_ms));
        self.from_ms <= until_ms && from_ms <= end
    }
}

/// What the customers write down of a request that did not go well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Incident {
    pub kind: Kind,
    pub from_ms: u64,
    pub until_ms: u64,
    /// The URL of the proxy that it went to.
    pub proxy: String,
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Failed,
    PutOff,
    Wrong,
}

/// What broke a request; none if nothing did. `through` is the proxy that it went to.
///
/// * A request needs its proxy, the service and the two databases. Reads of a service that is away go to the monolith, but
///   one that was sent already may fail.
/// * A write that was put off (503 with Retry-After) waited for a crossing, which needs every part.
/// * Controller, bridge and Kafka explain no other failure: no request needs them.
/// * Nothing explains a wrong answer.
pub fn explain<'o>(outages: &'o [Outage], incident: &Incident, through: Part) -> Option<&'o Outage> {
    let needed = [through, Part::Service, Part::MonolithDatabase, Part::ServiceDatabase];
    let (after_ms, parts) = match incident.kind {
        Kind::Failed => (AFTERWARDS_MS, &needed[..]),
        Kind::PutOff => (HOLDS_END_MS, &Part::ALL[..]),
        Kind::Wrong => return None,
    };
    let mut met = outages.iter().filter(|outage| parts.contains(&outage.part));
    met.find(|outage| outage.meets(incident.from_ms, incident.until_ms, after_ms))
}

/// All outages of a run so far.
#[derive(Debug, Default)]
pub struct Outages(Mutex<Vec<Outage>>);

impl Outages {
    /// Gives the number by which it ends.
    pub fn begin(&self, part: Part, how: How) -> usize {
        let mut all = self.lock();
        all.push(Outage { part, how, from_ms: now_ms(), until_ms: None });
        all.len() - 1
    }

    pub fn end(&self, number: usize) {
        if let Some(outage) = self.lock().get_mut(number) {
            outage.until_ms = Some(now_ms());
        }
    }

    pub fn all(&self) -> Vec<Outage> {
        self.lock().clone()
    }

    /// One that something since `from_ms` may have met, if it ended at most `after` before.
    pub fn since(&self, from_ms: u64, after: Duration) -> Option<Outage> {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.lock().iter().rev().find(|outage| outage.meets(from_ms, now_ms(), after_ms)).copied()
    }

    /// How many parts are broken now.
    pub fn open(&self) -> usize {
        self.lock().iter().filter(|outage| outage.until_ms.is_none()).count()
    }

    /// For how long every part has been well; none while one is not.
    pub fn calm(&self) -> Option<Duration> {
        let all = self.lock();
        let last = all.iter().try_fold(0, |last, outage| Some(outage.until_ms?.max(last)))?;
        Some(Duration::from_millis(now_ms().saturating_sub(last)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Outage>> {
        // Each change of it is one call, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the clock that the customers use, too.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(part: Part, from_ms: u64, until_ms: u64) -> Outage {
        Outage { part, how: How::Kill, from_ms, until_ms: Some(until_ms) }
    }

    fn is_explained(kind: Kind, (from_ms, until_ms): (u64, u64), outage: Outage) -> bool {
        let incident = Incident { kind, from_ms, until_ms, proxy: String::new(), what: String::new() };
        explain(&[outage], &incident, Part::FirstProxy).is_some()
    }

    #[test]
    fn only_a_part_that_the_request_needed_at_that_moment_explains_its_failure() {
        let meanwhile = (20_000, 21_000);
        for part in Part::ALL {
            let expected = !matches!(part, Part::Kafka | Part::Controller | Part::Bridge | Part::SecondProxy);
            assert_eq!(
                is_explained(Kind::Failed, meanwhile, outage(part, 20_500, 30_000)),
                expected,
                "{part}"
            );
        }
        let service = |from, until| outage(Part::Service, from, until);
        assert!(!is_explained(Kind::Failed, meanwhile, service(21_001, 30_000)), "it began later");
        assert!(is_explained(Kind::Failed, meanwhile, service(1, 20_000 - AFTERWARDS_MS)));
        assert!(!is_explained(Kind::Failed, meanwhile, service(1, 19_999 - AFTERWARDS_MS)), "it was over");
        let open = Outage { until_ms: None, ..service(1, 1) };
        assert!(is_explained(Kind::Failed, meanwhile, open));
    }

    #[test]
    fn a_crossing_needs_every_part_and_nothing_explains_a_wrong_answer() {
        for part in Part::ALL {
            let now = outage(part, 20_000, 30_000);
            assert!(is_explained(Kind::PutOff, (25_000, 26_000), now), "{part}");
            assert!(is_explained(Kind::PutOff, (30_000 + HOLDS_END_MS, 50_000), now), "{part}");
            assert!(!is_explained(Kind::PutOff, (30_001 + HOLDS_END_MS, 50_000), now), "{part}");
            assert!(!is_explained(Kind::Wrong, (25_000, 26_000), now), "{part}");
        }
    }

    #[test]
    fn it_is_calm_when_every_part_is_back() {
        let outages = Outages::default();
        assert!(outages.calm().is_some());
        let (bridge, service) =
            (outages.begin(Part::Bridge, How::Kill), outages.begin(Part::Service, How::Freeze));
        outages.end(service);
        assert_eq!(outages.calm(), None);
        outages.end(bridge);
        assert!(outages.calm().is_some_and(|calm| calm < Duration::from_secs(5)));
    }
}
