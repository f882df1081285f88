//! Connections to upstreams: kept ones, and new ones.
//!
//! Kept ones lie in a queue for each address, without lock and bounded. Nobody waits on them: whether one still lives is
//! seen when it is taken, and by a look at all of them now and then.

use crate::failure::Failure;
use crate::upstream::Target;
use crate::wire::Wire;
use crossbeam_queue::ArrayQueue;
use pingora::connectors::TransportConnector;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Kept connections of one address.
const KEPT_MAX: usize = 512;
/// A kept connection is closed by us before most servers close it, so that a request rarely meets a closing one.
const IDLE_MAX: Duration = Duration::from_secs(55);

/// A connection to an upstream, in the hands of one request.
pub struct Connection {
    /// Its bytes.
    pub wire: Wire,
    /// Whether another request used it before.
    pub is_used: bool,
    address: SocketAddr,
    since: Instant,
}

/// Connections of one address that wait for their next request.
pub struct Kept(ArrayQueue<Connection>);

impl Default for Kept {
    fn default() -> Self {
        Self(ArrayQueue::new(KEPT_MAX))
    }
}

impl Kept {
    /// Keeps a connection, if there is room.
    pub fn keep(&self, mut connection: Connection) {
        connection.wire.rest();
        connection.since = Instant::now();
        connection.is_used = true;
        // One too many is closed by being dropped.
        let _ = self.0.push(connection);
    }

    /// Closes what is closed by the other side, what has been silent for too long, and what leads to another address.
    pub fn sweep(&self, address: Option<SocketAddr>) {
        for _ in 0..self.0.len() {
            let Some(mut connection) = self.0.pop() else { return };
            if Some(connection.address) == address && connection.lives() {
                let _ = self.0.push(connection);
            }
        }
    }

    fn take(&self, address: SocketAddr) -> Option<Connection> {
        while let Some(mut connection) = self.0.pop() {
            if connection.address == address && connection.lives() {
                return Some(connection);
            }
        }
        None
    }
}

impl Connection {
    /// A connection to an address of an upstream: a kept one, unless a fresh one is asked for.
    pub async fn to(target: &Target, connector: &TransportConnector, fresh: bool) -> Result<Self, Failure> {
        let address = target.address().ok_or(Failure::Unresolved)?;
        if !fresh && let Some(kept) = target.kept.take(address) {
            return Ok(kept);
        }
        let peer = target.peer().ok_or(Failure::Unresolved)?;
        let address = peer._address.as_inet().copied().unwrap_or(address);
        let stream = connector.new_stream(&*peer).await.map_err(|error| Failure::to_connect(&error))?;
        Ok(Self { wire: Wire::new(stream), is_used: false, address, since: Instant::now() })
    }

    fn lives(&mut self) -> bool {
        self.since.elapsed() < IDLE_MAX && self.wire.is_quiet()
    }
}
