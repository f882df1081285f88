//! Connections to upstreams, kept and new.
//!
//! A kept connection serves the client again for whose request it was opened ([`crate::own`]). If the plan says `reuse: shared`,
//! it serves any client: each address has a bounded queue of kept connections, without a lock.

use crate::descriptors::{Lease, Place};
use crate::trust::{TRIAL, Trust};
use crate::wire::Wire;
use crate::wire::socket::{Rested, Socket};
use crossbeam_queue::ArrayQueue;
use pingora::protocols::Stream;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Of one address, for all clients.
const SHARED_MAX: usize = 512;
/// Shorter than most servers' own limit, so that a request rarely meets a closing connection.
const SHARED_IDLE_MAX: Duration = Duration::from_secs(55);
pub(crate) struct Connection {
    pub(crate) wire: Wire,
    pub(crate) is_used: bool,
    address: SocketAddr,
    since: Instant,
    trust: Arc<Trust>,
    lease: Lease,
    rest: Option<Place>,
}

impl Connection {
    pub(crate) fn new(stream: Stream, address: SocketAddr, trust: Arc<Trust>, lease: Lease) -> Self {
        let wire = Wire::new(Socket::Upstream(stream));
        Self { wire, is_used: false, address, since: Instant::now(), trust, lease, rest: None }
    }

    /// Prepares it for a rest. `None` if it is not used again: its address is not trusted, or too many rest.
    pub(crate) fn at_rest(mut self) -> Option<Self> {
        self.wire.rest();
        if !self.wire.inbox.is_empty() {
            self.trust.end();
            return None;
        }
        if !self.trust.is_given() {
            if self.trust.begin_trial() {
                tokio::spawn(self.stand_trial());
            }
            return None;
        }
        self.rest = self.lease.rest();
        (self.since, self.is_used) = (Instant::now(), true);
        self.rest.is_some().then_some(self)
    }

    /// A place for it without its client. `None` if there are too many such.
    pub(crate) fn outlive(&self) -> Option<Place> {
        self.lease.outlive()
    }

    /// Whether it can rest on. Wakes the task when it no longer can.
    pub(crate) fn rests_on(&mut self, cx: &mut Context<'_>) -> bool {
        match self.wire.poll_rested(cx) {
            Poll::Pending => true,
            Poll::Ready(rested) => {
                self.note(rested);
                false
            }
        }
    }

    /// Whether it can carry another request to this address, after a rest that was not too long.
    pub(crate) fn is_fit(&mut self, address: Option<SocketAddr>, idle_max: Duration) -> bool {
        let rested = self.wire.rested();
        self.note(rested);
        self.rest = None;
        rested == Rested::Quiet
            && self.trust.is_given()
            && address == Some(self.address)
            && self.since.elapsed() < idle_max
    }

    /// Is watched for a while, then closed.
    async fn stand_trial(mut self) {
        match tokio::time::timeout(TRIAL, poll_fn(|cx| self.wire.poll_rested(cx))).await {
            Ok(rested) => {
                self.note(rested);
                self.trust.end_trial(false);
            }
            Err(_) => self.trust.end_trial(true),
        }
    }

    fn note(&self, rested: Rested) {
        if rested == Rested::Spoke {
            self.trust.end();
        }
    }
}

/// The connections of one address that rest, for every client.
pub(crate) struct Shared(ArrayQueue<Connection>);

impl Default for Shared {
    fn default() -> Self {
        Self(ArrayQueue::new(SHARED_MAX))
    }
}

impl Shared {
    pub(crate) fn keep(&self, connection: Connection) {
        if let Some(connection) = connection.at_rest() {
            // A full queue drops the connection, which closes it.
            let _ = self.0.push(connection);
        }
    }

    /// Drops the connections that are useless by now, or that lead to another address.
    pub(crate) fn sweep(&self, address: Option<SocketAddr>) {
        for _ in 0..self.0.len() {
            let Some(mut connection) = self.0.pop() else { return };
            let rest = connection.rest.take();
            if connection.is_fit(address, SHARED_IDLE_MAX) {
                connection.rest = rest;
                let _ = self.0.push(connection);
            }
        }
    }

    pub(crate) fn take(&self, address: Option<SocketAddr>) -> Option<Connection> {
        while let Some(mut connection) = self.0.pop() {
            if connection.is_fit(address, SHARED_IDLE_MAX) {
                return Some(connection);
            }
        }
        None
    }
}
