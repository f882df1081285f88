//! An agent's two loops: pulling what is desired, and reporting what it acts on.
//!
//! Nothing here is on the way of a request or of a change. Without a controller the agent goes on with what it has.

use crate::stored::{self, Stored};
use crate::{Link, client};
use migrations::code::Code;
use migrations::control::{AgentId, AgentKind, Confirmed, Desired, Observed, VERSION};
use migrations::journal::{Generation, JournalId};
use migrations::names::{Requests, SliceName};
use migrations::problem::{Diagnostic, Problem};
use reqwest::{Response, StatusCode};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long the controller may keep a poll open.
const POLL: Duration = Duration::from_secs(20);
/// An answer that takes longer than that and this is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses after failures: the first, and the longest that it doubles to.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Polls that bring nothing newer are at least so far apart: a confused controller is not asked in a circle.
const NOTHING_NEW_PAUSE: Duration = Duration::from_millis(200);
/// Without news a report is posted this often; with news at once, but not more often than the second one says.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
const REPORT_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub desired: Desired,
    /// Whether a controller answered for it in this process's life. A stored one may have been overtaken.
    pub is_current: bool,
}

/// Which `desired` an agent has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActsOn {
    pub journal: JournalId,
    pub generation: Generation,
    /// The hash of the plan.
    pub plan: String,
}

impl ActsOn {
    pub fn of(desired: &Desired) -> ActsOn {
        ActsOn { journal: desired.journal, generation: desired.generation, plan: desired.plan.clone() }
    }
}

/// A controller's word that nothing is newer than what the agent acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    /// When the controller was asked.
    pub asked: Instant,
    /// The slices whose copy is too old to be read.
    pub withheld: Arc<BTreeSet<SliceName>>,
}

