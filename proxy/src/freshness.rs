//! Read-your-writes of one slice: asks the bridge for barriers, one at a time, and wakes the requests that wait.
//!
//! [`marks`] and [`seen`] decide which client must wait for which barrier. With strong consistency every read does, and
//! nothing is remembered. This file only asks. It repeats a question until it is answered: only an answer proves that the
//! service has caught up.

pub(crate) mod marks;
pub(crate) mod seen;

use crate::doubt::Doubt;
use crate::metrics::BarrierCounters;
use arc_swap::ArcSwapOption;
use marks::{Count, Marks};
use migrations::control::{BarrierAnswer, BarrierRequest, VERSION};
use migrations::names::SliceName;
use migrations::plan::{Consistency, Secret};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The bridge answers when the sink has passed the barrier. After this, the question is asked again.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first failure. It doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(25);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct BridgeLink {
    /// From the last `desired`.
    pub(crate) address: Arc<ArcSwapOption<String>>,
    pub(crate) token: Secret,
    pub(crate) http: reqwest::Client,
}

/// How long a request waits for a barrier that would let the service answer it, if its client seldom needs one.
const PATIENCE: Duration = Duration::from_millis(15);
/// Where every request needs one.
const STRONG_PATIENCE: Duration = Duration::from_millis(50);

pub(crate) struct Wait {
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) mark: u64,
}

impl Wait {
    /// Waits for a short time. Returns whether the barrier has passed.
    pub(crate) async fn ends(&self) -> bool {
        let patience = match self.freshness.consistency {
            Consistency::Session => PATIENCE,
            Consistency::Strong => STRONG_PATIENCE,
        };
        self.freshness.passes_within(self.mark, patience).await
    }
}

pub(crate) struct Freshness {
    pub(crate) slice: SliceName,
    pub(crate) marks: Marks,
    count: Arc<Count>,
    asked: Notify,
    passed: Notify,
    followed: AtomicBool,
    doubt: Arc<Doubt>,
    counters: BarrierCounters,
    pub(crate) consistency: Consistency,
}

impl Freshness {
    /// `count` is shared by all slices of this proxy.
    pub(crate) fn new(
        slice: SliceName,
        count: Arc<Count>,
        doubt: Arc<Doubt>,
        counters: BarrierCounters,
        consistency: Consistency,
    ) -> Self {
        let (asked, passed) = (Notify::new(), Notify::new());
        Self {
            slice,
            marks: Marks::default(),
            count,
            asked,
            passed,
            followed: AtomicBool::new(true),
            doubt,
            counters,
            consistency,
        }
    }

    /// Whether the copy may be given up by now.
    pub(crate) fn is_alone(&self) -> bool {
        self.doubt.is_alone_at(Instant::now())
    }

    /// Says whether the table shares reads of the slice. If not, no client needs its barriers.
    pub(crate) fn set_followed(&self, followed: bool) {
        if self.followed.swap(followed, Relaxed) != followed {
            self.asked.notify_one();
        }
    }

    /// A client waits for `mark`. Starts a barrier unless one that covers the mark was asked for already.
    pub(crate) fn want(&self, mark: u64) {
        if self.marks.want(mark) {
            self.asked.notify_one();
        }
    }

    /// Waits until `mark` has passed, at most `patience`. Returns whether it has.
    async fn passes_within(&self, mark: u64, patience: Duration) -> bool {
        self.want(mark);
        let wait = async {
            loop {
                let passed = self.passed.notified();
                if self.marks.has_passed(mark) {
                    return;
                }
                passed.await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Asks for barriers while a client needs one. Never returns.
    pub(crate) async fn keep_asking(&self, bridge: BridgeLink) {
        let mut pause = RETRY_FIRST;
        loop {
            while !(self.marks.wants_barrier() && self.followed.load(Relaxed)) {
                self.asked.notified().await;
            }
            let number = self.count.start();
            match self.ask(&bridge).await {
                Ok(()) => {
                    self.marks.pass(number);
                    self.passed.notify_waiters();
                    self.counters.passed.inc();
                    pause = RETRY_FIRST;
                }
                Err(why) => {
                    self.counters.failed.inc();
                    tracing::debug!(slice = %self.slice, %why, remedy = why.remedy(), "no barrier yet; clients that wrote read from the monolith");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    async fn ask(&self, bridge: &BridgeLink) -> Result<(), NoBarrier> {
        let address = bridge.address.load_full().ok_or(NoBarrier::NoBridge)?;
        let question = BarrierRequest { version: VERSION, slice: self.slice.clone() };
        let url = format!("{}/v1/barrier", address.trim_end_matches('/'));
        let asking = bridge.http.post(url).bearer_auth(bridge.token.expose()).json(&question);
        let response = asking.timeout(BARRIER_TIMEOUT).send().await?.error_for_status()?;
        let answer: BarrierAnswer = response.json().await?;
        if answer.version == VERSION { Ok(()) } else { Err(NoBarrier::Version(answer.version)) }
    }
}

#[derive(Debug, thiserror::Error)]
enum NoBarrier {
    #[error("no bridge has reported its address yet")]
    NoBridge,
    #[error("the bridge speaks version {0}")]
    Version(u32),
    #[error("the bridge did not answer")]
    Asking(#[from] reqwest::Error),
}

impl NoBarrier {
    fn remedy(&self) -> &'static str {
        match self {
            NoBarrier::NoBridge | NoBarrier::Asking(_) => "check that the bridge runs and is reachable",
            NoBarrier::Version(_) => "run the same release everywhere",
        }
    }
}
