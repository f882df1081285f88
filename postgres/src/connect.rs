//! Connections to Postgres: how a URL is read, what a session pins, and how long anyone waits.
//!
//! Knows nothing of what is asked through them.

use crate::refusal::in_words;
use crate::tls::{Connector, Tls, TlsError, taken_from};
use migrations::code::Code;
use migrations::names::quote_identifier;
use migrations::plan::DatabaseUrl;
use migrations::problem::Diagnostic;
use std::future::poll_fn;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation};
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{AsyncMessage, Client, Config, SimpleQueryMessage};

/// What a session must not take from the server's, the database's or the role's settings: how values are read and written
/// as text, and what an expression means; limits that would end a long copy, a long silence, or the session at the first
/// error; policies that would hide rows, which become an error; that it may write, and sees what others commit; that
/// statements are compiled, which takes longer than to run them; and how soon the server notices that we are gone, for it
/// holds our locks until then.
const SESSION_SETTINGS: &str = "-c datestyle=ISO,YMD -c intervalstyle=postgres -c timezone=UTC \
     -c extra_float_digits=1 -c bytea_output=hex -c client_encoding=UTF8 -c array_nulls=on -c xmloption=content \
     -c xmlbinary=base64 -c lc_monetary=C -c transform_null_equals=off -c standard_conforming_strings=on \
     -c quote_all_identifiers=off -c client_min_messages=notice -c exit_on_error=off -c statement_timeout=0 \
     -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c row_security=off \
     -c default_transaction_read_only=off -c default_transaction_deferrable=off \
     -c default_transaction_isolation=read\\ committed -c jit=off -c tcp_keepalives_idle=15 -c tcp_keepalives_interval=5 \
     -c tcp_keepalives_count=3 -c tcp_user_timeout=30000 -c strangler.session=pinned";

/// Asks whether the settings arrived, for a pooler may drop them; and pins two more. Not every server knows the first
/// (17 and later). Of the second only `off` is bad: a commit that a crash takes back was seen, and counted as copied.
pub(crate) const SETTLE: &str = "SELECT current_setting('strangler.session', true), \
     CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL \
     THEN set_config('transaction_timeout', '0', false) END, \
     CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END";
/// What [`SETTLE`] answers first if nothing stands in between.
pub(crate) const PINNED: &str = "pinned";

/// A session that waits for a lock looks so often whether its client still lives. Not every server can (those on Windows).
const NOTICE_GONE: &str = "SET client_connection_check_interval = '5s'";

/// Connection, TLS and login together may take so long.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that acknowledges nothing for so long is gone.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
const DEFAULT_PORT: u16 = 5432;
/// Warnings that are kept until someone reads them; more are dropped.
const NOTICES_MAX: usize = 256;
const INSTALL: &str =
    "run `strangler install` with an administrator's URL for each database, which makes the role";

/// The driver's words if the server asks for a password, and if it does not use channel binding.
const NO_PASSWORD: &str = "password missing";
const NO_BINDING: &str = "server did not use channel binding";

const NO_POOLER: &str = "name the server's own address in the plan's database URL: locks, sessions and settings do not pass a pooler";

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the database URL {url} cannot be used: {why}")]
    Url { url: String, why: String },
    #[error("no connection to {url} by TLS: {why}")]
    Tls { url: String, why: String, remedy: String },
    #[error("no connection to {url}: {why}")]
    Refused { url: String, why: String, remedy: String },
    #[error("a pooler stands between us and {url}: the session's settings did not arrive")]
    Pooler { url: String },
}

impl Diagnostic for ConnectError {
    fn code(&self) -> Code {
        match self {
            ConnectError::Url { .. } => Code::PlanBadDatabase,
            ConnectError::Tls { .. } | ConnectError::Refused { .. } => Code::DatabaseUnreachable,
            ConnectError::Pooler { .. } => Code::DatabasePooler,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ConnectError::Url { .. } => "write it as postgres://user:password@host:5432/database".to_owned(),
            ConnectError::Tls { remedy, .. } | ConnectError::Refused { remedy, .. } => remedy.clone(),
            ConnectError::Pooler { .. } => NO_POOLER.to_owned(),
        }
    }
}

