//! The proxy's own answers: JSON that says what went wrong, at which upstream, and what to do.
//!
//! When they are given is decided elsewhere.

use crate::failure::Failure;
use bytes::BytesMut;
use http1::{Framing, HEAD_TOO_LARGE, Malformed, OutgoingHead, TOO_MANY_FIELDS};
use migrations::code::Code;
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    #[serde(skip)]
    pub(crate) status: u16,
    pub(crate) error: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<String>,
    pub(crate) hint: &'static str,
}

impl Answer {
    /// The answer to a failure. `None` if the client has left.
    pub(crate) fn to(failure: Failure, upstream: Option<&str>) -> Option<Self> {
        let upstream = upstream.map(str::to_owned).filter(|_| failure.is_upstreams());
        let (status, error, hint) = match failure {
            Failure::ClientLeft => return None,
            Failure::NoTable => (
                503,
                "this proxy has no routing table yet",
                "start the controller (`strangler up` or `strangler controller`); the proxy asks until it answers",
            ),
            Failure::HoldExpired => (
                503,
                "writes are held for a cutover, and this one waited for as long as it may; it was not sent",
                "send it again",
            ),
            Failure::HoldFull => (
                503,
                "writes are held for a cutover, and no more of them can wait; this one was not sent",
                "send it again; `proxy.hold` in the plan sets the bounds",
            ),
            Failure::TooLarge => {
                (413, "the request's body is too large", "send less, or raise `proxy.max_body`")
            }
            Failure::Malformed(malformed @ (HEAD_TOO_LARGE | TOO_MANY_FIELDS)) => {
                (431, "the request's head is too large", malformed.0)
            }
            Failure::Malformed(Malformed(why)) => (400, "the request is malformed", why),
            Failure::AmbiguousPath => (
                400,
                "servers read this path in different ways, and not all of them find the same route",
                "send it without encoded slashes, backslashes, empty segments, `;` and `#`; `proxy.ambiguous_paths: pass` in \
                 the plan lets it through",
            ),
            Failure::NotTls => (400, "this port speaks nothing but TLS", "ask for it with https://"),
            Failure::ClientLate => (408, "the request did not arrive in time", "send it again"),
            Failure::ConnectLate => (
                504,
                "connecting to the upstream took too long",
                "check that it is up; `proxy.connect_timeout` in the plan sets the limit",
            ),
            Failure::Late => (
                504,
                "the upstream did not answer in time",
                "check what it is doing; a write may have happened; `proxy.read_timeout` in the plan sets the limit",
            ),
            Failure::AnswerTooLarge => {
                (502, "the upstream's answer is too large", "raise `proxy.max_body` in the plan")
            }
            Failure::Refused | Failure::Unresolved => (
                502,
                "cannot connect to the upstream",
                "check that it is up and listens at the address in the plan",
            ),
            Failure::Exhausted => (
                503,
                "this proxy has no file descriptor or local port left for the upstream; the request was not sent",
                "send it again; raise the proxy's limit of open files (`ulimit -n`), or start more proxies",
            ),
            Failure::NoTls => (
                502,
                "cannot use TLS with the upstream",
                "check its certificate and this host's certificate authorities",
            ),
            Failure::BadAnswer(Malformed(why)) => (502, "the upstream's answer cannot be passed on", why),
            Failure::Broken => (
                502,
                "the upstream closed the connection before it answered",
                "check its log; a write may have happened",
            ),
        };
        Some(Self { status, error, code: failure.code(), upstream, hint })
    }

    /// Writes it; for a HEAD request without the body. Returns the length of the body that was written.
    pub(crate) fn write(&self, outbox: &mut BytesMut, cookies: &[String], is_head: bool) -> u64 {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut head = OutgoingHead::status(self.status, reason(self.status).as_bytes(), outbox);
        head.field(b"Content-Type", b"application/json");
        head.framing(Framing::Length(body.len() as u64));
        head.field(b"Cache-Control", b"no-store");
        if self.status == 503 {
            head.field(b"Retry-After", b"1");
        }
        cookies.iter().for_each(|cookie| head.field(b"Set-Cookie", cookie.as_bytes()));
        head.field(b"Connection", b"close");
        head.end();
        if is_head {
            return 0;
        }
        outbox.extend_from_slice(&body);
        body.len() as u64
    }
}

pub(crate) fn reason(status: u16) -> &'static str {
    let status = http::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: Failure) -> Answer {
        Answer::to(failure, Some("orders")).unwrap()
    }

    #[test]
    fn refused_is_502_and_late_is_504_and_both_name_the_upstream() {
        assert_eq!(told(Failure::Refused).status, 502);
        assert_eq!(told(Failure::Broken).status, 502);
        assert_eq!(told(Failure::Late).status, 504);
        assert_eq!(told(Failure::ConnectLate).status, 504);
        assert_eq!(told(Failure::Broken).upstream.as_deref(), Some("orders"));
    }

    #[test]
    fn a_client_that_left_gets_no_answer_and_a_late_one_no_upstream() {
        assert_eq!(Answer::to(Failure::ClientLeft, None), None);
        let late = told(Failure::ClientLate);
        assert_eq!((late.status, late.upstream), (408, None));
    }
}
