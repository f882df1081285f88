//! One connection: bytes that arrived and are unread, and bytes to send.
//!
//! It moves bytes. The crate `http1` knows what they mean.

pub(crate) mod socket;

use bytes::{Buf, BytesMut};
use socket::{Rested, Socket};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;

/// Room for one read. Most messages are smaller.
const READ_BYTES: usize = 4 << 10;
/// Room for the next read when the last one was filled.
const MORE_READ_BYTES: usize = 32 << 10;
/// So much is read of a message whose turn has not come, to notice the end of the connection.
const AHEAD_BYTES: usize = 4 << 10;

pub(crate) struct Wire {
    /// Arrived, unread.
    pub(crate) inbox: BytesMut,
    /// To be sent.
    pub(crate) outbox: BytesMut,
    /// Bytes read and sent so far. A change shows that the connection is alive.
    pub(crate) moved: u64,
    socket: Socket,
    is_flushed: bool,
    was_full: bool,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        let (inbox, outbox) = (BytesMut::new(), BytesMut::new());
        Self { inbox, outbox, moved: 0, socket, is_flushed: true, was_full: false }
    }

    /// Reads what has arrived. Returns the number of bytes; 0 at the end of the connection.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.inbox.capacity() == 0 {
            return self.poll_first(cx);
        }
        if self.inbox.capacity() - self.inbox.len() < READ_BYTES / 4 {
            self.inbox.reserve(if self.was_full { MORE_READ_BYTES } else { READ_BYTES });
        }
        let room = self.inbox.capacity() - self.inbox.len();
        let count = ready!(pin!(self.socket.read_buf(&mut self.inbox)).poll(cx))?;
        self.was_full = count == room;
        self.moved += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Reads without memory of its own until something has arrived: most connections wait most of the time.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room))?;
        let arrived = room.filled();
        self.inbox.extend_from_slice(arrived);
        self.was_full = arrived.len() == READ_BYTES;
        self.moved += arrived.len() as u64;
        Poll::Ready(Ok(arrived.len()))
    }

    /// Reads and forgets what arrives. Ready at the end of the connection.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut room = [MaybeUninit::uninit(); READ_BYTES];
            let mut room = ReadBuf::uninit(&mut room);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut room)) {
                Ok(()) if !room.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
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
        if self.socket.is_closed() { Poll::Ready(()) } else { Poll::Pending }
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
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outbox))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(count);
            self.moved += count as u64;
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
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
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// Frees its memory. Called before it waits.
    pub(crate) fn rest(&mut self) {
        self.was_full = false;
        if self.inbox.is_empty() {
            self.inbox = BytesMut::new();
        }
        if self.outbox.is_empty() {
            self.outbox = BytesMut::new();
        }
    }

    /// What the other side did while it rested. Only a quiet one can carry another message.
    pub(crate) fn rested(&mut self) -> Rested {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // Tokio makes a busy task wait. Here that would look like silence.
        let look = unconstrained(poll_fn(|cx| self.poll_rested(cx)));
        match pin!(look).poll(&mut cx) {
            Poll::Ready(rested) => rested,
            Poll::Pending => self.socket.rested(),
        }
    }

    /// Ready when it cannot rest any more. Wakes the task then.
    pub(crate) fn poll_rested(&mut self, cx: &mut Context<'_>) -> Poll<Rested> {
        if !self.has_sent() {
            return Poll::Ready(Rested::Closed);
        }
        if !self.inbox.is_empty() {
            return Poll::Ready(Rested::Spoke);
        }
        let read = ready!(self.poll_read(cx));
        Poll::Ready(if matches!(read, Ok(1..)) { Rested::Spoke } else { Rested::Closed })
    }
}
