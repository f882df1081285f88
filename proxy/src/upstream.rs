//! The monolith and the services as pools of addresses: which one is next, which ones are well, and the peers
//! that Pingora connects to.
//!
//! Does not know why a request goes to a pool. Health is measured by [`crate::health`].

pub mod address;

use crate::connection::Kept;
use crate::metrics::PoolCounters;
use address::BadAddress;
use arc_swap::ArcSwapOption;
use migrations::plan::{ProxySettings, Upstream};
use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// So many failures in a row, of checks or of connections, make an address unwell; one success makes it well.
const FAILURES_TO_UNWELL: u32 = 2;
/// The timeouts of every connection to an upstream.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Connecting, TLS included.
    pub connect: Duration,
    /// The next byte.
    pub read: Duration,
}

impl Patience {
    /// As the plan says.
    pub fn of(settings: &ProxySettings) -> Self {
        Self {
            connect: Duration::from_millis(settings.connect_timeout_ms),
            read: Duration::from_millis(settings.read_timeout_ms),
        }
    }
}

/// One address of an upstream. It lives on through table swaps, with what is known about its health.
pub struct Target {
    /// As the plan writes it.
    pub upstream: Upstream,
    /// Connections to it that wait for their next request.
    pub kept: Kept,
    /// How long is waited for it.
    pub patience: Patience,
    peer: ArcSwapOption<HttpPeer>,
    unwell: AtomicBool,
    failures: AtomicU32,
}

impl Target {
    fn new(upstream: Upstream, patience: Patience) -> Self {
        let (unwell, failures) = (AtomicBool::new(false), AtomicU32::new(0));
        Self { upstream, kept: Kept::default(), patience, peer: ArcSwapOption::empty(), unwell, failures }
    }

    /// Whether it passes its checks.
    pub fn is_well(&self) -> bool {
        !self.unwell.load(Relaxed)
    }

    /// A check or a connection succeeded.
    pub fn note_success(&self) {
        self.failures.store(0, Relaxed);
        if self.unwell.swap(false, Relaxed) {
            tracing::info!(upstream = %self.upstream, "upstream is well again");
        }
    }

    /// A check or a connection failed.
    pub fn note_failure(&self) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures >= FAILURES_TO_UNWELL && !self.unwell.swap(true, Relaxed) {
            tracing::warn!(upstream = %self.upstream, "upstream fails its checks; requests go elsewhere while they can");
        }
    }

    /// The socket address in use; none until the name is resolved.
    pub fn address(&self) -> Option<SocketAddr> {
        self.peer.load().as_ref().and_then(|peer| peer._address.as_inet().copied())
    }

    /// Connects to this socket address from now on.
    pub fn resolve_to(&self, address: SocketAddr) {
        if self.address() == Some(address) {
            return;
        }
        let sni = if self.upstream.tls { self.upstream.host.clone() } else { String::new() };
        let mut peer = HttpPeer::new(address, self.upstream.tls, sni);
        let options = &mut peer.options;
        options.connection_timeout = Some(self.patience.connect);
        options.total_connection_timeout = Some(self.patience.connect);
        // These two are for the health checks; requests have their own deadline.
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

    /// What Pingora connects to; none until the name is resolved.
    pub fn peer(&self) -> Option<Box<HttpPeer>> {
        Some(Box::new(HttpPeer::clone(self.peer.load().as_ref()?)))
    }

    /// Every address that the name has now. Blocks on the resolver.
    pub fn look_up(&self) -> Vec<SocketAddr> {
        (self.upstream.host.as_str(), self.upstream.port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .unwrap_or_default()
    }
}

/// The addresses of the monolith or of a service.
pub struct Pool {
    /// `monolith`, or the service's name.
    pub name: Arc<str>,
    /// Its addresses, at least one.
    pub targets: Vec<Arc<Target>>,
    /// What is counted about it.
    pub counters: PoolCounters,
    next: AtomicUsize,
}

impl Pool {
    /// The next address in turn, the unwell ones left out; if all are unwell, the next one all the same.
    pub fn pick(&self) -> Option<&Arc<Target>> {
        if let [only] = self.targets.as_slice() {
            return Some(only);
        }
        let first = self.next.fetch_add(1, Relaxed);
        let turn = |step: usize| self.targets.get(first.wrapping_add(step) % self.targets.len().max(1));
        (0..self.targets.len()).filter_map(turn).find(|t| t.is_well()).or_else(|| turn(0))
    }

    /// Whether some address is well.
    pub fn is_well(&self) -> bool {
        self.targets.iter().any(|target| target.is_well())
    }
}

/// Every address ever named by a table of this process, so that a swap forgets no health.
pub struct Targets {
    known: Mutex<HashMap<String, Arc<Target>>>,
    patience: Patience,
}

impl Targets {
    /// None yet.
    pub fn new(patience: Patience) -> Self {
        Self { known: Mutex::new(HashMap::new()), patience }
    }

    /// Closes kept connections that are of no use any more.
    pub fn sweep(&self) {
        let known: Vec<_> =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        known.iter().for_each(|target| target.kept.sweep(target.address()));
    }

    /// A pool of these addresses. A new one is resolved at once, which may block on the resolver.
    pub fn pool(&self, name: &str, addresses: &[String], counters: PoolCounters) -> Result<Pool, BadAddress> {
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
