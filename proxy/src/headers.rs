//! Heads as they are passed on: which fields pass, which are dropped, and which are the proxy's own.
//!
//! A head is written straight from the one that arrived, field by field and in its order. Fields for one hop only
//! (RFC 9110, 7.6.1) and those that frame the body are never copied. They are written as this hop needs them.

pub(crate) mod address;
pub(crate) mod caching;
pub(crate) mod location;
pub(crate) mod preflight;
pub(crate) mod trace;
pub(crate) mod twin;

use address::AddressText;
use bytes::BytesMut;
use http1::{AnswerHead, Fields, Framing, Name, OutgoingHead, RequestHead};
use migrations::plan::Upstream;
use std::net::IpAddr;
use trace::Trace;
use twin::Twins;

/// The client's address: the peer's, or the first one that a trusted load balancer names.
pub(crate) fn client_address(fields: &Fields, peer: IpAddr, trust_forwarded: bool) -> IpAddr {
    let lists = fields.all(Name::ForwardedFor).filter(|_| trust_forwarded);
    let first = lists.flat_map(|list| list.split(|b| *b == b',')).find_map(address::read);
    first.unwrap_or(peer)
}

/// Whether a balancer, or who says to be one, tells by which scheme the client came.
pub(crate) fn is_forwarded(fields: &Fields) -> bool {
    fields.has(Name::ForwardedProto) || fields.has(Name::Forwarded)
}

/// Whether the client used TLS: to a trusted load balancer, if one says how the client came, otherwise to the proxy itself. Of
/// several balancers, the first one saw the client.
pub(crate) fn client_uses_tls(fields: &Fields, trust_forwarded: bool, came_by_tls: bool) -> bool {
    let Some(told) = fields.first(Name::ForwardedProto).filter(|_| trust_forwarded) else {
        return came_by_tls;
    };
    let first = told.split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    // Some balancers name a WebSocket's scheme.
    first.eq_ignore_ascii_case(b"https") || first.eq_ignore_ascii_case(b"wss")
}

/// The request's trace: the client's, or the one that was started for it, or a new one.
pub(crate) fn traced(fields: &Fields, started: Option<Trace>) -> Trace {
    let came = fields.first(Name::Traceparent).and_then(Trace::read);
    // A retry stays in the trace that was started for the request.
    came.or(started).unwrap_or_else(|| Trace::start(rand::random()))
}

pub(crate) struct Forwarded<'a> {
    /// The address at the other end of the client's connection.
    pub(crate) peer: Option<IpAddr>,
    /// Whether that connection uses TLS.
    pub(crate) came_by_tls: bool,
    /// Whether the client's own claims about the way to us are believed.
    pub(crate) trust: bool,
    pub(crate) framing: Framing,
    pub(crate) trace: &'a Trace,
    /// Its address is the `Host` of a request without one.
    pub(crate) upstream: &'a Upstream,
}

impl Forwarded<'_> {
    /// Writes the head of a request for an upstream. It says where the request came from, and drops what is not for
    /// upstreams.
    pub(crate) fn write(&self, request: &RequestHead, out: &mut BytesMut) {
        let fields = &request.fields;
        let keeps_trace = fields.first(Name::Traceparent).and_then(Trace::read).is_some();
        let twins = Twins::of(request);
        let mut head = OutgoingHead::request(request, out);
        for field in request.onward() {
            let passes = match field.name {
                Name::Other => !twins.has(field.spelled),
                Name::MaxForwards => request.forwards_left().is_none(),
                Name::Cookie | Name::Host | Name::Date | Name::Location => true,
                Name::Traceparent | Name::Tracestate => keeps_trace,
                Name::Forwarded
                | Name::ForwardedHost
                | Name::ForwardedPort
                | Name::ForwardedProto
                | Name::ForwardedOther => self.trust,
                _ => false,
            };
            if passes {
                head.field(field.spelled, field.value);
            }
        }
        if !fields.has(Name::Host) {
            // An HTTP/1.0 request may have no `Host`, but every HTTP/1.1 server wants one.
            head.field(b"Host", self.upstream.authority().as_bytes());
        }
        if let Some(left) = request.forwards_left() {
            head.field(b"Max-Forwards", left.saturating_sub(1).to_string().as_bytes());
        }
        self.write_way(request, &mut head);
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

    fn write_way(&self, request: &RequestHead, head: &mut OutgoingHead<'_>) {
        let fields = &request.fields;
        if let Some(peer) = self.peer {
            let peer = AddressText::of(peer.to_canonical());
            let before = fields.all(Name::ForwardedFor).filter(|_| self.trust);
            head.list(b"X-Forwarded-For", before.chain([peer.as_bytes()]));
        }
        if self.trust && fields.has(Name::ForwardedProto) {
            return;
        }
        let (scheme, usual): (&[u8], &[u8]) =
            if self.came_by_tls { (b"https", b"443") } else { (b"http", b"80") };
        head.field(b"X-Forwarded-Proto", scheme);
        if !self.trust || !fields.has(Name::ForwardedPort) {
            // The client knows which port it used. Ours may be another one, with a firewall or a container in between.
            let named = request.host().and_then(|(_, port)| port);
            head.field(b"X-Forwarded-Port", named.unwrap_or(usual));
        }
    }
}