#[derive(Debug, Clone)]
pub struct Agent {
    link: Link,
    id: AgentId,
    http: reqwest::Client,
    /// When the controller answered last, or the agent began.
    heard: watch::Sender<Instant>,
    /// When it last asked a controller that then said that nothing is newer than what it acts on.
    confirmed: watch::Sender<Option<Confirmation>>,
    /// What the monolith shall answer, because it was taken back in an emergency.
    recalled: watch::Sender<Arc<BTreeSet<Requests>>>,
    /// Something newer is desired, and an open poll has not brought it.
    newer: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("the controller does not answer")]
    Away(#[from] reqwest::Error),
    #[error("the controller refused")]
    Refused(#[source] Box<Problem>),
    #[error("the controller's answer cannot be read")]
    Unreadable(#[from] serde_json::Error),
    #[error("the controller speaks another version of the control words than {VERSION}")]
    Version,
    #[error("what the controller wants cannot be used")]
    Unusable(#[source] Box<Problem>),
}

impl Diagnostic for PollError {
    fn code(&self) -> Code {
        match self {
            PollError::Away(_) => Code::ApiUnreachable,
            PollError::Unreadable(_) => Code::ApiUnreadable,
            PollError::Version => Code::ApiOtherVersion,
            PollError::Refused(problem) | PollError::Unusable(problem) => problem.code,
        }
    }

    fn remedy(&self) -> String {
        match self {
            PollError::Away(_) => {
                "check that the controller runs and is reachable at this address".to_owned()
            }
            PollError::Unreadable(_) | PollError::Version => "run the same release everywhere".to_owned(),
            PollError::Refused(problem) | PollError::Unusable(problem) => problem.remedy.clone(),
        }
    }
}

impl Agent {
    /// An agent named by its host, its process and a `tag` of its own.
    ///
    /// # Errors
    /// If the system offers no resolver or no sockets.
    pub fn new(link: Link, kind: AgentKind, tag: u64) -> Result<Self, reqwest::Error> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = if host.trim().is_empty() { "host" } else { host.trim() };
        let name = format!("{host}-{}-{tag:x}", std::process::id());
        let heard = watch::Sender::new(Instant::now());
        Ok(Self {
            link,
            id: AgentId { kind, name },
            http: client()?,
            heard,
            confirmed: watch::Sender::new(None),
            recalled: watch::Sender::default(),
            newer: Arc::default(),
        })
    }

    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Whether the controller took a report during the last `time`.
    pub fn heard_within(&self, time: Duration) -> bool {
        self.heard.borrow().elapsed() < time
    }

    /// The last time that a controller said that nothing newer is desired than what the agent acts on.
    pub fn confirmed(&self) -> watch::Receiver<Option<Confirmation>> {
        self.confirmed.subscribe()
    }

    /// What was taken back to the monolith in an emergency, as controllers said last.
    pub fn recalled(&self) -> Arc<BTreeSet<Requests>> {
        self.recalled.borrow().clone()
    }

    pub fn stored(&self) -> Stored {
        Stored::of(&self.link)
    }

    /// Pulls for ever. `take` puts in use each `desired` that is newer than `held`, and keeps it ([`Agent::stored`]); it
    /// gets `held` itself once a controller stands by it. If `take` fails the same one is asked for again, with pauses.
    pub async fn pull<F>(&self, mut held: Option<Told>, take: impl Fn(Told) -> F) -> Infallible
    where
        F: Future<Output = Result<(), Problem>>,
    {
        let mut pause = RETRY_MIN;
        loop {
            let asked_at = Instant::now();
            let polled = tokio::select! {
                polled = self.poll(held.as_ref()) => polled,
                () = self.newer.notified() => continue,
            };
            let next = polled.map(|answer| news(held.as_ref(), answer));
            let taken = match next {
                Ok(Some(told)) => match take(told.clone()).await {
                    Ok(()) => Ok(Some(told)),
                    Err(why) => Err(PollError::Unusable(Box::new(why))),
                },
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match taken {
                Ok(Some(told)) => {
                    held = Some(told);
                    pause = RETRY_MIN;
                }
                Ok(None) => {
                    pause = RETRY_MIN;
                    sleep(NOTHING_NEW_PAUSE.saturating_sub(asked_at.elapsed())).await;
                }
                Err(error) => {
                    let Problem { message, remedy, .. } = Problem::of(&error);
                    tracing::warn!(
                        error = %message,
                        %remedy,
                        controller = %self.link.controller,
                        "no newer orders; going on with the present ones"
                    );
                    let mut heard = self.heard.subscribe();
                    let _ = timeout(pause.mul_f64(rand::random_range(0.5..1.0)), heard.changed()).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Whether a controller says within `patience` that nothing newer is desired than what the agent acts on; none if it
    /// says nothing. Something newer is pulled at once.
    pub async fn is_newest(&self, acts_on: &ActsOn, patience: Duration) -> Option<bool> {
        let asked = Instant::now();
        let answer = self.ask(Some(acts_on), Duration::ZERO, patience).await.ok()?;
        let is_newest = answer.status() == StatusCode::NO_CONTENT;
        if is_newest {
            self.confirm_again(asked);
        } else {
            self.newer.notify_one();
        }
        Some(is_newest)
    }

    /// This answer says nothing about copies: what a report's answer said of them stays so.
    fn confirm_again(&self, asked: Instant) {
        self.confirmed.send_if_modified(|last| {
            let Some(last) = last.as_mut().filter(|last| last.asked < asked) else { return false };
            last.asked = asked;
            true
        });
    }

    /// One poll. None if nothing is newer than `held`.
    async fn poll(&self, held: Option<&Told>) -> Result<Option<Desired>, PollError> {
        // Whether stored orders still hold is asked without waiting for newer ones.
        let is_stored = held.is_some_and(|held| !held.is_current);
        let wait = if is_stored { Duration::ZERO } else { POLL };
        let acts_on = held.map(|held| ActsOn::of(&held.desired));
        let answer = self.ask(acts_on.as_ref(), wait, POLL + ANSWER_TIMEOUT).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        stored::read(&answer.bytes().await?)?.map(Some).ok_or(PollError::Version)
    }

    /// Asks for what is newer than `held`. The controller may `wait` for it.
    async fn ask(
        &self,
        held: Option<&ActsOn>,
        wait: Duration,
        patience: Duration,
    ) -> Result<Response, PollError> {
        let mut query = vec![("wait_ms", wait.as_millis().to_string())];
        if let Some(ActsOn { journal, generation, plan }) = held {
            query.extend([
                ("journal", journal.0.to_string()),
                ("generation", generation.0.to_string()),
                ("plan", plan.clone()),
            ]);
        }
        let request = self.http.get(self.url("/v1/desired")).query(&query);
        let request = request.bearer_auth(self.link.token.expose());
        accepted(request.timeout(patience).send().await?).await
    }

    /// Posts what `observed` returns, for ever: when `news` is notified, and every half second.
    pub async fn report(&self, news: &Notify, observed: impl Fn() -> Observed) -> Infallible {
        let mut is_refused = false;
        loop {
            let request = self.http.post(self.url("/v1/observed")).bearer_auth(self.link.token.expose());
            let (observed, asked) = (observed(), Instant::now());
            let taken = match request.json(&observed).timeout(ANSWER_TIMEOUT).send().await {
                Ok(answer) => accepted(answer).await,
                Err(error) => Err(error.into()),
            };
            match taken {
                Err(PollError::Refused(problem)) if !is_refused => {
                    is_refused = true;
                    tracing::warn!(remedy = problem.remedy, "the controller refuses reports: {problem}");
                }
                Err(error) => {
                    tracing::debug!(error = &error as &dyn Error, "the controller did not take a report")
                }
                Ok(answer) => {
                    is_refused = false;
                    self.heard.send_replace(Instant::now());
                    self.heed(asked, answer).await;
                }
            }
            sleep(REPORT_PAUSE).await;
            let _ = timeout(REPORT_INTERVAL, news.notified()).await;
        }
    }

    /// Takes in what the answer to a report says.
    async fn heed(&self, asked: Instant, answer: Response) {
        let status = answer.status();
        let said = match status {
            StatusCode::NO_CONTENT => Some(Confirmed::nothing()),
            _ => answer.json::<Confirmed>().await.ok(),
        };
        let Some(Confirmed { withheld, recalled, .. }) = said else { return };
        if status != StatusCode::ACCEPTED {
            self.recalled.send_replace(recalled.into());
            self.confirmed.send_replace(Some(Confirmation { asked, withheld: withheld.into() }));
        } else if !recalled.is_empty() {
            // It may not know all that another one said.
            self.recalled.send_modify(|known| *known = Arc::new(known.union(&recalled).cloned().collect()));
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.link.controller.trim_end_matches('/'))
    }
}

/// The answer, or the refusal in the controller's own words.
async fn accepted(answer: Response) -> Result<Response, PollError> {
    let Err(status) = answer.error_for_status_ref() else { return Ok(answer) };
    let said = answer.bytes().await.unwrap_or_default();
    Err(serde_json::from_slice(&said)
        .map_or(PollError::Away(status), |problem| PollError::Refused(Box::new(problem))))
}

/// What an answer changes: a newer `desired`, or that what is held is current.
fn news(held: Option<&Told>, answer: Option<Desired>) -> Option<Told> {
    let current = |desired| Some(Told { desired, is_current: true });
    match (held, answer) {
        (None, answer) => answer.and_then(current),
        (Some(held), Some(desired)) if !desired.replaces(&held.desired) => None,
        (Some(held), Some(desired)) if held.is_current && held.desired == desired => None,
        (Some(_), Some(desired)) => current(desired),
        (Some(held), None) if held.is_current => None,
        (Some(held), None) => current(held.desired.clone()),
    }
}
