//! The kinds of connections: a client's, plain or with TLS, and one that Pingora made to an upstream.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use pingora::protocols::{SocketDigest, Stream};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The state of a socket whose two directions are open (Linux, `TCP_ESTABLISHED`).
const TCP_ESTABLISHED: u8 = 1;

pub(crate) enum Socket {
    Client(TcpStream),
    /// In a box, because its state is large and most connections are plain.
    SecureClient(Box<TlsStream<TcpStream>>),
    /// Plain or with TLS.
    Upstream(Stream),
}

/// What a connection that rests has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rested {
    Quiet,
    /// The other side has closed it, or cannot be told from one that has.
    Closed,
    /// The other side has sent bytes that nobody asked for.
    Spoke,
}

impl Socket {
    /// Whether the other side has closed the connection or its direction of it. `false` where the system does not tell.
    pub(crate) fn is_closed(&self) -> bool {
        let socket = SocketDigest::from_raw_fd(self.descriptor());
        socket.tcp_info().is_some_and(|info| info.tcpi_state != TCP_ESTABLISHED)
    }

    /// Asks the system itself: the runtime learns later what has arrived. With TLS, what has arrived may be no word of the
    /// other side's, so it counts as [`Rested::Closed`].
    pub(crate) fn rested(&self) -> Rested {
        let is_tls = match self {
            Socket::Client(_) => false,
            Socket::SecureClient(_) => true,
            Socket::Upstream(stream) => stream.get_ssl_digest().is_some(),
        };
        match recv(self.descriptor(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => Rested::Quiet,
            Ok(1..) if !is_tls => Rested::Spoke,
            _ => Rested::Closed,
        }
    }

    fn descriptor(&self) -> i32 {
        match self {
            Socket::Client(stream) => stream.as_raw_fd(),
            Socket::SecureClient(stream) => stream.get_ref().0.as_raw_fd(),
            Socket::Upstream(stream) => stream.id(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Client(stream) => Pin::new(stream).poll_read(cx, room),
            Socket::SecureClient(stream) => Pin::new(stream).poll_read(cx, room),
            Socket::Upstream(stream) => Pin::new(stream).poll_read(cx, room),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Socket::Client(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::SecureClient(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Upstream(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Client(stream) => Pin::new(stream).poll_flush(cx),
            Socket::SecureClient(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Upstream(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Socket::Client(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::SecureClient(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Upstream(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
