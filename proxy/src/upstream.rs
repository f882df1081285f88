//! The monolith and the services as pools of addresses: which is next, which are well, and the peers that Pingora
//! connects to. [`crate::health`] measures health.

pub(crate) mod address;

use crate::connection::{Connection, Shared};
use crate::descriptors::Budget;
use crate::failure::Failure;
use crate::metrics::PoolCounters;
use crate::trust::Trust;
use address::BadAddress;
use arc_swap::ArcSwap;
use migrations::plan::{ProxySettings, Upstream};
use pingora::connectors::TransportConnector;
use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;
use prometheus::IntCounter;
use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// This many failures in a row, of checks or connections, make an address unwell. One success makes it well.
const FAILURES_TO_UNWELL: u32 = 2;
/// Of a name with more addresses, the others are not tried.
const ADDRESSES_MAX: usize = 4;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Includes TLS. Each address of a name gets it.
    pub(crate) connect: Duration,
    /// The wait for the next byte.
    pub(crate) read: Duration,
    /// Whether an upstream is asked how it is. Then what requests meet says nothing about that.
    pub(crate) is_asked: bool,
}

impl Patience {
    pub(crate) fn of(settings: &ProxySettings) -> Self {
        Self {
            connect: Duration::from_millis(settings.connect_timeout_ms),
            read: Duration::from_millis(settings.read_timeout_ms),
            is_asked: settings.health_path.is_some(),
        }
    }
}

/// One address of an upstream. It outlives table swaps, with its health.
pub(crate) struct Target {
    pub(crate) upstream: Upstream,
    pub(crate) shared: Shared,
    pub(crate) patience: Patience,
    trust: Arc<Trust>,
    budget: Arc<Budget>,
    /// The addresses of its name. The first is in use.
    peers: ArcSwap<Vec<HttpPeer>>,
    unwell: AtomicBool,
    failures: AtomicU32,
    /// Whether it was found well or unwell at all.
    is_known: AtomicBool,
}

impl Target {
    fn new(upstream: Upstream, patience: Patience, budget: Arc<Budget>, unasked: IntCounter) -> Self {
        let trust = Arc::new(Trust::new(upstream.to_string(), unasked));
        Self {
            upstream,
            shared: Shared::default(),
            patience,
            trust,
            budget,
            peers: ArcSwap::default(),
            unwell: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            is_known: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        !self.unwell.load(Relaxed)
    }

    /// Whether it was found well or unwell since it came.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Relaxed)
    }

    /// A request was answered.
    pub(crate) fn note_answer(&self) {
        if !self.patience.is_asked && !self.is_well() {
            self.note_success();
        }
    }

    /// A request found nobody to connect to.
    pub(crate) fn note_unconnected(&self) {
        if !self.patience.is_asked {
            self.note_failure();
        }
    }

    pub(crate) fn note_success(&self) {
        self.failures.store(0, Relaxed);
        self.is_known.store(true, Relaxed);
        if self.unwell.swap(false, Relaxed) {
            tracing::info!(upstream = %self.upstream, "upstream is well again");
        }
    }

