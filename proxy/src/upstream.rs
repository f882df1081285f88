//! The monolith and the services as pools of addresses: which is next, which are well, and the peers that Pingora
//! connects to. [`crate::health`] measures health.

pub(crate) mod address;

use crate::connection::{Connection, Kept};
use crate::failure::Failure;
use crate::metrics::PoolCounters;
use address::BadAddress;
use arc_swap::ArcSwapOption;
use migrations::plan::{ProxySettings, Upstream};
use pingora::connectors::TransportConnector;
use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// This many failures in a row, of checks or connections, make an address unwell. One success makes it well.
const FAILURES_TO_UNWELL: u32 = 2;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Includes TLS.
    pub(crate) connect: Duration,
    /// The wait for the next byte.
    pub(crate) read: Duration,
}

impl Patience {
    pub(crate) fn of(settings: &ProxySettings) -> Self {
        Self {
            connect: Duration::from_millis(settings.connect_timeout_ms),
            read: Duration::from_millis(settings.read_timeout_ms),
        }
    }
}

/// One address of an upstream. It outlives table swaps, with its health.
pub(crate) struct Target {
    pub(crate) upstream: Upstream,
    pub(crate) kept: Kept,
    pub(crate) patience: Patience,
    peer: ArcSwapOption<HttpPeer>,
    unwell: AtomicBool,
    failures: AtomicU32,
}

impl Target {
    fn new(upstream: Upstream, patience: Patience) -> Self {
        let (unwell, failures) = (AtomicBool::new(false), AtomicU32::new(0));
        Self { upstream, kept: Kept::default(), patience, peer: ArcSwapOption::empty(), unwell, failures }
    }

    pub(crate) fn is_well(&self) -> bool {
        !self.unwell.load(Relaxed)
    }

    pub(crate) fn note_success(&self) {
        self.failures.store(0, Relaxed);
        if self.unwell.swap(false, Relaxed) {
            tracing::info!(upstream = %self.upstream, "upstream is well again");
        }
    }

    pub(crate) fn note_failure(&self) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures >= FAILURES_TO_UNWELL && !self.unwell.swap(true, Relaxed) {
            tracing::warn!(upstream = %self.upstream, "upstream fails its checks; requests avoid it");
        }
    }

    /// The socket address in use. `None` until the name is resolved.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.peer.load().as_ref().and_then(|peer| peer._address.as_inet().copied())
    }

    pub(crate) fn resolve_to(&self, address: SocketAddr) {
        if self.address() == Some(address) {
            return;
        }
        let sni = if self.upstream.tls { self.upstream.host.clone() } else { String::new() };
        let mut peer = HttpPeer::new(address, self.upstream.tls, sni);
        let options = &mut peer.options;
        options.connection_timeout = Some(self.patience.connect);
        options.total_connection_timeout = Some(self.patience.connect);
        // For the health checks. Requests have their own deadline.
        options.read_timeout = Some(self.patience.read);
        options.write_timeout = Some(self.patience.read);
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 3,
            #[cfg(target_os = "linux")]
            user_timeout: Duration::ZERO,
        });
        self.peer.store(Some(Arc::new(peer)));
    }

    /// Takes a kept connection, or makes a new one. `fresh` asks for a new one.
    pub(crate) async fn connect(
        &self,
        connector: &TransportConnector,
        fresh: bool,
    ) -> Result<Connection, Failure> {
        let address = self.address().ok_or(Failure::Unresolved)?;
        if !fresh && let Some(kept) = self.kept.take(address) {
            return Ok(kept);
        }
        let peer = self.peer().ok_or(Failure::Unresolved)?;
        let address = peer._address.as_inet().copied().unwrap_or(address);
        let stream = connector.new_stream(&*peer).await.map_err(|error| Failure::to_connect(&error))?;
        Ok(Connection::new(stream, address))
    }

    /// What Pingora connects to. `None` until the name is resolved.
    pub(crate) fn peer(&self) -> Option<Box<HttpPeer>> {
        Some(Box::new(HttpPeer::clone(self.peer.load().as_ref()?)))
    }

    /// All addresses of the name. Blocks on the resolver.
    pub(crate) fn look_up(&self) -> Vec<SocketAddr> {
        (self.upstream.host.as_str(), self.upstream.port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .unwrap_or_default()
    }
}

pub(crate) struct Pool {
    pub(crate) name: Arc<str>,
    /// At least one.
    pub(crate) targets: Vec<Arc<Target>>,
    pub(crate) counters: PoolCounters,
    next: AtomicUsize,
}

impl Pool {
    /// The next address in turn that is well. If none is well, the next one.
    pub(crate) fn pick(&self) -> Option<&Arc<Target>> {
        if let [only] = self.targets.as_slice() {
            return Some(only);
        }
        let first = self.next.fetch_add(1, Relaxed);
        let turn = |step: usize| self.targets.get(first.wrapping_add(step) % self.targets.len().max(1));
        (0..self.targets.len()).filter_map(turn).find(|t| t.is_well()).or_else(|| turn(0))
    }

    pub(crate) fn is_well(&self) -> bool {
        self.targets.iter().any(|target| target.is_well())
    }
}

/// Every address that a table of this process ever named, so that a swap forgets no health.
pub(crate) struct Targets {
    known: Mutex<HashMap<String, Arc<Target>>>,
    patience: Patience,
}

impl Targets {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { known: Mutex::new(HashMap::new()), patience }
    }

    /// Closes kept connections that are useless by now.
    pub(crate) fn sweep(&self) {
        let known: Vec<_> =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        known.iter().for_each(|target| target.kept.sweep(target.address()));
    }

    /// A pool of these addresses. A new address is resolved at once, which may block.
    pub(crate) fn pool(
        &self,
        name: &str,
        addresses: &[String],
        counters: PoolCounters,
    ) -> Result<Pool, BadAddress> {
        let targets = addresses.iter().map(|text| self.target(text)).collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            return Err(BadAddress(format!("(no address of {name})")));
        }
        Ok(Pool { name: name.into(), targets, counters, next: AtomicUsize::new(0) })
    }

    fn target(&self, text: &str) -> Result<Arc<Target>, BadAddress> {
        let upstream = address::parse(text)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = known.get(&upstream.to_string()) {
            return Ok(target.clone());
        }
        let target = Arc::new(Target::new(upstream, self.patience));
        if let Some(first) = target.look_up().first() {
            target.resolve_to(*first);
        }
        known.insert(target.upstream.to_string(), target.clone());
        Ok(target)
    }
}
