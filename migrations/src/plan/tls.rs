//! TLS at the proxy's own listener, as the plan says it. Nothing here reads the files.

use crate::fingerprint::Fingerprint;
use std::path::PathBuf;

/// Where clients come by TLS, and what they are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsSettings {
    /// `address:port`.
    pub listen: String,
    /// At least one. The first one is for clients that name no host, or one that no certificate has.
    pub certificates: Vec<CertificateFiles>,
    /// The port to which plain requests are sent. None: they are answered.
    pub redirect_port: Option<u16>,
}

/// A certificate and its key, each in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The server's certificate first, then those that lead from it to an authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsSettings {
    pub(super) fn put(&self, print: &mut Fingerprint) {
        print.put("tls", &self.listen);
        for files in &self.certificates {
            print.put("certificate", files.certificate.display());
            print.put("key", files.key.display());
        }
        print.put("redirect", self.redirect_port.unwrap_or_default());
    }
}
