//! A body that is taken apart as it arrives: which of the bytes are its own, and where it ends.
//!
//! Chunks are read strictly. What is a chunk's head to one server and data to another is how requests are smuggled.

use crate::Malformed;
use crate::framing::Framing;
use bytes::{Buf, BytesMut};

/// A chunk's head, extensions included, and the trailers of a body may be so long.
const CHUNK_HEAD_BYTES_MAX: usize = 1024;
const TRAILER_BYTES_MAX: usize = 8192;
const BAD_CHUNK: Malformed = Malformed("its body is not in chunks as it says");

/// A body on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    UntilClose,
    Length(u64),
    ChunkHead,
    Chunk(u64),
    ChunkEnd,
    /// So many bytes of trailers, which are dropped, have passed.
    Trailers(usize),
}

impl Body {
    /// A body of which nothing has been taken yet.
    pub fn of(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty | Framing::Length(0) => State::Whole,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkHead,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether all of it has been taken.
    pub fn is_whole(self) -> bool {
        self.0 == State::Whole
    }

    /// Nothing more will arrive. Whether it is whole now.
    pub fn close(&mut self) -> bool {
        if self.0 == State::UntilClose {
            self.0 = State::Whole;
        }
        self.is_whole()
    }

    /// How many of the first bytes are its own; the caller takes them. Framing is taken off before. Zero if more must
    /// arrive first, or if it is whole.
    pub fn next(&mut self, inbox: &mut BytesMut) -> Result<usize, Malformed> {
        loop {
            match self.0 {
                State::Whole => return Ok(0),
                State::UntilClose => return Ok(inbox.len()),
                State::Length(left) => {
                    let (taken, left) = split(inbox, left);
                    self.0 = if left == 0 { State::Whole } else { State::Length(left) };
                    return Ok(taken);
                }
                State::Chunk(left) => {
                    let (taken, left) = split(inbox, left);
                    self.0 = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(taken);
                }
                State::ChunkHead => match line(inbox, CHUNK_HEAD_BYTES_MAX)? {
                    None => return Ok(0),
                    Some(line) => self.0 = after_head(chunk_size(&line)?),
                },
                State::ChunkEnd => match line(inbox, 2)? {
                    None => return Ok(0),
                    Some(line) if line.is_empty() => self.0 = State::ChunkHead,
                    Some(_) => return Err(BAD_CHUNK),
                },
                State::Trailers(passed) => match line(inbox, TRAILER_BYTES_MAX - passed)? {
                    None => return Ok(0),
                    Some(line) if line.is_empty() => self.0 = State::Whole,
                    Some(line) => self.0 = State::Trailers((passed + line.len() + 2).min(TRAILER_BYTES_MAX)),
                },
            }
        }
    }
}

fn after_head(size: u64) -> State {
    if size == 0 { State::Trailers(0) } else { State::Chunk(size) }
}

/// How many of the bytes that are left are here, and how many then are still to come.
fn split(inbox: &BytesMut, left: u64) -> (usize, u64) {
    let taken = inbox.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    (taken, left - taken as u64)
}

/// Takes a line off, without its end; none if it has not arrived whole. It ends with CR and LF, and neither stands alone.
fn line(inbox: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, Malformed> {
    let looked_at = &inbox[..inbox.len().min(bytes_max)];
    let Some(end) = looked_at.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
        return if looked_at.len() == bytes_max { Err(BAD_CHUNK) } else { Ok(None) };
    };
    match looked_at.get(end..) {
        Some([b'\r', b'\n', ..]) => {
            let line = inbox.split_to(end);
            inbox.advance(2);
            Ok(Some(line))
        }
        Some([b'\r']) if looked_at.len() < bytes_max => Ok(None),
        _ => Err(BAD_CHUNK),
    }
}

/// The size that a chunk's head says: hexadecimal digits, then nothing or an extension, which means nothing to us.
fn chunk_size(head: &[u8]) -> Result<u64, Malformed> {
    let end = head.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(head.len());
    let (digits, rest) = head.split_at(end);
    let extension = rest.trim_ascii_start();
    // More digits than these do not fit.
    if digits.is_empty() || digits.len() > 16 || !(extension.is_empty() || extension.starts_with(b";")) {
        return Err(BAD_CHUNK);
    }
    let text = std::str::from_utf8(digits).unwrap_or_default();
    u64::from_str_radix(text, 16).map_err(|_| BAD_CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All of a body that arrives in these pieces, and what is left behind it.
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
    fn what_is_no_chunk_is_refused() {
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
    fn a_length_takes_no_more_than_it_says() {
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
        fn any_bytes_are_taken_apart_without_panic(bytes: Vec<u8>) {
            let _ = taken(Framing::Chunked, &[&bytes]);
        }
    }
}
