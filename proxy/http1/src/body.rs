//! A body as it arrives: which bytes belong to it, and where it ends.
//!
//! Chunks are read strictly. Requests are smuggled when one server reads a chunk's head where another reads data.

use crate::Malformed;
use crate::framing::Framing;
use crate::options::is_token_byte;
use bytes::{Buf, BytesMut};

/// The longest head of a chunk, extensions included, and the longest trailers.
const CHUNK_HEAD_BYTES_MAX: usize = 1024;
const TRAILER_BYTES_MAX: usize = 8192;
const BAD_CHUNK: Malformed = Malformed("its chunked body is malformed");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body(Next);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Whole,
    UntilClose,
    Length(u64),
    ChunkHead,
    Chunk(u64),
    ChunkEnd,
    /// Trailers are dropped. This many bytes of them have passed.
    Trailers(usize),
}

impl Body {
    pub fn of(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty | Framing::Length(0) => Next::Whole,
            Framing::Length(length) => Next::Length(length),
            Framing::Chunked => Next::ChunkHead,
            Framing::UntilClose => Next::UntilClose,
        })
    }

    pub fn is_whole(self) -> bool {
        self.0 == Next::Whole
    }

    /// The connection has ended. Returns whether the body is whole.
    pub fn close(&mut self) -> bool {
        if self.0 == Next::UntilClose {
            self.0 = Next::Whole;
        }
        self.is_whole()
    }

    /// How many of the first bytes belong to the body. The caller takes them. Framing before them is removed. 0 if
    /// more bytes must arrive first, or if the body is whole.
    pub fn next(&mut self, inbox: &mut BytesMut) -> Result<usize, Malformed> {
        loop {
            match self.0 {
                Next::Whole => return Ok(0),
                Next::UntilClose => return Ok(inbox.len()),
                Next::Length(left) => {
                    let (taken, left) = split(inbox, left);
                    self.0 = if left == 0 { Next::Whole } else { Next::Length(left) };
                    return Ok(taken);
                }
                Next::Chunk(left) => {
                    let (taken, left) = split(inbox, left);
                    self.0 = if left == 0 { Next::ChunkEnd } else { Next::Chunk(left) };
                    return Ok(taken);
                }
                Next::ChunkHead => {
                    let Some(length) = line(inbox, CHUNK_HEAD_BYTES_MAX)? else { return Ok(0) };
                    self.0 = match chunk_size(&inbox[..length])? {
                        0 => Next::Trailers(0),
                        size => Next::Chunk(size),
                    };
                    inbox.advance(length + 2);
                }
                Next::ChunkEnd => match line(inbox, 2)? {
                    None => return Ok(0),
                    Some(0) => {
                        self.0 = Next::ChunkHead;
                        inbox.advance(2);
                    }
                    Some(_) => return Err(BAD_CHUNK),
                },
                Next::Trailers(passed) => {
                    let Some(length) = line(inbox, TRAILER_BYTES_MAX - passed)? else { return Ok(0) };
                    if length > 0 && !is_field(&inbox[..length]) {
                        return Err(BAD_CHUNK);
                    }
                    self.0 = match length {
                        0 => Next::Whole,
                        _ => Next::Trailers((passed + length + 2).min(TRAILER_BYTES_MAX)),
                    };
                    inbox.advance(length + 2);
                }
            }
        }
    }
}

/// How many of the remaining bytes are here, and how many are still to come.
fn split(inbox: &[u8], left: u64) -> (usize, u64) {
    let taken = inbox.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    (taken, left - taken as u64)
}

/// The length of the first line, without its end. `None` if the line is not complete. A line ends with CR LF; a CR or
/// an LF alone is an error.
fn line(inbox: &[u8], bytes_max: usize) -> Result<Option<usize>, Malformed> {
    let looked_at = &inbox[..inbox.len().min(bytes_max)];
    let Some(end) = looked_at.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
        return if looked_at.len() == bytes_max { Err(BAD_CHUNK) } else { Ok(None) };
    };
    match looked_at.get(end..) {
        Some([b'\r', b'\n', ..]) => Ok(Some(end)),
        Some([b'\r']) if looked_at.len() < bytes_max => Ok(None),
        _ => Err(BAD_CHUNK),
    }
}

