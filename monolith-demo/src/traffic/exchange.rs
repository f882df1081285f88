//! One client's connection to the shop, and its identity: cookies or a header.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use reqwest::header::{COOKIE, LOCATION, RETRY_AFTER, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde::Serialize;

use super::cookies::Jar;
use super::incidents::{Incident, Kind, Trip};
use super::report::Tally;

/// The longest wait for an answer. After that the outcome of a write is unknown.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
pub enum Identity {
    Cookies(Jar),
    /// A header `x-client`, and no cookies.
    Header(String),
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Answer(Answer),
    /// A 503 with Retry-After: nothing was promised, and the client may come again. Not counted as failed.
    Deferred(String),
    /// A 5xx or no answer, already counted as failed.
    Failed(String),
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub location: Option<String>,
    pub served_by: Option<String>,
    /// Whether it says when to come again.
    retry_after: bool,
    pub body: Vec<u8>,
}

/// How many there were.
static LINES: AtomicU64 = AtomicU64::new(0);

pub struct Line {
    http: reqwest::Client,
    /// The shop's URLs, without a slash at the end.
    bases: Vec<String>,
    /// Which of them the last request went to.
    at: usize,
    identity: Identity,
    tally: Arc<Tally>,
    last: Trip,
}

impl Line {
    /// `bases` are URLs such as `http://127.0.0.1:8080`, which a client takes in turn.
    pub fn new(bases: &[String], identity: Identity, tally: Arc<Tally>) -> anyhow::Result<Self> {
        anyhow::ensure!(!bases.is_empty(), "no address of the shop was given: name one with --proxy");
        // Each is another browser: the proxy tells clients without a cookie apart by their agents.
        let agent = format!("traffic/{}", LINES.fetch_add(1, Ordering::Relaxed));
        let http = reqwest::Client::builder()
            .user_agent(agent)
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .context("could not create an HTTP client")?;
        let bases: Vec<String> = bases.iter().map(|base| base.trim_end_matches('/').to_owned()).collect();
        let last = Trip::since(SystemTime::now(), "");
        Ok(Self { http, bases, at: 0, identity, tally, last })
    }

    /// The URL that the last request went to, without a slash at the end.
    #[must_use]
    pub fn base(&self) -> &str {
        self.bases.get(self.at).map_or("", String::as_str)
    }

    pub async fn send(&mut self, method: Method, path: &str, body: Option<&impl Serialize>) -> Outcome {
        let (begun, began_at) = (Instant::now(), SystemTime::now());
        self.at = (self.at + 1) % self.bases.len();
        let what = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.base()));
        if let Some(body) = body {
            request = request.json(body);
        }
        request = match &self.identity {
            Identity::Cookies(jar) => match jar.header() {
                Some(cookies) => request.header(COOKIE, cookies),
                None => request,
            },
            Identity::Header(name) => request.header("x-client", name),
        };
        let received = self.receive(request, begun).await;
        self.last = Trip::since(began_at, self.base());
        match received {
            Ok(answer) if answer.status.is_server_error() => {
                let words: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
                let what = format!("{what}: {} {words}", answer.status);
                if answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.retry_after {
                    return Outcome::Deferred(what);
                }
                self.fail(what)
            }
            Ok(answer) => Outcome::Answer(answer),
            Err(error) => {
                self.tally.unanswered(begun.elapsed());
                self.fail(format!("{what}: {:#}", anyhow::Error::from(error)))
            }
        }
    }

    async fn receive(
        &mut self,
        request: reqwest::RequestBuilder,
        begun: Instant,
    ) -> Result<Answer, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status();
        let text = |value: Option<&reqwest::header::HeaderValue>| {
            value.and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let served_by = text(response.headers().get("x-served-by"));
        let location = text(response.headers().get(LOCATION));
        let retry_after = response.headers().contains_key(RETRY_AFTER);
        if let Identity::Cookies(jar) = &mut self.identity {
            for cookie in response.headers().get_all(SET_COOKIE) {
                jar.set(cookie.to_str().unwrap_or(""));
            }
        }
        let body = response.bytes().await?.to_vec();
        self.tally.answered(served_by.as_deref().unwrap_or("nobody"), begun.elapsed());
        Ok(Answer { status, location, served_by, retry_after, body })
    }

    /// Counts a failure.
    pub fn fail(&self, what: String) -> Outcome {
        self.incident(Kind::Failed, what.clone());
        Outcome::Failed(what)
    }

    /// Counts something about the last request.
    pub fn incident(&self, kind: Kind, what: String) {
        self.tally.incident(&Incident { kind, trip: self.last.clone(), what });
    }
}
