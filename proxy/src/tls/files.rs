//! The two files of a certificate: read, looked at again, and judged.

use super::certificate::{BadCertificate, Certificate, Life};
use migrations::code::Code;
use migrations::finding::Finding;
use migrations::plan::CertificateFiles;
use rustls::crypto::CryptoProvider;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A chain has some KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Every user of the machine may read it.
const READ_BY_ALL: u32 = 0o004;

/// What shows that files have changed: of each its place on the disk, times and length.
type Stamp = [Option<(u64, u64, i64, i64, i64, i64, u64)>; 2];

/// The files of a certificate, and what was read of them last.
#[derive(Debug)]
pub(super) struct Pair {
    files: CertificateFiles,
    pub(super) certificate: Certificate,
    /// Why what is there now is not shown.
    trouble: Option<BadCertificate>,
    /// As it was at the last look.
    seen: Stamp,
    /// As it was at the last reading.
    read: Stamp,
}

impl Pair {
    pub(super) fn open(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, BadCertificate> {
        let stamp = stamp(files);
        let certificate = read(files, provider)?;
        // Plain HTTP and other hosts work, so the proxy starts.
        if let Some(Finding { message, remedy, .. }) = finding(files, &certificate) {
            tracing::warn!(remedy, "{message}");
        }
        Ok(Self { files: files.clone(), certificate, trouble: None, seen: stamp, read: stamp })
    }

    /// Reads files that have changed and stand still, or whatever is there if that `is_asked` for. Whether there is news.
    pub(super) fn look(&mut self, is_asked: bool, provider: &CryptoProvider) -> bool {
        let stamp = stamp(&self.files);
        let stands_still = std::mem::replace(&mut self.seen, stamp) == stamp;
        if !is_asked && (stamp == self.read || !stands_still) {
            return false;
        }
        self.read = stamp;
        let trouble = match self.renewed(provider) {
            Ok(renewed) => {
                self.certificate = renewed;
                tracing::info!(certificate = %self.files.certificate.display(), ends = %self.certificate.last_day(), "the certificate was read again");
                None
            }
            Err(bad) => Some(bad),
        };
        if let Some(bad) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            tracing::error!(error = %bad, remedy = bad.remedy, "the certificate that was read before is shown on");
        }
        self.trouble = trouble;
        true
    }

    fn renewed(&self, provider: &CryptoProvider) -> Result<Certificate, BadCertificate> {
        let renewed = read(&self.files, provider)?;
        let is_over = |certificate: &Certificate| certificate.life(now()) == Life::Over;
        if is_over(&renewed) && !is_over(&self.certificate) {
            let why = format!("{} ended on {}", self.files.certificate.display(), renewed.last_day());
            return Err(BadCertificate::new(why, "put the renewed certificate there"));
        }
        Ok(renewed)
    }

    pub(super) fn ends(&self) -> i64 {
        self.certificate.ends()
    }

    pub(super) fn finding(&self) -> Option<Finding> {
        let Some(bad) = &self.trouble else { return finding(&self.files, &self.certificate) };
        let (BadCertificate { why, remedy }, ends) = (bad, self.certificate.last_day());
        let message = format!("{why}; the certificate that was read before is shown on, and ends on {ends}");
        Some(Finding::warning(Code::ProxyCertificate, message, remedy))
    }
}

/// What is wrong or doubtful about the files as they are now.
pub(super) fn findings(files: &CertificateFiles, provider: &CryptoProvider) -> Vec<Finding> {
    let of_certificate = match read(files, provider) {
        Ok(certificate) => finding(files, &certificate),
        Err(BadCertificate { why, remedy }) => Some(Finding::error(Code::ProxyCertificate, why, remedy)),
    };
    let is_open = |metadata: &Metadata| metadata.is_file() && metadata.mode() & READ_BY_ALL != 0;
    let of_key = std::fs::metadata(&files.key).is_ok_and(|metadata| is_open(&metadata)).then(|| {
        let key = files.key.display();
        let message = format!("every user of this machine may read the key {key}");
        Finding::warning(Code::ProxyOpenKey, message, format!("chmod o= {key}"))
    });
    of_certificate.into_iter().chain(of_key).collect()
}

fn finding(files: &CertificateFiles, certificate: &Certificate) -> Option<Finding> {
    let file = files.certificate.display();
    let (first, last) = (certificate.first_day(), certificate.last_day());
    let renew = format!("renew it, and put it into {file}; the proxy takes it within seconds");
    let refused = |message: String| Finding::error(Code::ProxyCertificate, message, &*renew);
    match certificate.life(now()) {
        Life::Valid => None,
        Life::NotBegun => {
            Some(refused(format!("clients refuse the certificate {file}: it begins on {first}")))
        }
        Life::Over => Some(refused(format!("clients refuse the certificate {file}: it ended on {last}"))),
        Life::NearEnd => {
            let message = format!("the certificate {file} ends on {last}");
            Some(Finding::warning(Code::ProxyCertificate, message, renew))
        }
    }
}

fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Certificate, BadCertificate> {
    Certificate::of(files, &text(&files.certificate)?, &text(&files.key)?, provider)
}

fn text(path: &Path) -> Result<Vec<u8>, BadCertificate> {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let place = place.display();
    let mut text = Vec::new();
    let read = std::fs::metadata(path).and_then(|metadata| match metadata.is_file() {
        true => File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text),
        // Reading a pipe would wait.
        false => Err(std::io::Error::new(ErrorKind::InvalidInput, "it is no file")),
    });
    let remedy = match read.as_ref().map_err(std::io::Error::kind) {
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
            return Err(BadCertificate::new(format!("{place} is larger than 1 MiB"), "name a file in PEM"));
        }
        Ok(_) => return Ok(text),
        Err(ErrorKind::PermissionDenied) => format!("let the user that runs the proxy read {place}"),
        Err(_) if path.is_relative() => {
            "write the whole path: a relative one begins at the folder that a part was started in".to_owned()
        }
        Err(_) => "put the file there on every machine that runs a proxy, or correct `proxy.tls` in the plan"
            .to_owned(),
    };
    let why = read.err().map(|error| error.to_string()).unwrap_or_default();
    Err(BadCertificate::new(format!("{place}: {why}"), remedy))
}

fn stamp(files: &CertificateFiles) -> Stamp {
    let of = |path: &Path| {
        let seen = std::fs::metadata(path).ok()?;
        let changed = (seen.mtime(), seen.mtime_nsec(), seen.ctime(), seen.ctime_nsec());
        Some((seen.dev(), seen.ino(), changed.0, changed.1, changed.2, changed.3, seen.len()))
    };
    [of(&files.certificate), of(&files.key)]
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
