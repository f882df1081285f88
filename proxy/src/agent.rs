//! The proxy's side of the conversation with the controller: asks for `desired`, reports what it acts on, and
//! starts what a new table needs.
//!
//! Nothing here is on a request's way. If the controller is away, the proxy serves on with what it has.

use crate::freshness::BridgeLink;
use crate::health;
use crate::metrics::Metrics;
use crate::table::Tables;
use async_trait::async_trait;
use migrations::control::{AgentId, Desired, Link, Observed, ProxyReport, Report, VERSION};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use reqwest::StatusCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long the controller may keep a question for something newer, in ms.
const WAIT_MS: u64 = 20_000;
/// An answer that takes longer than that and this is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the first failure; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// The longest pause between questions.
const RETRY_LONGEST: Duration = Duration::from_secs(2);
/// How often is reported what is seen.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Questions that bring nothing newer are at least so far apart; a confused controller is not asked in a circle.
const NOTHING_NEW_PAUSE: Duration = Duration::from_millis(200);

/// The agent.
pub struct Agent {
    /// The table it keeps up to date.
    pub tables: Arc<Tables>,
    /// What it reports from.
    pub metrics: Arc<Metrics>,
    /// Where the controller is.
    pub link: Link,
    /// Who it is.
    pub id: AgentId,
    /// Where clients connect.
    pub listen: String,
    /// The path that upstreams' health is asked by.
    pub health_path: Option<String>,
    /// The client for controller and bridge.
    pub http: reqwest::Client,
    /// Rung when a table was swapped.
    pub swapped: Notify,
}

#[async_trait]
impl BackgroundService for Agent {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        self.serve_barriers();
        let health = tokio::spawn(health::keep_checking(self.tables.clone(), self.health_path.clone()));
        tokio::select! {
            _ = shutdown.changed() => {}
            () = self.keep_asking() => {}
            () = self.keep_reporting() => {}
        }
        health.abort();
    }
}

impl Agent {
    async fn keep_asking(&self) {
        let mut pause = RETRY_FIRST;
        loop {
            let asked_at = Instant::now();
            match self.ask().await {
                Ok(true) => {
                    pause = RETRY_FIRST;
                    self.serve_barriers();
                    self.swapped.notify_one();
                }
                Ok(false) => {
                    pause = RETRY_FIRST;
                    tokio::time::sleep(NOTHING_NEW_PAUSE.saturating_sub(asked_at.elapsed())).await;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, controller = %self.link.controller, "no newer table; serving on with the present one");
                    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    /// One question. True if a newer table is in use now.
    async fn ask(&self) -> Result<bool, NoAnswer> {
        let mut question = vec![("wait_ms", WAIT_MS.to_string())];
        if let Some((journal, generation, plan)) = self.tables.holds() {
            question.extend([
                ("journal", journal.0.to_string()),
                ("generation", generation.to_string()),
                ("plan", plan),
            ]);
        }
        let asking =
            self.http.get(self.url("/v1/desired")).query(&question).bearer_auth(self.link.token.expose());
        let timeout = Duration::from_millis(WAIT_MS) + ANSWER_TIMEOUT;
        let answer = asking.timeout(timeout).send().await?.error_for_status()?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(false);
        }
        let desired: Desired = answer.json().await?;
        let tables = self.tables.clone();
        let taken = tokio::task::spawn_blocking(move || tables.take(desired)).await;
        Ok(taken.map_err(|_| NoAnswer::Stopped)??)
    }

    async fn keep_reporting(&self) {
        loop {
            let reporting = self.http.post(self.url("/v1/observed")).bearer_auth(self.link.token.expose());
            let sent = reporting.json(&self.observed()).timeout(ANSWER_TIMEOUT).send().await;
            if let Err(error) = sent.and_then(reqwest::Response::error_for_status) {
                tracing::debug!(%error, "the controller did not take a report");
            }
            // A report follows every swap at once: `route set` waits for it.
            let _ = tokio::time::timeout(REPORT_EVERY, self.swapped.notified()).await;
        }
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
            agent: self.id.clone(),
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
            let bridge = BridgeLink {
                address: self.tables.bridge.clone(),
                token: self.link.token.clone(),
                http: self.http.clone(),
            };
            tokio::spawn(async move { freshness.keep_asking(bridge).await });
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.link.controller.trim_end_matches('/'))
    }
}

#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the controller did not answer")]
    Asking(#[from] reqwest::Error),
    #[error("what the controller sent cannot be used")]
    Unusable(#[from] crate::table::BadDesired),
    #[error("the proxy is stopping")]
    Stopped,
}
