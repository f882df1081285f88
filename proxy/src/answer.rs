//! Answers of the proxy's own making: JSON that says what went wrong, at which upstream, and what to do.
//!
//! Does not decide when they are given.

use bytes::Bytes;
use http::header;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};
use serde::Serialize;

/// The error type of an answer of an upstream that is larger than the plan allows.
pub const ANSWER_TOO_LARGE: ErrorType = ErrorType::Custom("answer too large");

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
    /// There is no table yet.
    pub fn no_table() -> Self {
        Self {
            status: 503,
            error: "this proxy has no routing table yet",
            upstream: None,
            hint: "start the controller (`strangler up` or `strangler controller`); the proxy asks it until it answers",
        }
    }

    /// The request's framing is ambiguous.
    pub fn ambiguous_framing() -> Self {
        Self {
            status: 400,
            error: "the request has both Content-Length and Transfer-Encoding",
            upstream: None,
            hint: "send one of them",
        }
    }

    /// The request's body is larger than the plan allows.
    pub fn body_too_large() -> Self {
        Self {
            status: 413,
            error: "the request's body is too large",
            upstream: None,
            hint: "send less, or raise `proxy.max_body` in the plan",
        }
    }

    /// What a failed exchange with an upstream is answered with; none if there is nobody left to answer.
    pub fn to_failure(error: &Error, upstream: Option<&str>) -> Option<Self> {
        use ErrorType::*;
        let upstream = upstream.map(str::to_owned);
        let of = |status, error, hint| Some(Self { status, error, upstream: upstream.clone(), hint });
        match (error.esource(), error.etype()) {
            (_, HTTPStatus(413)) => Some(Self::body_too_large()),
            (ErrorSource::Downstream, ReadTimedout) => {
                of(408, "the request did not arrive in time", "send it again")
            }
            (
                ErrorSource::Downstream,
                ReadError | WriteError | ConnectionClosed | WriteTimedout | ConnectError,
            ) => None,
            (ErrorSource::Downstream, _) => {
                of(400, "the request is malformed", "mend its headers or framing")
            }
            (ErrorSource::Upstream, ConnectTimedout | TLSHandshakeTimedout) => of(
                504,
                "connecting to the upstream took too long",
                "see whether it is up, and `proxy.connect_timeout` in the plan",
            ),
            (ErrorSource::Upstream, ReadTimedout | WriteTimedout) => of(
                504,
                "the upstream did not answer in time",
                "see what it is doing, and `proxy.read_timeout` in the plan; a write may have happened all the same",
            ),
            (ErrorSource::Upstream, etype) if *etype == ANSWER_TOO_LARGE => {
                of(502, "the upstream's answer is too large", "raise `proxy.max_body` in the plan")
            }
            (ErrorSource::Upstream, ConnectRefused | ConnectNoRoute | ConnectError | SocketError) => of(
                502,
                "the upstream cannot be connected to",
                "see whether it is up and listens at the address in the plan",
            ),
            (ErrorSource::Upstream, TLSHandshakeFailure | InvalidCert | HandshakeError) => of(
                502,
                "no TLS with the upstream",
                "see its certificate and the host's certificate authorities",
            ),
            (ErrorSource::Upstream, _) => of(
                502,
                "the upstream broke the connection before it answered",
                "see its log; a write may have happened all the same",
            ),
            _ => of(500, "the proxy failed", "see the proxy's log"),
        }
    }

    /// Sends it, with these cookies.
    pub async fn send(&self, session: &mut Session, cookies: Vec<String>) -> pingora::Result<()> {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut head = ResponseHeader::build(self.status, Some(6))?;
        head.insert_header(header::CONTENT_TYPE, "application/json")?;
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
        head.insert_header(header::CACHE_CONTROL, "no-store")?;
        if self.status == 503 {
            head.insert_header(header::RETRY_AFTER, "1")?;
        }
        for cookie in cookies {
            head.append_header(header::SET_COOKIE, cookie)?;
        }
        let is_head = session.req_header().method == http::Method::HEAD;
        session.write_response_header(Box::new(head), is_head).await?;
        if is_head { Ok(()) } else { session.write_response_body(Some(Bytes::from(body)), true).await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(etype: ErrorType) -> Answer {
        Answer::to_failure(&Error::new_up(etype), Some("orders")).unwrap()
    }

    #[test]
    fn refused_is_502_and_late_is_504_and_both_name_the_upstream() {
        assert_eq!(failure(ErrorType::ConnectRefused).status, 502);
        assert_eq!(failure(ErrorType::ConnectionClosed).status, 502);
        assert_eq!(failure(ErrorType::ReadTimedout).status, 504);
        assert_eq!(failure(ErrorType::ConnectTimedout).status, 504);
        assert_eq!(failure(ErrorType::ReadError).upstream.as_deref(), Some("orders"));
    }

    #[test]
    fn a_client_that_left_gets_no_answer() {
        assert_eq!(Answer::to_failure(&Error::new_down(ErrorType::ConnectionClosed), None), None);
        assert_eq!(Answer::to_failure(&Error::new_down(ErrorType::ReadTimedout), None).unwrap().status, 408);
    }
}