pub(crate) struct Returned<'a> {
    pub(crate) request: &'a RequestHead,
    pub(crate) framing: Framing,
    pub(crate) is_kept: bool,
    /// The redirect's target, if it differs from the upstream's.
    pub(crate) location: Option<&'a str>,
    pub(crate) cookies: &'a [String],
}

impl Returned<'_> {
    pub(crate) fn write(&self, answer: &AnswerHead, out: &mut BytesMut) {
        let mut head = OutgoingHead::answer(answer, out);
        for field in answer.onward() {
            let passes = match field.name {
                // With 101 it says what was agreed on, with 426 what to ask for.
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

pub(crate) fn write_interim(answer: &AnswerHead, out: &mut BytesMut) {
    let mut head = OutgoingHead::answer(answer, out);
    answer
        .onward()
        .filter(|field| field.name == Name::Other)
        .for_each(|field| head.field(field.spelled, field.value));
    head.end();
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(text: &str) -> RequestHead {
        let mut head = RequestHead::default();
        assert_eq!(head.read(&mut text.into()), Ok(true), "{text}");
        head
    }

    pub(crate) fn answer(text: &str) -> AnswerHead {
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
        Forwarded {
            peer: Some(PEER),
            came_by_tls: false,
            trust,
            framing: Framing::Length(3),
            trace: &trace,
            upstream,
        }
        .write(&request, &mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let at = text.find("traceparent: 00-00000000000000000000000000000007-").unwrap();
        format!("{}{}", &text[..at], &text[at + 70..])
    }

    #[test]
    fn an_untrusted_clients_claims_are_replaced() {
        let expected = "GET /a?b HTTP/1.1\r\nHOST: shop.example\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: \
                        http\r\nX-Forwarded-Port: 80\r\nContent-Length: 3\r\n\r\n";
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
        assert!(client_uses_tls(&fields, true, false));
        assert!(client_uses_tls(&fields, false, true) && !client_uses_tls(&fields, false, false));
    }

    #[test]
    fn an_answer_is_framed_once_and_keeps_its_end_to_end_fields() {
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
        goes_on_with(request, false)
    }

    fn goes_on_with(request: &str, trust: bool) -> String {
        let (request, trace) = (super::tests::request(request), Trace::start(7));
        let upstream = &upstream();
        let mut out = BytesMut::new();
        Forwarded {
            peer: Some(PEER),
            came_by_tls: false,
            trust,
            framing: Framing::Empty,
            trace: &trace,
            upstream,
        }
        .write(&request, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn told_of_the_way(fields: &str, came_by_tls: bool, trust: bool) -> String {
        let request = super::tests::request(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"));
        let (trace, upstream, mut out) = (Trace::start(7), upstream(), BytesMut::new());
        let framing = Framing::Empty;
        Forwarded { peer: Some(PEER), came_by_tls, trust, framing, trace: &trace, upstream: &upstream }
            .write(&request, &mut out);
        let text = String::from_utf8_lossy(&out).into_owned();
        let told = text.lines().filter(|line| line.starts_with("X-Forwarded-P") || line.starts_with("X-R"));
        told.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn the_port_is_the_one_that_the_client_names_and_the_scheme_is_how_it_came() {
        let told = |host: &str, tls| told_of_the_way(&format!("Host: {host}"), tls, false);
        assert_eq!(told("a", true), "X-Forwarded-Proto: https, X-Forwarded-Port: 443");
        assert_eq!(told("[::1]:8443", true), "X-Forwarded-Proto: https, X-Forwarded-Port: 8443");
        assert_eq!(told("a:", false), "X-Forwarded-Proto: http, X-Forwarded-Port: 80");
        let balancer = "Host: a\r\nX-Forwarded-Proto: http\r\nX-Real-IP: 203.0.113.1\r\nX-Forwarded-Ssl: on\r\nX-Forwarded-Prefix: /p";
        assert_eq!(
            told_of_the_way(balancer, true, true),
            "X-Forwarded-Proto: http, X-Real-IP: 203.0.113.1, X-Forwarded-Prefix: /p"
        );
        assert_eq!(
            told_of_the_way(balancer, true, false),
            told("a", true),
            "who may say what is not believed"
        );
        let port = "Host: a\r\nX-Forwarded-Port: 8443";
        assert_eq!(told_of_the_way(port, true, true), "X-Forwarded-Port: 8443, X-Forwarded-Proto: https");
    }

    #[test]
    fn a_request_without_a_host_gets_the_upstreams() {
        assert!(goes_on_as("GET / HTTP/1.0\r\n\r\n").contains("\r\nHost: [::1]:4000\r\n"));
        let named = goes_on_as("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
        assert!(named.contains("\r\nHost: a\r\n") && !named.contains("4000"), "{named}");
    }

    #[test]
    fn a_field_that_imitates_another_is_dropped() {
        let sent = "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 203.0.113.1\r\nx-forwarded_proto: https\r\nContent_Length: \
                    9\r\nX-A-B: 1\r\nx_a_b: 2\r\nX_Other: b\r\n\r\n";
        for text in [goes_on_as(sent), goes_on_with(sent, true)] {
            let kept = ["X-A-B: 1\r\n", "X_Other: b\r\n"];
            assert!(kept.iter().all(|field| text.contains(field)), "{text}");
            let dropped = ["203.0.113.1", "https", "Content_Length", "x_a_b"];
            assert!(!dropped.iter().any(|field| text.contains(field)), "{text}");
        }
    }

    #[test]
    fn the_host_of_an_absolute_target_and_the_rest_of_the_forwards_go_on() {
        let text = goes_on_as("OPTIONS http://Shop:80 HTTP/1.1\r\nHost: shop\r\nMax-Forwards: 3\r\n\r\n");
        assert!(text.starts_with("OPTIONS * HTTP/1.1\r\nHost: Shop:80\r\nMax-Forwards: 2\r\n"), "{text}");
        let text = goes_on_as("GET / HTTP/1.1\r\nHost: shop\r\nMax-Forwards: 3\r\n\r\n");
        assert!(text.contains("\r\nMax-Forwards: 3\r\n"), "{text}");
    }

    #[test]
    fn a_balancers_lists_and_ports_are_read() {
        let of = |lines: &str| request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")).fields;
        let client =
            |value: &str| client_address(&of(&format!("X-Forwarded-For: {value}")), PEER, true).to_string();
        assert_eq!(client("203.0.113.1:5678, 10.0.0.1"), "203.0.113.1");
        assert_eq!(client("[2001:db8::1]:99"), "2001:db8::1");
        assert_eq!(client("unknown, ,10.0.0.1"), "10.0.0.1");
        assert_eq!(client("unknown\r\nX-Forwarded-For: 10.0.0.2:1"), "10.0.0.2");
        assert_eq!(client("nobody"), PEER.to_string());
        let tls = |value: &str| client_uses_tls(&of(&format!("X-Forwarded-Proto: {value}")), true, true);
        assert!(tls("https,http") && tls(" HTTPS , http") && tls("wss"));
        assert!(!tls("http,https") && !tls("") && !tls(",https"));
    }

    #[test]
    fn an_accepted_upgrade_is_passed_on_whatever_connection_names() {
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
