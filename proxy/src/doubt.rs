//! Whether the table in use may be out of date without the proxy's fault: it has just started, or it stood still. Then a
//! slice may have moved meanwhile, and the side that the table names may have older rows by now.
//!
//! While the table is in doubt, a request of a slice with tables waits for a controller to say that nothing is newer. A proxy
//! that runs and hears nothing has no doubt: a controller that moves a slice waits for it.

use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use link::{ActsOn, Agent, Confirmation};
use migrations::control::{DOUBT_AFTER, LEASE};
use migrations::names::{Requests, SliceName};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// How often a proxy that runs puts its doubt off.
const TICK: Duration = Duration::from_millis(100);
/// Between two questions.
const ASK_PAUSE: Duration = Duration::from_millis(20);
const AWAY_PAUSE: Duration = Duration::from_millis(250);
/// If no controller answers for so long, the proxy goes on alone with its table.
const ALONE_AFTER: Duration = Duration::from_secs(10);

pub(crate) struct Doubt {
    started: Instant,
    /// From when on the table is in doubt, in ms since the start. It is put off as long as the process runs.
    from_ms: AtomicU64,
    /// From when on no controller has confirmed the table for too long, likewise.
    alone_from_ms: AtomicU64,
    /// The slices whose copy is too old to be read, as a controller said last.
    withheld: ArcSwap<BTreeSet<SliceName>>,
    /// What was taken back to the monolith in an emergency, likewise.
    recalled: ArcSwap<BTreeSet<Requests>>,
    ended: Notify,
}

impl Doubt {
    /// A table that was stored may be old.
    pub(crate) fn new() -> Self {
        let [from_ms, alone_from_ms] = [(); 2].map(|()| AtomicU64::new(0));
        let (withheld, recalled) = (ArcSwap::default(), ArcSwap::default());
        Self { started: Instant::now(), from_ms, alone_from_ms, withheld, recalled, ended: Notify::new() }
    }

    pub(crate) fn is_at(&self, now: Instant) -> bool {
        self.ms(now) >= self.from_ms.load(SeqCst)
    }

    /// Whether no controller has said lately that the table is the newest, so that a copy may be given up by now.
    pub(crate) fn is_alone_at(&self, now: Instant) -> bool {
        self.ms(now) >= self.alone_from_ms.load(SeqCst)
    }

    pub(crate) fn recalled(&self) -> BTreeSet<Requests> {
        self.recalled.load().as_ref().clone()
    }

    /// Whether a route was taken back in an emergency, alone or with its slice.
    pub(crate) fn recalls(&self, slice: &SliceName, route: &str) -> bool {
        let is_meant = |one: &Requests| {
            one.slice == *slice && one.route.as_ref().is_none_or(|name| name.as_str() == route)
        };
        self.recalled.load().iter().any(is_meant)
    }

    pub(crate) fn withholds(&self, slice: &SliceName) -> bool {
        self.withheld.load().contains(slice)
    }

    /// Resolves when the table is in doubt no longer.
    pub(crate) async fn end(&self) {
        loop {
            let ended = self.ended.notified();
            if !self.is_at(Instant::now()) {
                return;
            }
            ended.await;
        }
    }

    /// Notices when the process stood still, and asks a controller then. `acts_on` is the table in use.
    pub(crate) async fn watch(
        &self,
        agent: &Agent,
        acts_on: impl Fn() -> Option<ActsOn>,
        metrics: &Metrics,
    ) -> Infallible {
        let mut confirmed = agent.confirmed();
        loop {
            let now = Instant::now();
            if self.is_at(now) {
                metrics.in_doubt.set(1);
                self.ask(agent, &acts_on).await;
                metrics.in_doubt.set(0);
            } else {
                self.put_off(now);
            }
            if let Some(Confirmation { asked, withheld }) = confirmed.borrow_and_update().clone() {
                self.withheld.store(withheld);
                self.alone_from_ms.store(self.ms(asked.into_std() + LEASE), SeqCst);
            }
            self.recalled.store(agent.recalled());
            metrics.alone.set(i64::from(self.is_alone_at(Instant::now())));
            let _ = timeout(TICK, confirmed.changed()).await;
        }
    }

    async fn ask(&self, agent: &Agent, acts_on: &impl Fn() -> Option<ActsOn>) {
        let mut since: Option<Instant> = None;
        loop {
            let asked = Instant::now();
            let pause = match acts_on() {
                // It serves nothing yet.
                None => ASK_PAUSE,
                Some(acts_on) => {
                    let since = *since.get_or_insert(asked);
                    let said = agent.is_newest(&acts_on, DOUBT_AFTER).await;
                    if said == Some(true) {
                        tracing::info!(ms = since.elapsed().as_millis(), "the table is the newest");
                        return self.put_off(asked);
                    }
                    if since.elapsed() >= ALONE_AFTER {
                        tracing::warn!(
                            remedy = "check that the controller runs and is reachable",
                            "no controller said whether the table is the newest; going on with it"
                        );
                        return self.put_off(Instant::now());
                    }
                    if said.is_some() { ASK_PAUSE } else { AWAY_PAUSE }
                }
            };
            sleep(pause).await;
        }
    }

    /// At this time the table was not in doubt.
    fn put_off(&self, now: Instant) {
        self.from_ms.store(self.ms(now + DOUBT_AFTER), SeqCst);
        self.ended.notify_waiters();
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_route_is_taken_back_alone_or_with_its_slice() {
        let doubt = Doubt::new();
        let slice = |name: &str| -> SliceName { name.parse().unwrap() };
        assert!(!doubt.recalls(&slice("orders"), "list"));
        let taken = ["orders.list", "stock"].map(|one| one.parse().unwrap());
        doubt.recalled.store(Arc::new(taken.into()));
        let cases = [("orders", "list"), ("orders", "show"), ("stock", "list"), ("prices", "list")];
        assert_eq!(cases.map(|(name, route)| doubt.recalls(&slice(name), route)), [true, false, true, false]);
    }

    #[test]
    fn a_table_is_in_doubt_at_first_and_when_nobody_puts_it_off() {
        let doubt = Doubt::new();
        let now = Instant::now();
        assert!(doubt.is_at(now), "at the start");
        doubt.put_off(now);
        assert!(!doubt.is_at(now + DOUBT_AFTER / 2));
        assert!(doubt.is_at(now + DOUBT_AFTER), "it stood still");
        doubt.put_off(now);
        assert!(
            doubt.is_at(now + DOUBT_AFTER),
            "an answer to a question that was asked before proves nothing"
        );
    }
}
