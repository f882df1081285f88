//! Asks the bridge whether both sides hold the same rows while nobody writes. It knows which rows changed since all were
//! compared last, and compares just those.

use super::trouble::Trouble;
use migrations::code::{Kind, Retry};
use migrations::control::VERSION;
use migrations::names::SliceName;
use migrations::plan::Secret;
use migrations::problem::Problem;
use migrations::stage::Epoch;
use migrations::verify::{CompareAnswer, CompareRequest};
use reqwest::{Client, Response};
use std::time::Duration;

/// The bridge is near, or does not answer at all. How long it may compare is bounded by the hold.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How the bridge's own port is spoken to.
#[derive(Debug)]
pub(crate) struct Line {
    http: Client,
    token: Secret,
}

impl Line {
    /// None if this machine cannot make an HTTP client.
    pub(crate) fn new(token: Secret) -> Option<Line> {
        let http = Client::builder().no_proxy().connect_timeout(CONNECT_MAX).build();
        let http = http.inspect_err(|error| tracing::error!(%error, "the coordinator has no HTTP client"));
        Some(Line { http: http.ok()?, token })
    }

    pub(super) async fn compare(
        &self,
        bridge: Option<String>,
        slice: &SliceName,
        epoch: Epoch,
    ) -> Result<CompareAnswer, Trouble> {
        let Some(bridge) = bridge else { return Err(Trouble::Again("no live bridge is known".to_owned())) };
        let request = CompareRequest { version: VERSION, slice: slice.clone(), epoch };
        let url = format!("{}/v1/compare", bridge.trim_end_matches('/'));
        let asked = self.http.post(url).bearer_auth(self.token.expose()).json(&request).send().await;
        let unheard = |error: reqwest::Error| Trouble::Again(format!("the bridge at {bridge}: {error}"));
        let answer = asked.map_err(unheard)?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        let answer: CompareAnswer = answer.json().await.map_err(unheard)?;
        if answer.epoch != epoch {
            return Err(Trouble::Again(format!("the bridge compared at epoch {}", answer.epoch)));
        }
        Ok(answer)
    }
}

async fn refusal(answer: Response) -> Trouble {
    let status = answer.status();
    let Ok(problem) = answer.json::<Problem>().await else {
        return Trouble::Again(format!("the bridge answered {status}"));
    };
    // It may not have heard of the epoch yet.
    let may_pass = problem.kind == Kind::Conflict || problem.kind.policy().retry == Retry::ByItself;
    if may_pass { Trouble::Again(problem.message) } else { Trouble::Final(problem.message) }
}
