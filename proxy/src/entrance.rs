//! Where connections come in: the accept loops of the proxy's listeners.
//!
//! They are not Pingora's. That one has no bound, goes round without a pause when the system has no descriptor left, and gives
//! each connection a read buffer of 64 KiB for its whole life. Runtimes and the order of the end are still Pingora's.

use crate::descriptors::is_shortage;
use crate::drain::Drain;
use crate::guests::{Guests, Seat};
use crate::succession::Place;
use async_trait::async_trait;
use futures_util::future::select_all;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use prometheus::IntCounter;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// After a failure that will come again at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Failures are logged this often at most. All are counted.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Who serves a connection until it ends.
pub(crate) trait Host: Clone + Send + Sync + 'static {
    fn receive(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        seat: Seat,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// Listeners whose connections share their places.
pub(crate) struct Entrance<H> {
    pub(crate) name: &'static str,
    /// None: as many as there are cores.
    pub(crate) threads: Option<usize>,
    pub(crate) doors: Vec<(std::net::TcpListener, H)>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) place: watch::Receiver<Place>,
    pub(crate) drain: Arc<Drain>,
    /// Counts connections that could not be accepted.
    pub(crate) failures: IntCounter,
}

#[async_trait]
impl<H: Host> Service for Entrance<H> {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        if self.place.wait_for(|place| *place == Place::Ours).await.is_err() {
            return;
        }
        let doors = std::mem::take(&mut self.doors).into_iter();
        let doors = doors.map(|(listener, host)| Ok((TcpListener::from_std(listener)?, host)));
        let doors: Vec<_> = match doors.collect::<io::Result<_>>() {
            Ok(doors) => doors,
            Err(error) => return tracing::error!(%error, "cannot accept connections; start the proxy again"),
        };
        let mut drain = self.drain.begun();
        tokio::select! {
            _ = drain.wait_for(|has_begun| *has_begun) => {}
            never = self.welcome_all(doors) => match never {},
        }
    }

    fn name(&self) -> &str {
        self.name
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }
}

impl<H: Host> Entrance<H> {
    /// A loop that has found room waits for a guest. Others may fill the room meanwhile, so there is one guest more than places for
    /// each listener beside the first, at most.
    async fn welcome_all(&self, doors: Vec<(TcpListener, H)>) -> Infallible {
        let welcomes = doors.into_iter().map(|(listener, host)| Box::pin(self.welcome(listener, host)));
        select_all(welcomes).await.0
    }

    async fn welcome(&self, listener: TcpListener, host: H) -> Infallible {
        let mut logged: Option<Instant> = None;
        loop {
            match self.next_of(&listener).await {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    self.guests.seat(|seat| host.receive(stream, address.ip(), seat));
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
