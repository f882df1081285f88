//! Heads as they go on: which fields pass, which are taken out, and which are the proxy's own.
//!
//! A head is written straight from the one that came, field by field in its order. Fields for one hop only (RFC 9110,
//! 7.6.1) and those that say where a body ends are never copied: they are written as this hop has them.

pub mod address;
pub mod location;
pub mod trace;

use crate::wire::fields::{Field, Fields, Name};
use crate::wire::framing::{self, Framing};
use crate::wire::head::{AnswerHead, RequestHead};
use crate::wire::options;
use address::AddressText;
use bytes::BytesMut;
use migrations::plan::Upstream;
use std::net::IpAddr;
use trace::Trace;

/// Whose address counts as the client's: its own, or, behind a trusted load balancer, the first one that the
/// balancer names.
pub fn client_address(fields: &Fields, peer: IpAddr, trust_forwarded: bool) -> IpAddr {
    if !trust_forwarded {
        return peer;
    }
    let first = fields.first(Name::ForwardedFor).and_then(|value| text(value).split(',').next());
    first.and_then(|text| text.trim().parse().ok()).unwrap_or(peer)
}

/// The scheme by which the client reached us. The proxy itself listens without TLS.
pub fn client_scheme(fields: &Fields, trust_forwarded: bool) -> &'static str {
    let told = fields.first(Name::ForwardedProto).filter(|_| trust_forwarded);
    if told.is_some_and(|value| value.eq_ignore_ascii_case(b"https")) { "https" } else { "http" }
}

/// The request's trace: the client's, or the one that was started for it, or a new one.
pub fn traced(fields: &Fields, started: Option<Trace>) -> Trace {
    let came = fields.first(Name::Traceparent).and_then(Trace::read);
    // A retry of the same request stays in the trace that was started for it.
    came.or(started).unwrap_or_else(|| Trace::start(rand::random()))
}

/// What the proxy adds to a request.
pub struct Forwarded<'a> {
    /// Whose connection it came by.
    pub peer: Option<IpAddr>,
    /// Whether what it says of the way before is believed.
    pub trust: bool,
    /// How its body goes on.
    pub framing: Framing,
    /// The trace it belongs to.
    pub trace: &'a Trace,
    /// Where it goes: the `Host` of a request that names none.
    pub upstream: Option<&'a Upstream>,
}

impl Forwarded<'_> {
    /// Writes the head of a request that goes upstream: it tells where it came from, and drops what is not for upstreams.
    pub fn write(&self, request: &RequestHead, out: &mut BytesMut) {
        let fields = &request.fields;
        let keeps_trace = fields.first(Name::Traceparent).and_then(Trace::read).is_some();
        put(out, &[request.method().as_bytes(), b" ", request.target(), b" HTTP/1.1\r\n"]);
        for field in fields.iter() {
            let passes = match field.name {
                // CGI would take it for the field that it looks like (RFC 3875, 4.1.18).
                Name::Other => self.trust || !is_disguised(field.spelled),
                Name::Cookie | Name::Host | Name::Date | Name::Location => true,
                Name::Traceparent | Name::Tracestate => keeps_trace,
                Name::Forwarded | Name::ForwardedHost | Name::ForwardedProto => self.trust,
                _ => false,
            };
            if passes && !is_named(request.options.has_names, fields, &field) {
                put_field(out, field.spelled, field.value);
            }
        }
        if let Some(upstream) = self.upstream.filter(|_| !fields.has(Name::Host)) {
            // An HTTP/1.0 client may name none, and every HTTP/1.1 server asks for one.
            let address = upstream.to_string();
            put_field(out, b"Host", address.split("://").nth(1).unwrap_or_default().as_bytes());
        }
        self.write_way(fields, out);
        if !keeps_trace {
            put_field(out, b"traceparent", &self.trace.value(rand::random()));
        }
        if request.is_upgrade() {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        put_framing(out, self.framing);
        out.extend_from_slice(b"\r\n");
    }

    fn write_way(&self, fields: &Fields, out: &mut BytesMut) {
        if let Some(peer) = self.peer {
            let peer = AddressText::of(peer.to_canonical());
            out.extend_from_slice(b"X-Forwarded-For: ");
            for told in fields.all(Name::ForwardedFor).filter(|_| self.trust) {
                put(out, &[told, b", "]);
            }
            put(out, &[peer.as_bytes(), b"\r\n"]);
        }
        if !self.trust || !fields.has(Name::ForwardedProto) {
            out.extend_from_slice(b"X-Forwarded-Proto: http\r\n");
        }
    }
}

