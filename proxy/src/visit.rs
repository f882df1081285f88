//! A client's connection: its requests one after the other, and how it ends.
//!
//! Knows when a request is here, not what becomes of it. The heads and buffers of one request serve the next.

use crate::deadline::Deadline;
use crate::failure::Failure;
use crate::relay::{CLIENT_PATIENCE, Relay};
use crate::wire::Wire;
use http1::{AnswerHead, RequestHead};
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::task::coop::unconstrained;

/// A silent connection is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(75);
/// The rest of a request that was answered early may take so long. A connection that is closed while bytes arrive loses
/// the answer that is on its way.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// A client's connection, and the request that is on it now.
pub struct Visit {
    /// Its bytes.
    pub wire: Wire,
    /// The request.
    pub request: RequestHead,
    /// Its answer.
    pub answer: AnswerHead,
    /// How long is waited for whatever comes next.
    pub deadline: Deadline,
    /// Who is at the other end.
    pub peer: Option<IpAddr>,
    /// Whether another request may follow.
    pub is_kept: bool,
    stop: Stop,
}

impl Visit {
    /// A connection that was just made.
    pub fn new(stream: Stream, shutdown: &ShutdownWatch) -> Self {
        let digest = stream.get_socket_digest();
        let address = digest.as_ref().and_then(|digest| digest.peer_addr()?.as_inet());
        Self {
            peer: address.map(|address| address.ip()),
            wire: Wire::new(stream),
            request: RequestHead::default(),
            answer: AnswerHead::default(),
            deadline: Deadline::after(IDLE_MAX),
            is_kept: true,
            stop: Stop::new(shutdown),
        }
    }

    /// Waits for the next request's head. False if there is none: the client is gone or silent, or the proxy stops.
    pub async fn next_request(&mut self) -> Result<bool, Failure> {
        self.wire.rest();
        let mut has_begun = false;
        self.deadline.set(IDLE_MAX);
        poll_fn(|cx| {
            loop {
                if self.request.read(&mut self.wire.inbox).map_err(Failure::Malformed)? {
                    self.is_kept = self.request.wants_more();
                    return Poll::Ready(Ok(true));
                }
                // A head must be here soon after its first byte, however slowly its bytes drip. Empty lines are none.
                if !has_begun && !self.wire.inbox.is_empty() {
                    has_begun = true;
                    self.deadline.set(CLIENT_PATIENCE);
                }
                match self.wire.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Ok(false)),
                    Poll::Pending => break,
                }
            }
            if !has_begun && self.stop.poll(cx) {
                return Poll::Ready(Ok(false));
            }
            ready!(self.deadline.poll(cx));
            Poll::Ready(if has_begun { Err(Failure::ClientLate) } else { Ok(false) })
        })
        .await
    }

    /// Whether the proxy stops.
    pub fn is_last(&self) -> bool {
        self.stop.is_asked_for()
    }

    /// The connection beside that of an upstream.
    pub fn relay<'a>(&'a mut self, upstream: &'a mut Wire, patience: Duration) -> Relay<'a> {
        Relay {
            client: &mut self.wire,
            upstream,
            request: &self.request,
            answer: &mut self.answer,
            deadline: &mut self.deadline,
            patience,
        }
    }

    /// Ends the connection. What still arrives is let in for a while, so that the last answer is not lost.
    pub async fn leave(mut self) {
        self.deadline.set(DRAIN_PATIENCE);
        poll_fn(|cx| {
            if self.wire.poll_end(cx).is_ready() {
                loop {
                    self.wire.inbox.clear();
                    match self.wire.poll_read(cx) {
                        Poll::Ready(Ok(1..)) => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => break,
                    }
                }
            }
            self.deadline.poll(cx)
        })
        .await;
    }
}

/// The proxy's end, as a silent connection waits for it.
struct Stop {
    watch: ShutdownWatch,
    notice: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    is_awaited: bool,
}

impl Stop {
    fn new(shutdown: &ShutdownWatch) -> Self {
        let mut heard = shutdown.clone();
        let notice = Box::pin(async move {
            let _ = heard.wait_for(|is_asked_for| *is_asked_for).await;
        });
        Self { watch: shutdown.clone(), notice, is_awaited: false }
    }

    fn is_asked_for(&self) -> bool {
        *self.watch.borrow()
    }

    /// The notice wakes the connection's task, which stays the same: so it is waited for only once.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_awaited {
            self.is_awaited = true;
            // It must be polled, not put off: it is never polled again.
            return pin!(unconstrained(self.notice.as_mut())).poll(cx).is_ready();
        }
        self.is_asked_for()
    }
}
