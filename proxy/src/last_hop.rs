//! The answer to an OPTIONS or TRACE request that may not be forwarded any more (RFC 9110, 7.6.2): the proxy is its last
//! server.
//!
//! Who asks so wants to know which servers a request passes.

use bytes::BytesMut;
use http1::{Framing, Name, OutgoingHead, RequestHead};
use migrations::pattern::METHODS;

/// What a TRACE does not show, beside cookies and our secret: scripts must not get to read it (RFC 9110, 9.3.8).
const HIDDEN: [&str; 2] = ["authorization", "proxy-authorization"];

/// Whether a request ends here.
pub(crate) fn is_reached(request: &RequestHead) -> bool {
    request.forwards_left() == Some(0)
}

/// Writes the answer. Returns the length of its body. The connection is closed afterwards.
pub(crate) fn answer(request: &RequestHead, out: &mut BytesMut) -> u64 {
    let body = if request.method() == "TRACE" { reflected(request) } else { BytesMut::new() };
    let mut head = OutgoingHead::status(200, b"OK", out);
    if request.method() == "TRACE" {
        head.field(b"Content-Type", b"message/http");
    } else {
        let methods = METHODS.iter().filter(|method| **method != "CONNECT");
        head.list(b"Allow", methods.map(|method| method.as_bytes()));
    }
    head.framing(Framing::Length(body.len() as u64));
    head.field(b"Cache-Control", b"no-store");
    head.field(b"Connection", b"close");
    head.end();
    out.extend_from_slice(&body);
    body.len() as u64
}

fn reflected(request: &RequestHead) -> BytesMut {
    let mut body = BytesMut::new();
    let mut head = OutgoingHead::request(request, &mut body);
    for field in request.fields.iter() {
        let is_hidden = matches!(field.name, Name::Cookie | Name::Secret)
            || HIDDEN.iter().any(|name| field.spelled.eq_ignore_ascii_case(name.as_bytes()));
        if !is_hidden {
            head.field(field.spelled, field.value);
        }
    }
    head.end();
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::tests::request;

    fn answered(text: &str) -> Option<String> {
        let request = request(text);
        let mut out = BytesMut::new();
        is_reached(&request).then(|| {
            answer(&request, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        })
    }

    #[test]
    fn a_trace_shows_what_arrived_without_secrets() {
        let sent = "TRACE /a?b HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nCookie: c=d\r\nAuthorization: e\r\nVia: 1.1 f\r\n\r\n";
        let told = answered(sent).unwrap();
        assert!(told.contains("\r\nContent-Type: message/http\r\nContent-Length: 61\r\n"), "{told}");
        assert!(
            told.ends_with("\r\n\r\nTRACE /a?b HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nVia: 1.1 f\r\n\r\n"),
            "{told}"
        );
    }

    #[test]
    fn options_are_the_methods_and_others_go_on() {
        let told = answered("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").unwrap();
        assert!(told.contains("\r\nAllow: GET, ") && told.contains("\r\nContent-Length: 0\r\n"), "{told}");
        assert_eq!(answered("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n"), None);
        assert_eq!(answered("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"), None);
    }
}
