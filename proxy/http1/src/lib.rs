//! HTTP/1.1 as bytes: reads heads and bodies from the front of what arrived, and writes them behind what is to be
//! sent.
//!
//! It knows no sockets, no clock, and not where a request goes. Input that two servers could read in two ways is an
//! error.

#![warn(unreachable_pub)]

mod body;
mod fields;
mod framing;
mod head;
mod host;
mod options;
mod outgoing;

pub use body::Body;
pub use fields::{Field, Fields, Name};
pub use framing::Framing;
pub use head::{AnswerHead, HEAD_TOO_LARGE, RequestHead, TOO_MANY_FIELDS};
pub use options::is_relied_on;
pub use outgoing::OutgoingHead;

/// Bytes that are not HTTP, or that two servers could read in two ways. Says why, as a sentence about "it".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);
