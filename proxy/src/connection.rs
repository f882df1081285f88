//! Connections to upstreams, kept and new.
//!
//! Each address has a bounded queue of kept connections, without a lock. No task waits on them. Whether one still
//! lives is checked when a request takes it, and from time to time by the sweep.

use crate::wire::Wire;
use crossbeam_queue::ArrayQueue;
use pingora::protocols::Stream;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const KEPT_MAX: usize = 512;
/// Shorter than most servers' own limit, so that a request rarely meets a closing connection.
const IDLE_MAX: Duration = Duration::from_secs(55);

pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) is_used: bool,
    address: SocketAddr,
    since: Instant,
}

/// The idle connections of one address.
pub(crate) struct Kept(ArrayQueue<Connection>);

impl Default for Kept {
    fn default() -> Self {
        Self(ArrayQueue::new(KEPT_MAX))
    }
}

impl Kept {
    pub(crate) fn keep(&self, mut connection: Connection) {
        connection.wire.rest();
        connection.since = Instant::now();
        connection.is_used = true;
        // A full queue drops the connection, which closes it.
        let _ = self.0.push(connection);
    }

    /// Drops the connections that the other side has closed, that were idle too long, or that lead to another
    /// address.
    pub(crate) fn sweep(&self, address: Option<SocketAddr>) {
        for _ in 0..self.0.len() {
            let Some(mut connection) = self.0.pop() else { return };
            if Some(connection.address) == address && connection.lives() {
                let _ = self.0.push(connection);
            }
        }
    }

    /// A connection to this address that still lives.
    pub(crate) fn take(&self, address: SocketAddr) -> Option<Connection> {
        while let Some(mut connection) = self.0.pop() {
            if connection.address == address && connection.lives() {
                return Some(connection);
            }
        }
        None
    }
}

impl Connection {
    pub(crate) fn new(stream: Stream, address: SocketAddr) -> Self {
        Self { wire: Wire::new(stream), is_used: false, address, since: Instant::now() }
    }

    fn lives(&mut self) -> bool {
        self.since.elapsed() < IDLE_MAX && self.wire.is_quiet()
    }
}
