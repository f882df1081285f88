//! A head as it is sent, written line by line into the bytes to send.

use crate::Framing;
use crate::head::{AnswerHead, RequestHead};
use bytes::BytesMut;

/// Room for the fields that a proxy adds, and for a short body behind the head.
const MORE_BYTES: usize = 1536;

/// A head that is being written: its first line is there. [`OutgoingHead::end`] writes the empty line.
pub struct OutgoingHead<'a>(&'a mut BytesMut);

impl<'a> OutgoingHead<'a> {
    pub fn request(request: &RequestHead, out: &'a mut BytesMut) -> Self {
        out.reserve(request.bytes() + MORE_BYTES);
        put(out, &[request.method().as_bytes(), b" ", request.target(), b" HTTP/1.1\r\n"]);
        Self(out)
    }

    pub fn answer(answer: &AnswerHead, out: &'a mut BytesMut) -> Self {
        out.reserve(answer.fields.text().len() + MORE_BYTES);
        Self::status(answer.status, answer.reason(), out)
    }

    pub fn status(status: u16, reason: &[u8], out: &'a mut BytesMut) -> Self {
        let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
        put(out, &[b"HTTP/1.1 ", &digits, b" ", reason, b"\r\n"]);
        Self(out)
    }

    /// Writes a field. A value that is folded over several lines becomes one line.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.0.reserve(name.len() + value.len() + 4);
        put(self.0, &[name, b": "]);
        if value.contains(&b'\n') {
            let lines = value.split(|b| matches!(b, b'\r' | b'\n')).map(<[u8]>::trim_ascii);
            for (at, line) in lines.filter(|line| !line.is_empty()).enumerate() {
                put(self.0, &[if at == 0 { b"" } else { b" " }, line]);
            }
        } else {
            self.0.extend_from_slice(value);
        }
        self.0.extend_from_slice(b"\r\n");
    }

    pub fn list<'v>(&mut self, name: &[u8], values: impl Iterator<Item = &'v [u8]>) {
        put(self.0, &[name, b": "]);
        for (at, value) in values.enumerate() {
            put(self.0, &[if at == 0 { b"" } else { b", " }, value]);
        }
        self.0.extend_from_slice(b"\r\n");
    }

    /// Writes the field that says where the body ends, if it needs one.
    pub fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::Empty | Framing::UntilClose => {}
            Framing::Chunked => self.0.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Length(length) => {
                let mut digits = [b'0'; 20];
                let (mut at, mut left) = (digits.len() - 1, length);
                while left > 9 {
                    digits[at] = b'0' + (left % 10) as u8;
                    (at, left) = (at - 1, left / 10);
                }
                digits[at] = b'0' + left as u8;
                self.field(b"Content-Length", &digits[at..]);
            }
        }
    }

    pub fn end(self) {
        self.0.extend_from_slice(b"\r\n");
    }
}

fn put(out: &mut BytesMut, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_its_first_line_its_fields_and_an_empty_line() {
        let mut out = BytesMut::new();
        let mut head = OutgoingHead::status(200, b"Very  well", &mut out);
        head.field(b"X-Folded", b"a\r\n  b");
        head.list(b"X-List", [&b"a"[..], b"b"].into_iter());
        head.framing(Framing::Length(u64::MAX));
        head.end();
        let expected = "HTTP/1.1 200 Very  well\r\nX-Folded: a b\r\nX-List: a, b\r\nContent-Length: 18446744073709551615\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