/// What to do if a server refuses this role this database, by its SQLSTATE; none if nobody answered.
fn remedy_of(code: Option<&str>, role: &str, database: &str) -> String {
    let (role, database) = (quote_identifier(role), quote_identifier(database));
    match code.unwrap_or_default() {
        "28P01" => {
            format!("{INSTALL} with this password; if it exists, set it: ALTER ROLE {role} PASSWORD '…';")
        }
        "28000" => format!(
            "{INSTALL}; pg_hba.conf must let it in, and if it exists: ALTER ROLE {role} LOGIN; if pg_hba.conf asks for a \
             client's certificate, name one for this role with `sslcert` and `sslkey` in the URL"
        ),
        // A server knows our startup parameters, and a pooler refuses them.
        "08P01" => NO_POOLER.to_owned(),
        "42501" => {
            format!("run as the server's administrator: GRANT CONNECT ON DATABASE {database} TO {role};")
        }
        "3D000" => "make the database, or correct its name in the URL".to_owned(),
        "53300" => "raise max_connections or close some connections".to_owned(),
        _ => "start the server, or correct host and port in the URL".to_owned(),
    }
}

/// As [`remedy_of`], for a role that strangler does not make: an administrator's.
fn remedy_of_other(code: Option<&str>, role: &str, database: &str) -> String {
    let quoted = quote_identifier(role);
    match code.unwrap_or_default() {
        "28P01" => {
            format!("correct the role or its password in this URL: the server does not take it for {quoted}")
        }
        "28000" => format!(
            "give the URL of a role that may log in from here; for {quoted}, pg_hba.conf must let it in, with a client's \
             certificate if it asks for one (`sslcert` and `sslkey` in the URL)"
        ),
        _ => remedy_of(code, role, database),
    }
}

/// Where a database is, as whom it is entered, and how the connection is protected.
#[derive(Debug)]
pub struct Address {
    /// The URL as it may be shown.
    shown: String,
    config: Config,
    pub(crate) tls: Tls,
    /// Whether the role is strangler's own, which `install` makes.
    is_ours: bool,
}

/// One of the places that a URL names.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Its name, or the folder of its socket.
    pub host: Option<&'a Host>,
    /// Where it is, if its name is not to be looked up (`hostaddr`).
    pub address: Option<IpAddr>,
    pub port: u16,
}

/// Opens a connection by a URL of the plan, with the session's settings pinned. `application` is what
/// `pg_stat_activity` shows; it begins with `strangler`.
pub async fn connect(url: &DatabaseUrl, application: &str) -> Result<Client, ConnectError> {
    let mut address = Address::of(url)?;
    address.config.options(address.pinned_options());
    let opening = async {
        let client = address.open(application).await?.client;
        address.settle(&client).await?;
        Ok(client)
    };
    timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| Err(address.late()))
}

/// Opens a connection by a person's URL, which stands in no plan. It may lead through a pooler, so nothing is pinned.
/// `shown` names the URL in messages.
pub async fn connect_unplanned(url: &str, shown: &str, application: &str) -> Result<Session, ConnectError> {
    Address::read(url, shown.to_owned())?.open(application).await
}

/// As [`connect_unplanned`], as a role that strangler does not make: an administrator's. Its refusals say so.
pub async fn connect_as_other(url: &str, shown: &str, application: &str) -> Result<Session, ConnectError> {
    let address = Address { is_ours: false, ..Address::read(url, shown.to_owned())? };
    address.open(application).await
}

/// A connection, driven by a task of its own until it is dropped.
#[derive(Debug)]
pub struct Session {
    pub client: Client,
    /// Warnings of the server, as they come.
    pub notices: mpsc::Receiver<String>,
}

impl Address {
    pub fn of(url: &DatabaseUrl) -> Result<Address, ConnectError> {
        Address::read(url.expose(), url.redacted())
    }

