//! Connections to Postgres, made in one place: TLS where the URL asks for it, time limits always.
//!
//! Knows nothing of what is asked through them.

use migrations::names::quote_identifier;
use migrations::plan::DatabaseUrl;
use std::future::poll_fn;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};

/// A server that does not answer in this time is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Warnings that are kept until someone reads them; more are dropped.
const NOTICES_MAX: usize = 256;
/// How a role comes to be.
const INSTALL: &str =
    "run `strangler install` with an administrator's URL for each database, which makes the role";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("the database URL {url} cannot be used: {why}")]
    Url {
        /// Without its password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server speaks no TLS, or its certificate is not to be trusted.
    #[error("no connection to {url} by TLS: {why}")]
    Tls {
        /// Without its password.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The server did not take us in.
    #[error("no connection to {url}: {why}")]
    Refused {
        /// Without its password.
        url: String,
        /// In the server's or the system's words.
        why: String,
        /// What to do about it.
        hint: String,
    },
}

impl ConnectError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ConnectError::Url { .. } => "write it as postgres://user:password@host:5432/database".to_owned(),
            ConnectError::Tls { .. } => {
                "give the server a certificate of a public authority for the host that the URL names; or write `sslmode=disable` where nobody can listen in between".to_owned()
            }
            ConnectError::Refused { hint, .. } => hint.clone(),
        }
    }
}

/// What to do where a server refuses this role this database, by its error code (SQLSTATE); none where nobody answered.
fn hint_of(code: Option<&str>, role: &str, database: &str) -> String {
    let (role, database) = (quote_identifier(role), quote_identifier(database));
    match code.unwrap_or_default() {
        "28P01" => {
            format!("{INSTALL} with this password; if it exists, set it: ALTER ROLE {role} PASSWORD '…';")
        }
        "28000" => {
            format!("{INSTALL}; pg_hba.conf must let it in, and if it exists: ALTER ROLE {role} LOGIN;")
        }
        "42501" => {
            format!("run as the server's administrator: GRANT CONNECT ON DATABASE {database} TO {role};")
        }
        "3D000" => "make the database, or correct its name in the URL".to_owned(),
        "53300" => "raise max_connections or close some connections".to_owned(),
        _ => "start the server, or correct host and port in the URL".to_owned(),
    }
}

/// A connection, driven by a task of its own until it is dropped.
#[derive(Debug)]
pub struct Session {
    /// To ask by.
    pub client: Client,
    /// Warnings of the server, as they come.
    pub notices: mpsc::Receiver<String>,
}

/// Opens a connection. `application` is what the server's `pg_stat_activity` shows of us; it begins with `strangler`.
pub async fn connect(url: &DatabaseUrl, application: &str) -> Result<Session, ConnectError> {
    open(url.expose(), &url.redacted(), application).await
}

/// As [`connect`], for the URL of an administrator, which stands in no plan.
pub(crate) async fn connect_as_admin(url: &str, application: &str) -> Result<Session, ConnectError> {
    open(url, "the administrator's URL", application).await
}

async fn open(url: &str, shown: &str, application: &str) -> Result<Session, ConnectError> {
    let bad = |why: String| ConnectError::Url { url: shown.to_owned(), why };
    let (url, is_verified) = without_verify(url);
    let mut config = Config::from_str(&url).map_err(|error| bad(misread(&url, &error)))?;
    config.application_name(application).connect_timeout(CONNECT_TIMEOUT);
    let opened = if is_verified || config.get_ssl_mode() == SslMode::Require {
        let tls =
            tokio_postgres_rustls::MakeRustlsConnect::new(tls().map_err(|error| bad(error.to_string()))?);
        tokio::time::timeout(CONNECT_TIMEOUT, spawn(&config, tls)).await
    } else {
        tokio::time::timeout(CONNECT_TIMEOUT, spawn(&config, NoTls)).await
    };
    let role = config.get_user().unwrap_or("…");
    // The server takes a role's name for the database's where none is given.
    let database = config.get_dbname().unwrap_or(role);
    let refused = |why: String, code: Option<&str>| {
        let hint = hint_of(code, role, database);
        ConnectError::Refused { url: shown.to_owned(), why, hint }
    };
    match opened {
        Ok(Ok(session)) => Ok(session),
        // The driver tells its kinds of errors apart by their first words only.
        Ok(Err(error)) if error.to_string().starts_with("error performing TLS handshake") => {
            Err(ConnectError::Tls { url: shown.to_owned(), why: in_words(&error) })
        }
        Ok(Err(error)) => Err(refused(in_words(&error), error.code().map(|code| code.code()))),
        Err(_) => Err(refused(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()), None)),
    }
}

async fn spawn<T>(config: &Config, tls: T) -> Result<Session, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = config.connect(tls).await?;
    let (sender, notices) = mpsc::channel(NOTICES_MAX);
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                // A full queue means that nobody reads; a warning less is no harm.
                Ok(AsyncMessage::Notice(notice)) => drop(sender.try_send(notice.message().to_owned())),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = %in_words(&error), "a database connection ended");
                    break;
                }
            }
        }
    });
    Ok(Session { client, notices })
}

/// `verify-ca` and `verify-full` are libpq's words, unknown to the driver; our TLS always verifies.
fn without_verify(url: &str) -> (String, bool) {
    let is_verified = url.contains("sslmode=verify-full") || url.contains("sslmode=verify-ca");
    let url =
        url.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
    (url, is_verified)
}

/// What the driver does not understand of a URL. It repeats a parameter's name, and what lies behind an `@` or a `&` of
/// the password looks like one, as does a URL that does not begin like one.
fn misread(url: &str, error: &tokio_postgres::Error) -> String {
    let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    let is_harmless = url.matches('@').count() < 2 && !url.contains("password");
    if is_url && is_harmless { in_words(error) } else { error.to_string() }
}

fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The server's own words where it spoke, else the driver's with their cause. Statements are never part of it.
pub(crate) fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return server.message().to_owned();
    }
    match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
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
            let hint = hint_of(Some(code), "us", "sh\"op");
            assert!(hint.contains(statement) && !hint.contains("start the server"), "{code}: {hint}");
        }
    }

    #[test]
    fn a_parameter_that_is_not_known_is_named_unless_it_may_be_a_secret() {
        let said = |url: &str| misread(url, &Config::from_str(url).unwrap_err());
        assert!(said("postgres://us:pass@db/shop?sslrootcert=/ca.pem").contains("`sslrootcert`"));
        for url in [
            "postgres://us:a@b/c?secret=d@db/shop",
            "postgres://us@db/shop?password=a&secret&sslmode=disable",
            "postgre://us:secret@db/shop?a=b",
        ] {
            assert!(!said(url).contains("secret"), "{}", said(url));
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_to_be_started() {
        assert!(hint_of(None, "us", "shop").starts_with("start the server"));
    }
}
