//! A replication connection to Postgres: its questions, then its stream.
//!
//! Login, TLS and the wording of what we send are pgwire-replication's. Reading is ours, because the way we read decides
//! what each row costs the server: it sends every row by itself, and whoever takes each row at once makes it wake a reader
//! and a network stack for it. Where nobody reads for a while, rows gather on the sender's side and travel together.
//! (Measured on one machine, 1 M rows of 150 bytes: 4.0 s of the server's CPU where the reader rests for 1 ms between two
//! reads, 3.6 s with 8 ms, 2.6 s with 24 ms.) A small receive window would do the same and is not to be had: the kernel
//! drops rows that do not fit, or waits for room that never comes, and their repetition takes seconds.

pub mod frame;

use crate::clock::now_us;
use crate::connect::{ConnectError, replication};
use bytes::{Buf, Bytes, BytesMut};
use frame::{Frame, FrameError, Message, missing};
use migrations::lsn::{EndLsn, Timeline};
use migrations::plan::DatabaseUrl;
use pgwire_replication::auth::scram::ScramClient;
use pgwire_replication::protocol::framing::{
    write_copy_data, write_password_message, write_query, write_startup_message,
};
use pgwire_replication::protocol::{encode_standby_status_update, parse_auth_request, unix_to_pg_timestamp};
use pgwire_replication::tls::rustls::{MaybeTlsStream, maybe_upgrade_to_tls};
use pgwire_replication::{Lsn, PgWireError, ReplicationConfig};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::either::Either;

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 196_608;

/// Connection, TLS and login together may take so long.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// `Terminate` (PostgreSQL manual, 55.7).
const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// The last words may take so long.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A server that acknowledges nothing for so long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// What one read takes at most, in bytes.
const READ_BYTES: usize = 128 << 10;

/// What can go wrong on a replication connection.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server is not there, or no longer.
    #[error("the connection is broken: {0}")]
    Broken(#[from] std::io::Error),
    /// What came was nothing we could take, or the server's error.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It is connected and says nothing.
    #[error("the server has said nothing for {0} s")]
    Silent(u64),
    /// TLS or login failed.
    #[error("{0}")]
    Login(String),
}

impl From<PgWireError> for ReplicationError {
    fn from(error: PgWireError) -> Self {
        ReplicationError::Login(error.to_string())
    }
}

/// Which server it is, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Which history of which server.
    pub timeline: Timeline,
    /// The end of its WAL.
    pub end: EndLsn,
}

/// A logged-in connection.
#[derive(Debug)]
pub struct Replication {
    socket: Either<MaybeTlsStream, UnixStream>,
    inbound: BytesMut,
    message_bytes_max: usize,
}

