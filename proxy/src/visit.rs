//! A client's connection: its requests one after the other, and its end.
//!
//! A visit knows when a request is here, not what happens to it. The heads and buffers of one request serve the next.

use crate::deadline::Deadline;
use crate::drain::{Counted, Drain};
use crate::failure::Failure;
use crate::guests::Seat;
use crate::own::{OWN_IDLE_MAX, Own};
use crate::relay::{CLIENT_PATIENCE, Relay};
use crate::wire::Wire;
use crate::wire::socket::Socket;
use http1::{AnswerHead, RequestHead};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::oneshot::Receiver;
use tokio::task::coop::unconstrained;

const IDLE_MAX: Duration = Duration::from_secs(75);
/// After an early answer, the rest of the request has this long. Closing a connection while bytes arrive would lose
/// the answer on its way.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is checked whether a client has left, if its leaving does not wake the task.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Visit {
    pub(crate) wire: Wire,
    pub(crate) request: RequestHead,
    pub(crate) answer: AnswerHead,
    pub(crate) deadline: Deadline,
    pub(crate) peer: Option<IpAddr>,
    pub(crate) is_secure: bool,
    pub(crate) is_kept: bool,
    /// While the client may learn something from the request under way.
    pub(crate) lesson: Option<Counted>,
    /// Connections to upstreams that wait for its next request.
    pub(crate) own: Own,
    seat: Seat,
    ending: Ending,
}

impl Visit {
    pub(crate) fn new(
        socket: Socket,
        peer: IpAddr,
        head_bytes_max: usize,
        seat: Seat,
        drain: &Arc<Drain>,
    ) -> Self {
        Self {
            peer: Some(peer),
            is_secure: matches!(socket, Socket::SecureClient(_)),
            wire: Wire::new(socket),
            request: RequestHead::at_most(head_bytes_max),
            answer: AnswerHead::at_most(head_bytes_max),
            deadline: Deadline::after(IDLE_MAX),
            is_kept: true,
            lesson: None,
            own: Own::default(),
            seat,
            ending: Ending::new(drain),
        }
    }

    /// Waits for the next request's head. `false` if there is none: the client left or is silent, others need its place, or
    /// the proxy ends.
    pub(crate) async fn next_request(&mut self) -> Result<bool, Failure> {
        self.lesson = None;
        self.rest();
        let (mut has_begun, mut lingers, mut has_own) = (false, false, !self.own.is_empty());
        self.deadline.set(if has_own { OWN_IDLE_MAX } else { IDLE_MAX });
        poll_fn(|cx| {
            loop {
                if self.request.read(&mut self.wire.inbox).map_err(Failure::Malformed)? {
                    self.is_kept = self.request.wants_more();
                    self.lesson = Some(self.ending.drain.lesson());
                    return Poll::Ready(Ok(self.seat.begin()));
                }
                // A head must arrive soon after its first byte, however slowly the bytes come. Empty lines do not
                // count.
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
            if !has_begun && !lingers && self.ending.poll(cx) {
                (lingers, has_own) = (true, false);
                self.deadline.set(self.ending.drain.linger());
            }
            self.own.watch(cx);
            ready!(self.deadline.poll(cx));
            if has_own && !has_begun {
                has_own = false;
                self.own.clear();
                self.deadline.set(IDLE_MAX - OWN_IDLE_MAX);
                ready!(self.deadline.poll(cx));
            }
            if !has_begun {
                return Poll::Ready(Ok(false));
            }
            self.request.glimpse(&self.wire.inbox);
            Poll::Ready(Err(Failure::ClientLate))
        })
        .await
    }

    /// It waits from now on, and needs little memory.
    fn rest(&mut self) {
        self.wire.rest();
        self.request.rest();
        self.answer.rest();
        self.seat.rest();
    }

    /// Waits for a call before anything of the request is passed on. `None` after `patience` or earlier: then it
    /// is to be asked again.
    pub(crate) async fn called<T>(
        &mut self,
        call: &mut Receiver<T>,
        patience: Duration,
    ) -> Result<Option<T>, Failure> {
        self.deadline.set(patience);
        let mut is_looking = false;
        poll_fn(|cx| {
            if let Poll::Ready(called) = Pin::new(&mut *call).poll(cx) {
                return Poll::Ready(called.map(Some).map_err(|_| Failure::HoldExpired));
            }
            if self.ending.poll(cx) && self.ending.drain.is_last() {
                return Poll::Ready(Err(Failure::HoldExpired));
            }
            if self.wire.poll_closed(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientLeft));
            }
            if self.wire.is_ahead() && !is_looking {
                is_looking = true;
                self.deadline.set(patience.min(LOOK_EVERY));
            }
            self.deadline.poll(cx).map(|()| Ok(None))
        })
        .await
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.ending.drain.has_begun()
    }

    pub(crate) fn relay<'a>(&'a mut self, upstream: &'a mut Wire, patience: Duration) -> Relay<'a> {
        Relay {
            client: &mut self.wire,
            upstream,
            request: &self.request,
            answer: &mut self.answer,
            deadline: &mut self.deadline,
            patience,
        }
    }

    /// Says that nothing more comes, if TLS wants that said (RFC 8446, 6.1). Nobody waits for it.
    pub(crate) async fn part(&mut self) {
        if self.is_secure {
            let _ = poll_fn(|cx| Poll::Ready(self.wire.poll_end(cx))).await;
        }
    }

    /// Ends the connection. It still reads for a while, so that the last answer is not lost.
    pub(crate) async fn leave(mut self) {
        self.lesson = None;
        self.own.clear();
        self.wire.inbox.clear();
        self.rest();
        self.deadline.set(DRAIN_PATIENCE);
        poll_fn(|cx| {
            if self.wire.poll_end(cx).is_ready() && self.wire.poll_drain(cx).is_ready() {
                return Poll::Ready(());
            }
            self.deadline.poll(cx)
        })
        .await;
    }
}

/// The end of the proxy, as a silent connection sees it.
struct Ending {
    drain: Arc<Drain>,
    notice: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    is_awaited: bool,
}

impl Ending {
    fn new(drain: &Arc<Drain>) -> Self {
        let mut heard = drain.begun();
        let notice = Box::pin(async move {
            let _ = heard.wait_for(|is_asked_for| *is_asked_for).await;
        });
        Self { drain: drain.clone(), notice, is_awaited: false }
    }

    /// The notice wakes the connection's task, which stays the same. So one poll is enough.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_awaited {
            self.is_awaited = true;
            // Tokio must not put this poll off: there is no other.
            return pin!(unconstrained(self.notice.as_mut())).poll(cx).is_ready();
        }
        self.drain.has_begun()
    }
}
