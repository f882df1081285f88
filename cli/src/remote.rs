//! The controller's API, and the bridge's `tail`, as the verbs ask them. Knows HTTP; shows nothing.

mod lines;

use crate::problem::{Kind, Problem};
use lines::Lines;
use migrations::api::{Outcome, Refusal, SetShares, Status, SyncWish};
use migrations::journal::{Entry, Generation};
use migrations::names::SliceName;
use migrations::plan::Secret;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Connecting to a controller, which is near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A question for which the controller reads at most its journal.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// A wish that may have to wait for databases or for proxies to follow.
const WISH_TIMEOUT: Duration = Duration::from_secs(120);
/// The last changes of a log, for which the bridge may have to read every partition of many topics.
const TAIL_TIMEOUT: Duration = Duration::from_secs(60);

/// One controller.
#[derive(Debug, Clone)]
pub struct Remote {
    base: String,
    token: Option<Secret>,
    http: Client,
}

impl Remote {
    /// The controller at `base`, e.g. `http://127.0.0.1:7401`.
    pub fn new(base: &str, token: Option<Secret>) -> Result<Self, Problem> {
        // Loopback and the team's own network; a proxy of the environment has no place in between.
        let http =
            Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build().map_err(|error| {
                Problem::error("no HTTP client can be made").because(&error).hint("run it again with `-v`")
            })?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token, http })
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Everything there is to know.
    pub async fn status(&self) -> Result<Status, Problem> {
        self.answer(self.request(Method::GET, "/v1/status", ASK_TIMEOUT)).await
    }

    /// Entries after `after`; waits up to `wait` for the first.
    pub async fn journal(&self, after: Generation, wait: Duration) -> Result<Vec<Entry>, Problem> {
        let query = [("after", after.0.to_string()), ("wait_ms", wait.as_millis().to_string())];
        self.answer(self.request(Method::GET, "/v1/journal", ASK_TIMEOUT + wait).query(&query)).await
    }

    /// Shares a slice's routes anew.
    pub async fn set_shares(&self, wish: &SetShares) -> Result<Outcome, Problem> {
        self.answer(self.request(Method::POST, "/v1/shares", WISH_TIMEOUT).json(wish)).await
    }

    /// `start`, `pause`, `resume` or `drop`.
    pub async fn sync(&self, slice: &SliceName, verb: &str, wish: &SyncWish) -> Result<Outcome, Problem> {
        let path = format!("/v1/slices/{slice}/sync/{verb}");
        self.answer(self.request(Method::POST, &path, WISH_TIMEOUT).json(wish)).await
    }

    /// A slice's change events as lines of JSON, from the bridge at `bridge`. Between those that come from now on it
    /// may be silent for as long as nothing changes.
    pub async fn tail(&self, bridge: &str, tail: &Tail<'_>) -> Result<Lines, Problem> {
        let url = format!("{}/v1/tail", bridge.trim_end_matches('/'));
        let request = self.bearer(self.http.get(url)).query(tail);
        let asked =
            async { accepted(request.send().await.map_err(|error| self.unreachable(&error, bridge))?).await };
        let answer =
            tokio::time::timeout(TAIL_TIMEOUT, asked).await.map_err(|_| silent("bridge", bridge))??;
        Ok(Lines::of(answer, (!tail.follow).then_some(TAIL_TIMEOUT)))
    }

    /// Whether something answers 200 at `url`, soon.
    pub async fn is_well(&self, url: &str) -> bool {
        let sent = self.http.get(url).timeout(Duration::from_secs(1)).send().await;
        sent.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    fn request(&self, method: Method, path: &str, timeout: Duration) -> RequestBuilder {
        self.bearer(self.http.request(method, format!("{}{path}", self.base))).timeout(timeout)
    }

    fn bearer(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        let sent = request.send().await.map_err(|error| self.unreachable(&error, &self.base))?;
        let bytes =
            accepted(sent).await?.bytes().await.map_err(|error| self.unreachable(&error, &self.base))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Problem::error(format!("the controller at {} speaks another version", self.base))
                .because(&error)
                .hint("run the same strangler everywhere: `strangler down`, then `strangler up --detach`")
        })
    }

    fn unreachable(&self, error: &reqwest::Error, whom: &str) -> Problem {
        let who = if whom == self.base { "controller" } else { "bridge" };
        let problem = if error.is_timeout() && !error.is_connect() {
            silent(who, whom)
        } else if error.is_builder() {
            Problem::usage(format!("`{whom}` is not an address"))
                .hint("write for example http://127.0.0.1:7401")
        } else {
            Problem::error(format!("no {who} answers at {whom}"))
                .hint("start it with `strangler up --detach`")
        };
        problem.because(error)
    }
}

/// What is asked of `tail`.
#[derive(Debug, Serialize)]
pub struct Tail<'a> {
    /// Whose events.
    pub slice: &'a SliceName,
    /// How many of the last ones.
    pub n: u32,
    /// Whether to go on with those that come.
    pub follow: bool,
}

/// The answer, if it is a good one; a refusal as the problem it tells.
async fn accepted(answer: Response) -> Result<Response, Problem> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = answer.url().clone();
    let bytes = answer.bytes().await.unwrap_or_default();
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(&bytes) {
        return Err(refusal.into());
    }
    let origin = url.origin().ascii_serialization();
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Problem::error(format!("{origin} does not accept our token"))
                .hint("set STRANGLER_TOKEN to the controller's, or run this beside its .strangler/token")
        }
        _ => Problem::error(format!("{origin}{} answered {status}", url.path()))
            .hint("is this the controller? name it with --controller URL"),
    })
}

/// That a part took the question and gives no answer.
fn silent(who: &str, whom: &str) -> Problem {
    Problem::error(format!("the {who} at {whom} does not answer in time"))
        .hint(format!("look at .strangler/log/{who}.log"))
}

/// A watching that ended before its end was seen.
pub fn timed_out(message: impl Into<String>) -> Problem {
    Problem::new(Kind::TimedOut, message)
}