/// What the proxy changes in an answer.
pub struct Returned<'a> {
    /// The request's head.
    pub request: &'a RequestHead,
    /// How its body goes on.
    pub framing: Framing,
    /// Whether the client's connection is kept.
    pub is_kept: bool,
    /// Where a redirect leads, if not where the upstream says.
    pub location: Option<&'a str>,
    /// Cookies that it sets.
    pub cookies: &'a [String],
}

impl Returned<'_> {
    /// Writes the head of an answer that goes to the client.
    pub fn write(&self, answer: &AnswerHead, out: &mut BytesMut) {
        let fields = &answer.fields;
        put_status(out, answer);
        for field in fields.iter() {
            let passes = match field.name {
                Name::ContentLength | Name::TransferEncoding | Name::Connection | Name::HopByHop => false,
                // It says what was agreed on, or what should have been asked for.
                Name::Upgrade => matches!(answer.status, 101 | 426),
                Name::Location => self.location.is_none(),
                _ => true,
            };
            // `Connection` always names it, and it goes on all the same.
            let is_ours = field.name == Name::Upgrade || !is_named(answer.options.has_names, fields, &field);
            if passes && is_ours {
                put_field(out, field.spelled, field.value);
            }
        }
        if let Some(location) = self.location {
            put_field(out, b"Location", location.as_bytes());
        }
        for cookie in self.cookies {
            put_field(out, b"Set-Cookie", cookie.as_bytes());
        }
        if !fields.has(Name::Date) {
            put_field(out, b"Date", pingora::protocols::http::date::get_cached_date().as_bytes());
        }
        self.write_framing(answer, out);
        let goes_on: &[u8] = match (answer.status, self.is_kept) {
            (101, _) => b"Connection: Upgrade\r\n\r\n",
            (_, true) => b"Connection: keep-alive\r\n\r\n",
            (_, false) => b"Connection: close\r\n\r\n",
        };
        out.extend_from_slice(goes_on);
    }

    /// How long a body would be may be said where there is none.
    fn write_framing(&self, answer: &AnswerHead, out: &mut BytesMut) {
        let is_told = self.request.method() == "HEAD" || answer.status == 304;
        match framing::content_length(&answer.fields) {
            Ok(Some(length)) if is_told && !answer.fields.has(Name::TransferEncoding) => {
                put_framing(out, Framing::Length(length));
            }
            _ => put_framing(out, self.framing),
        }
    }
}

