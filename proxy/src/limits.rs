//! What is refused before anything else is looked at: bodies that are too large, and framing that two servers could read
//! in two ways.
//!
//! Heads are bounded by the crate `http1`; how long anybody is waited for stands in `visit.rs` and `relay.rs`.

use crate::failure::Failure;
use http1::Framing;
use http1::{AnswerHead, RequestHead};

/// The framing of a request's body, if the request may go on.
pub fn admitted(request: &RequestHead, body_bytes_max: Option<u64>) -> Result<Framing, Failure> {
    let framing = Framing::of_request(request).map_err(Failure::Malformed)?;
    if is_larger(framing, body_bytes_max) { Err(Failure::TooLarge) } else { Ok(framing) }
}

/// The framing of an answer's body, if the answer may go on.
pub fn accepted(
    answer: &AnswerHead,
    request: &RequestHead,
    body_bytes_max: Option<u64>,
) -> Result<Framing, Failure> {
    let framing = Framing::of_answer(answer, request).map_err(|_| Failure::Broken)?;
    if is_larger(framing, body_bytes_max) { Err(Failure::AnswerTooLarge) } else { Ok(framing) }
}

fn is_larger(framing: Framing, bytes_max: Option<u64>) -> bool {
    match (framing, bytes_max) {
        (Framing::Length(length), Some(max)) => length > max,
        _ => false,
    }
}
