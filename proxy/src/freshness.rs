//! Read-your-writes of one slice: asks the bridge for barriers, one at a time, and wakes who waits for them.
//!
//! Which client must wait for which barrier is decided in [`marks`] and [`seen`], purely. Here is only the asking:
//! a question is repeated until it is answered, because nothing but an answer says that the service caught up.

pub mod marks;
pub mod seen;

use crate::metrics::BarrierCounters;
use arc_swap::ArcSwapOption;
use marks::{Count, Marks};
use migrations::control::{BarrierAnswer, BarrierRequest, VERSION};
use migrations::names::SliceName;
use migrations::plan::Secret;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Notify;

/// The bridge answers when the sink has passed; if that takes longer, the question is asked again.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the first failed question; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(25);
/// The longest pause between questions.
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// How the bridge is reached.
#[derive(Clone)]
pub struct BridgeLink {
    /// Its address, from the last `desired`.
    pub address: Arc<ArcSwapOption<String>>,
    /// The bearer token of its port.
    pub token: Secret,
    /// The client that asks.
    pub http: reqwest::Client,
}

/// How long a request waits for a barrier that would let the service answer it.
const PATIENCE: Duration = Duration::from_millis(15);

/// A barrier that a request waits for.
pub(crate) struct Wait {
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) mark: u64,
}

impl Wait {
    /// Waits, but not for long. Whether the barrier has passed.
    pub(crate) async fn ends(&self) -> bool {
        self.freshness.passes_within(self.mark, PATIENCE).await
    }
}

/// The freshness of one slice.
pub struct Freshness {
    /// Which slice.
    pub slice: SliceName,
    /// Who must wait for what.
    pub marks: Marks,
    count: Arc<Count>,
    asked: Notify,
    passed: Notify,
    followed: AtomicBool,
    counters: BarrierCounters,
}

impl Freshness {
    /// A slice nobody waits in. `count` is shared by all slices of this proxy.
    pub fn new(slice: SliceName, count: Arc<Count>, counters: BarrierCounters) -> Self {
        let (asked, passed) = (Notify::new(), Notify::new());
        Self {
            slice,
            marks: Marks::default(),
            count,
            asked,
            passed,
            followed: AtomicBool::new(true),
            counters,
        }
    }

    /// Whether a table still shares reads of the slice; if not, nobody needs its barriers.
    pub fn set_followed(&self, followed: bool) {
        if self.followed.swap(followed, Relaxed) != followed {
            self.asked.notify_one();
        }
    }

    /// Somebody waits for `mark`: a barrier is started unless one that covers it is asked for already.
    pub fn want(&self, mark: u64) {
        if self.marks.want(mark) {
            self.asked.notify_one();
        }
    }

    /// Waits until `mark` has passed, at most `patience`. Whether it has.
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

    /// Asks for barriers as long as somebody wants one; never returns.
    pub async fn keep_asking(&self, bridge: BridgeLink) {
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
                    tracing::debug!(slice = %self.slice, %why, "no barrier yet; clients that wrote read from the monolith");
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
    #[error("the bridge speaks version {0}; run the same release everywhere")]
    Version(u32),
    #[error("the bridge did not answer")]
    Asking(#[from] reqwest::Error),
}
