//! `proxy.tls`: where clients come by TLS, and the files of the certificates.
//!
//! Whether the files are there and fit is for `doctor` and for the proxy.

use super::address::{self, Listener, loopback};
use super::reading::{self, Fields};
use crate::code::Code;
use crate::plan::tree::Node;
use crate::plan::written::Notes;
use crate::plan::{CertificateFiles, TlsSettings};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Each is looked at every few seconds.
const CERTIFICATES_MAX: usize = 100;
const EXAMPLE: &str =
    "write `certificates: [{ certificate: /etc/strangler/shop.pem, key: /etc/strangler/shop.key }]`";

pub(super) fn tls(node: &Node, listeners: &mut Vec<Listener>, notes: &mut Notes<'_>) -> Option<TlsSettings> {
    let fields = Fields::open(node, "proxy.tls", &["listen", "certificates", "redirect"], notes)?;
    let (place, owner) = (fields.get("listen"), fields.owner);
    let listen = address::listen(place, "proxy.tls.listen", loopback(8443), owner, listeners, notes);
    let listed = fields.need("certificates", EXAMPLE, notes);
    let nodes = reading::items(listed, "proxy.tls.certificates", notes);
    if let Some(node) = listed.filter(|_| !(1..=CERTIFICATES_MAX).contains(&nodes.len())) {
        let message = format!("there are {} certificates; 1 to {CERTIFICATES_MAX} can be used", nodes.len());
        notes.error(node.owner, Code::PlanBadValue, message, EXAMPLE);
    }
    let certificates = nodes.into_iter().filter_map(|node| certificate(node, notes)).collect();
    let port = listen.parse::<SocketAddr>().ok()?.port();
    let redirect_port = fields.get("redirect").and_then(|node| redirect(node, port, notes));
    Some(TlsSettings { listen, certificates, redirect_port })
}

fn certificate(node: &Node, notes: &mut Notes<'_>) -> Option<CertificateFiles> {
    let fields = Fields::open(node, "a certificate", &["certificate", "key"], notes)?;
    let mut file = |key| {
        let node = fields.need(key, "name the file in PEM", notes)?;
        path(node, key, notes)
    };
    let (certificate, key) = (file("certificate"), file("key"));
    Some(CertificateFiles { certificate: certificate?, key: key? })
}

fn path(node: &Node, key: &str, notes: &mut Notes<'_>) -> Option<PathBuf> {
    let scalar = reading::scalar(node, "a file", notes)?;
    if scalar.written.contains("-----BEGIN") {
        scalar.written.lines().for_each(|line| notes.keep_secret(line.trim()));
        let hint = "write it into a file that only strangler's user can read, and name the file";
        notes.error(
            node.owner,
            Code::PlanBadValue,
            format!("`{key}` names a file; its text does not belong here"),
            hint,
        );
        return None;
    }
    let meant = scalar.meant.as_deref()?;
    if meant.is_empty() || meant.contains(char::is_control) {
        notes.error(node.owner, Code::PlanBadValue, format!("`{key}` names no file"), "name the file in PEM");
        return None;
    }
    Some(PathBuf::from(meant))
}

/// `true` means the port of the listener.
fn redirect(node: &Node, port: u16, notes: &mut Notes<'_>) -> Option<u16> {
    let scalar = reading::scalar(node, "a choice of `redirect`", notes)?;
    match (scalar.meant.as_deref()?, scalar.meant.as_deref()?.parse::<u16>()) {
        ("true", _) => Some(port),
        ("false", _) => None,
        (_, Ok(port @ 1..)) => Some(port),
        _ => {
            let message = format!("`{}` is not a choice of `redirect`", reading::shown(&scalar.written));
            let hint =
                "write `true`, `false`, or the port at which clients reach the TLS listener, e.g. `443`";
            notes.error(node.spot, Code::PlanBadValue, message, hint);
            None
        }
    }
}
