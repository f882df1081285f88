//! Answers of the proxy's own making: JSON that says what went wrong, at which upstream, and what to do.
//!
//! Does not decide when they are given.

use crate::failure::Failure;
use bytes::BytesMut;
use http1::Malformed;
use serde::Serialize;
use std::io::Write;

/// A refusal or failure, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// What is wrong.
    pub error: &'static str,
    /// Which upstream it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// What to do.
    pub hint: &'static str,
}

impl Answer {
    fn no_table() -> Self {
        Self {
            status: 503,
            error: "this proxy has no routing table yet",
            upstream: None,
            hint: "start the controller (`strangler up` or `strangler controller`); the proxy asks it until it answers",
        }
    }

    fn ambiguous_framing() -> Self {
        Self {
            status: 400,
            error: "the request has both Content-Length and Transfer-Encoding",
            upstream: None,
            hint: "send one of them",
        }
    }

    fn body_too_large() -> Self {
        Self {
            status: 413,
            error: "the request's body is too large",
            upstream: None,
            hint: "send less, or raise `proxy.max_body` in the plan",
        }
    }

    /// What a failure is answered with; none if there is nobody left to answer.
    pub fn to(failure: Failure, upstream: Option<&str>) -> Option<Self> {
        let upstream = upstream.map(str::to_owned).filter(|_| failure.is_upstreams());
        let (status, error, hint) = match failure {
            Failure::ClientLeft => return None,
            Failure::NoTable => return Some(Self::no_table()),
            Failure::TooLarge => return Some(Self::body_too_large()),
            Failure::Malformed(Malformed::AMBIGUOUS) => return Some(Self::ambiguous_framing()),
            Failure::Malformed(Malformed(why)) => (400, "the request is malformed", why),
            Failure::ClientLate => (408, "the request did not arrive in time", "send it again"),
            Failure::ConnectLate => (
                504,
                "connecting to the upstream took too long",
                "see whether it is up, and `proxy.connect_timeout` in the plan",
            ),
            Failure::Late => (
                504,
                "the upstream did not answer in time",
                "see what it is doing, and `proxy.read_timeout` in the plan; a write may have happened all the same",
            ),
            Failure::AnswerTooLarge => {
                (502, "the upstream's answer is too large", "raise `proxy.max_body` in the plan")
            }
            Failure::Refused | Failure::Unresolved => (
                502,
                "the upstream cannot be connected to",
                "see whether it is up and listens at the address in the plan",
            ),
            Failure::NoTls => (
                502,
                "no TLS with the upstream",
                "see its certificate and the host's certificate authorities",
            ),
            Failure::Broken => (
                502,
                "the upstream broke the connection before it answered",
                "see its log; a write may have happened all the same",
            ),
        };
        Some(Self { status, error, upstream, hint })
    }

    /// Writes it, with these cookies; without its body if only the head was asked for. How long the body is.
    pub fn write(&self, outbox: &mut BytesMut, cookies: &[String], is_head: bool) -> u64 {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let reason =
            http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut head = Vec::with_capacity(512);
        // Memory takes it, so it cannot fail.
        let _ = write!(
            head,
            "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n",
            self.status,
            reason.unwrap_or_default(),
            body.len()
        );
        if self.status == 503 {
            head.extend_from_slice(b"Retry-After: 1\r\n");
        }
        for cookie in cookies {
            let _ = write!(head, "Set-Cookie: {cookie}\r\n");
        }
        head.extend_from_slice(b"Connection: close\r\n\r\n");
        outbox.extend_from_slice(&head);
        if is_head {
            return 0;
        }
        outbox.extend_from_slice(&body);
        body.len() as u64
    }
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
