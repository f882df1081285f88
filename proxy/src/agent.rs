//! What the proxy does for the controller: takes newer tables, reports what it acts on, and starts what a new table
//! needs. The crate `link` holds the conversation itself.
//!
//! No request waits for anything here. If the controller is down, the proxy serves with the table it has.

use crate::drain::Drain;
use crate::freshness::BridgeLink;
use crate::health::{self, Question};
use crate::metrics::Metrics;
use crate::succession::Place;
use crate::table::{BadDesired, Tables};
use crate::tls::Tls;
use async_trait::async_trait;
use link::Told;
use migrations::code::Code;
use migrations::control::{Observed, ProxyReport, Report, VERSION};
use migrations::problem::Problem;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(crate) struct Agent {
    pub(crate) tables: Arc<Tables>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) agent: link::Agent,
    /// The stored table, if it is in use.
    pub(crate) stored: Option<Told>,
    pub(crate) listen: String,
    /// Where clients come by TLS.
    pub(crate) https: Option<(String, Arc<Tls>)>,
    pub(crate) health: Option<Question>,
    pub(crate) bridge: BridgeLink,
    pub(crate) drain: Arc<Drain>,
    pub(crate) place: watch::Receiver<Place>,
    pub(crate) ignored: Ignored,
}

/// Whether requests with a balancer's word were met lately, by their number.
#[derive(Default)]
pub(crate) struct Ignored(Mutex<(u64, Option<Instant>)>);

impl Ignored {
    /// The word of one request counts for so long.
    const LASTS: Duration = Duration::from_secs(60);

    fn is_met(&self, number: u64, now: Instant) -> bool {
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if number > met.0 {
            *met = (number, Some(now));
        }
        met.1.is_some_and(|last| now.duration_since(last) < Self::LASTS)
    }
}

#[async_trait]
impl BackgroundService for Agent {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.serve_barriers();
        let shortages = self.metrics.shortages.with_label_values(&["check"]);
        let checks = health::keep_checking(self.tables.clone(), self.health.clone(), shortages);
        let health = tokio::spawn(checks);
        tokio::select! {
            _ = shutdown.changed() => {}
            never = self.agent.pull(self.stored.clone(), |told| self.take(told)) => match never {},
            never = self.report() => match never {},
            never = self.keep_certificates_fresh() => match never {},
            never = self.tables.doubt.watch(&self.agent, || self.tables.acts_on(), &self.metrics) => match never {},
        }
        health.abort();
    }
}

impl Agent {
    async fn take(&self, told: Told) -> Result<(), Problem> {
        let (tables, stored) = (self.tables.clone(), self.agent.stored());
        // The resolver and the disk block.
        let taken = tokio::task::spawn_blocking(move || {
            let is_newer = tables.take(told.desired.clone())?;
            if is_newer {
                // Only a table that can be used is kept, so that a restart finds one.
                stored.write(&told.desired);
            }
            Ok::<bool, BadDesired>(is_newer)
        })
        .await;
        let stopping = |_| Problem::new(Code::PartFailed, "the proxy is stopping", "start it again");
        if taken.map_err(stopping)?? {
            self.serve_barriers();
            // Each swap is reported at once: `route set` and a cutover wait for the report.
            self.tables.news.notify_one();
        }
        Ok(())
    }

    /// A proxy that has not taken its place yet answers nobody, and is not counted.
    async fn report(&self) -> Infallible {
        let mut place = self.place.clone();
        let _ = place.wait_for(|place| *place == Place::Ours).await;
        self.agent.report(&self.tables.news, || self.observed()).await
    }

    async fn keep_certificates_fresh(&self) -> Infallible {
        match &self.https {
            Some((_, tls)) => tls.keep_fresh(|| self.tables.news.notify_one()).await,
            None => std::future::pending().await,
        }
    }

    fn observed(&self) -> Observed {
        let live = self.tables.live();
        let unwell = live.iter().flat_map(|live| live.targets()).filter(|target| !target.is_well());
        let mut unhealthy: Vec<String> = unwell.map(|target| target.upstream.to_string()).collect();
        let is_checking = live.iter().flat_map(|live| live.targets()).any(|target| !target.is_known());
        unhealthy.sort();
        unhealthy.dedup();
        let (window, fared) = live.as_ref().map(|live| live.fared(Instant::now())).unwrap_or_default();
        self.metrics.unwell.set(unhealthy.len() as i64);
        let report = ProxyReport {
            answered: self.metrics.answered_by_upstream(),
            failed: self.metrics.failed.get(),
            unhealthy,
            is_checking,
            slices: live.as_ref().map(|live| live.traffic()).unwrap_or_default(),
            is_leaving: self.drain.has_begun(),
            recalled: self.tables.doubt.recalled(),
            ignores_forwarded: self.ignored.is_met(self.metrics.forwarded_ignored.get(), Instant::now()),
            https: self.https.as_ref().map(|(address, _)| address.clone()),
            findings: self.https.as_ref().map(|(_, tls)| tls.findings()).unwrap_or_default(),
            window_ms: u64::try_from(window.as_millis()).unwrap_or(u64::MAX),
            fared,
        };
        Observed {
            version: VERSION,
            agent: self.agent.id().clone(),
            address: Some(format!("http://{}", self.listen)),
            acts_on: live.as_ref().map(|live| (live.acts_on.journal, live.acts_on.generation)),
            plan: live.map(|live| live.acts_on.plan.clone()).unwrap_or_default(),
            report: Report::Proxy(report),
        }
    }

    /// Starts asking for the barriers of newly followed slices. At most one task per slice and process.
    fn serve_barriers(&self) {
        for freshness in self.tables.take_unserved() {
            let bridge = self.bridge.clone();
            tokio::spawn(async move { freshness.keep_asking(bridge).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancers_word_is_met_until_it_has_not_come_for_a_while() {
        let (ignored, begin) = (Ignored::default(), Instant::now());
        assert!(!ignored.is_met(0, begin));
        assert!(ignored.is_met(1, begin));
        assert!(ignored.is_met(1, begin + Ignored::LASTS - Duration::from_secs(1)));
        assert!(!ignored.is_met(1, begin + Ignored::LASTS));
        assert!(ignored.is_met(2, begin + Ignored::LASTS));
    }
}
