//! Where a body ends (RFC 9112, 6.3). A head that can be read in two ways is refused.

use crate::Malformed;
use crate::fields::{Fields, Name};
use crate::head::{AnswerHead, RequestHead};
use bytes::BytesMut;
use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// The framing of a request's body. Both fields at once are refused: one server would follow the first, another
    /// the second.
    pub fn of_request(head: &RequestHead) -> Result<Framing, Malformed> {
        let length = head.fields.content_length()?;
        if !head.fields.has(Name::TransferEncoding) {
            return Ok(length.map_or(Framing::Empty, Framing::Length));
        }
        if length.is_some() {
            return Err(Malformed("it has both `Content-Length` and `Transfer-Encoding`; send one of them"));
        }
        if head.is_old || !is_chunked(&head.fields) {
            return Err(Malformed("its `Transfer-Encoding` is not `chunked`, or it is HTTP/1.0"));
        }
        Ok(Framing::Chunked)
    }

    /// The framing of an answer's body. A 101 is refused unless the request asked for it.
    pub fn of_answer(head: &AnswerHead, request: &RequestHead) -> Result<Framing, Malformed> {
        if head.status == 101 && (!request.is_upgrade() || head.is_old) {
            return Err(Malformed("it switches protocols, which the request did not ask for"));
        }
        if head.status < 200 || matches!(head.status, 204 | 304) {
            return Ok(Framing::Empty);
        }
        let is_coded = head.fields.has(Name::TransferEncoding);
        // Some servers and the filters in them each say `chunked`, and send chunks once.
        if !head.fields.codings().all(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
            return Err(Malformed("its `Transfer-Encoding` is not `chunked`"));
        }
        let length = if is_coded { None } else { head.fields.content_length()? };
        Ok(match length {
            _ if request.method() == "HEAD" => Framing::Empty,
            None if is_coded => Framing::Chunked,
            None => Framing::UntilClose,
            Some(length) => Framing::Length(length),
        })
    }

    pub fn put(self, piece: &[u8], out: &mut BytesMut) {
        if self != Framing::Chunked {
            return out.extend_from_slice(piece);
        }
        if piece.is_empty() {
            // An empty chunk would end the body.
            return;
        }
        out.reserve(piece.len() + 20);
        // Writing to memory cannot fail.
        let _ = write!(out, "{:x}\r\n", piece.len());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }

    pub fn put_end(self, out: &mut BytesMut) {
        if self == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// Whether `chunked` is the only coding.
fn is_chunked(fields: &Fields) -> bool {
    let mut codings = fields.all(Name::TransferEncoding);
    let is_it = codings.next().is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
    is_it && codings.next().is_none()
}