    fn read(url: &str, shown: String) -> Result<Address, ConnectError> {
        let bad = |why: String| ConnectError::Url { url: shown.clone(), why };
        let (rest, parameters) = taken_from(url);
        let config: Config = rest.parse().map_err(|error| bad(misread(&rest, &error)))?;
        let is_local = |host: &Host| !matches!(host, Host::Tcp(_));
        let tls = if !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_local) {
            // Nobody can listen in on a socket of this machine (PostgreSQL manual, 34.1.2, `sslmode`).
            Tls::none()
        } else {
            parameters.tls().map_err(|why| bad(why.to_owned()))?
        };
        if config.get_ssl_negotiation() == SslNegotiation::Direct && tls.ways() != [SslMode::Require] {
            let why = "`sslnegotiation=direct` needs `sslmode=require`, `verify-ca` or `verify-full`";
            return Err(bad(why.to_owned()));
        }
        Ok(Address { shown, config, tls, is_ours: true })
    }

    pub fn database(&self) -> &str {
        // The server takes a role's name for the database's if none is given.
        self.config.get_dbname().unwrap_or(self.role())
    }

    pub(crate) fn role(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(crate) fn password(&self) -> Result<&[u8], ConnectError> {
        self.config.get_password().ok_or_else(|| self.no_password())
    }

    fn no_password(&self) -> ConnectError {
        let why = "the server asks for a password, and the URL has none".to_owned();
        let remedy = "write it into the URL, `postgres://user:${PASSWORD}@host:5432/database`; or name a client's certificate \
                      with `sslcert` and `sslkey`, and let it in by `cert` in pg_hba.conf"
            .to_owned();
        ConnectError::Refused { url: self.shown.clone(), why, remedy }
    }

    /// The login was not tied to the server's certificate, as the URL asks.
    pub(crate) fn unbound(&self) -> ConnectError {
        let why = "the server did not use channel binding, which the URL requires".to_owned();
        let remedy = "let the role in by `hostssl … scram-sha-256` in pg_hba.conf; or take `channel_binding=require` out of \
                      the URL"
            .to_owned();
        ConnectError::Refused { url: self.shown.clone(), why, remedy }
    }

    pub(crate) fn channel_binding(&self) -> ChannelBinding {
        self.config.get_channel_binding()
    }

    pub(crate) fn ssl_negotiation(&self) -> SslNegotiation {
        self.config.get_ssl_negotiation()
    }

    /// Where the server may be, in the URL's order.
    pub(crate) fn places(&self) -> Vec<Place<'_>> {
        let (hosts, addresses) = (self.config.get_hosts(), self.config.get_hostaddrs());
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
        let place = |at| Place { host: hosts.get(at), address: addresses.get(at).copied(), port: port(at) };
        (0..hosts.len().max(addresses.len())).map(place).collect()
    }

    /// What stands in the URL, then what is pinned, which wins.
    pub(crate) fn pinned_options(&self) -> String {
        match self.config.get_options() {
            Some(options) => format!("{options} {SESSION_SETTINGS}"),
            None => SESSION_SETTINGS.to_owned(),
        }
    }

    async fn settle(&self, client: &Client) -> Result<(), ConnectError> {
        let refused = |error| self.refused(in_words(&error), error.code().map(SqlState::code));
        // Both are sent at once. Whether the second can be done is not asked.
        let (settled, _) = tokio::join!(client.simple_query(SETTLE), client.batch_execute(NOTICE_GONE));
        let settled = settled.map_err(refused)?;
        let pinned = settled.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        if pinned == Some(PINNED) { Ok(()) } else { Err(self.pooler()) }
    }

    pub(crate) fn pooler(&self) -> ConnectError {
        ConnectError::Pooler { url: self.shown.clone() }
    }

    pub(crate) fn url_error(&self, why: &str) -> ConnectError {
        ConnectError::Url { url: self.shown.clone(), why: why.to_owned() }
    }

    pub(crate) fn tls_error(&self, TlsError { why, remedy }: TlsError) -> ConnectError {
        ConnectError::Tls { url: self.shown.clone(), why, remedy }
    }

    pub(crate) fn refused(&self, why: String, code: Option<&str>) -> ConnectError {
        let remedy = match self.is_ours {
            true => remedy_of(code, self.role(), self.database()),
            false => remedy_of_other(code, self.role(), self.database()),
        };
        ConnectError::Refused { url: self.shown.clone(), why, remedy }
    }

    pub(crate) fn late(&self) -> ConnectError {
        self.refused(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()), None)
    }

    async fn open(&self, application: &str) -> Result<Session, ConnectError> {
        timeout(CONNECT_TIMEOUT, self.try_ways(application)).await.unwrap_or_else(|_| Err(self.late()))
    }

    async fn try_ways(&self, application: &str) -> Result<Session, ConnectError> {
        let tls = self.tls.connector().await.map_err(|error| self.tls_error(error))?;
        let mut config = self.config.clone();
        // A host that is silent leaves time for the next one.
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(1).max(1);
        config.application_name(application).connect_timeout(CONNECT_TIMEOUT / hosts);
        config.tcp_user_timeout(DEAD_AFTER);
        config.keepalives(true).keepalives_idle(KEEPALIVE_IDLE);
        let mut ways = self.tls.ways().iter();
        loop {
            let Some(way) = ways.next() else { return Err(self.late()) };
            match config.ssl_mode(*way).connect(tls.clone()).await {
                Ok((client, connection)) => return Ok(drive(client, connection)),
                Err(error) if ways.len() > 0 && other_way_may_help(is_tls(&error), error.code()) => {}
                Err(error) => return Err(self.failed(&tls, &error)),
            }
        }
    }

    fn failed(&self, connector: &Connector, error: &tokio_postgres::Error) -> ConnectError {
        match connector.blamed(error) {
            Some(tls) => self.tls_error(tls),
            None if is_tls(error) => self.tls_error(TlsError::not_offered()),
            None if in_words(error).ends_with(NO_PASSWORD) => self.no_password(),
            None if in_words(error).ends_with(NO_BINDING) => self.unbound(),
            None => self.refused(in_words(error), error.code().map(SqlState::code)),
        }
    }
}

