//! A connection as bytes that came and were not used yet, and bytes that are to be sent.
//!
//! Moves them and knows no message: what they mean is the business of the crate `http1`.

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::coop::unconstrained;

/// So much is read at once: most messages are smaller.
const READ_BYTES: usize = 4 << 10;
/// So much where one read was not enough.
const MORE_READ_BYTES: usize = 32 << 10;
/// An inbox that a large message has made larger than this is not kept for the next one.
const KEPT_BYTES_MAX: usize = 8 << 10;

/// One connection.
pub struct Wire {
    /// What came and was not used yet.
    pub inbox: BytesMut,
    /// What is to be sent.
    pub outbox: BytesMut,
    /// So many bytes came and went so far.
    pub moved: u64,
    stream: Stream,
    is_flushed: bool,
    was_full: bool,
}

impl Wire {
    /// A connection on which nothing was said yet.
    pub fn new(stream: Stream) -> Self {
        let (inbox, outbox) = (BytesMut::new(), BytesMut::new());
        Self { inbox, outbox, moved: 0, stream, is_flushed: true, was_full: false }
    }

    /// Takes in what has arrived. How many bytes; none at the connection's end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() - self.inbox.len() < READ_BYTES / 4 {
            self.inbox.reserve(if self.was_full { MORE_READ_BYTES } else { READ_BYTES });
        }
        let room = self.inbox.capacity() - self.inbox.len();
        let count = ready!(pin!(self.stream.read_buf(&mut self.inbox)).poll(cx))?;
        self.was_full = count == room;
        self.moved += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Sends what is in the outbox, all of it.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            self.is_flushed = false;
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(count);
            self.moved += count as u64;
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether all that was to be sent has left, what TLS held back included.
    pub fn has_sent(&self) -> bool {
        self.outbox.is_empty() && self.is_flushed
    }

    /// Tells the other side that nothing more will be sent.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Gives back the memory that a large message took, between two messages.
    pub fn rest(&mut self) {
        self.was_full = false;
        if self.inbox.is_empty() && self.inbox.capacity() > KEPT_BYTES_MAX {
            self.inbox = BytesMut::new();
        }
        if self.outbox.is_empty() && self.outbox.capacity() > KEPT_BYTES_MAX {
            self.outbox = BytesMut::new();
        }
    }

    /// Whether it could carry another message: the other side has neither closed it nor said anything unasked.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if !self.inbox.is_empty() || !self.has_sent() {
            return false;
        }
        // A task that has done much is told to wait by Tokio, which would pass for silence.
        let read = unconstrained(poll_fn(|cx| self.poll_read(cx)));
        pin!(read).poll(&mut cx).is_pending()
    }
}
