//! A replication connection to Postgres: its questions, then its stream.
//!
//! `postgres-protocol` words what we send. Reading is ours, because the way we read decides what each row costs the server.
//! The server sends each row by itself. A reader that takes each row at once makes the server wake a reader and a network
//! stack for it. If nobody reads for a while, rows gather on the sender's side and travel together. Measured on one
//! machine, 1 M rows of 150 bytes cost the server 4.0 s of CPU if the reader rests for 1 ms between two reads, 3.6 s with
//! 8 ms, 2.6 s with 24 ms. A small receive window does not help: the kernel drops rows that do not fit, or waits for room
//! that never comes, and sending them again takes seconds.

pub mod frame;
mod login;

use crate::clock::now_us;
use crate::connect::{
    Address, CONNECT_TIMEOUT, ConnectError, DEAD_AFTER, PINNED, Place, SETTLE, other_way_may_help,
};
use crate::tls::{Connector, TlsError};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use frame::{Frame, FrameError, Message, ServerError, missing, too_large};
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::quote_literal;
use migrations::plan::DatabaseUrl;
use postgres_protocol::message::frontend;
use std::io::{Error, ErrorKind};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;

const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// 2000-01-01, from where the protocol counts time, in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;

/// What one read takes at most, in bytes.
const READ_BYTES: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection is broken: {0}")]
    Broken(#[from] Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the server has said nothing for {0} s")]
    Silent(u64),
    #[error("{0}")]
    Login(String),
}

impl From<ServerError> for ReplicationError {
    fn from(error: ServerError) -> Self {
        ReplicationError::Frame(error.into())
    }
}

impl ReplicationError {
    /// The server's SQLSTATE, if it spoke.
    pub fn code(&self) -> Option<SqlState> {
        self.server().map(|error| SqlState::from_code(&error.code))
    }

    fn server(&self) -> Option<&ServerError> {
        match self {
            ReplicationError::Frame(FrameError::Server(error)) => Some(error),
            _ => None,
        }
    }

    /// The server's words, if it says that something is larger than it can allocate: a text, a message, or what its
    /// machine has left.
    pub fn too_large_for_server(&self) -> Option<&ServerError> {
        self.server().filter(|error| match error.code.as_str() {
            "54000" | "53200" => true,
            // Such an error has no code of its own, and its words are in the server's language.
            "XX000" => error.context().is_some_and(|context| context.contains("pgoutput")),
            _ => false,
        })
    }
}

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    pub timeline: Timeline,
    /// The end of its WAL.
    pub end: EndLsn,
}

/// Plain or TLS, on the network or on this machine.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug> Socket for T {}

#[derive(Debug)]
pub struct Replication {
    socket: Box<dyn Socket>,
    /// What ties the login to the server's certificate.
    end_point: Option<Vec<u8>>,
    inbound: BytesMut,
    message_bytes_max: usize,
    /// What is to be passed over of what comes next, in bytes.
    passed_over: usize,
}

