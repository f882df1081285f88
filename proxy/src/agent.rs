//! What the proxy does for its controller: takes each newer table, reports what it acts on, and starts what a new table
//! needs. How they speak is `link`'s.

use crate::freshness::BridgeLink;
use crate::health;
use crate::metrics::Metrics;
use crate::table::{BadDesired, Tables};
use async_trait::async_trait;
use link::Told;
use migrations::control::{Observed, ProxyReport, Report, VERSION};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use std::sync::Arc;
use tokio::sync::Notify;

/// The agent.
pub struct Agent {
    /// The table it keeps up to date.
    pub tables: Arc<Tables>,
    /// What it reports from.
    pub metrics: Arc<Metrics>,
    /// Its side of the conversation.
    pub agent: link::Agent,
    /// What was stored before the start, and is in use.
    pub stored: Option<Told>,
    /// Where clients connect.
    pub listen: String,
    /// The path that upstreams' health is asked by.
    pub health_path: Option<String>,
    /// How the bridge is asked for barriers.
    pub bridge: BridgeLink,
}

#[async_trait]
impl BackgroundService for Agent {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.serve_barriers();
        let health = tokio::spawn(health::keep_checking(self.tables.clone(), self.health_path.clone()));
        // A report follows every swap at once: `route set` waits for it.
        let swapped = Notify::new();
        tokio::select! {
            _ = shutdown.changed() => {}
            never = self.agent.pull(self.stored.clone(), |told| self.take(told, &swapped)) => match never {},
            never = self.agent.report(&swapped, || self.observed()) => match never {},
        }
        health.abort();
    }
}

impl Agent {
    async fn take(&self, told: Told, swapped: &Notify) -> Result<(), Unusable> {
        let tables = self.tables.clone();
        // It blocks on the resolver.
        let taken = tokio::task::spawn_blocking(move || tables.take(told.desired)).await;
        if taken.map_err(|_| Unusable::Stopped)?? {
            self.serve_barriers();
            swapped.notify_one();
        }
        Ok(())
    }

    fn observed(&self) -> Observed {
        let live = self.tables.live();
        let unwell = live.iter().flat_map(|live| live.targets()).filter(|target| !target.is_well());
        let mut unhealthy: Vec<String> = unwell.map(|target| target.upstream.to_string()).collect();
        unhealthy.sort();
        unhealthy.dedup();
        self.metrics.unwell.set(unhealthy.len() as i64);
        let report = ProxyReport {
            answered: self.metrics.answered_by_upstream(),
            failed: self.metrics.failed.get(),
            unhealthy,
        };
        Observed {
            version: VERSION,
            agent: self.agent.id().clone(),
            address: Some(format!("http://{}", self.listen)),
            acts_on: live.as_ref().map(|live| live.acts_on),
            plan: live.map(|live| live.plan.clone()).unwrap_or_default(),
            report: Report::Proxy(report),
        }
    }

    /// Starts asking for the barriers of slices that are followed for the first time. At most one task per slice
    /// and process.
    fn serve_barriers(&self) {
        for freshness in self.tables.take_unserved() {
            let bridge = self.bridge.clone();
            tokio::spawn(async move { freshness.keep_asking(bridge).await });
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Table(#[from] BadDesired),
    #[error("the proxy is stopping")]
    Stopped,
}
