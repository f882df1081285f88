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
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What the bridge is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The controller's words.
    pub desired: Desired,
    /// Whether a controller stands by them in this process's life. What was stored may have been overtaken.
    pub is_current: bool,
}

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
    ///
    /// # Errors
    /// If the system gives no means to ask by.
    pub fn new(link: Link, plan: String, address: String) -> Result<Self, reqwest::Error> {
        let name = format!("bridge-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
        let id = AgentId { kind: AgentKind::Bridge, name: name[..name.len().min(32)].to_owned() };
        // A web proxy of the environment has no business between the parts.
        let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build()?;
        Ok(Self { link, id, address, plan, http })
    }

    /// Pulls for ever; every newer `desired` is stored, then told. The stored one comes first, unless it is of a plan that
    /// was edited since: then the controller is to say what it wants now.
    pub async fn pull(&self, told: &watch::Sender<Option<Told>>) {
        let stored = self.link.state_dir.join("desired.json");
        match read(&stored) {
            Some(desired) if desired.plan == self.plan => {
                told.send_replace(Some(Told { desired, is_current: false }));
            }
            Some(_) => tracing::warn!(
                "the plan was edited: nothing is captured or applied until the controller at {} answers",
                self.link.controller
            ),
            None => {}
        }
        loop {
            let held = told.borrow().clone();
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
                    let is_newer = held.as_ref().is_none_or(|held| next.replaces(&held.desired));
                    if is_newer {
                        if let Err(why) = store(&stored, &next) {
                            tracing::warn!("{} cannot be written: {why}", stored.display());
                        }
                        told.send_replace(Some(Told { desired: next, is_current: true }));
                    }
                }
                // Nothing is newer than what is held.
                Ok(None) => {
                    told.send_if_modified(|told| {
                        told.as_mut().is_some_and(|told| !std::mem::replace(&mut told.is_current, true))
                    });
                }
                Err(why) => {
                    tracing::debug!("the controller does not answer: {why}");
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn poll(&self, held: Option<&Told>) -> Result<Option<Desired>, reqwest::Error> {
        // Whether the stored words still hold is asked without waiting for newer ones.
        let wait_ms = if held.is_some_and(|held| !held.is_current) { 0 } else { POLL_MS };
        let mut request = self
            .http
            .get(format!("{}/v1/desired", self.link.controller))
            .bearer_auth(self.link.token.expose())
            .query(&[("wait_ms", wait_ms.to_string())])
            .timeout(Duration::from_millis(POLL_MS) + ANSWER_TIMEOUT);
        if let Some(Told { desired: held, .. }) = held {
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
    pub async fn observe(&self, told: watch::Receiver<Option<Told>>, report: impl Fn() -> BridgeReport) {
        loop {
            let (acts_on, plan) = match told.borrow().as_ref() {
                Some(Told { desired: held, .. }) => {
                    (Some((held.journal, held.generation)), held.plan.clone())
                }
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
