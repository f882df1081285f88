//! The files of a TLS connection: authorities, our certificate, our key.

use super::{Authorities, Connector, Mode, Tls, TlsError, check, in_words};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslVersion};
use openssl::x509::X509;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where libpq looks if a URL names no file.
const HOME: &str = ".postgresql";
/// Of a length and a name, as ALPN sends it (PostgreSQL manual, 55.2.11).
const PROTOCOL: &[u8] = b"\x0apostgresql";

/// Reads what a handshake needs. `home` is the user's folder.
pub(super) fn connector(tls: &Tls, home: Option<PathBuf>) -> Result<Connector, TlsError> {
    if tls.mode == Mode::Disable {
        return Ok(Connector::new(context()?.build(), check(tls.mode, false), String::new(), None));
    }
    let home = home.map(|home| home.join(HOME));
    let in_home = |name: &str| home.as_ref().map(|home| home.join(name)).filter(|path| path.exists());
    let mut context = context()?;
    let file = match &tls.authorities {
        Authorities::File(path) => Some(path.clone()),
        Authorities::System => None,
        Authorities::Default => in_home("root.crt"),
    };
    let check = check(tls.mode, file.is_some());
    let trusted = match &file {
        Some(path) => trust(&mut context, path)?,
        None if check == super::Check::Nothing => String::new(),
        None => {
            context.set_default_verify_paths()?;
            "the authorities of this system".to_owned()
        }
    };
    let certificate = tls.certificate.clone().or_else(|| in_home("postgresql.crt"));
    match (&certificate, tls.key.clone().or_else(|| in_home("postgresql.key"))) {
        (Some(certificate), Some(key)) => identify(&mut context, certificate, &key)?,
        (Some(certificate), None) => {
            let why = format!("sslcert {} has no key", certificate.display());
            return Err(TlsError::new(why, "name the file of its private key with `sslkey=FILE`"));
        }
        (None, Some(key)) if tls.key.is_some() => {
            let why = format!("sslkey {} has no certificate", key.display());
            return Err(TlsError::new(why, "name the file of its certificate with `sslcert=FILE`"));
        }
        (None, _) => {}
    }
    Ok(Connector::new(context.build(), check, trusted, certificate))
}

/// As libpq begins: TLS 1.2 or newer.
fn context() -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_options(SslOptions::NO_COMPRESSION | SslOptions::NO_RENEGOTIATION);
    // Without these, a write that could not be done at once would have to come again with the very same buffer.
    context.set_mode(
        SslMode::AUTO_RETRY
            | SslMode::ACCEPT_MOVING_WRITE_BUFFER
            | SslMode::ENABLE_PARTIAL_WRITE
            | SslMode::RELEASE_BUFFERS,
    );
    context.set_alpn_protos(PROTOCOL)?;
    Ok(context)
}

fn trust(context: &mut SslContextBuilder, path: &Path) -> Result<String, TlsError> {
    let named = certificates("sslrootcert", path)?;
    for certificate in named {
        context.cert_store_mut().add_cert(certificate)?;
    }
    Ok(format!("the authorities in {}", path.display()))
}

/// Shows the server who we are, with the certificates that lead to an authority which it trusts.
fn identify(context: &mut SslContextBuilder, certificate: &Path, key: &Path) -> Result<(), TlsError> {
    let mut chain = certificates("sslcert", certificate)?.into_iter();
    let private = private_key(key)?;
    if let Some(ours) = chain.next() {
        context.set_certificate(&ours)?;
    }
    for further in chain {
        context.add_extra_chain_cert(further)?;
    }
    let fits = context.set_private_key(&private).and_then(|()| context.check_private_key());
    fits.map_err(|error| {
        let why = format!(
            "sslkey {} does not belong to sslcert {}: {}",
            key.display(),
            certificate.display(),
            in_words(&error)
        );
        TlsError::new(why, "name the certificate and the key that were made together")
    })
}

fn certificates(parameter: &str, path: &Path) -> Result<Vec<X509>, TlsError> {
    let pem = read(parameter, path)?;
    let found = X509::stack_from_pem(&pem).map_err(|error| {
        let why = format!("{parameter} {} cannot be read: {}", path.display(), in_words(&error));
        TlsError::new(why, "give a file with certificates in PEM (`-----BEGIN CERTIFICATE-----`)")
    })?;
    if found.is_empty() {
        let why = format!("{parameter} {} holds no certificate in PEM", path.display());
        return Err(TlsError::new(why, "give a file with `-----BEGIN CERTIFICATE-----` in it"));
    }
    Ok(found)
}

