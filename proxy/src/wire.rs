//! One connection: bytes that arrived and are unread, and bytes to send.
//!
//! It moves bytes. The crate `http1` knows what they mean.

use bytes::{Buf, BytesMut};
use pingora::protocols::Stream;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::task::coop::unconstrained;

/// Room for one read. Most messages are smaller.
const READ_BYTES: usize = 4 << 10;
/// Room for the next read when the last one was filled.
const MORE_READ_BYTES: usize = 32 << 10;
/// A larger buffer is freed after its message.
const KEPT_BYTES_MAX: usize = 8 << 10;
/// So much is read of a message whose turn has not come, to notice the end of the connection.
const AHEAD_BYTES: usize = 4 << 10;
/// The state of a socket whose two directions are open (Linux, `TCP_ESTABLISHED`).
const TCP_ESTABLISHED: u8 = 1;

pub(crate) struct Wire {
    /// Arrived, unread.
    pub(crate) inbox: BytesMut,
    /// To be sent.
    pub(crate) outbox: BytesMut,
    /// Bytes read and sent so far. A change shows that the connection is alive.
    pub(crate) moved: u64,
    stream: Stream,
    is_flushed: bool,
    was_full: bool,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        let (inbox, outbox) = (BytesMut::new(), BytesMut::new());
        Self { inbox, outbox, moved: 0, stream, is_flushed: true, was_full: false }
    }

    /// Reads what has arrived. Returns the number of bytes; 0 at the end of the connection.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() - self.inbox.len() < READ_BYTES / 4 {
            self.inbox.reserve(if self.was_full { MORE_READ_BYTES } else { READ_BYTES });
        }
        let room = self.inbox.capacity() - self.inbox.len();
        let count = ready!(pin!(self.stream.read_buf(&mut self.inbox)).poll(cx))?;
        self.was_full = count == room;
        self.moved += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Ready when the other side has closed the connection or its direction of it.
    ///
    /// The wait for the end is a read. When [`AHEAD_BYTES`] are here, nothing more is read, and the end no longer wakes
    /// the task: then this must be asked now and then, see [`Wire::is_ahead`]. (Kernels before 6.2 do not tell.)
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_ahead() {
            match self.poll_read(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        let state = self.stream.get_socket_digest().and_then(|socket| Some(socket.tcp_info()?.tcpi_state));
        if state.is_none_or(|state| state == TCP_ESTABLISHED) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Whether more has arrived than is read ahead.
    pub(crate) fn is_ahead(&self) -> bool {
        self.inbox.len() >= AHEAD_BYTES
    }

    /// The memory that it needs while it waits, after [`Wire::rest`].
    pub(crate) fn bytes_at_rest(&self) -> usize {
        self.inbox.capacity().max(self.inbox.len() + AHEAD_BYTES)
    }

    /// Sends the whole outbox.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    /// Whether everything was sent, including what TLS buffers.
    pub(crate) fn has_sent(&self) -> bool {
        self.outbox.is_empty() && self.is_flushed
    }

    /// Closes our direction of the connection.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Frees the memory of a large message. Called before it waits.
    pub(crate) fn rest(&mut self) {
        self.was_full = false;
        if self.inbox.is_empty() && self.inbox.capacity() > KEPT_BYTES_MAX {
            self.inbox = BytesMut::new();
        }
        if self.outbox.is_empty() && self.outbox.capacity() > KEPT_BYTES_MAX {
            self.outbox = BytesMut::new();
        }
    }

    /// Whether it can carry another message: the other side has not closed it and has sent nothing unasked.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if !self.inbox.is_empty() || !self.has_sent() {
            return false;
        }
        // Tokio makes a busy task wait. Here that would look like silence.
        let read = unconstrained(poll_fn(|cx| self.poll_read(cx)));
        pin!(read).poll(&mut cx).is_pending()
    }
}
