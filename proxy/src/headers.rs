//! Which headers the proxy changes on their way: `X-Forwarded-*`, `Forwarded`, `traceparent`, our own, and a
//! redirect's `Location`.
//!
//! Hop-by-hop headers and framing are Pingora's; `Host` stays as the client sent it.

pub mod address;
pub mod location;
pub mod trace;

use address::AddressText;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;
use std::net::IpAddr;
use trace::Trace;

/// A tester's wish: `monolith` or `service`.
pub const SIDE: HeaderName = HeaderName::from_static("x-strangler-side");
/// What makes the wish count.
pub const SECRET: HeaderName = HeaderName::from_static("x-strangler-secret");

// Pingora takes a name for insertion as text: copied from any `HeaderName`, but not from text that is there for ever.
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What Pingora takes out. `connection` stands for all fields that it names.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];
const OURS: &str = "x-strangler-";
const PLAIN: HeaderValue = HeaderValue::from_static("http");

/// Whose address counts as the client's: its own, or, behind a trusted load balancer, the first one that the
/// balancer names.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trust_forwarded: bool) -> IpAddr {
    if !trust_forwarded {
        return peer;
    }
    let first = headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok()?.split(',').next());
    first.and_then(|text| text.trim().parse().ok()).unwrap_or(peer)
}

/// Whether any header is meant for us. They are rare, and one look at all names costs less than a search for each.
pub fn has_ours(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(OURS))
}

/// Whether a request has fields that are for one hop only (RFC 9110, 7.6.1), which Pingora takes out one by one. Few
/// programs send them, and one look at all names costs less than a search for each.
pub fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| HOP_BY_HOP.contains(&name.as_str()))
}

/// The scheme by which the client reached us. The proxy itself listens without TLS.
pub fn client_scheme(headers: &HeaderMap, trust_forwarded: bool) -> &'static str {
    let told = headers.get(&FORWARDED_PROTO).filter(|_| trust_forwarded);
    if told.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https")) { "https" } else { "http" }
}

/// Makes the request that goes upstream tell where it came from, and drops what is not for upstreams.
pub fn forward(
    request: &mut RequestHeader,
    peer: Option<IpAddr>,
    trust_forwarded: bool,
) -> pingora::Result<()> {
    if has_ours(&request.headers) {
        request.remove_header(&SIDE);
        request.remove_header(&SECRET);
    }
    if !trust_forwarded {
        request.remove_header(&header::FORWARDED);
        // `Host` goes on as it came, and needs no second header to say it.
        request.remove_header(&FORWARDED_HOST);
    }
    if let Some(peer) = peer {
        let peer = AddressText::of(peer.to_canonical());
        if trust_forwarded {
            request.insert_header(FORWARDED_FOR.as_str(), chain(&request.headers, &peer))?;
        } else {
            request.insert_header(FORWARDED_FOR.as_str(), peer.as_bytes())?;
        }
    }
    if !trust_forwarded || !request.headers.contains_key(&FORWARDED_PROTO) {
        request.insert_header(FORWARDED_PROTO.as_str(), PLAIN)?;
    }
    Ok(())
}

/// The request's trace: the client's, passed on untouched, or a new one that is written into the request.
pub fn traced(request: &mut RequestHeader, started: Option<Trace>) -> pingora::Result<Trace> {
    if let Some(trace) = request.headers.get(&TRACEPARENT).and_then(|value| Trace::read(value.as_bytes())) {
        return Ok(trace);
    }
    // A retry of the same request stays in the trace that was started for it.
    let trace = started.unwrap_or_else(|| Trace::start(rand::random()));
    request.insert_header(TRACEPARENT.as_str(), &trace.value(rand::random())[..])?;
    if request.headers.contains_key(TRACESTATE) {
        request.remove_header(&TRACESTATE);
    }
    Ok(trace)
}

/// The hops that the request names, and the peer after them.
fn chain(headers: &HeaderMap, peer: &AddressText) -> String {
    let mut chain = String::new();
    for told in headers.get_all(&FORWARDED_FOR) {
        chain.push_str(told.to_str().unwrap_or_default());
        chain.push_str(", ");
    }
    chain.push_str(peer.as_str());
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    fn forwarded(sent: &[(&'static str, &'static str)], trust: bool) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in sent {
            request.append_header(*name, *value).unwrap();
        }
        forward(&mut request, Some(PEER), trust).unwrap();
        request
    }

    fn get<'a>(request: &'a RequestHeader, name: &str) -> &'a str {
        request.headers.get(name).map_or("-", |value| value.to_str().unwrap())
    }

    const SENT: [(&str, &str); 6] = [
        ("host", "shop.example"),
        ("x-forwarded-for", "203.0.113.1, 198.51.100.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("forwarded", "for=203.0.113.1"),
        ("x-strangler-side", "service"),
    ];

    #[test]
    fn an_untrusted_clients_claims_are_replaced() {
        let request = forwarded(&SENT, false);
        assert_eq!(get(&request, "x-forwarded-for"), "192.0.2.7");
        assert_eq!(get(&request, "x-forwarded-proto"), "http");
        assert_eq!(get(&request, "x-forwarded-host"), "-");
        assert_eq!(get(&request, "forwarded"), "-");
        assert_eq!(get(&request, "x-strangler-side"), "-");
        assert_eq!(get(&request, "host"), "shop.example");
    }

    #[test]
    fn a_trusted_balancers_claims_are_kept_and_appended_to() {
        let request = forwarded(&SENT, true);
        assert_eq!(get(&request, "x-forwarded-for"), "203.0.113.1, 198.51.100.2, 192.0.2.7");
        assert_eq!(get(&request, "x-forwarded-proto"), "https");
        assert_eq!(get(&request, "x-forwarded-host"), "evil.example");
        assert_eq!(get(&request, "forwarded"), "for=203.0.113.1");
        assert_eq!(client_address(&request.headers, PEER, true).to_string(), "203.0.113.1");
        assert_eq!(client_address(&request.headers, PEER, false), PEER);
        assert_eq!(client_scheme(&request.headers, true), "https");
        assert_eq!(client_scheme(&request.headers, false), "http");
    }

    #[test]
    fn a_retry_stays_in_its_trace() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        let trace = traced(&mut request, None).unwrap();
        let mut again = RequestHeader::build("GET", b"/", None).unwrap();
        assert_eq!(traced(&mut again, Some(trace.clone())).unwrap(), trace);
        assert_eq!(Trace::read(get(&again, "traceparent").as_bytes()), Some(trace));
    }
}
