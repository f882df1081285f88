//! TLS as libpq means it (PostgreSQL manual, 34.19): which modes there are, what each verifies, and when plain text is
//! tried instead.
//!
//! Where libpq reads `~/.postgresql/root.crt`, the public authorities are built in.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::PathBuf;
use std::sync::Arc;
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub mode: Mode,
    /// `sslrootcert`; none: the public authorities.
    pub authorities: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Authority,
    AuthorityAndName,
}

impl Tls {
    /// What is tried, in order. The second way is tried only if the server or its certificate refused the first.
    pub(crate) fn ways(&self) -> &'static [SslMode] {
        match self.mode {
            Mode::Disable => &[SslMode::Disable],
            Mode::Allow => &[SslMode::Disable, SslMode::Require],
            Mode::Prefer => &[SslMode::Prefer, SslMode::Disable],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[SslMode::Require],
        }
    }

    /// A public authority certifies everyone, so with those the name is checked, too, whenever anything is.
    fn check(&self) -> Check {
        match (self.mode, &self.authorities) {
            (Mode::VerifyFull, _) | (Mode::VerifyCa, None) => Check::AuthorityAndName,
            (_, Some(_)) => Check::Authority,
            (_, None) => Check::Nothing,
        }
    }

    /// What the handshake needs. Reads the authorities' file each time, so that a renewed one is taken.
    pub(crate) async fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let mut verifier = Verifier {
            check: self.check(),
            roots: RootCertStore::empty(),
            named: Vec::new(),
            algorithms: provider.signature_verification_algorithms,
        };
        match &self.authorities {
            None => verifier.roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                let bad = |why: String| format!("sslrootcert {}: {why}", path.display());
                let pem = tokio::fs::read(path).await.map_err(|why| bad(why.to_string()))?;
                let named: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
                verifier.named = named.map_err(|why| bad(why.to_string()))?;
                if verifier.named.is_empty() {
                    return Err(bad("it holds no certificate in PEM".to_owned()));
                }
                verifier.roots.add_parsable_certificates(verifier.named.iter().cloned());
            }
        }
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?;
        let verified = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        Ok(verified.with_no_client_auth())
    }
}

/// Checks a server's certificate as far as the mode asks for. Signatures of the handshake are always checked.
#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// Those of `sslrootcert`. A server may show one of them itself: a certificate that nobody else signed.
    named: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if !self.named.contains(end_entity) {
            let all = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, all)?;
        }
        if self.check == Check::AuthorityAndName {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_checks_what_libpq_checks() {
        let check = |mode: &str, file: Option<&str>| {
            Tls { mode: mode.parse().unwrap(), authorities: file.map(PathBuf::from) }.check()
        };
        for mode in ["allow", "prefer", "require"] {
            assert_eq!(check(mode, None), Check::Nothing, "{mode}");
            assert_eq!(check(mode, Some("ca.pem")), Check::Authority, "{mode}");
        }
        assert_eq!(check("verify-ca", Some("ca.pem")), Check::Authority);
        assert_eq!(check("verify-ca", None), Check::AuthorityAndName);
        assert_eq!(check("verify-full", Some("ca.pem")), Check::AuthorityAndName);
        assert_eq!(check("verify-full", None), Check::AuthorityAndName);
    }
}