/// A key in PKCS#8, PKCS#1 or SEC1, as PEM or DER.
fn private_key(path: &Path) -> Result<PKey<Private>, TlsError> {
    let metadata = std::fs::metadata(path).map_err(|error| unread("sslkey", path, &error))?;
    guarded(path, &metadata)?;
    let bytes = read("sslkey", path)?;
    let mut is_encrypted = false;
    let from_pem = PKey::private_key_from_pem_callback(&bytes, |_| {
        is_encrypted = true;
        Ok(0)
    });
    if is_encrypted {
        let why =
            format!("sslkey {} is protected by a passphrase, which nobody can type here", path.display());
        let out = path.with_extension("plain.key");
        let (path, out) = (path.display(), out.display());
        let remedy = format!(
            "take the passphrase off and name the new file: (umask 077; openssl pkey -in {path} -out {out})"
        );
        return Err(TlsError::new(why, remedy));
    }
    from_pem.or_else(|error| PKey::private_key_from_der(&bytes).map_err(|_| error)).map_err(|error| {
        let why = format!("sslkey {} cannot be read: {}", path.display(), in_words(&error));
        TlsError::new(why, "give a file with a private key in PEM (`-----BEGIN PRIVATE KEY-----`)")
    })
}

/// Whether others may read a key, as libpq judges it: the owner alone, or with root's files its group, too.
fn guarded(path: &Path, metadata: &Metadata) -> Result<(), TlsError> {
    let open = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if !metadata.is_file() {
        let why = format!("sslkey {} is no file", path.display());
        return Err(TlsError::new(why, "name the file of the private key with `sslkey=FILE`"));
    }
    if metadata.mode() & open != 0 {
        let why = format!("sslkey {} may be read by other users", path.display());
        return Err(TlsError::new(why, format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

fn read(parameter: &str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| unread(parameter, path, &error))
}

fn unread(parameter: &str, path: &Path, error: &std::io::Error) -> TlsError {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let why = format!("{parameter} {}: {error}", place.display());
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => format!("let the user that runs strangler read {}", place.display()),
        _ if path.is_relative() => {
            "write the whole path: a relative one begins at the folder that a part was started in".to_owned()
        }
        _ => format!(
            "put the file there on every machine that runs a part, or correct `{parameter}` in the URL"
        ),
    };
    TlsError::new(why, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;
    use std::os::unix::fs::PermissionsExt;

    fn write(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_key_is_read_in_each_form_and_only_if_it_is_guarded() {
        let folder = tempfile::tempdir().unwrap();
        let rsa = Rsa::generate(2048).unwrap();
        let ec = EcKey::generate(&EcGroup::from_curve_name(Nid::SECP521R1).unwrap()).unwrap();
        let (rsa_key, ec_key) =
            (PKey::from_rsa(rsa.clone()).unwrap(), PKey::from_ec_key(ec.clone()).unwrap());
        for (form, bytes) in [
            ("pkcs8", rsa_key.private_key_to_pem_pkcs8().unwrap()),
            ("pkcs1", rsa.private_key_to_pem().unwrap()),
            ("sec1", ec.private_key_to_pem().unwrap()),
            ("pkcs8-ec", ec_key.private_key_to_pem_pkcs8().unwrap()),
            ("der", ec_key.private_key_to_der().unwrap()),
            ("ed25519", PKey::generate_ed25519().unwrap().private_key_to_pem_pkcs8().unwrap()),
        ] {
            let path = write(folder.path(), form, &bytes, 0o600);
            assert!(private_key(&path).is_ok(), "{form}");
            write(folder.path(), form, &bytes, 0o644);
            let open = private_key(&path).unwrap_err();
            assert_eq!(open.remedy, format!("chmod 600 {}", path.display()), "{form}");
        }
        let aes = || Cipher::aes_256_cbc();
        for (form, bytes) in [
            ("pkcs8", rsa_key.private_key_to_pem_pkcs8_passphrase(aes(), b"word").unwrap()),
            ("pkcs1", rsa.private_key_to_pem_passphrase(aes(), b"word").unwrap()),
            ("sec1", ec.private_key_to_pem_passphrase(aes(), b"word").unwrap()),
        ] {
            let error = private_key(&write(folder.path(), "locked", &bytes, 0o600)).unwrap_err();
            assert!(error.why.contains("locked is protected by a passphrase"), "{form}: {}", error.why);
            assert!(error.remedy.contains("openssl pkey -in"), "{form}: {}", error.remedy);
        }
        let garbage = write(folder.path(), "garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA", 0o600);
        assert!(private_key(&garbage).unwrap_err().why.contains("garbage cannot be read"));
        assert!(private_key(folder.path()).unwrap_err().why.contains("is no file"));
        let gone = private_key(Path::new("no/such.key")).unwrap_err();
        assert!(gone.why.starts_with("sslkey /") && gone.remedy.contains("whole path"), "{gone:?}");
    }

    #[test]
    fn the_files_of_the_home_folder_are_taken_as_libpq_takes_them() {
        let home = tempfile::tempdir().unwrap();
        let of = |mode| connector(&Tls { mode, ..Tls::none() }, Some(home.path().to_owned()));
        assert!(of(Mode::Require).is_ok());
        let folder = home.path().join(HOME);
        std::fs::create_dir(&folder).unwrap();
        write(&folder, "root.crt", b"no certificate", 0o644);
        assert!(of(Mode::Require).unwrap_err().why.contains(".postgresql/root.crt holds no certificate"));
        assert!(of(Mode::Disable).is_ok());
        std::fs::remove_file(folder.join("root.crt")).unwrap();
        write(&folder, "postgresql.crt", b"", 0o644);
        assert!(of(Mode::Prefer).unwrap_err().why.contains("postgresql.crt has no key"));
    }
}