/// The size in a chunk's head: hexadecimal digits, then nothing or an extension, which we ignore.
fn chunk_size(head: &[u8]) -> Result<u64, Malformed> {
    let end = head.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(head.len());
    let (digits, rest) = head.split_at(end);
    let extension = rest.iter().position(|b| !matches!(b, b' ' | b'\t')).map_or(&[][..], |at| &rest[at..]);
    // Longer numbers do not fit.
    let is_number = (1..=16).contains(&digits.len());
    if !is_number || !(extension.is_empty() || extension.starts_with(b";")) || !extension.iter().all(is_text)
    {
        return Err(BAD_CHUNK);
    }
    let text = std::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(text, 16).map_err(|_| BAD_CHUNK)
}

/// Whether a trailer is a field line (RFC 9112, 5). A server that reads trailers must find the same ones, and their end.
fn is_field(line: &[u8]) -> bool {
    let name = line.split(|b| *b == b':').next().unwrap_or_default();
    let is_named = name.len() < line.len() && !name.is_empty() && name.iter().all(|b| is_token_byte(*b));
    is_named && line.iter().all(is_text)
}

/// Visible signs, blanks, and what is not ASCII (RFC 9110, 5.5).
fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), Malformed> {
        let (mut body, mut inbox, mut all) = (Body::of(framing), BytesMut::new(), Vec::new());
        for piece in pieces {
            inbox.extend_from_slice(piece);
            loop {
                let count = body.next(&mut inbox)?;
                if count == 0 {
                    break;
                }
                all.extend_from_slice(&inbox.split_to(count));
            }
        }
        Ok((all, inbox.to_vec(), body.is_whole()))
    }

    #[test]
    fn chunks_end_where_they_say_and_leave_what_follows() {
        let sent = b"5;a=b\r\nhello\r\n006 \r\n world\r\n0\r\nX-Sum: 1\r\n\r\nGET /next";
        let (body, rest, is_whole) = taken(Framing::Chunked, &[sent]).unwrap();
        assert_eq!((&body[..], &rest[..], is_whole), (&b"hello world"[..], &b"GET /next"[..], true));
    }

    #[test]
    fn a_malformed_chunk_is_refused() {
        let long = [b"5;".as_slice(), &[b'x'; 2000]].concat();
        let trailers = [b"0\r\n".as_slice(), &b"A: b\r\n".repeat(3000)].concat();
        let cases: [&[u8]; 14] = [
            b"\r\n",
            b"5\nhello\r\n",
            b"-5\r\n",
            b"+5\r\n",
            b"0x5\r\n",
            b"5 6\r\n",
            b" 5\r\n",
            b"g\r\n",
            b"10000000000000000\r\n",
            b"5\r\nhelloXY",
            b"5\r\nhello\n",
            b"5\rX",
            &long,
            &trailers,
        ];
        for case in cases {
            assert!(taken(Framing::Chunked, &[case]).is_err(), "{:?}", case.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_length_takes_no_more_than_its_bytes() {
        let (body, rest, is_whole) = taken(Framing::Length(4), &[b"ab", b"cdGET"]).unwrap();
        assert_eq!((&body[..], &rest[..], is_whole), (&b"abcd"[..], &b"GET"[..], true));
        assert!(!taken(Framing::Length(5), &[b"abcd"]).unwrap().2);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_body_is_cut(chunks in proptest::collection::vec("[a-z]{1,40}", 0..8), cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let mut sent: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            sent.push_str("0\r\nX: y\r\n\r\n");
            let (mut rest, mut pieces) = (sent.as_bytes(), Vec::new());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(*cut.min(&rest.len()));
                pieces.push(piece);
                rest = after;
            }
            let (body, left, is_whole) = taken(Framing::Chunked, &pieces).unwrap();
            prop_assert_eq!(String::from_utf8(body).unwrap(), chunks.concat());
            prop_assert!(left.is_empty() && is_whole);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = taken(Framing::Chunked, &[&bytes]);
        }
    }
}
