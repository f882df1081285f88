//! One proxy after the other at the same sockets: takes the place of the proxy that runs, and gives its own to the next.
//!
//! The new one has its table before it takes the place. While the old one drains, the new one lets no client read from a copy
//! that may lack what the client learned from the old one.

use crate::drain::Drain;
use crate::shutdown::Shutdown;
use crate::table::Tables;
use async_trait::async_trait;
use link::handover::{Claim, Offer, Tenure};
use link::serving::{Earlier, Serving};
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::background::BackgroundService;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether this process may accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Awaited,
    Ours,
    /// Another process took it.
    Lost(String),
}

/// The sockets that the proxy listens at.
pub(crate) struct Listeners {
    pub(crate) clients: TcpListener,
    /// For clients that come by TLS.
    pub(crate) secure: Option<TcpListener>,
    pub(crate) admin: TcpListener,
}

impl Listeners {
    /// The same sockets once more.
    pub(crate) fn again(&self) -> std::io::Result<Self> {
        let secure = self.secure.as_ref().map(TcpListener::try_clone).transpose()?;
        Ok(Self { clients: self.clients.try_clone()?, secure, admin: self.admin.try_clone()? })
    }

    fn into_all(self) -> Vec<TcpListener> {
        [self.clients, self.admin].into_iter().chain(self.secure).collect()
    }
}

/// What the proxy has of its place.
#[derive(Default)]
pub(crate) struct Term {
    tenure: Option<Tenure>,
    /// Until no client can learn anything new from this process. Without it a later process would not know, so none may
    /// take the place.
    serving: Option<Serving>,
}

impl Term {
    fn begin(tenure: Tenure) -> Self {
        let folder = tenure.folder();
        let serving = Serving::begin(folder).map_err(|error| {
            let remedy = format!("make room in {} and give this user ownership of it", folder.display());
            tracing::warn!(%error, %remedy, "no other proxy can take this one's place");
        });
        Self { serving: serving.ok(), tenure: Some(tenure) }
    }
}

/// Takes the place of the proxy that runs, if one does.
pub(crate) struct Succession {
    pub(crate) claim: Mutex<Option<Claim>>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) place: Arc<watch::Sender<Place>>,
    pub(crate) term: Arc<Mutex<Term>>,
}

#[async_trait]
impl BackgroundService for Succession {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(claim) = self.claim.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        tokio::select! {
            _ = shutdown.changed() => {}
            () = self.succeed(claim) => {}
        }
    }
}

impl Succession {
    async fn succeed(&self, claim: Claim) {
        match self.tenure(claim).await {
            Ok(tenure) => {
                let earlier = Earlier::of(tenure.folder());
                *self.term.lock().unwrap_or_else(PoisonError::into_inner) = Term::begin(tenure);
                self.place.send_replace(Place::Ours);
                earlier.quiet().await;
                self.tables.settle_now();
            }
            Err(error) => _ = self.place.send_replace(Place::Lost(error.to_string())),
        }
    }

    async fn tenure(&self, claim: Claim) -> std::io::Result<Tenure> {
        let predecessor = match claim {
            Claim::Ours(tenure) => return Ok(tenure),
            Claim::Held(predecessor) => predecessor,
        };
        tracing::info!("a proxy serves here; this one takes its place when it is ready");
        while self.tables.acts_on().is_none() || self.tables.doubt.is_at(Instant::now()) {
            sleep(LOOK_EVERY).await;
        }
        let (tenure, _) = predecessor.replace().await?;
        tracing::info!("took the place of the proxy that served here");
        Ok(tenure)
    }
}

/// When and how the proxy ends.
pub(crate) struct Course {
    pub(crate) shutdown: Shutdown,
    pub(crate) place: Arc<watch::Sender<Place>>,
    pub(crate) term: Arc<Mutex<Term>>,
    /// For the successor.
    pub(crate) listeners: Mutex<Option<Listeners>>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) drain: Arc<Drain>,
    pub(crate) patience: Duration,
}

#[async_trait]
impl ShutdownSignalWatch for Course {
    /// Pingora stops at once when this returns: what was under way has ended by then, or its time is over.
    async fn recv(&self) -> ShutdownSignal {
        let mut place = self.place.subscribe();
        let lost = async {
            let _ = place.wait_for(|place| matches!(place, Place::Lost(_))).await;
        };
        tokio::select! {
            () = lost => {}
            is_graceful = self.shutdown.asked() => if is_graceful {
                self.drain(false).await;
            },
            () = self.succeeded() => {
                tracing::info!("another process took this proxy's place; what is under way is ended");
                self.drain(true).await;
            }
        }
        ShutdownSignal::FastShutdown
    }
}

impl Course {
    /// Offers the sockets once the place is ours, until another process takes it.
    async fn succeeded(&self) {
        let mut place = self.place.subscribe();
        let _ = place.wait_for(|place| *place == Place::Ours).await;
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(tenure) = self.passable() else { return std::future::pending().await };
        Offer::at(tenure, listeners.map(Listeners::into_all).unwrap_or_default()).taken().await;
    }

    fn passable(&self) -> Option<Tenure> {
        let mut term = self.term();
        term.serving.is_some().then(|| term.tenure.take()).flatten()
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets what is under way end. A second request to stop ends it at once.
    async fn drain(&self, has_successor: bool) {
        self.drain.begin(has_successor);
        self.tables.news.notify_one();
        // A queue that nobody serves would keep its clients waiting.
        drop(self.listeners.lock().unwrap_or_else(PoisonError::into_inner).take());
        let quiet = async {
            self.drain.quiet().await;
            drop(self.term().serving.take());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = timeout(self.patience, self.drain.empty()) => if ended.is_err() {
                tracing::warn!("connections were cut off: `proxy.drain` is over");
            },
            () = quiet => {}
            _ = self.shutdown.asked_again() => {}
        }
    }
}
