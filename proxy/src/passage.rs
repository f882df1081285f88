//! One direction of an exchange: a body that is taken apart as it comes from one connection, and sent on by another.
//!
//! At most one read is on its way at a time, so whoever is slow is waited for and nothing piles up. Does not know how
//! long to wait, or whose fault it is.

use crate::wire::Wire;
use bytes::{Buf, BytesMut};
use http1::{Body, Framing, Malformed};
use std::task::{Context, Poll};

/// So much of a request's body is kept, to be sent again.
const COPY_BYTES_MAX: usize = 64 << 10;

/// A body on its way.
pub struct Passage {
    /// How many of its bytes have passed.
    pub bytes: u64,
    /// What it waits for.
    pub waits_for: End,
    /// How it comes.
    pub comes: Framing,
    /// How it goes on.
    pub goes: Framing,
    body: Body,
    bytes_max: Option<u64>,
    copy: Option<BytesMut>,
    is_over: bool,
    is_refused: bool,
    fault: Option<Fault>,
}

/// The two connections, as a body sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Sink,
}

/// Why a body cannot pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A connection broke, or ended too early.
    Closed(End),
    /// It is not what its head says.
    Malformed(Malformed),
    /// It is larger than allowed.
    TooLarge,
}

impl Passage {
    /// A body that comes in one framing and goes on in another.
    pub fn new(comes: Framing, goes: Framing) -> Self {
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

    /// Bounds it. None if it says of itself that it is larger.
    pub fn limited_to(self, bytes_max: Option<u64>) -> Option<Self> {
        let is_larger =
            matches!((self.comes, bytes_max), (Framing::Length(length), Some(max)) if length > max);
        (!is_larger).then_some(Self { bytes_max, ..self })
    }

    /// Keeps a copy of what passes, to be sent again.
    pub fn keep_copy(&mut self) {
        self.copy = Some(BytesMut::new());
    }

    /// Begins with a connection, by what has passed to another one before.
    pub fn begin(&mut self, to: &mut Wire) {
        (self.is_over, self.is_refused) = (false, false);
        if let Some(copy) = &self.copy {
            self.goes.put(copy, &mut to.outbox);
        }
    }

    /// Whether what has passed can be sent again.
    pub fn is_repeatable(&self) -> bool {
        self.bytes == 0 || self.copy.as_ref().is_some_and(|copy| copy.len() as u64 == self.bytes)
    }

    /// Whether all of it has passed, or nobody takes the rest.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether all of it has passed.
    pub fn is_whole(&self) -> bool {
        self.is_over && self.body.is_whole()
    }

    /// Nobody takes the rest.
    pub fn give_up(&mut self) {
        self.is_over = true;
    }

    /// Nobody takes the rest, because its connection broke.
    pub fn refuse(&mut self) {
        (self.is_over, self.is_refused) = (true, true);
    }

    /// Whether its connection broke.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Moves what can be moved now. Ready when all of it has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, from: &mut Wire, to: &mut Wire) -> Poll<Result<(), Fault>> {
        loop {
            if self.fault.is_none() {
                self.fault = self.take(from, to).err();
            }
            self.waits_for = End::Sink;
            match to.poll_send(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(sent) => sent.map_err(|_| Fault::Closed(End::Sink))?,
            }
            // What came before the fault has been sent on.
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

    /// Takes from the inbox of the one what belongs to the body, and puts it into the outbox of the other.
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
