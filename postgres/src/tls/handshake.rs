//! The handshake, for the driver's connections and for ours.

use super::name::Names;
use super::{Check, TlsError, in_words};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{Error, Ssl, SslContext, SslVerifyMode};
use openssl::x509::{X509Ref, X509VerifyResult};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_openssl::SslStream;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

const OURS_REFUSED: &str = "the server did not accept our certificate: name one with `sslcert=FILE` and `sslkey=FILE` that an \
    authority in the server's `ssl_ca_file` signed, and that has not expired; the server's log says more";

/// What a handshake needs, read from the files.
#[derive(Clone)]
pub(crate) struct Connector {
    context: SslContext,
    check: Check,
    /// Who is trusted, in words.
    trusted: String,
    /// Our certificate's file, if we show one.
    shown: Option<PathBuf>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({:?}, {})", self.check, self.trusted)
    }
}

impl Connector {
    pub(super) fn new(
        context: SslContext,
        check: Check,
        trusted: String,
        shown: Option<PathBuf>,
    ) -> Connector {
        Connector { context, check, trusted, shown }
    }

    /// The TLS error among the causes of a failed login. With TLS 1.3, a server refuses our certificate after the
    /// handshake. Then its words are the cause of a broken connection, or were lost with it.
    pub(crate) fn blamed(&self, error: &(dyn std::error::Error + 'static)) -> Option<TlsError> {
        let shown = self.shown.as_ref().map(|shown| format!(" that got sslcert {}", shown.display()));
        let met = format!("the server{}", shown.unwrap_or_default());
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(tls) = error.downcast_ref::<TlsError>() {
                return Some(tls.clone());
            }
            if let Some(broken) = error.downcast_ref::<io::Error>() {
                if let Some(tls) = broken.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                    return Some(refused(tls, &met));
                }
                if self.shown.is_some() && is_cut(broken) {
                    return Some(TlsError::new(
                        format!("{met} closed the connection: {broken}"),
                        OURS_REFUSED,
                    ));
                }
            }
            next = error.source();
        }
        None
    }

    /// Begins TLS on a connection to `host`, the name that the certificate must bear.
    pub(crate) async fn handshake<S>(&self, host: &str, stream: S) -> Result<Encrypted<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut ssl = Ssl::new(&self.context)?;
        if host.parse::<IpAddr>().is_err() && !host.is_empty() {
            ssl.set_hostname(host)?;
        }
        ssl.set_verify(match self.check {
            Check::Nothing => SslVerifyMode::NONE,
            Check::Authority | Check::AuthorityAndName => SslVerifyMode::PEER,
        });
        let mut stream = SslStream::new(ssl, stream)?;
        if let Err(error) = Pin::new(&mut stream).connect().await {
            return Err(match stream.ssl().verify_result() {
                X509VerifyResult::OK => refused(&error, host),
                why if self.check == Check::Nothing => refused(&error, &format!("{host} ({why})")),
                why => self.untrusted(host, why),
            });
        }
        if self.check == Check::AuthorityAndName {
            let names = stream.ssl().peer_certificate().map(|shown| Names::of(&shown)).unwrap_or_default();
            if !names.cover(host) {
                let why = format!("the server's certificate is for {}, not for {host}", names.shown());
                let remedy = "name the host in the URL as the certificate does (`hostaddr=IP` beside it says where it is); \
                              or write `sslmode=verify-ca` if the authority certifies your servers only";
                return Err(TlsError::new(why, remedy));
            }
        }
        Ok(Encrypted(stream))
    }

    fn untrusted(&self, host: &str, why: X509VerifyResult) -> TlsError {
        /// Of `openssl/x509_vfy.h`.
        const NOT_YET_VALID: i32 = 9;
        const EXPIRED: i32 = 10;
        let words = why.error_string();
        let remedy = match why.as_raw() {
            EXPIRED => "renew the server's certificate, or correct the clock of this machine".to_owned(),
            NOT_YET_VALID => "correct the clock of this machine".to_owned(),
            _ => "name the file with the authority that signed the server's certificate with `sslrootcert=FILE` \
                  (`sslrootcert=system` for a public one); the server must show the certificates in between itself"
                .to_owned(),
        };
        TlsError::new(format!("{host} is not certified by {}: {words}", self.trusted), remedy)
    }
}

fn is_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What a failed handshake, or a connection that the server cut for our certificate, says.
pub(super) fn refused(error: &Error, host: &str) -> TlsError {
    let alert = error.ssl_error().map(in_words).unwrap_or_default();
    let why = match (alert.is_empty(), error.io_error()) {
        (false, _) => format!("TLS with {host} failed: {alert}"),
        (true, Some(broken)) => format!("TLS with {host} failed: {broken}"),
        (true, None) => format!("TLS with {host} failed: the server closed the connection"),
    };
    let ours = [
        "unknown ca",
        "certificate required",
        "certificate unknown",
        "certificate expired",
        "bad certificate",
    ];
    let remedy = if ours.iter().any(|sign| alert.contains(sign)) {
        OURS_REFUSED
    } else {
        "check that host and port belong to a Postgres server with TLS 1.2 or newer; its log says more"
    };
    TlsError::new(why, remedy)
}

/// An encrypted connection.
#[derive(Debug)]
pub(crate) struct Encrypted<S>(SslStream<S>);

impl<S> Encrypted<S> {
    /// What ties a login by SCRAM to this server's certificate (`tls-server-end-point`, RFC 5929): its hash, by the
    /// function that it was signed with. Some signatures have none.
    pub(crate) fn end_point(&self) -> Option<Vec<u8>> {
        self.0.ssl().peer_certificate().and_then(|certificate| digest(&certificate))
    }
}

fn digest(certificate: &X509Ref) -> Option<Vec<u8>> {
    let signed = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let function = match signed.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        other => MessageDigest::from_nid(other)?,
    };
    certificate.digest(function).ok().map(|digest| digest.to_vec())
}

impl<S: AsyncRead + AsyncWrite> AsyncRead for Encrypted<S>
where
    S: Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = ToHost;
    type Error = TlsError;

    fn make_tls_connect(&mut self, host: &str) -> Result<ToHost, TlsError> {
        Ok(ToHost { connector: self.clone(), host: host.to_owned() })
    }
}

/// One handshake of the driver's.
#[derive(Debug)]
pub(crate) struct ToHost {
    connector: Connector,
    host: String,
}

impl<S> TlsConnect<S> for ToHost
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = TlsError;
    type Future = Pin<Box<dyn Future<Output = Result<Encrypted<S>, TlsError>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.connector.handshake(&self.host, stream).await })
    }
}
