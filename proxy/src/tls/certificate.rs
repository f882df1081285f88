//! A certificate with its key, made of the text of two files: which hosts it is for, and until when. Pure.

use migrations::plan::CertificateFiles;
use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::path::Path;
use std::sync::Arc;
use time::{Date, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate is renewed long before this.
const END_IS_NEAR_SECONDS: i64 = 14 * 24 * 3600;
/// Of one with a short life, the end is near in the last quarter.
const END_IS_NEAR_SHARE: i64 = 4;

#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// In lower case; `*.` stands for one label.
    pub(super) names: Vec<String>,
    /// Seconds since 1970.
    begins: i64,
    ends: i64,
}

/// Where a moment lies in a certificate's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    NotBegun,
    Valid,
    NearEnd,
    Over,
}

/// Why a certificate and its key cannot be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct BadCertificate {
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl BadCertificate {
    pub(super) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

impl Certificate {
    pub(super) fn of(
        files: &CertificateFiles,
        chain: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<Self, BadCertificate> {
        let shown = files.certificate.display();
        let chain = certificates(&files.certificate, chain)?;
        let key = private_key(&files.key, key)?;
        let unreadable = |why: &str| {
            let why = format!("{shown} holds a certificate that cannot be read: {why}");
            BadCertificate::new(why, "let the authority make a certificate of X.509 version 3")
        };
        let first = chain.first().ok_or_else(|| unreadable("there is none"))?.clone();
        let (_, parsed) =
            X509Certificate::from_der(&first).map_err(|error| unreadable(&error.to_string()))?;
        let alternatives =
            parsed.subject_alternative_name().map_err(|error| unreadable(&error.to_string()))?;
        let names = alternatives.iter().flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let names = names.collect();
        let validity = parsed.validity();
        let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => BadCertificate::new(
                format!("the key {} does not belong to the certificate {shown}", files.key.display()),
                "name the certificate and the key that were made together; the server's own certificate must stand first in its file",
            ),
            rustls::Error::InvalidCertificate(error) => unreadable(&format!("{error:?}")),
            _ => BadCertificate::new(
                format!("the key {} cannot be used", files.key.display()),
                "make a key of RSA (2048 to 4096 bits), ECDSA (P-256 or P-384) or Ed25519, and a certificate for it",
            ),
        })?;
        Ok(Self { key: Arc::new(key), names, begins, ends })
    }

    pub(super) fn life(&self, now: i64) -> Life {
        life(self.begins, self.ends, now)
    }

    pub(super) fn ends(&self) -> i64 {
        self.ends
    }

    pub(super) fn first_day(&self) -> Date {
        day(self.begins)
    }

    pub(super) fn last_day(&self) -> Date {
        day(self.ends)
    }
}

fn life(begins: i64, ends: i64, now: i64) -> Life {
    let left = ends.saturating_sub(now);
    let near = END_IS_NEAR_SECONDS.min(ends.saturating_sub(begins) / END_IS_NEAR_SHARE);
    match () {
        () if now < begins => Life::NotBegun,
        () if left <= 0 => Life::Over,
        () if left < near => Life::NearEnd,
        () => Life::Valid,
    }
}

fn day(seconds: i64) -> Date {
    OffsetDateTime::from_unix_timestamp(seconds).map_or(Date::MAX, OffsetDateTime::date)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadCertificate> {
    let path = path.display();
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let bad = |why: String| {
        BadCertificate::new(why, "give a file with certificates in PEM (`-----BEGIN CERTIFICATE-----`)")
    };
    match found {
        Ok(found) if found.is_empty() => Err(bad(format!("{path} holds no certificate in PEM"))),
        Ok(found) => Ok(found),
        Err(_) => Err(bad(format!("{path} holds PEM that is broken"))),
    }
}

/// No error says what is in the file.
fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, BadCertificate> {
    let (shown, plain) = (path.display(), path.with_extension("plain.key"));
    let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        let why = format!("the key {shown} is protected by a passphrase, which nobody can type here");
        let plain = plain.display();
        let remedy = format!(
            "take the passphrase off and name the new file: (umask 077; openssl pkey -in {shown} -out {plain})"
        );
        return Err(BadCertificate::new(why, remedy));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        let why = format!("{shown} holds no private key in PEM that can be read");
        BadCertificate::new(why, "give a file with a private key in PEM (`-----BEGIN PRIVATE KEY-----`)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_life_is_near_in_its_last_two_weeks_or_its_last_quarter() {
        const DAY: i64 = 86_400;
        let at = |days: i64, now: i64| life(10 * DAY, (10 + days) * DAY, (10 + now) * DAY);
        assert_eq!(
            [at(90, -1), at(90, 0), at(90, 75), at(90, 77), at(90, 90)],
            [Life::NotBegun, Life::Valid, Life::Valid, Life::NearEnd, Life::Over]
        );
        assert_eq!([at(6, 4), at(6, 5)], [Life::Valid, Life::NearEnd]);
        assert_eq!(life(i64::MIN, i64::MAX, 0), Life::Valid);
    }
}