impl Replication {
    pub async fn open(url: &DatabaseUrl, message_bytes_max: usize) -> Result<Replication, ReplicationError> {
        let address = Address::of(url)?;
        let opening = async {
            let connector = address.tls.connector().await.map_err(|error| address.tls_error(error))?;
            let mut ways = address.tls.ways().iter();
            loop {
                let Some(way) = ways.next() else { return Err(address.late()) };
                let error = match enter(&address, &connector, *way, message_bytes_max).await {
                    Ok(connection) => return Ok(connection),
                    Err(error) => error,
                };
                let code = error.code();
                let error = match (connector.blamed(&error), error) {
                    (_, ReplicationError::Connect(error)) => error,
                    (Some(tls), _) => address.tls_error(tls),
                    (None, error) => address.refused(error.to_string(), code.as_ref().map(SqlState::code)),
                };
                let is_tls = matches!(error, ConnectError::Tls { .. });
                if ways.len() == 0 || !other_way_may_help(is_tls, code.as_ref()) {
                    return Err(error);
                }
            }
        };
        Ok(timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| Err(address.late()))?)
    }

    pub async fn identify_system(&mut self) -> Result<System, ReplicationError> {
        let rows = self.ask("IDENTIFY_SYSTEM").await?;
        let column = |index: usize| rows.first().and_then(|row| row.get(index)).cloned().flatten();
        let found = (
            column(0),
            column(1).and_then(|text| text.parse().ok()),
            column(2).and_then(|text| text.parse().ok()),
        );
        let (Some(system_id), Some(timeline), Some(end)) = found else {
            return Err(FrameError::Malformed("an answer to IDENTIFY_SYSTEM").into());
        };
        Ok(System { timeline: Timeline { system_id, timeline }, end })
    }

    /// Asks before the stream has begun. Returns the answer's rows as text.
    pub async fn ask(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, ReplicationError> {
        self.send(|out| frontend::query(command, out)).await?;
        let (mut rows, mut refused) = (Vec::new(), None::<ServerError>);
        loop {
            let message = match (self.message().await, refused.take()) {
                // A server that ends the session says why first.
                (Err(_), Some(why)) => return Err(why.into()),
                (message, why) => {
                    refused = why;
                    message?
                }
            };
            match message.kind {
                b'D' => rows.push(data_row(message.body)?),
                b'E' => refused = Some(ServerError::read(&message.body)),
                b'Z' => return refused.map_or(Ok(rows), |error| Err(error.into())),
                _ => {}
            }
        }
    }

    /// Begins the stream of a slot after `from`. Returns the encoding that its texts have, which is the database's own: one
    /// text that the server cannot convert would end the stream for all.
    pub async fn start(
        &mut self,
        slot: &str,
        from: EndLsn,
        publication: &str,
    ) -> Result<String, ReplicationError> {
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL {from} (proto_version '1', publication_names '\"{publication}\"', \
             messages 'true')"
        );
        let found = self.ask("SHOW server_encoding").await?;
        let encoding = found.into_iter().flatten().flatten().next();
        let encoding = encoding.ok_or(FrameError::Malformed("an answer to SHOW server_encoding"))?;
        self.ask(&format!("SET client_encoding = {}", quote_literal(&encoding))).await?;
        self.send(|out| frontend::query(&command, out)).await?;
        loop {
            let message = self.message().await?;
            match message.kind {
                b'W' => return Ok(encoding),
                b'E' => return Err(ServerError::read(&message.body).into()),
                _ => {}
            }
        }
    }

    /// Waits for more of the stream and takes what has come. Returns the number of bytes. Cancelling it loses nothing.
    pub async fn read(&mut self) -> Result<usize, ReplicationError> {
        if self.inbound.capacity() - self.inbound.len() < READ_BYTES / 2 {
            // A large message is announced by its length, and checked against the bound before it is waited for.
            let missing = missing(&self.inbound).min(self.message_bytes_max);
            self.inbound.reserve(READ_BYTES.max(missing));
        }
        match self.socket.read_buf(&mut self.inbound).await? {
            0 => Err(Error::from(ErrorKind::UnexpectedEof).into()),
            read => Ok(read),
        }
    }

    /// The next message of the stream among what was read.
    pub fn frame(&mut self) -> Result<Option<Frame>, ReplicationError> {
        self.pass_over();
        if let Some((relation, bytes)) = too_large(&self.inbound, self.message_bytes_max)? {
            self.passed_over = bytes;
            self.pass_over();
            return Ok(Some(Frame::TooLarge { relation, bytes }));
        }
        let message = Message::cut(&mut self.inbound, self.message_bytes_max)?;
        Ok(message.map(Message::into_frame).transpose()?)
    }

    fn pass_over(&mut self) {
        let come = self.passed_over.min(self.inbound.len());
        self.inbound.advance(come);
        self.passed_over -= come;
    }

    /// Tells the server that everything before `end` is durable here, and can ask it for a sign of life. (`Standby status
    /// update`.)
    pub async fn confirm(&mut self, end: EndLsn, wants_reply: bool) -> Result<(), ReplicationError> {
        let Err(broken) = self.send(|out| standby_status(end, wants_reply, out)).await else { return Ok(()) };
        // A server that ended the session has said why, and it lies unread in front of us.
        match timeout(FAREWELL_TIMEOUT, self.read_out()).await {
            Ok(ReplicationError::Frame(why)) => Err(why.into()),
            _ => Err(broken),
        }
    }

    /// Confirms what became durable last, and waits until the server has ended the session: then its slot is free. Bytes
    /// that are left unread would make the system cut the connection before the server has read our message.
    pub async fn close(mut self, end: EndLsn) {
        let farewell = async {
            self.confirm(end, false).await?;
            self.send(|out| {
                frontend::terminate(out);
                Ok(())
            })
            .await?;
            Err::<(), _>(self.read_out().await)
        };
        // The session has ended, or takes too long to.
        let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
    }

    /// Reads until the connection ends. Returns the reason.
    async fn read_out(&mut self) -> ReplicationError {
        loop {
            match self.frame() {
                Ok(Some(_)) => {}
                Ok(None) => {
                    if let Err(end) = self.read().await {
                        return end;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    async fn message(&mut self) -> Result<Message, ReplicationError> {
        loop {
            if let Some(message) = Message::cut(&mut self.inbound, self.message_bytes_max)? {
                return Ok(message);
            }
            self.read().await?;
        }
    }

    async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), ReplicationError> {
        let mut out = BytesMut::new();
        write(&mut out)?;
        self.socket.write_all(&out).await?;
        Ok(self.socket.flush().await?)
    }
}

/// Tries each place of the URL. The last one's error counts.
async fn enter(
    address: &Address,
    connector: &Connector,
    way: SslMode,
    message_bytes_max: usize,
) -> Result<Replication, ReplicationError> {
    if address.role().is_empty() {
        return Err(address.url_error("it names no user").into());
    }
    let places = address.places();
    let each = CONNECT_TIMEOUT / u32::try_from(places.len()).unwrap_or(1).max(1);
    let mut last = address.url_error("it names no host").into();
    for place in places {
        let entering = enter_at(address, &place, connector, way, message_bytes_max);
        match timeout(each, entering).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = error,
            Err(_) => last = address.late().into(),
        }
    }
    Err(last)
}

async fn enter_at(
    address: &Address,
    place: &Place<'_>,
    connector: &Connector,
    way: SslMode,
    message_bytes_max: usize,
) -> Result<Replication, ReplicationError> {
    let port = place.port;
    let (socket, end_point): (Box<dyn Socket>, _) = match (place.host, place.address) {
        #[cfg(unix)]
        (Some(Host::Unix(folder)), None) => {
            let file = folder.join(format!(".s.PGSQL.{port}"));
            (Box::new(UnixStream::connect(file).await?), None)
        }
        (host, ip) => {
            let ip = ip.map(|ip| ip.to_string());
            let name = match host {
                Some(Host::Tcp(host)) => host.as_str(),
                _ => ip.as_deref().unwrap_or_default(),
            };
            let tcp = TcpStream::connect((ip.as_deref().unwrap_or(name), port)).await?;
            tcp.set_nodelay(true)?;
            socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(DEAD_AFTER))?;
            protected(address, name, connector, way, tcp).await?
        }
    };
    let mut connection =
        Replication { socket, end_point, inbound: BytesMut::new(), message_bytes_max, passed_over: 0 };
    connection.log_in(address).await?;
    let settled = connection.ask(SETTLE).await?;
    let pinned = settled.first().and_then(|row| row.first()).and_then(Option::as_deref);
    if pinned != Some(PINNED) {
        return Err(address.pooler().into());
    }
    Ok(connection)
}

/// Asks for TLS if the way says so (PostgreSQL manual, 55.2.10). Returns what ties a login to the server's certificate.
async fn protected(
    address: &Address,
    host: &str,
    connector: &Connector,
    way: SslMode,
    mut tcp: TcpStream,
) -> Result<(Box<dyn Socket>, Option<Vec<u8>>), ReplicationError> {
    if way == SslMode::Disable {
        return Ok((Box::new(tcp), None));
    }
    if address.ssl_negotiation() == SslNegotiation::Postgres {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        tcp.write_all(&request).await?;
        match tcp.read_u8().await? {
            b'S' => {}
            _ if way == SslMode::Prefer => return Ok((Box::new(tcp), None)),
            _ => return Err(address.tls_error(TlsError::not_offered()).into()),
        }
    }
    let tls = connector.handshake(host, tcp).await.map_err(|error| address.tls_error(error))?;
    let end_point = tls.end_point();
    Ok((Box::new(tls), end_point))
}

/// `Standby status update`: written, flushed and applied are one here.
fn standby_status(end: EndLsn, wants_reply: bool, out: &mut BytesMut) -> std::io::Result<()> {
    let mut update = BytesMut::with_capacity(34);
    update.put_u8(b'r');
    update.put_u64(end.0);
    update.put_u64(end.0);
    update.put_u64(end.0);
    update.put_i64(now_us() - EPOCH_US);
    update.put_u8(u8::from(wants_reply));
    frontend::CopyData::new(update)?.write(out);
    Ok(())
}

/// A `DataRow`: Int16 count, then each value's Int32 length (-1 for NULL) and bytes.
fn data_row(mut body: Bytes) -> Result<Vec<Option<String>>, FrameError> {
    let short = || FrameError::Malformed("a row that ends too early");
    let count = body.try_get_u16().map_err(|_| short())?;
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let len = body.try_get_i32().map_err(|_| short())?;
        let value = match usize::try_from(len) {
            Ok(len) if len > body.len() => return Err(short()),
            Ok(len) => Some(String::from_utf8_lossy(&body.split_to(len)).into_owned()),
            Err(_) => None,
        };
        values.push(value);
    }
    Ok(values)
}
