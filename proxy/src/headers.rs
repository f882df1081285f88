//! Heads as they go on: which fields pass, which are taken out, and which are the proxy's own.
//!
//! A head is written straight from the one that came, field by field in its order. Fields for one hop only (RFC 9110,
//! 7.6.1) and those that say where a body ends are never copied: they are written as this hop has them.

pub mod address;
pub mod location;
pub mod trace;

use address::AddressText;
use bytes::BytesMut;
use http1::{AnswerHead, Fields, Framing, Name, OutgoingHead, RequestHead};
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
    pub upstream: &'a Upstream,
}

impl Forwarded<'_> {
    /// Writes the head of a request that goes upstream: it says where the request came from, and leaves out what is not
    /// for upstreams.
    pub fn write(&self, request: &RequestHead, out: &mut BytesMut) {
        let fields = &request.fields;
        let keeps_trace = fields.first(Name::Traceparent).and_then(Trace::read).is_some();
        let mut head = OutgoingHead::request(request, out);
        for field in request.onward() {
            let passes = match field.name {
                // CGI would take it for the field that it looks like (RFC 3875, 4.1.18).
                Name::Other => self.trust || !is_disguised(field.spelled),
                Name::Cookie | Name::Host | Name::Date | Name::Location => true,
                Name::Traceparent | Name::Tracestate => keeps_trace,
                Name::Forwarded | Name::ForwardedHost | Name::ForwardedProto => self.trust,
                _ => false,
            };
            if passes {
                head.field(field.spelled, field.value);
            }
        }
        if !fields.has(Name::Host) {
            // An HTTP/1.0 client may name none, and every HTTP/1.1 server asks for one.
            let address = self.upstream.to_string();
            head.field(b"Host", address.split("://").nth(1).unwrap_or_default().as_bytes());
        }
        self.write_way(fields, &mut head);
        if !keeps_trace {
            head.field(b"traceparent", &self.trace.value(rand::random()));
        }
        if request.is_upgrade() {
            head.field(b"Connection", b"Upgrade");
            head.field(b"Upgrade", b"websocket");
        }
        head.framing(self.framing);
        head.end();
    }

    fn write_way(&self, fields: &Fields, head: &mut OutgoingHead<'_>) {
        if let Some(peer) = self.peer {
            let peer = AddressText::of(peer.to_canonical());
            let before = fields.all(Name::ForwardedFor).filter(|_| self.trust);
            head.list(b"X-Forwarded-For", before.chain([peer.as_bytes()]));
        }
        if !self.trust || !fields.has(Name::ForwardedProto) {
            head.field(b"X-Forwarded-Proto", b"http");
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
        let mut head = OutgoingHead::answer(answer, out);
        for field in answer.onward() {
            let passes = match field.name {
                // It says what was agreed on, or what should have been asked for.
                Name::Upgrade => matches!(answer.status, 101 | 426),
                Name::Location => self.location.is_none(),
                _ => true,
            };
            if passes {
                head.field(field.spelled, field.value);
            }
        }
        if let Some(location) = self.location {
            head.field(b"Location", location.as_bytes());
        }
        for cookie in self.cookies {
            head.field(b"Set-Cookie", cookie.as_bytes());
        }
        if !answer.fields.has(Name::Date) {
            head.field(b"Date", pingora::protocols::http::date::get_cached_date().as_bytes());
        }
        head.framing(answer.length_of_unsent(self.request).map_or(self.framing, Framing::Length));
        let goes_on: &[u8] = match (answer.status, self.is_kept) {
            (101, _) => b"Upgrade",
            (_, true) => b"keep-alive",
            (_, false) => b"close",
        };
        head.field(b"Connection", goes_on);
        head.end();
    }
}

/// Writes the head of an answer that another one follows.
pub fn write_interim(answer: &AnswerHead, out: &mut BytesMut) {
    let mut head = OutgoingHead::answer(answer, out);
    answer
        .onward()
        .filter(|field| field.name == Name::Other)
        .for_each(|field| head.field(field.spelled, field.value));
    head.end();
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

fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The head of a request.
    pub fn request(text: &str) -> RequestHead {
        let mut head = RequestHead::default();
        assert_eq!(head.read(&mut text.into()), Ok(true), "{text}");
        head
    }

    fn answer(text: &str) -> AnswerHead {
        let mut head = AnswerHead::default();
        assert_eq!(head.read(&mut text.into()), Ok(true), "{text}");
        head
    }

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const SENT: &str = "GET http://shop.example/a?b HTTP/1.0\r\nHOST: shop.example\r\nX-Forwarded-For: 203.0.113.1, \
                        198.51.100.2\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil.example\r\nForwarded: \
                        for=203.0.113.1\r\nx-strangler-side: service\r\nx-strangler-secret: hidden\r\nConnection: \
                        close, X-Once\r\nX-once: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nUpgrade: websocket\r\n\
                        Content-Length: 3, 3\r\ntraceparent: nonsense\r\ntracestate: a=b\r\n\r\n";

    fn forwarded(trust: bool) -> String {
        let (request, trace) = (request(SENT), Trace::start(7));
        let mut out = BytesMut::new();
        let upstream = &upstream();
        Forwarded { peer: Some(PEER), trust, framing: Framing::Length(3), trace: &trace, upstream }
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
        let fields = request(SENT).fields;
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
        let (answer, request) = (answer(came), request(SENT));
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

    fn upstream() -> Upstream {
        Upstream { tls: false, host: "::1".to_owned(), port: 4000 }
    }

    fn goes_on_as(request: &str) -> String {
        let (request, trace) = (super::tests::request(request), Trace::start(7));
        let upstream = &upstream();
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
        let (answer, request) = (answer(came), request(SENT));
        let mut out = BytesMut::new();
        Returned { request: &request, framing: Framing::Empty, is_kept: false, location: None, cookies: &[] }
            .write(&answer, &mut out);
        let text = String::from_utf8_lossy(&out);
        assert!(text.contains("\r\nUpgrade: websocket\r\n") && !text.contains("X-Foo"), "{text}");
    }

    #[test]
    fn a_retry_stays_in_its_trace() {
        let fields = request(SENT).fields;
        let trace = traced(&fields, None);
        assert_eq!(traced(&fields, Some(trace)), trace);
    }
}
