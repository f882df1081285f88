//! Bounds of a client's connection, and what is refused before anything else is looked at: bodies that are too
//! large, and framing that two servers could read in two ways.
//!
//! Heads are bounded by Pingora; upstreams' timeouts are [`crate::upstream`]'s.

use crate::answer::{ANSWER_TOO_LARGE, Answer};
use http::header;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, Result};
use std::time::Duration;

/// A silent client's connection is closed after this, in seconds.
const KEEPALIVE_S: u64 = 75;
/// The next byte of a request may take so long.
const REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A client may take so long to accept the next bytes.
const ANSWER_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// The rest of a request that was answered early may take so long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// An upgraded connection may be silent for so long.
const UPGRADED_READ_TIMEOUT: Duration = Duration::from_secs(3600);
/// Bounds what a client may take its time with.
pub fn set(session: &mut Session, is_upgrade: bool) {
    let read_timeout = if is_upgrade { UPGRADED_READ_TIMEOUT } else { REQUEST_READ_TIMEOUT };
    session.set_read_timeout(Some(read_timeout));
    session.set_write_timeout(Some(ANSWER_WRITE_TIMEOUT));
    session.set_total_drain_timeout(Some(DRAIN_TIMEOUT));
    // Without this a client that sends its next request early loses the present one.
    session.set_pipelining_enabled(true);
    // Pingora's own choice for a connection that is kept is to keep it for ever.
    if session.get_keepalive() == Some(0) {
        session.set_keepalive(Some(KEEPALIVE_S));
    }
}

/// What is refused whatever the table says.
pub fn refusal(session: &Session, body_bytes_max: Option<u64>) -> Option<Answer> {
    let headers = &session.req_header().headers;
    if headers.contains_key(header::TRANSFER_ENCODING) && has_raw_content_length(session) {
        return Some(Answer::ambiguous_framing());
    }
    let max = body_bytes_max?;
    let is_too_large = content_length(headers)? > max;
    is_too_large.then(Answer::body_too_large)
}

/// Refuses an answer that says it is too large.
pub fn check_answer(answer: &ResponseHeader, body_bytes_max: Option<u64>) -> Result<()> {
    let Some(max) = body_bytes_max else { return Ok(()) };
    match content_length(&answer.headers) {
        Some(length) if length > max => Err(Error::new_up(ANSWER_TOO_LARGE)),
        _ => Ok(()),
    }
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Pingora drops Content-Length beside Transfer-Encoding while it reads the head; only the raw bytes still tell.
fn has_raw_content_length(session: &Session) -> bool {
    const NAME: &[u8] = b"content-length";
    let Some(http1) = session.as_http1() else { return false };
    let head = http1.get_headers_raw_bytes();
    let mut lines = head.split(|b| *b == b'\n');
    lines.any(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
}
