//! HTTP/1.1 as bytes: heads and bodies are taken off the front of what arrived, and written behind what is to be sent.
//!
//! Knows no socket, no clock, and not where a request goes. Bytes that two servers could read in two ways are an error.

mod body;
mod fields;
mod framing;
mod head;
mod options;
mod outgoing;

pub use body::Body;
pub use fields::{Field, Fields, Name};
pub use framing::Framing;
pub use head::{AnswerHead, RequestHead};
pub use outgoing::OutgoingHead;

/// Bytes that are not HTTP, or that two servers could read in two ways; says how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl Malformed {
    /// A request that says twice where its body ends.
    pub const AMBIGUOUS: Malformed =
        Malformed("it has both Content-Length and Transfer-Encoding; send one of them");
}
