//! TLS as libpq means it (PostgreSQL manual, 34.19): what a URL asks for, what each mode verifies, and when plain text is
//! tried instead. Every connection of ours goes through here: pooled, administrative and replication.
//!
//! OpenSSL verifies, as it does for libpq. So the same certificates are accepted: old ones without a version, names in the
//! common name, any curve and any form of a key.

mod files;
mod handshake;
mod name;
mod parameters;

pub(crate) use handshake::Connector;
pub(crate) use parameters::taken_from;

use openssl::error::ErrorStack;
use std::path::PathBuf;
use tokio_postgres::config::SslMode;

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl std::str::FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "disable" => Mode::Disable,
            "allow" => Mode::Allow,
            "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-ca" => Mode::VerifyCa,
            "verify-full" => Mode::VerifyFull,
            _ => return Err("`sslmode` is disable, allow, prefer, require, verify-ca or verify-full"),
        })
    }
}

/// Who is trusted to sign a server's certificate (`sslrootcert`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authorities {
    /// `~/.postgresql/root.crt` if it is there; otherwise those of the system, where a mode wants any.
    Default,
    System,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub mode: Mode,
    pub authorities: Authorities,
    /// `sslcert`; none: `~/.postgresql/postgresql.crt` if it is there.
    pub certificate: Option<PathBuf>,
    /// `sslkey`; none: `~/.postgresql/postgresql.key`.
    pub key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Nothing,
    Authority,
    AuthorityAndName,
}

impl Tls {
    pub(crate) fn none() -> Tls {
        Tls { mode: Mode::Disable, authorities: Authorities::Default, certificate: None, key: None }
    }

    /// What is tried, in order. The second way is tried only if the server or its certificate refused the first.
    pub(crate) fn ways(&self) -> &'static [SslMode] {
        match self.mode {
            Mode::Disable => &[SslMode::Disable],
            Mode::Allow => &[SslMode::Disable, SslMode::Require],
            Mode::Prefer => &[SslMode::Prefer, SslMode::Disable],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[SslMode::Require],
        }
    }

    /// Reads the files each time, so that a renewed certificate is taken.
    pub(crate) async fn connector(&self) -> Result<Connector, TlsError> {
        let tls = self.clone();
        let read = tokio::task::spawn_blocking(move || files::connector(&tls, std::env::home_dir())).await;
        read.map_err(|error| TlsError::new(error.to_string(), "try again"))?
    }
}

/// A public authority certifies everyone, so with those the name is checked, too, whenever anything is.
fn check(mode: Mode, names_authorities: bool) -> Check {
    match (mode, names_authorities) {
        (Mode::VerifyFull, _) | (Mode::VerifyCa, false) => Check::AuthorityAndName,
        (_, true) => Check::Authority,
        (_, false) => Check::Nothing,
    }
}

/// Why there is no connection by TLS, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct TlsError {
    pub why: String,
    pub remedy: String,
}

impl TlsError {
    pub(crate) fn new(why: impl Into<String>, remedy: impl Into<String>) -> TlsError {
        TlsError { why: why.into(), remedy: remedy.into() }
    }

    pub(crate) fn not_offered() -> TlsError {
        let remedy = "switch TLS on at the server (`ssl = on`); or write `sslmode=disable` if nobody can listen in between";
        TlsError::new("the server does not offer TLS", remedy)
    }
}

impl From<ErrorStack> for TlsError {
    fn from(error: ErrorStack) -> Self {
        TlsError::new(in_words(&error), "check OpenSSL's settings on this machine (`openssl version -d`)")
    }
}

/// OpenSSL's reasons, without its places.
fn in_words(stack: &ErrorStack) -> String {
    let reasons: Vec<&str> = stack.errors().iter().filter_map(openssl::error::Error::reason).collect();
    if reasons.is_empty() { stack.to_string() } else { reasons.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_checks_what_libpq_checks() {
        for mode in [Mode::Allow, Mode::Prefer, Mode::Require] {
            assert_eq!(check(mode, false), Check::Nothing, "{mode:?}");
            assert_eq!(check(mode, true), Check::Authority, "{mode:?}");
        }
        assert_eq!(check(Mode::VerifyCa, true), Check::Authority);
        assert_eq!(check(Mode::VerifyCa, false), Check::AuthorityAndName);
        assert_eq!(check(Mode::VerifyFull, true), Check::AuthorityAndName);
        assert_eq!(check(Mode::VerifyFull, false), Check::AuthorityAndName);
    }
}
