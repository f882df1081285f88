//! Client of the controller's API, and of the bridge's `tail` and `verify`.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use migrations::api::{
    CrossingReport, CrossingVerb, CrossingWish, Outcome, Outline, Reconciled, SetShares, Status, SyncVerb,
    SyncWish,
};
use migrations::code::Code;
use migrations::control::VERSION;
use migrations::journal::{Entry, Generation};
use migrations::names::SliceName;
use migrations::plan::Secret;
use migrations::problem::Problem;
use migrations::verify::{StopRequest, Verification, VerifyRequest};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For requests that read at most the journal.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// For requests that may wait for databases or proxies.
const WISH_TIMEOUT: Duration = Duration::from_secs(120);
/// For the last changes: the bridge may have to read every partition of many topics.
const TAIL_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest line. By default a plan allows rows of 16 MiB. As JSON a row of control characters takes six times as
/// much, and an event may hold the old and the new row.
const LINE_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Remote {
    base: String,
    token: Option<Secret>,
    http: Client,
}

impl Remote {
    pub(crate) fn new(base: &str, token: Option<Secret>) -> Result<Self, Problem> {
        // The controller is on loopback or the team's network, so a proxy of the environment is ignored.
        let http =
            Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build().map_err(|error| {
                Problem::new(
                    Code::CommandFailed,
                    "could not create an HTTP client",
                    "run the command again with `-v`",
                )
                .because(&error)
            })?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), token, http })
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn status(&self) -> Result<Status, Problem> {
        self.answer(self.request(Method::GET, "/v1/status", ASK_TIMEOUT)).await
    }

    /// Entries after `after`. If there is none yet, waits up to `wait` for one.
    pub(crate) async fn journal(&self, after: Generation, wait: Duration) -> Result<Vec<Entry>, Problem> {
        let query = [("after", after.0.to_string()), ("wait_ms", wait.as_millis().to_string())];
        self.answer(self.request(Method::GET, "/v1/journal", ASK_TIMEOUT + wait).query(&query)).await
    }

    /// Whether the controller would take an edited plan. Nothing is changed.
    pub(crate) async fn may_reload(&self, plan: &Outline) -> Result<(), Problem> {
        let request = self.request(Method::POST, "/v1/plan", ASK_TIMEOUT).json(plan);
        accepted(request.send().await.map_err(|error| self.unreachable(&error, &self.base))?).await.map(drop)
    }

    pub(crate) async fn set_shares(&self, wish: &SetShares) -> Result<Outcome, Problem> {
        self.answer(self.request(Method::POST, "/v1/shares", WISH_TIMEOUT).json(wish)).await
    }

    pub(crate) async fn sync(
        &self,
        slice: &SliceName,
        verb: SyncVerb,
        wish: &SyncWish,
    ) -> Result<Outcome, Problem> {
        let path = format!("/v1/slices/{slice}/sync/{verb}");
        self.answer(self.request(Method::POST, &path, WISH_TIMEOUT).json(wish)).await
    }

    /// Answered when it is journalled.
    pub(crate) async fn cross(
        &self,
        slice: &SliceName,
        verb: CrossingVerb,
        wish: &CrossingWish,
    ) -> Result<Outcome, Problem> {
        let path = format!("/v1/slices/{slice}/{verb}");
        let asked = self.answer(self.request(Method::POST, &path, WISH_TIMEOUT).json(wish)).await;
        asked.map_err(|problem| match problem.code {
            Code::ApiUnreachable => problem.remedy(
                "before you ask again, look at `strangler journal`: the controller may have decided it",
            ),
            _ => problem,
        })
    }

    /// The steps of a wish, of which none is done.
    pub(crate) async fn dry_run(
        &self,
        slice: &SliceName,
        verb: CrossingVerb,
        wish: &CrossingWish,
    ) -> Result<Vec<String>, Problem> {
        let path = format!("/v1/slices/{slice}/{verb}");
        let request = self.request(Method::POST, &path, WISH_TIMEOUT).query(&[("dry_run", "true")]);
        self.answer(request.json(wish)).await
    }

    /// The slice's last crossing, if this controller drove one.
    pub(crate) async fn crossing(&self, slice: &SliceName) -> Result<Option<CrossingReport>, Problem> {
        self.answer(self.request(Method::GET, &format!("/v1/slices/{slice}/crossing"), ASK_TIMEOUT)).await
    }

    pub(crate) async fn reconcile(&self, slice: Option<&SliceName>) -> Result<Vec<Reconciled>, Problem> {
        let path =
            slice.map_or_else(|| "/v1/reconcile".to_owned(), |slice| format!("/v1/slices/{slice}/reconcile"));
        self.answer(self.request(Method::POST, &path, WISH_TIMEOUT)).await
    }

    /// A slice's change events from the bridge at `bridge`, one JSON document per line. When following, the bridge may
    /// stay silent as long as nothing changes.
    pub(crate) async fn tail(&self, bridge: &str, tail: &Tail<'_>) -> Result<Lines, Problem> {
        let url = format!("{}/v1/tail", bridge.trim_end_matches('/'));
        let request = self.bearer(self.http.get(url)).query(tail);
        let asked =
            async { accepted(request.send().await.map_err(|error| self.unreachable(&error, bridge))?).await };
        let answer =
            tokio::time::timeout(TAIL_TIMEOUT, asked).await.map_err(|_| silent("bridge", bridge))??;
        Ok(Lines::of(answer, (!tail.follow).then_some(TAIL_TIMEOUT)))
    }

    /// Begins a verification at the bridge at `bridge`, or joins the one that runs there.
    pub(crate) async fn verify(
        &self,
        bridge: &str,
        request: &VerifyRequest,
    ) -> Result<Verification, Problem> {
        self.answer_of(bridge, self.at(bridge, Method::POST, "/v1/verify").json(request)).await
    }

    /// How the last verification stands.
    pub(crate) async fn verification(
        &self,
        bridge: &str,
        slice: &SliceName,
    ) -> Result<Verification, Problem> {
        let request = self.at(bridge, Method::GET, "/v1/verify").query(&[("slice", slice.as_str())]);
        self.answer_of(bridge, request).await
    }

    pub(crate) async fn stop_verification(
        &self,
        bridge: &str,
        slice: &SliceName,
    ) -> Result<Verification, Problem> {
        let request = StopRequest { version: VERSION, slice: slice.clone() };
        self.answer_of(bridge, self.at(bridge, Method::POST, "/v1/verify/stop").json(&request)).await
    }

    /// Whether `url` answers 200 within a second.
    pub(crate) async fn is_well(&self, url: &str) -> bool {
        let sent = self.http.get(url).timeout(Duration::from_secs(1)).send().await;
        sent.is_ok_and(|answer| answer.status() == StatusCode::OK)
    }

    fn request(&self, method: Method, path: &str, timeout: Duration) -> RequestBuilder {
        self.bearer(self.http.request(method, format!("{}{path}", self.base))).timeout(timeout)
    }

    fn at(&self, bridge: &str, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", bridge.trim_end_matches('/'));
        self.bearer(self.http.request(method, url)).timeout(ASK_TIMEOUT)
    }

    fn bearer(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        self.answer_of(&self.base, request).await
    }

    async fn answer_of<T: DeserializeOwned>(
        &self,
        whom: &str,
        request: RequestBuilder,
    ) -> Result<T, Problem> {
        let sent = request.send().await.map_err(|error| self.unreachable(&error, whom))?;
        let bytes = accepted(sent).await?.bytes().await.map_err(|error| self.unreachable(&error, whom))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Problem::new(
                Code::ApiUnreadable,
                format!("what answers at {whom} is another version of strangler"),
                "run the same version everywhere: `strangler down`, then `strangler up --detach`",
            )
            .because(&error)
        })
    }

    fn unreachable(&self, error: &reqwest::Error, whom: &str) -> Problem {
        let who = if whom == self.base { "controller" } else { "bridge" };
        let problem = if error.is_timeout() && !error.is_connect() {
            silent(who, whom)
        } else if error.is_builder() {
            Problem::new(
                Code::CommandUsage,
                format!("`{whom}` is not a URL"),
                "write a URL such as http://127.0.0.1:7401",
            )
        } else {
            Problem::new(
                Code::ApiUnreachable,
                format!("no {who} answers at {whom}"),
                "start it with `strangler up --detach`",
            )
        };
        problem.because(error)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Tail<'a> {
    pub(crate) slice: &'a SliceName,
    pub(crate) n: u32,
    pub(crate) follow: bool,
    /// For people, and not as the log's records.
    pub(crate) told: bool,
}

