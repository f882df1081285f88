//! What a server sends on a replication connection: bytes in, messages out (PostgreSQL manual, 55.4 "Streaming
//! Replication Protocol" and 55.7 "Message Formats").
//!
//! Knows no socket. A message is a slice of the bytes that came in, never a copy. That more bytes are needed is no error.

use crate::refusal::words;
use bytes::{Buf, Bytes, BytesMut};
use migrations::lsn::EndLsn;

/// A message's kind and its length, which counts itself.
const HEADER_LEN: usize = 5;

/// The beginning of `XLogData` with a row: the message's header, `w` and three numbers, the row's kind and its table.
const ROW_HEADER_LEN: usize = HEADER_LEN + 25 + 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: u8,
    pub body: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// `XLogData`: a message of the output plugin.
    Data {
        wal_start: u64,
        /// By the server's clock, in microseconds since 2000-01-01 UTC.
        sent_pg_us: i64,
        data: Bytes,
    },
    /// `Primary keepalive message`.
    Keepalive {
        /// The server has sent everything before this.
        wal_end: EndLsn,
        reply_requested: bool,
    },
    /// A row of this table that is too large to be read. It is passed over.
    TooLarge {
        relation: u32,
        bytes: usize,
    },
    Ended,
    /// A notice, or a setting's new value.
    Aside,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the server sent something that is not the replication protocol: {0}")]
    Malformed(&'static str),
    #[error("a message of {bytes} bytes is larger than {bytes_max}, which is four times limits.max_row")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// An `ErrorResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", words(.message, .detail.as_deref(), .code))]
pub struct ServerError {
    /// SQLSTATE.
    pub code: String,
    message: String,
    detail: Option<String>,
    context: Option<String>,
}

impl ServerError {
    /// Where it happened, in the server's words: for a stream its slot, its plugin, and the place in the WAL.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Reads the fields, each a letter and a text that ends with a zero (PostgreSQL manual, 55.8).
    pub(super) fn read(body: &[u8]) -> ServerError {
        let mut error = ServerError::default();
        for field in body.split(|byte| *byte == 0) {
            let Some((letter, text)) = field.split_first() else { break };
            let text = String::from_utf8_lossy(text).into_owned();
            match letter {
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'W' => error.context = Some(text),
                _ => {}
            }
        }
        error
    }
}

impl Message {
    /// Cuts the next message off the front of `bytes`; none if it has not come whole.
    pub(super) fn cut(bytes: &mut BytesMut, bytes_max: usize) -> Result<Option<Message>, FrameError> {
        let Some(len) = message_len(bytes)? else { return Ok(None) };
        if len > bytes_max && bytes.len() >= ROW_HEADER_LEN {
            return Err(FrameError::TooLarge { bytes: len, bytes_max });
        }
        if bytes.len() < len {
            return Ok(None);
        }
        let mut body = bytes.split_to(len).freeze();
        let kind = body[0];
        body.advance(HEADER_LEN);
        Ok(Some(Message { kind, body }))
    }

    pub(super) fn into_frame(self) -> Result<Frame, FrameError> {
        match self.kind {
            b'd' => copy_data(self.body),
            b'c' | b'C' | b'Z' => Ok(Frame::Ended),
            b'E' => Err(ServerError::read(&self.body).into()),
            _ => Ok(Frame::Aside),
        }
    }
}

/// The table and the length of a row that is larger than this, if the next message is one.
pub(super) fn too_large(bytes: &[u8], bytes_max: usize) -> Result<Option<(u32, usize)>, FrameError> {
    let Some(len) = message_len(bytes)?.filter(|len| *len > bytes_max) else { return Ok(None) };
    let Some(mut header) = bytes.get(HEADER_LEN..ROW_HEADER_LEN) else { return Ok(None) };
    let is_data = header.get_u8() == b'w';
    header.advance(24);
    let is_row = b"IUD".contains(&header.get_u8());
    Ok((is_data && is_row).then(|| (header.get_u32(), len)))
}

/// How many bytes are missing until the first message of `bytes` is whole; 0 if its length is not known yet.
pub(super) fn missing(bytes: &[u8]) -> usize {
    message_len(bytes).ok().flatten().unwrap_or(0).saturating_sub(bytes.len())
}

fn message_len(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(mut header) = bytes.get(1..HEADER_LEN) else { return Ok(None) };
    let len = header.get_u32() as usize;
    if len < HEADER_LEN - 1 { Err(FrameError::Malformed("a length")) } else { Ok(Some(len + 1)) }
}

fn copy_data(mut body: Bytes) -> Result<Frame, FrameError> {
    let short = FrameError::Malformed("CopyData that ends too early");
    if body.is_empty() {
        return Err(short);
    }
    match (body.get_u8(), body.len()) {
        (b'w', 24..) => {
            let wal_start = body.get_u64();
            // The end of the WAL as far as it is known is of no use here.
            body.advance(8);
            Ok(Frame::Data { wal_start, sent_pg_us: body.get_i64(), data: body })
        }
        (b'k', 17..) => {
            let wal_end = EndLsn(body.get_u64());
            body.advance(8);
            Ok(Frame::Keepalive { wal_end, reply_requested: body.get_u8() != 0 })
        }
        (b'w' | b'k', _) => Err(short),
        _ => Err(FrameError::Malformed("CopyData of an unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.put_u32(body.len() as u32 + 4);
        bytes.put_slice(body);
        bytes
    }

    fn data(wal_start: u64, payload: &[u8]) -> Vec<u8> {
        let mut body = vec![b'w'];
        body.put_u64(wal_start);
        body.put_u64(0);
        body.put_i64(99);
        body.put_slice(payload);
        message(b'd', &body)
    }

    #[test]
    fn a_stream_is_cut_wherever_its_bytes_were_parted() {
        let mut keepalive = vec![b'k'];
        keepalive.put_u64(77);
        keepalive.put_u64(0);
        keepalive.put_u8(1);
        let stream =
            [data(5, b"Irow"), message(b'd', &keepalive), message(b'N', b"hush"), message(b'c', b"")]
                .concat();
        for parted in 0..stream.len() {
            let (mut bytes, mut frames) = (BytesMut::new(), Vec::new());
            for part in [&stream[..parted], &stream[parted..]] {
                bytes.put_slice(part);
                while let Some(message) = Message::cut(&mut bytes, 1 << 20).unwrap() {
                    frames.push(message.into_frame().unwrap());
                }
            }
            let expected = [
                Frame::Data { wal_start: 5, sent_pg_us: 99, data: Bytes::from_static(b"Irow") },
                Frame::Keepalive { wal_end: EndLsn(77), reply_requested: true },
                Frame::Aside,
                Frame::Ended,
            ];
            assert_eq!(frames, expected, "parted at {parted}");
        }
    }

    #[test]
    fn a_large_message_is_refused_before_it_has_come() {
        let whole = data(1, &[0; 1000]);
        let mut bytes = BytesMut::from(&whole[..40]);
        assert_eq!(missing(&bytes), whole.len() - 40);
        let row = data(1, &[b"U\0\0\0\x07".as_slice(), &[0; 1000]].concat());
        for parted in 0..row.len() {
            let found = too_large(&row[..parted], 500).unwrap();
            assert_eq!(found, (parted >= 35).then_some((7, row.len())), "parted at {parted}");
        }
        assert_eq!(too_large(&row, 5000), Ok(None));
        assert_eq!(too_large(&bytes, 500), Ok(None), "it is no row");
        assert_eq!(
            Message::cut(&mut bytes, 500),
            Err(FrameError::TooLarge { bytes: whole.len(), bytes_max: 500 })
        );
    }

    #[test]
    fn an_error_says_what_and_why_and_its_code() {
        let body = b"SERROR\0C55006\0Mslot is in use\0Dby 7\0Htry later\0\0";
        let error = ServerError::read(body);
        assert_eq!(
            (error.code.as_str(), error.to_string().as_str()),
            ("55006", "slot is in use (by 7) [55006]")
        );
        assert_eq!(ServerError::read(b"Mcut o").to_string(), "cut o []");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = BytesMut::from(&bytes[..]);
            while let Ok(Some(message)) = Message::cut(&mut bytes, 1 << 20) {
                let _ = message.into_frame();
            }
        }
    }
}
