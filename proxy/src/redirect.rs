//! The answer that sends a plain request to the same place by TLS. Pure.

use bytes::BytesMut;
use http1::{Framing, Malformed, OutgoingHead, RequestHead};
use migrations::path;

/// Keeps the method and the body (RFC 9110, 15.4.9).
pub(crate) const STATUS: u16 = 308;
const USUAL_PORT: u16 = 443;
/// Here an authority asks by plain HTTP whether a host is its owner's (RFC 8555, 8.3).
const CHALLENGES: &[u8] = b"/.well-known/acme-challenge/";

/// Whether this request may not be answered by plain HTTP.
pub(crate) fn is_due(request: &RequestHead) -> bool {
    let path = path::normal(request.path());
    let token = path.as_deref().unwrap_or(request.path()).strip_prefix(CHALLENGES);
    // A token is nothing but these signs. Another path could lead elsewhere.
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    !token.is_some_and(|token| token.iter().all(is_token))
}

pub(crate) fn answer(request: &RequestHead, port: u16, out: &mut BytesMut) -> Result<(), Malformed> {
    let Some((host, _)) = request.host() else {
        return Err(Malformed("it names no host, so it cannot be sent to https"));
    };
    let target = Some(request.target()).filter(|target| target.starts_with(b"/")).unwrap_or(b"/");
    let port = if port == USUAL_PORT { String::new() } else { format!(":{port}") };
    let mut head = OutgoingHead::status(STATUS, b"Permanent Redirect", out);
    head.field(b"Location", &[b"https://", host, port.as_bytes(), target].concat());
    head.framing(Framing::Length(0));
    // A browser would keep it for good, also when the plan redirects no longer.
    head.field(b"Cache-Control", b"no-store");
    head.field(b"Connection", b"close");
    head.end();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::request;

    fn location(line: &str, fields: &str, port: u16) -> Option<String> {
        let request = request(&format!("{line}\r\n{fields}\r\n"));
        let mut out = BytesMut::new();
        if !is_due(&request) {
            return None;
        }
        answer(&request, port, &mut out).unwrap();
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.starts_with("HTTP/1.1 308 "), "{text}");
        text.lines().find_map(|line| line.strip_prefix("Location: ")).map(str::to_owned)
    }

    #[test]
    fn a_redirect_keeps_host_path_and_query() {
        let to = |line: &str, host: &str, port| location(line, &format!("Host: {host}\r\n"), port).unwrap();
        assert_eq!(to("GET /a%20b?c=d HTTP/1.1", "Shop.example", 443), "https://Shop.example/a%20b?c=d");
        assert_eq!(to("POST / HTTP/1.1", "a:8080", 8443), "https://a:8443/");
        assert_eq!(to("GET / HTTP/1.0", "[::1]:8080", 443), "https://[::1]/");
        assert_eq!(to("GET http://a/x HTTP/1.1", "a", 443), "https://a/x");
        assert_eq!(to("OPTIONS * HTTP/1.1", "a", 443), "https://a/");
        let nameless = request("GET / HTTP/1.0\r\n\r\n");
        assert!(answer(&nameless, 443, &mut BytesMut::new()).is_err());
    }

    #[test]
    fn only_a_challenge_of_an_authority_is_not_redirected() {
        let to = |path: &str| location(&format!("GET {path} HTTP/1.1"), "Host: a\r\n", 443);
        assert_eq!(to("/.well-known/acme-challenge/Ab-9_x"), None);
        assert_eq!(to("/x/../.well-known/acme-challenge/Ab?c"), None);
        for other in ["../../login", "..%2f..%2flogin", "a/b", "a;b", "a%00", "../../%2e%2e/login"] {
            assert!(to(&format!("/.well-known/acme-challenge/{other}")).is_some(), "{other}");
        }
        assert!(to("/.well-known/acme-challenge").is_some());
    }
}