/// Turns an answer other than success into a problem.
async fn accepted(answer: Response) -> Result<Response, Problem> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = answer.url().clone();
    let bytes = answer.bytes().await.unwrap_or_default();
    if let Ok(problem) = serde_json::from_slice::<Problem>(&bytes) {
        return Err(problem);
    }
    let origin = url.origin().ascii_serialization();
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Problem::new(
            Code::ApiToken,
            format!("{origin} refused the token"),
            "set STRANGLER_TOKEN to the controller's token, or use the plan next to its .strangler/token",
        ),
        _ if serde_json::from_slice::<serde_json::Value>(&bytes).is_ok() => Problem::new(
            Code::ApiUnreadable,
            format!("{origin} refused with {status}, in words of another version of strangler"),
            "run the same version of strangler everywhere",
        ),
        _ => Problem::new(
            Code::ApiUnreachable,
            format!("{origin}{} answered {status}", url.path()),
            "name the controller with --controller URL",
        ),
    })
}

fn silent(who: &str, whom: &str) -> Problem {
    Problem::new(
        Code::ApiUnreachable,
        format!("the {who} at {whom} did not answer in time"),
        format!("read .strangler/log/{who}.log"),
    )
}

/// An answer's body, line by line as it arrives.
pub(crate) struct Lines {
    body: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    /// Bytes that are not yet a whole line.
    held: Vec<u8>,
    /// How much of `held` has no line end, so that a long line is not searched again with each part.
    searched: usize,
    ended: bool,
    /// How long the body may be silent; none means for ever.
    patience: Option<Duration>,
}