impl Replication {
    /// Connects and logs in; messages larger than `message_bytes_max` will be refused.
    pub async fn open(url: &DatabaseUrl, message_bytes_max: usize) -> Result<Replication, ReplicationError> {
        let config = replication(url)?;
        let refused = |why: String| ConnectError::Refused { url: url.redacted(), why };
        let opening = async {
            let socket = connect(&config).await?;
            let mut connection = Replication { socket, inbound: BytesMut::new(), message_bytes_max };
            connection.log_in(&config).await?;
            Ok::<_, ReplicationError>(connection)
        };
        match timeout(LOGIN_TIMEOUT, opening).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(error.to_string()).into()),
            Err(_) => Err(refused(format!("no answer within {} s", LOGIN_TIMEOUT.as_secs())).into()),
        }
    }

    /// Asks the server who it is.
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

    /// Asks before the stream has begun; gives the answer's rows as text.
    pub async fn ask(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, ReplicationError> {
        write_query(&mut self.socket, command).await?;
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            let message = match (self.message().await, refused.take()) {
                // A server that ends the session says why first.
                (Err(_), Some(why)) => return Err(ReplicationError::Frame(why)),
                (message, why) => {
                    refused = why;
                    message?
                }
            };
            match message.kind {
                b'D' => rows.push(data_row(message.body)?),
                b'E' => refused = Some(FrameError::Server(frame::server_words(&message.body))),
                b'Z' => return refused.map_or(Ok(rows), |error| Err(error.into())),
                _ => {}
            }
        }
    }

    /// Begins the stream of a slot behind `from`.
    pub async fn start(
        &mut self,
        slot: &str,
        from: EndLsn,
        publication: &str,
    ) -> Result<(), ReplicationError> {
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL {from} (proto_version '1', publication_names '\"{publication}\"', \
             messages 'true')"
        );
        write_query(&mut self.socket, &command).await?;
        loop {
            let message = self.message().await?;
            match message.kind {
                b'W' => return Ok(()),
                b'E' => return Err(FrameError::Server(frame::server_words(&message.body)).into()),
                _ => {}
            }
        }
    }

    /// Waits for more of the stream and takes what has come; gives the number of bytes. It may be cancelled: nothing is
    /// lost.
    pub async fn read(&mut self) -> Result<usize, ReplicationError> {
        if self.inbound.capacity() - self.inbound.len() < READ_BYTES / 2 {
            // A large message is announced by its length, and checked against the bound before it is waited for.
            self.inbound.reserve(READ_BYTES.max(missing(&self.inbound)));
        }
        match self.socket.read_buf(&mut self.inbound).await? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            read => Ok(read),
        }
    }

    /// The next message of the stream among what was read.
    pub fn frame(&mut self) -> Result<Option<Frame>, ReplicationError> {
        let message = Message::cut(&mut self.inbound, self.message_bytes_max)?;
        Ok(message.map(Message::into_frame).transpose()?)
    }

    /// Tells the server that everything before `end` is ours to keep, and may ask for a sign of life. (`Standby status
    /// update`.)
    pub async fn confirm(&mut self, end: EndLsn, wants_reply: bool) -> Result<(), ReplicationError> {
        let update = encode_standby_status_update(Lsn(end.0), unix_to_pg_timestamp(now_us()), wants_reply);
        let Err(broken) = write_copy_data(&mut self.socket, &update).await else { return Ok(()) };
        // A server that ended the session has said why, and it lies unread in front of us.
        match timeout(FAREWELL_TIMEOUT, self.read_out()).await {
            Ok(ReplicationError::Frame(why)) => Err(why.into()),
            _ => Err(broken.into()),
        }
    }

    /// Confirms what became ours at last, and waits until the server has ended the session: then its slot is free. What
    /// is left unread would make the system cut the connection before the server has read our words.
    pub async fn close(mut self, end: EndLsn) {
        let farewell = async {
            self.confirm(end, false).await?;
            self.socket.write_all(&TERMINATE).await?;
            self.socket.flush().await?;
            Err::<(), _>(self.read_out().await)
        };
        // Its end is what was waited for, and whoever is gone already needs no words.
        let _ = timeout(FAREWELL_TIMEOUT, farewell).await;
    }

    /// Reads until the connection ends, and gives the reason.
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

    async fn log_in(&mut self, config: &ReplicationConfig) -> Result<(), ReplicationError> {
        let parameters = [
            ("user", config.user.as_str()),
            ("database", config.database.as_str()),
            ("replication", "database"),
            ("application_name", config.application_name.as_deref().unwrap_or_default()),
            ("options", config.options.as_deref().unwrap_or_default()),
        ];
        write_startup_message(&mut self.socket, PROTOCOL, &parameters).await?;
        loop {
            let message = self.message().await?;
            match message.kind {
                b'R' => self.answer(config, &message.body).await?,
                b'E' => return Err(FrameError::Server(frame::server_words(&message.body)).into()),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Answers a request of the login (PostgreSQL manual, 55.2.1).
    async fn answer(&mut self, config: &ReplicationConfig, request: &[u8]) -> Result<(), ReplicationError> {
        match parse_auth_request(request)? {
            (0, _) => Ok(()),
            (3, _) => Ok(write_password_message(&mut self.socket, &zero_ended(&config.password)).await?),
            (10, mechanisms) if mechanisms.split(|byte| *byte == 0).any(|name| name == b"SCRAM-SHA-256") => {
                self.scram(config).await
            }
            (other, _) => Err(ReplicationError::Login(format!(
                "the server asks for a login of kind {other}, which strangler does not know; use scram-sha-256 in pg_hba.conf"
            ))),
        }
    }

    async fn scram(&mut self, config: &ReplicationConfig) -> Result<(), ReplicationError> {
        let client = ScramClient::new(&config.user);
        let mut first = zero_ended("SCRAM-SHA-256");
        first.extend_from_slice(&(client.client_first.len() as u32).to_be_bytes());
        first.extend_from_slice(client.client_first.as_bytes());
        write_password_message(&mut self.socket, &first).await?;
        let challenge = self.scram_reply(11).await?;
        let (last, spoken, salted) = client.client_final(&config.password, &challenge)?;
        write_password_message(&mut self.socket, last.as_bytes()).await?;
        let proof = self.scram_reply(12).await?;
        Ok(ScramClient::verify_server_final(&proof, &salted, &spoken)?)
    }

    async fn scram_reply(&mut self, expected: i32) -> Result<String, ReplicationError> {
        let message = self.message().await?;
        match (message.kind, parse_auth_request(&message.body)) {
            (b'R', Ok((code, words))) if code == expected => Ok(String::from_utf8_lossy(words).into_owned()),
            (b'E', _) => Err(FrameError::Server(frame::server_words(&message.body)).into()),
            _ => Err(FrameError::Malformed("an answer during SCRAM").into()),
        }
    }
}

async fn connect(config: &ReplicationConfig) -> Result<Either<MaybeTlsStream, UnixStream>, ReplicationError> {
    if config.is_unix_socket() {
        return Ok(Either::Right(UnixStream::connect(config.unix_socket_path()).await?));
    }
    let tcp = TcpStream::connect((config.host.as_str(), config.port)).await?;
    tcp.set_nodelay(true)?;
    socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(DEAD_AFTER))?;
    Ok(Either::Left(maybe_upgrade_to_tls(tcp, &config.tls, &config.host).await?))
}

fn zero_ended(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
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
