//! Carries calls to the monolith's inner door, each within a time limit.

use std::time::Duration;

use anyhow::Context as _;

use crate::shop::deal::{Call, Verdict};

/// The longest wait for an answer. It is shorter than a saga's lease.
const LIMIT: Duration = Duration::from_secs(2);
/// The most bytes of an error that are kept.
const WORDS_MAX: usize = 300;

/// Why there is no verdict. The call may or may not have been carried out, and is sent again with the same key.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("the monolith does not answer: {0}")]
    Unreachable(String),
    #[error("the monolith answered {status}: {words}")]
    Failed { status: u16, words: String },
}

#[derive(Clone, Debug)]
pub struct Courier {
    http: reqwest::Client,
    base: String,
}

impl Courier {
    /// `base` is the URL of the monolith's inner door.
    pub fn new(base: &str) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        anyhow::ensure!(
            base.starts_with("http://"),
            "{base} is not a URL of the monolith: write it like http://127.0.0.1:4010"
        );
        let http = reqwest::Client::builder()
            .timeout(LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .context("could not create an HTTP client")?;
        Ok(Self { http, base })
    }

    pub async fn carry(&self, key: &str, call: &Call) -> Result<Verdict, Lost> {
        let unreachable = |error: reqwest::Error| {
            Lost::Unreachable(format!("{:#}", anyhow::Error::from(error.without_url())))
        };
        let url = format!("{}/calls/{}", self.base, key.replace('/', "%2F"));
        let response = self.http.put(url).json(call).send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return response.json().await.map_err(unreachable);
        }
        let words = response.text().await.unwrap_or_default().chars().take(WORDS_MAX).collect();
        Err(Lost::Failed { status: status.as_u16(), words })
    }
}
