//! One client's line to the shop: a keep-alive connection, and cookies or a name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde::Serialize;

use super::cookies::Jar;
use super::report::Tally;

/// No request waits longer; afterwards nobody knows whether a write was done.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How a client is known to the shop.
#[derive(Clone, Debug)]
pub enum Identity {
    /// By the cookies it sends back.
    Cookies(Jar),
    /// By a header `x-client`; it keeps no cookies.
    Header(String),
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An answer below 500.
    Answer(Answer),
    /// A 5xx or no answer; already counted as failed.
    Failed(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Where it points, if anywhere.
    pub location: Option<String>,
    /// Its body.
    pub body: Vec<u8>,
}

/// One client's connection.
pub struct Line {
    http: reqwest::Client,
    base: String,
    identity: Identity,
    tally: Arc<Tally>,
}

impl Line {
    /// A line to the shop at `base`, an address like `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: &str, identity: Identity, tally: Arc<Tally>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .context("no HTTP client could be made")?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), identity, tally })
    }

    /// The address of the shop, without a slash at the end.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request and counts it.
    pub async fn send(&mut self, method: Method, path: &str, body: Option<&impl Serialize>) -> Outcome {
        let begun = Instant::now();
        let what = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
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
        match self.receive(request, begun).await {
            Ok(answer) if answer.status.is_server_error() => {
                let words: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
                self.fail(format!("{what}: {} {words}", answer.status))
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
        if let Identity::Cookies(jar) = &mut self.identity {
            for cookie in response.headers().get_all(SET_COOKIE) {
                jar.set(cookie.to_str().unwrap_or(""));
            }
        }
        let body = response.bytes().await?.to_vec();
        self.tally.answered(served_by.as_deref().unwrap_or("nobody"), begun.elapsed());
        Ok(Answer { status, location, body })
    }

    fn fail(&self, what: String) -> Outcome {
        self.tally.failed(what.clone());
        Outcome::Failed(what)
    }
}
