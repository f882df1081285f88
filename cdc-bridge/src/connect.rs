//! Connections to Postgres: ordinary ones for SQL and COPY, and the settings of a replication session.
//!
//! One place pins what the text of values depends on, so that a value reads the same wherever it comes from.

use migrations::plan::DatabaseUrl;
use pgwire_replication::{ReplicationConfig, SslMode, TlsConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode as PgSslMode};
use tokio_postgres::{Client, Config, NoTls};

/// What a session must not take from the server's, the database's or the role's settings: how values are written as
/// text; limits that would end a long copy; policies that would hide rows, which become an error; and how soon the
/// server notices that we are gone, for it holds our locks until then.
pub const SESSION_SETTINGS: &str = "-c datestyle=ISO,YMD -c intervalstyle=postgres -c timezone=UTC \
     -c extra_float_digits=1 -c bytea_output=hex -c client_encoding=UTF8 -c statement_timeout=0 -c lock_timeout=0 \
     -c idle_in_transaction_session_timeout=0 -c row_security=off -c tcp_keepalives_idle=15 \
     -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=30000";

/// A server that acknowledges nothing for so long is gone.
const DEAD_AFTER: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("the database URL {url} cannot be used: {why}; correct it in the environment")]
    Url {
        /// Without its password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server did not take us in.
    #[error("no connection to {url}: {why}; is it up? `strangler doctor` checks it")]
    Refused {
        /// Without its password.
        url: String,
        /// In the server's or the system's words.
        why: String,
    },
}

/// Opens a connection and drives it in a task of its own until the client is dropped.
pub async fn connect(url: &DatabaseUrl, application: &str) -> Result<Client, ConnectError> {
    let mut config = parse(url)?;
    config.application_name(application).options(SESSION_SETTINGS).connect_timeout(CONNECT_TIMEOUT);
    config.tcp_user_timeout(DEAD_AFTER);
    config.keepalives(true).keepalives_idle(Duration::from_secs(20));
    let refused =
        |why: tokio_postgres::Error| ConnectError::Refused { url: url.redacted(), why: in_words(&why) };
    if config.get_ssl_mode() == PgSslMode::Require {
        let tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls_config());
        let (client, connection) = config.connect(tls).await.map_err(refused)?;
        tokio::spawn(connection);
        Ok(client)
    } else {
        let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Where and as whom a replication connection logs in.
pub fn replication(url: &DatabaseUrl) -> Result<ReplicationConfig, ConnectError> {
    let config = parse(url)?;
    let bad = |why: &str| ConnectError::Url { url: url.redacted(), why: why.to_owned() };
    let user = config.get_user().ok_or_else(|| bad("it names no user"))?;
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let database = config.get_dbname().unwrap_or(user);
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.to_string_lossy().into_owned(),
        None => return Err(bad("it names no host")),
    };
    let mut tls = TlsConfig::disabled();
    if config.get_ssl_mode() == PgSslMode::Require {
        tls.mode = SslMode::VerifyFull;
    }
    // Slot and publication are named when the stream begins.
    Ok(ReplicationConfig::new(host, user, password, database, "", "")
        .with_port(port)
        .with_tls(tls)
        .with_application_name("strangler capture")
        .with_options(SESSION_SETTINGS))
}

/// The database's name in a URL.
pub fn database_name(url: &DatabaseUrl) -> Result<String, ConnectError> {
    let config = parse(url)?;
    Ok(config.get_dbname().or(config.get_user()).unwrap_or_default().to_owned())
}

/// What an error of the driver really says: the server's message, detail and code where there are some.
pub fn in_words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}{detail} [{}]", db.message(), db.code().code())
        }
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

fn parse(url: &DatabaseUrl) -> Result<Config, ConnectError> {
    // The driver knows neither of these words; what it does for `require` here is what `verify-full` means.
    let text = url.expose().replace("sslmode=verify-full", "sslmode=require");
    let text = text.replace("sslmode=verify-ca", "sslmode=require");
    text.parse()
        .map_err(|why: tokio_postgres::Error| ConnectError::Url { url: url.redacted(), why: in_words(&why) })
}

fn tls_config() -> rustls::ClientConfig {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    match rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
        Err(_) => rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth(),
    }
}