    pub(crate) fn note_failure(&self) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures >= FAILURES_TO_UNWELL && !self.unwell.swap(true, Relaxed) {
            self.is_known.store(true, Relaxed);
            tracing::warn!(upstream = %self.upstream, "upstream fails its checks; requests avoid it");
        }
    }

    /// The socket address in use. `None` until the name is resolved.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.peers.load().first().and_then(of_peer)
    }

    /// Takes these addresses into use, the first before the others.
    pub(crate) fn resolve_to(&self, addresses: &[SocketAddr]) {
        let addresses = &addresses[..addresses.len().min(ADDRESSES_MAX)];
        if !self.peers.load().iter().filter_map(of_peer).eq(addresses.iter().copied()) {
            self.peers.store(Arc::new(addresses.iter().map(|address| self.peer_at(*address)).collect()));
        }
    }

    fn peer_at(&self, address: SocketAddr) -> HttpPeer {
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
        peer
    }

    /// Takes a kept connection, or makes a new one. `fresh` asks for a new one. If the address in use cannot be connected to,
    /// the name's next one comes into use.
    pub(crate) async fn connect(
        &self,
        connector: &TransportConnector,
        fresh: bool,
    ) -> Result<Connection, Failure> {
        let peers = self.peers.load_full();
        if !fresh && let Some(kept) = self.shared.take(self.address()) {
            return Ok(kept);
        }
        let lease = self.budget.lease().ok_or(Failure::Exhausted)?;
        let mut failure = Failure::Unresolved;
        for (number, peer) in peers.iter().enumerate() {
            let Some(address) = of_peer(peer) else { continue };
            match connector.new_stream(peer).await {
                Ok(stream) => {
                    if number > 0 {
                        let mut addresses: Vec<_> = peers.iter().filter_map(of_peer).collect();
                        addresses.rotate_left(number);
                        self.resolve_to(&addresses);
                    }
                    return Ok(Connection::new(stream, address, self.trust.clone(), lease));
                }
                Err(error) => failure = Failure::to_connect(&error),
            }
        }
        Err(failure)
    }

    /// What Pingora connects to. `None` until the name is resolved.
    pub(crate) fn peer(&self) -> Option<HttpPeer> {
        self.peers.load().first().cloned()
    }

    /// All addresses of the name. Blocks on the resolver.
    pub(crate) fn look_up(&self) -> Vec<SocketAddr> {
        (self.upstream.host.as_str(), self.upstream.port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .unwrap_or_default()
    }
}

fn of_peer(peer: &HttpPeer) -> Option<SocketAddr> {
    peer._address.as_inet().copied()
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
    budget: Arc<Budget>,
    unasked: IntCounter,
}

impl Targets {
    pub(crate) fn new(patience: Patience, budget: Arc<Budget>, unasked: IntCounter) -> Self {
        Self { known: Mutex::new(HashMap::new()), patience, budget, unasked }
    }

    /// Closes kept connections that are useless by now.
    pub(crate) fn sweep(&self) {
        let known: Vec<_> =
            self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        known.iter().for_each(|target| target.shared.sweep(target.address()));
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
        let (budget, unasked) = (self.budget.clone(), self.unasked.clone());
        let target = Arc::new(Target::new(upstream, self.patience, budget, unasked));
        target.resolve_to(&target.look_up());
        known.insert(target.upstream.to_string(), target.clone());
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::Bounds;
    use std::net::TcpListener;

    #[tokio::test]
    async fn the_next_address_of_a_name_serves_when_the_first_is_dead() {
        let (dead, alive) = (
            TcpListener::bind("[::1]:0").or(TcpListener::bind("127.0.0.2:0")),
            TcpListener::bind("127.0.0.1:0"),
        );
        let dead = dead.unwrap().local_addr().unwrap();
        let alive = alive.unwrap();
        let living = alive.local_addr().unwrap();
        let patience =
            Patience { connect: Duration::from_secs(5), read: Duration::from_secs(5), is_asked: false };
        let (budget, unasked) = (Budget::new(Bounds::of(1024, None)), IntCounter::new("a", "a").unwrap());
        let target =
            Target::new(address::parse("http://shop.internal:80").unwrap(), patience, budget, unasked);
        let connector = TransportConnector::new(None);
        assert_eq!(target.connect(&connector, false).await.err(), Some(Failure::Unresolved));
        target.resolve_to(&[dead, living]);
        assert_eq!(target.address(), Some(dead));
        assert!(target.connect(&connector, false).await.is_ok());
        assert_eq!(target.address(), Some(living), "it stays in use");
        drop(alive);
        assert_eq!(target.connect(&connector, false).await.err(), Some(Failure::Refused));
    }
}