impl Lines {
    pub(crate) fn of(answer: Response, patience: Option<Duration>) -> Self {
        let body = answer.bytes_stream().map(|part| part.map(|bytes| bytes.to_vec()));
        Self::new(body.boxed(), patience)
    }

    fn new(body: BoxStream<'static, reqwest::Result<Vec<u8>>>, patience: Option<Duration>) -> Self {
        Self { body, held: Vec::new(), searched: 0, ended: false, patience }
    }

    /// None after the last line or a failure. The last line may lack its line end.
    pub(crate) async fn next(&mut self) -> Option<Result<String, Problem>> {
        loop {
            if let Some(at) = self.held[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=self.searched + at).collect();
                self.searched = 0;
                return Some(Ok(text(&line)));
            }
            self.searched = self.held.len();
            if self.ended {
                let line = self.rest();
                return (!line.is_empty()).then(|| Ok(text(&line)));
            }
            match self.part().await {
                Ok(Some(bytes)) => self.held.extend_from_slice(&bytes),
                Ok(None) => self.ended = true,
                Err(problem) => {
                    self.ended = true;
                    // Half a line is useless.
                    drop(self.rest());
                    return Some(Err(problem));
                }
            }
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        self.searched = 0;
        std::mem::take(&mut self.held)
    }

    async fn part(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let next = self.body.next();
        let part = match self.patience {
            None => next.await,
            Some(patience) => tokio::time::timeout(patience, next)
                .await
                .map_err(|_| broken(&format!("the bridge sent nothing for {} s", patience.as_secs())))?,
        };
        let part =
            part.transpose().map_err(|error| broken("the connection to the bridge broke").because(&error))?;
        let bytes = part.as_ref().map_or(0, Vec::len);
        if self.held.len() + bytes > LINE_BYTES_MAX {
            let mib = LINE_BYTES_MAX >> 20;
            return Err(Problem::new(
                Code::ApiUnreadable,
                format!("the bridge sent a change of more than {mib} MiB"),
                "read it from its topic, or skip past changes: `strangler tail SLICE -f -n 0`",
            ));
        }
        Ok(part)
    }
}

fn broken(message: &str) -> Problem {
    Problem::new(
        Code::ApiUnreachable,
        message,
        "run the command again; `strangler status` shows whether the bridge is live",
    )
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn lines(parts: Vec<Vec<u8>>) -> Lines {
        Lines::new(stream::iter(parts.into_iter().map(Ok)).boxed(), None)
    }

    #[tokio::test]
    async fn a_line_may_arrive_in_parts_and_the_last_without_its_end() {
        let mut lines = lines(["a\nb", "", "c", "\r\n\nd"].map(|part| part.as_bytes().to_vec()).to_vec());
        let mut seen = Vec::new();
        while let Some(line) = lines.next().await {
            seen.push(line.unwrap());
        }
        assert_eq!(seen, ["a", "bc", "", "d"]);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_refused_and_the_limit_is_named() {
        let mut lines = lines(vec![b"{}\n{".to_vec(), vec![0; LINE_BYTES_MAX]]);
        assert_eq!(lines.next().await.unwrap().unwrap(), "{}");
        let problem = lines.next().await.unwrap().unwrap_err();
        assert!(problem.message.contains("256 MiB"), "{problem}");
        assert!(lines.next().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_stays_silent_is_a_failure() {
        let mut lines = Lines::new(stream::pending().boxed(), Some(Duration::from_millis(10)));
        let problem = lines.next().await.unwrap().unwrap_err();
        assert!(problem.message.contains("sent nothing"), "{problem}");
        assert!(lines.next().await.is_none());
    }
}
