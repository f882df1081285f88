//! The bridge's end of the talk with the controller: pulls `desired`, keeps the last one on disk, posts `observed`.
//!
//! Without a controller the bridge goes on with what it has, unless it is started with a plan that was edited since.

use migrations::control::{
    AgentId, AgentKind, BridgeReport, Condition, Desired, Link, Observed, Report, VERSION,
};
use std::io::Write;
use std::mem::{Discriminant, discriminant};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How long the controller may keep a poll open, in ms.
const POLL_MS: u64 = 20_000;
const OBSERVE_INTERVAL: Duration = Duration::from_millis(500);

/// How soon a stream that does something else now is reported.
const CHANGE_INTERVAL: Duration = Duration::from_millis(25);
const RETRY: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The bridge's agent.
#[derive(Debug, Clone)]
pub struct Agent {
    link: Link,
    id: AgentId,
    address: String,
    /// The hash of the plan that this bridge runs.
    plan: String,
    http: reqwest::Client,
}

impl Agent {
    /// `address` is where the bridge's own port can be reached.
    pub fn new(link: Link, plan: String, address: String) -> Self {
        let name = format!("bridge-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let id = AgentId { kind: AgentKind::Bridge, name: name[..name.len().min(32)].to_owned() };
        Self { link, id, address, plan, http: reqwest::Client::new() }
    }

    /// Pulls for ever; every newer `desired` is stored, then told. The stored one comes first, unless it wants nothing, or
    /// is of a plan that was edited since: then the controller is to say what it wants now.
    pub async fn pull(&self, desired: &watch::Sender<Option<Desired>>) {
        let stored = self.link.state_dir.join("desired.json");
        match read(&stored) {
            // That nothing is wanted may be old, and what it would take away is gone for good.
            Some(held) if !held.streams.values().any(|order| order.stage.is_captured()) => {}
            Some(held) if held.plan == self.plan => drop(desired.send_replace(Some(held))),
            Some(_) => tracing::warn!(
                "the plan was edited: nothing is captured or applied until the controller at {} answers",
                self.link.controller
            ),
            None => {}
        }
        loop {
            let held = desired.borrow().clone();
            match self.poll(held.as_ref()).await {
                Ok(Some(next)) if next.version != VERSION => {
                    tracing::error!(
                        "the controller speaks version {} of the control words, this bridge {VERSION}; \
                         run the same release of both",
                        next.version
                    );
                    sleep(ANSWER_TIMEOUT).await;
                }
                Ok(Some(next)) => {
                    let is_newer = held.as_ref().is_none_or(|held| next.replaces(held));
                    if is_newer {
                        if let Err(why) = store(&stored, &next) {
                            tracing::warn!("{} cannot be written: {why}", stored.display());
                        }
                        desired.send_replace(Some(next));
                    }
                }
                Ok(None) => {}
                Err(why) => {
                    tracing::debug!("the controller does not answer: {why}");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn poll(&self, held: Option<&Desired>) -> Result<Option<Desired>, reqwest::Error> {
        let mut request = self
            .http
            .get(format!("{}/v1/desired", self.link.controller))
            .bearer_auth(self.link.token.expose())
            .query(&[("wait_ms", POLL_MS.to_string())])
            .timeout(Duration::from_millis(POLL_MS) + ANSWER_TIMEOUT);
        if let Some(held) = held {
            request = request.query(&[
                ("journal", held.journal.0.to_string()),
                ("generation", held.generation.0.to_string()),
                ("plan", held.plan.clone()),
            ]);
        }
        let answer = request.send().await?.error_for_status()?;
        if answer.status() == reqwest::StatusCode::NO_CONTENT {
            Ok(None)
        } else {
            answer.json().await.map(Some)
        }
    }

    /// Posts what is observed, for ever.
    pub async fn observe(
        &self,
        desired: watch::Receiver<Option<Desired>>,
        report: impl Fn() -> BridgeReport,
    ) {
        loop {
            let (acts_on, plan) = match desired.borrow().as_ref() {
                Some(held) => (Some((held.journal, held.generation)), held.plan.clone()),
                None => (None, String::new()),
            };
            let observed = Observed {
                version: VERSION,
                agent: self.id.clone(),
                address: Some(self.address.clone()),
                acts_on,
                plan,
                report: Report::Bridge(report()),
            };
            let post = self
                .http
                .post(format!("{}/v1/observed", self.link.controller))
                .bearer_auth(self.link.token.expose())
                .timeout(ANSWER_TIMEOUT)
                .json(&observed);
            if let Err(why) = post.send().await.and_then(reqwest::Response::error_for_status) {
                tracing::debug!("the controller does not take a report: {why}");
            }
            let reported = conditions(&observed.report);
            let until = Instant::now() + OBSERVE_INTERVAL;
            while Instant::now() < until && conditions(&Report::Bridge(report())) == reported {
                sleep(CHANGE_INTERVAL).await;
            }
        }
    }
}

/// What the streams do, apart from how far they are.
fn conditions(report: &Report) -> Vec<Discriminant<Condition>> {
    match report {
        Report::Bridge(report) => {
            report.streams.values().map(|stream| discriminant(&stream.condition)).collect()
        }
        Report::Proxy(_) => Vec::new(),
    }
}

fn read(path: &Path) -> Option<Desired> {
    let bytes = std::fs::read(path).ok()?;
    let desired: Desired = serde_json::from_slice(&bytes).ok()?;
    (desired.version == VERSION).then_some(desired)
}

/// Writes beside and renames, so that a crash leaves the old or the new one, whole.
fn store(path: &Path, desired: &Desired) -> std::io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&serde_json::to_vec(desired)?)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
