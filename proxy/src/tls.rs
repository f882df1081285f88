//! TLS at the proxy's own listener: handshakes, and certificates that are read again when their files change.
//!
//! rustls speaks TLS 1.2 and 1.3, with the suites that Mozilla calls intermediate. A new file that cannot be used changes
//! nothing: the certificate that was read before is shown on.

mod certificate;
mod choice;
pub(crate) mod counters;
mod files;

pub(crate) use certificate::BadCertificate;

use arc_swap::ArcSwap;
use choice::Choice;
use counters::TlsCounters;
use files::Pair;
use migrations::finding::Finding;
use migrations::plan::TlsSettings;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A handshake takes two ways to the client and back. One that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How often the files are looked at. Files that change are read when they have stood still from one look to the next.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What clients may ask for by ALPN. Whoever asks for something else alone is refused.
const PROTOCOLS: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    provider: Arc<CryptoProvider>,
    pairs: Mutex<Vec<Pair>>,
    counters: TlsCounters,
}

/// A client that has come to the TLS listener.
pub(crate) enum Guest {
    Secure(Box<TlsStream<TcpStream>>),
    /// It speaks plain HTTP.
    Plain(TcpStream),
    Gone,
}

/// What clients are shown at this moment.
#[derive(Debug)]
struct Shown(ArcSwap<Choice>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.load().choose(hello.server_name(), fits)
    }
}

impl Tls {
    /// Reads the files.
    pub(crate) fn open(settings: &TlsSettings, counters: TlsCounters) -> Result<Self, BadCertificate> {
        let provider = Arc::new(ring::default_provider());
        let pairs = settings.certificates.iter().map(|files| Pair::open(files, &provider));
        let pairs: Vec<Pair> = pairs.collect::<Result<_, _>>()?;
        let shown = Arc::new(Shown(ArcSwap::from_pointee(choice(&pairs))));
        let unusable = |error: rustls::Error| {
            BadCertificate::new(format!("TLS cannot be set up: {error}"), "report this")
        };
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().map_err(unusable)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(shown.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        // A client that comes again brings its session with it. None is kept here.
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        let (acceptor, pairs) = (TlsAcceptor::from(Arc::new(config)), Mutex::new(pairs));
        let tls = Self { acceptor, shown, provider, pairs, counters };
        tls.note_end();
        Ok(tls)
    }

    /// Shakes hands with a client. It takes up to [`HANDSHAKE_MAX`].
    pub(crate) async fn greet(&self, stream: TcpStream) -> Guest {
        match timeout(HANDSHAKE_MAX, self.shake_hands(stream)).await {
            Ok(Ok(guest)) => guest,
            Ok(Err(error)) => {
                // Scanners and clients that break off fail all day.
                tracing::debug!(%error, "a TLS handshake failed");
                self.counters.failed.inc();
                Guest::Gone
            }
            Err(_) => {
                self.counters.late.inc();
                Guest::Gone
            }
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> io::Result<Guest> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // TLS begins with the kind of its record, 22 (RFC 8446, 5.1), and a request with its method.
        if first[0].is_ascii_alphabetic() {
            self.counters.plain.inc();
            return Ok(Guest::Plain(stream));
        }
        let stream = self.acceptor.accept(stream).await?;
        self.counters.done.inc();
        Ok(Guest::Secure(Box::new(stream)))
    }

    /// Reads files again when they change, and all of them at SIGHUP. Calls `changed` when something is to be told.
    pub(crate) async fn keep_fresh(self: &Arc<Self>, changed: impl Fn()) -> Infallible {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let is_asked = tokio::select! {
                () = sleep(LOOK_EVERY) => false,
                () = hung_up(&mut hangup) => true,
            };
            let tls = self.clone();
            // The disk blocks. A look that fails comes again.
            if tokio::task::spawn_blocking(move || tls.look(is_asked)).await.unwrap_or_default() {
                changed();
            }
        }
    }

    /// Whether something is to be told.
    fn look(&self, is_asked: bool) -> bool {
        let mut pairs = self.pairs();
        let mut has_news = false;
        for pair in pairs.iter_mut() {
            has_news |= pair.look(is_asked, &self.provider);
        }
        if has_news {
            self.shown.0.store(Arc::new(choice(&pairs)));
            drop(pairs);
            self.note_end();
        }
        has_news
    }

    fn note_end(&self) {
        self.counters.ends.set(self.pairs().iter().map(Pair::ends).min().unwrap_or_default());
    }

    /// What a person should know about the certificates now.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.pairs().iter().filter_map(Pair::finding).collect()
    }

    fn pairs(&self) -> MutexGuard<'_, Vec<Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong or doubtful about the files of a plan, as this user sees them on this machine.
pub fn certificate_findings(settings: &TlsSettings) -> Vec<Finding> {
    let provider = ring::default_provider();
    settings.certificates.iter().flat_map(|files| files::findings(files, &provider)).collect()
}

fn choice(pairs: &[Pair]) -> Choice {
    Choice::of(pairs.iter().map(|pair| &pair.certificate))
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => _ = hangup.recv().await,
        None => std::future::pending().await,
    }
}
