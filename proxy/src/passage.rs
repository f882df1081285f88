//! One direction of an exchange: a body is read from one connection and sent on another.
//!
//! At most one read is unsent at a time. So a slow receiver slows the sender, and nothing piles up. A passage does
//! not know how long to wait or whose fault a failure is.

use crate::wire::Wire;
use bytes::{Buf, BytesMut};
use http1::{Body, Framing, Malformed};
use std::task::{Context, Poll};

/// A longer body cannot be sent again.
const COPY_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Passage {
    pub(crate) bytes: u64,
    /// The side that it waits for.
    pub(crate) waits_for: End,
    pub(crate) comes: Framing,
    pub(crate) goes: Framing,
    body: Body,
    bytes_max: Option<u64>,
    copy: Option<BytesMut>,
    is_over: bool,
    is_refused: bool,
    fault: Option<Fault>,
}

/// The two sides of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Sink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection broke or ended too early.
    Closed(End),
    Malformed(Malformed),
    TooLarge,
}

impl Passage {
    pub(crate) fn new(comes: Framing, goes: Framing) -> Self {
        Self {
            bytes: 0,
            waits_for: End::Sink,
            comes,
            goes,
            body: Body::of(comes),
            bytes_max: None,
            copy: None,
            is_over: false,
            is_refused: false,
            fault: None,
        }
    }

    /// Bounds it. `None` if its head already says that it is larger.
    pub(crate) fn limited_to(self, bytes_max: Option<u64>) -> Option<Self> {
        let is_larger =
            matches!((self.comes, bytes_max), (Framing::Length(length), Some(max)) if length > max);
        (!is_larger).then_some(Self { bytes_max, ..self })
    }

    /// Keeps a copy of what passes, so that it can be sent again.
    pub(crate) fn keep_copy(&mut self) {
        self.copy = Some(BytesMut::new());
    }

    /// Starts on a connection. What another connection already got is sent first.
    pub(crate) fn begin(&mut self, to: &mut Wire) {
        (self.is_over, self.is_refused) = (false, false);
        if let Some(copy) = &self.copy {
            self.goes.put(copy, &mut to.outbox);
        }
    }

    pub(crate) fn is_repeatable(&self) -> bool {
        self.bytes == 0 || self.copy.as_ref().is_some_and(|copy| copy.len() as u64 == self.bytes)
    }

    /// Whether all of it has passed, or the receiver does not take the rest.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_over && self.body.is_whole()
    }

    /// The receiver does not take the rest.
    pub(crate) fn give_up(&mut self) {
        self.is_over = true;
    }

    /// The receiver does not take the rest because its connection broke.
    pub(crate) fn refuse(&mut self) {
        (self.is_over, self.is_refused) = (true, true);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        to: &mut Wire,
    ) -> Poll<Result<(), Fault>> {
        loop {
            if self.fault.is_none() {
                self.fault = self.take(from, to).err();
            }
            self.waits_for = End::Sink;
            match to.poll_send(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(sent) => sent.map_err(|_| Fault::Closed(End::Sink))?,
            }
            // The bytes before the fault are sent by now.
            if let Some(fault) = self.fault {
                return Poll::Ready(Err(fault));
            }
            if self.is_over {
                return Poll::Ready(Ok(()));
            }
            self.waits_for = End::Source;
            match from.poll_read(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if self.body.close() => {}
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Fault::Closed(End::Source))),
                Poll::Ready(Ok(_)) => {}
            }
        }
    }

    /// Moves the body's bytes from the source's inbox to the sink's outbox.
    fn take(&mut self, from: &mut Wire, to: &mut Wire) -> Result<(), Fault> {
        if self.is_over {
            return Ok(());
        }
        loop {
            let count = self.body.next(&mut from.inbox).map_err(Fault::Malformed)?;
            if count == 0 {
                break;
            }
            self.bytes += count as u64;
            if self.bytes_max.is_some_and(|max| self.bytes > max) {
                return Err(Fault::TooLarge);
            }
            let piece = &from.inbox[..count];
            if let Some(copy) = &mut self.copy
                && copy.len() + count <= COPY_BYTES_MAX
            {
                copy.extend_from_slice(piece);
            }
            self.goes.put(piece, &mut to.outbox);
            from.inbox.advance(count);
        }
        if self.body.is_whole() {
            self.is_over = true;
            self.goes.put_end(&mut to.outbox);
        }
        Ok(())
    }
}
