//! Clients that come by TLS, and the certificates that they are shown.

use super::bare::connect;
use super::free_address;
use super::wire::{Got, read_answer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

/// A folder with certificates, of an authority `ca`.
pub struct Certificates {
    folder: tempfile::TempDir,
    /// Where the proxy listens for TLS.
    pub address: SocketAddr,
}

impl Certificates {
    /// Each is `NAME HOSTS`, where the hosts are separated by commas. `rsa` in the name makes a key of RSA.
    pub fn of(certificates: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        lab::certificates(folder.path(), "authority ca").unwrap();
        let made = Self { folder, address: free_address() };
        certificates.iter().for_each(|certificate| made.make(certificate, 2));
        made
    }

    /// Makes one, or another one in its place, that is valid for so many days.
    pub fn make(&self, certificate: &str, days: i32) {
        let (name, hosts) = certificate.split_once(' ').unwrap();
        let hosts: Vec<String> = hosts.split(',').map(|host| format!("DNS:{host}")).collect();
        let key = if name.contains("rsa") { "-newkey rsa:2048" } else { "$ec" };
        let hosts = format!("subjectAltName={}", hosts.join(","));
        // They are replaced at once, as tools do that renew certificates.
        let commands = format!(
            "sign new x ca \"{key}\" {hosts} {days}; chmod 600 new.key; mv new.key {name}.key; mv new.pem {name}.pem"
        );
        lab::certificates(self.folder.path(), &commands).unwrap();
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// `proxy.tls` of a plan, with these certificates and other lines.
    pub fn lines(&self, names: &[&str], more: &str) -> String {
        let pair = |name: &&str| {
            let file = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
            format!("      - {{ certificate: {}, key: {} }}\n", file("pem"), file("key"))
        };
        let pairs: String = names.iter().map(pair).collect();
        format!("  tls:\n    listen: {}\n    certificates:\n{pairs}{more}", self.address)
    }

    /// The certificate in a file, as clients are shown it.
    pub fn shown(&self, name: &str) -> Vec<u8> {
        CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap().to_vec()
    }
}

pub type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Takes every certificate: the tests look at it themselves.
#[derive(Debug)]
struct Trusting(Vec<SignatureScheme>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// A client that can verify these signatures; all, if there is none.
pub fn client(schemes: &[SignatureScheme]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let all = provider.signature_verification_algorithms.supported_schemes();
    let schemes = if schemes.is_empty() { all } else { schemes.to_vec() };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.dangerous().with_custom_certificate_verifier(Arc::new(Trusting(schemes))).with_no_client_auth()
}

/// Shakes hands.
pub fn come_as(config: ClientConfig, to: SocketAddr, host: &str) -> io::Result<Secure> {
    let mut stream = connect(to);
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

pub fn come(to: SocketAddr, host: &str) -> io::Result<Secure> {
    come_as(client(&[]), to, host)
}

/// The certificate that a host's client is shown.
pub fn shown_to(to: SocketAddr, host: &str) -> Vec<u8> {
    let stream = come(to, host).unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

/// One request on its own connection, with a `Host` and these lines.
pub fn ask_securely(to: SocketAddr, line: &str, lines: &str) -> io::Result<Got> {
    let mut stream = come(to, "shop.example")?;
    let head = format!("{line} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    // Without a word that this is the end, it is an error.
    stream.read_to_end(&mut answer)?;
    read_answer(&mut BufReader::new(&answer[..]), line.split(' ').next().unwrap_or_default())
        .ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))
}