/// The handshake failed, or pg_hba.conf has no line for this kind of connection.
pub(crate) fn other_way_may_help(is_tls: bool, code: Option<&SqlState>) -> bool {
    is_tls || code == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// The driver tells its kinds of errors apart by their first words only.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

fn drive<S, T>(client: Client, mut connection: tokio_postgres::Connection<S, T>) -> Session
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, notices) = mpsc::channel(NOTICES_MAX);
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                // A full queue means that nobody reads; a warning less is no harm.
                Ok(AsyncMessage::Notice(notice)) => drop(sender.try_send(with_hint(&notice))),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = %in_words(&error), "a database connection ended");
                    break;
                }
            }
        }
    });
    Session { client, notices }
}

fn with_hint(notice: &DbError) -> String {
    let hint = notice.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
    format!("{}{hint}", notice.message())
}

/// What the driver does not understand of a URL. It repeats a parameter's name, and what lies behind an `@` or a `&` of
/// the password looks like one, as does a URL that does not begin like one.
fn misread(url: &str, error: &tokio_postgres::Error) -> String {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let is_harmless = url.matches('@').count() < 2 && !url.contains("password");
    if is_url && is_harmless { in_words(error) } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_statement_that_mends_it() {
        for (code, statement) in [
            ("28P01", r#"ALTER ROLE "us" PASSWORD '…';"#),
            ("28000", r#"ALTER ROLE "us" LOGIN;"#),
            ("42501", r#"GRANT CONNECT ON DATABASE "sh""op" TO "us";"#),
        ] {
            let remedy = remedy_of(Some(code), "us", "sh\"op");
            assert!(remedy.contains(statement) && !remedy.contains("start the server"), "{code}: {remedy}");
        }
    }

    #[test]
    fn an_administrators_password_is_to_be_corrected_and_not_set() {
        for code in ["28P01", "28000"] {
            let remedy = remedy_of_other(Some(code), "postgres", "shop");
            assert!(!remedy.contains("ALTER ROLE") && !remedy.contains("strangler install"), "{remedy}");
            assert!(remedy.contains("URL"), "{remedy}");
        }
        assert_eq!(remedy_of_other(Some("3D000"), "p", "d"), remedy_of(Some("3D000"), "p", "d"));
    }

    #[test]
    fn a_server_that_does_not_answer_is_to_be_started() {
        assert!(remedy_of(None, "us", "shop").starts_with("start the server"));
    }

    #[test]
    fn a_parameter_that_is_not_known_is_named_unless_it_may_be_a_secret() {
        let said = |url: &str| Address::read(url, "the URL".to_owned()).unwrap_err().to_string();
        assert!(said("postgres://us:pass@db/shop?sslcrl=/ca.pem").contains("`sslcrl`"));
        for url in [
            "postgres://us:a@b/c?secret=d@db/shop",
            "postgres://us@db/shop?password=a&secret&sslmode=disable",
            "postgre://us:secret@db/shop?a=b",
            "postgres://us@db/shop?sslmode=secret",
        ] {
            assert!(!said(url).contains("secret"), "{}", said(url));
        }
    }

    #[test]
    fn what_the_url_sets_stays_and_what_is_pinned_wins() {
        let url = "postgres://us:p%40ss@db:6000/shop?options=-c%20timezone%3DCET&sslmode=require";
        let address = Address::read(url, String::new()).unwrap();
        assert_eq!((address.database(), address.role(), address.places()[0].port), ("shop", "us", 6000));
        assert_eq!(address.password().unwrap(), b"p@ss");
        let options = address.pinned_options();
        assert!(
            options.starts_with("-c timezone=CET ") && options.contains(" -c timezone=UTC "),
            "{options}"
        );
    }
}
