//! Where clients come in: the accept loops of the proxy's listeners, the plain one and that with TLS.
//!
//! It is not Pingora's. That one has no bound, goes round without a pause when the system has no descriptor left, and gives
//! each connection a read buffer of 64 KiB for its whole life. Runtimes and the order of the end are still Pingora's.

use crate::descriptors::is_shortage;
use crate::drain::Drain;
use crate::guests::Guests;
use crate::request::Requests;
use crate::succession::Place;
use crate::tls::Tls;
use async_trait::async_trait;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use prometheus::IntCounter;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// After a failure that will come again at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Failures are logged this often at most. All are counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Entrance {
    pub(crate) plain: Option<std::net::TcpListener>,
    pub(crate) secure: Option<(std::net::TcpListener, Arc<Tls>)>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) place: watch::Receiver<Place>,
    pub(crate) drain: Arc<Drain>,
    /// Counts connections that could not be accepted.
    pub(crate) failures: IntCounter,
}

#[async_trait]
impl Service for Entrance {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let (Some(plain), secure) = (self.plain.take(), self.secure.take()) else { return };
        if self.place.wait_for(|place| *place == Place::Ours).await.is_err() {
            return;
        }
        let mut drain = self.drain.begun();
        tokio::select! {
            _ = drain.wait_for(|has_begun| *has_begun) => {}
            Err(error) = self.welcome_all(plain, secure) => {
                tracing::error!(%error, "cannot accept connections; start the proxy again");
            }
        }
    }

    fn name(&self) -> &str {
        "proxy"
    }
}

impl Entrance {
    /// A loop that has found room waits for a client. The other may fill the room meanwhile, so there is at most one client more
    /// than there are places.
    async fn welcome_all(
        &self,
        plain: std::net::TcpListener,
        secure: Option<(std::net::TcpListener, Arc<Tls>)>,
    ) -> io::Result<Infallible> {
        let plain = self.welcome(TcpListener::from_std(plain)?, None);
        let Some((secure, tls)) = secure else { return Ok(plain.await) };
        let secure = self.welcome(TcpListener::from_std(secure)?, Some(tls));
        tokio::select! {
            never = plain => match never {},
            never = secure => match never {},
        }
    }

    async fn welcome(&self, listener: TcpListener, tls: Option<Arc<Tls>>) -> Infallible {
        let mut logged: Option<Instant> = None;
        loop {
            match self.next_of(&listener).await {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    let (requests, tls) = (self.requests.clone(), tls.clone());
                    self.guests.seat(move |seat| async move {
                        requests.receive(stream, tls, address.ip(), seat).await;
                    });
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    self.failures.inc();
                    if logged.is_none_or(|at| at.elapsed() > LOG_EVERY) {
                        logged = Some(Instant::now());
                        tracing::error!(%error, "cannot accept a connection; raise the limit of open files (`ulimit -n`)");
                    }
                    if is_shortage(&error) {
                        self.guests.make_room();
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// A client stays in the listener's queue until there is room for it. If the place passes on meanwhile, the next process
    /// finds it there.
    async fn next_of(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        if !self.guests.has_room() {
            // Only a new registration says what is there now: the listener's may remember a client that was accepted. Tokio
            // waits for what a stream's descriptor is ready for, and does not ask which kind it is.
            let queue: std::net::TcpStream = listener.as_fd().try_clone_to_owned()?.into();
            TcpStream::from_std(queue)?.readable().await?;
            self.guests.room().await;
        }
        listener.accept().await
    }
}

/// Whether only the one connection failed, which its client broke off.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}