/// Writes the head of an answer that another one follows.
pub fn write_interim(answer: &AnswerHead, out: &mut BytesMut) {
    put_status(out, answer);
    for field in answer.fields.iter().filter(|field| field.name == Name::Other) {
        if !is_named(answer.options.has_names, &answer.fields, &field) {
            put_field(out, field.spelled, field.value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a name is one of those that say where a request came from, but for underscores in place of hyphens.
fn is_disguised(spelled: &[u8]) -> bool {
    let plain: Vec<u8> = match spelled.contains(&b'_') {
        true => spelled.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect(),
        false => return false,
    };
    let ours = [Name::Forwarded, Name::ForwardedFor, Name::ForwardedHost, Name::ForwardedProto];
    ours.contains(&Name::of(&plain))
}

fn is_named(has_names: bool, fields: &Fields, field: &Field<'_>) -> bool {
    has_names && options::names(fields, field.spelled)
}

fn put_status(out: &mut BytesMut, answer: &AnswerHead) {
    let digits =
        [answer.status / 100 % 10, answer.status / 10 % 10, answer.status % 10].map(|d| b'0' + d as u8);
    put(out, &[b"HTTP/1.1 ", &digits, b" ", answer.reason(), b"\r\n"]);
}

fn put_framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::Empty | Framing::UntilClose => {}
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Length(length) => {
            let mut digits = [b'0'; 20];
            let (mut at, mut left) = (digits.len() - 1, length);
            while left > 9 {
                digits[at] = b'0' + (left % 10) as u8;
                (at, left) = (at - 1, left / 10);
            }
            digits[at] = b'0' + left as u8;
            put_field(out, b"Content-Length", &digits[at..]);
        }
    }
}

/// Writes a field. A value that an old server folded into several lines becomes one line.
fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    put(out, &[name, b": "]);
    if value.contains(&b'\n') {
        let lines = value.split(|b| matches!(b, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
        for (at, line) in lines.filter(|line| !line.is_empty()).enumerate() {
            put(out, &[if at == 0 { b"" } else { b" " }, line]);
        }
    } else {
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\r\n");
}

fn put(out: &mut BytesMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const SENT: &str = "GET http://shop.example/a?b HTTP/1.0\r\nHOST: shop.example\r\nX-Forwarded-For: 203.0.113.1, \
                        198.51.100.2\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil.example\r\nForwarded: \
                        for=203.0.113.1\r\nx-strangler-side: service\r\nx-strangler-secret: hidden\r\nConnection: \
                        close, X-Once\r\nX-once: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nUpgrade: websocket\r\n\
                        Content-Length: 3, 3\r\ntraceparent: nonsense\r\ntracestate: a=b\r\n\r\n";

    fn forwarded(trust: bool) -> String {
        let (request, trace) = (RequestHead::from_text(SENT), Trace::start(7));
        let mut out = BytesMut::new();
        Forwarded { peer: Some(PEER), trust, framing: Framing::Length(3), trace: &trace, upstream: None }
            .write(&request, &mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        // Its parent is a random number.
        let at = text.find("traceparent: 00-00000000000000000000000000000007-").unwrap();
        format!("{}{}", &text[..at], &text[at + 70..])
    }

    #[test]
    fn an_untrusted_clients_claims_are_replaced() {
        let expected = "GET /a?b HTTP/1.1\r\nHOST: shop.example\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: \
                        http\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(forwarded(false), expected);
    }

    #[test]
    fn a_trusted_balancers_claims_are_kept_and_appended_to() {
        let expected = "GET /a?b HTTP/1.1\r\nHOST: shop.example\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: \
                        evil.example\r\nForwarded: for=203.0.113.1\r\nX-Forwarded-For: 203.0.113.1, 198.51.100.2, \
                        192.0.2.7\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(forwarded(true), expected);
        let fields = RequestHead::from_text(SENT).fields;
        assert_eq!(client_address(&fields, PEER, true).to_string(), "203.0.113.1");
        assert_eq!(client_address(&fields, PEER, false), PEER);
        assert_eq!(client_scheme(&fields, true), "https");
        assert_eq!(client_scheme(&fields, false), "http");
    }

    #[test]
    fn an_answer_says_only_once_where_it_ends_and_keeps_what_is_not_for_one_hop() {
        let came = "HTTP/1.0 200 Very  well\r\nDate: today\r\nConnection: X-Once\r\nX-Once: 1\r\nKeep-Alive: 5\r\n\
                    Upgrade: h2c\r\nTrailer: X\r\nX-Folded : a\r\n  b\r\nLocation: http://inside/\r\nContent-Length: \
                    4\r\n\r\n";
        let (answer, request) = (AnswerHead::from_text(came), RequestHead::from_text(SENT));
        let (cookies, location) = (["a=b".to_owned()], Some("http://outside/"));
        let mut out = BytesMut::new();
        Returned {
            request: &request,
            framing: Framing::Length(4),
            is_kept: true,
            location,
            cookies: &cookies,
        }
        .write(&answer, &mut out);
        let expected = "HTTP/1.1 200 Very  well\r\nDate: today\r\nX-Folded: a b\r\nLocation: http://outside/\r\n\
                        Set-Cookie: a=b\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    fn goes_on_as(request: &str) -> String {
        let (request, trace) = (RequestHead::from_text(request), Trace::start(7));
        let upstream = Upstream { tls: false, host: "::1".to_owned(), port: 4000 };
        let upstream = Some(&upstream);
        let mut out = BytesMut::new();
        Forwarded { peer: Some(PEER), trust: false, framing: Framing::Empty, trace: &trace, upstream }
            .write(&request, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_request_that_names_no_host_goes_on_with_the_upstreams() {
        assert!(goes_on_as("GET / HTTP/1.0\r\n\r\n").contains("\r\nHost: [::1]:4000\r\n"));
        let named = goes_on_as("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        assert!(named.contains("\r\nHost: a\r\n") && !named.contains("4000"), "{named}");
    }

    #[test]
    fn a_claim_with_underscores_is_a_claim() {
        let sent = "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 203.0.113.1\r\nx-forwarded_proto: https\r\nX_Other: b\r\n\r\n";
        let text = goes_on_as(sent);
        assert!(
            !text.contains("203.0.113.1") && !text.contains("https") && text.contains("X_Other: b"),
            "{text}"
        );
    }

    #[test]
    fn an_agreed_upgrade_is_told_whatever_else_connection_names() {
        let came = "HTTP/1.1 101 Switching Protocols\r\nConnection: X-Foo, Upgrade\r\nUpgrade: websocket\r\nX-Foo: 1\r\n\r\n";
        let (answer, request) = (AnswerHead::from_text(came), RequestHead::from_text(SENT));
        let mut out = BytesMut::new();
        Returned { request: &request, framing: Framing::Empty, is_kept: false, location: None, cookies: &[] }
            .write(&answer, &mut out);
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("\r\nUpgrade: websocket\r\n") && !text.contains("X-Foo"), "{text}");
    }

    #[test]
    fn a_retry_stays_in_its_trace() {
        let fields = RequestHead::from_text(SENT).fields;
        let trace = traced(&fields, None);
        assert_eq!(traced(&fields, Some(trace.clone())), trace);
    }
}
