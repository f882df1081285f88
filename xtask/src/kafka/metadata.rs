//! One question to a Kafka broker, in its own protocol: who is there, and which topics are there?
//!
//! Enough to know that a broker is up and what was left in it; everything else is for a real client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One request to a broker that is up takes milliseconds.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// A few hundred bytes for each topic.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Marks our question, and its answer.
const CORRELATION: i32 = 7;

/// Whether a broker is registered and unfenced.
///
/// # Errors
/// When nothing or something else answers.
pub fn knows_a_broker(port: u16) -> Result<bool> {
    Ok(ask(port)?.brokers > 0)
}

/// What a broker knows of its cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Metadata {
    /// How many brokers are registered and unfenced.
    pub brokers: u32,
    /// The names of all topics, Kafka's own included.
    pub topics: Vec<String>,
}

/// Asks for the cluster's metadata with all topics.
///
/// Kafka protocol, Metadata request version 1: i32 size, i16 api key 3, i16 version, i32 correlation id, nullable
/// string client id, i32 number of topics (-1: all).
///
/// # Errors
/// When nothing or something else answers.
pub fn ask(port: u16) -> Result<Metadata> {
    let mut request = Vec::new();
    request.extend_from_slice(&3i16.to_be_bytes());
    request.extend_from_slice(&1i16.to_be_bytes());
    request.extend_from_slice(&CORRELATION.to_be_bytes());
    request.extend_from_slice(&(-1i16).to_be_bytes());
    request.extend_from_slice(&(-1i32).to_be_bytes());
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    stream.set_write_timeout(Some(REQUEST_LIMIT))?;
    stream.write_all(&i32::try_from(request.len())?.to_be_bytes())?;
    stream.write_all(&request)?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size))?;
    if size > MAX_ANSWER_BYTES {
        bail!("port {port} does not speak Kafka");
    }
    let mut answer = vec![0; size];
    stream.read_exact(&mut answer)?;
    Answer(&answer).metadata().with_context(|| format!("port {port} does not speak Kafka"))
}

/// The unread part of an answer. Everything it gives is `None` when the bytes run out.
struct Answer<'a>(&'a [u8]);

impl Answer<'_> {
    /// i32 correlation id; array of brokers (i32 id, string host, i32 port, nullable string rack); i32 controller id;
    /// array of topics (i16 error, string name, i8 internal, array of partitions (i16 error, i32 index, i32 leader,
    /// array of i32 replicas, array of i32 in-sync replicas)).
    fn metadata(mut self) -> Option<Metadata> {
        if self.i32()? != CORRELATION {
            return None;
        }
        let brokers = u32::try_from(self.i32()?).ok()?;
        for _ in 0..brokers {
            self.i32()?;
            self.string()?;
            self.i32()?;
            self.string()?;
        }
        self.i32()?;
        let mut topics = Vec::new();
        for _ in 0..self.i32()? {
            self.i16()?;
            topics.push(self.string()?);
            self.take(1)?;
            for _ in 0..self.i32()? {
                self.take(2 + 4 + 4)?;
                for _ in 0..2 {
                    let length = usize::try_from(self.i32()?).ok()?;
                    self.take(length.checked_mul(4)?)?;
                }
            }
        }
        Some(Metadata { brokers, topics })
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A null string is an empty one to us.
    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        Some(String::from_utf8_lossy(self.take(length)?).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_or_foreign_port_is_no_broker() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let web = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        assert!(knows_a_broker(port).is_err());
        web.join().unwrap();
        assert!(knows_a_broker(port).is_err());
    }

    #[test]
    fn an_answer_is_read_to_its_end_or_not_at_all() {
        let mut bytes = Vec::new();
        bytes.extend(CORRELATION.to_be_bytes());
        bytes.extend(1i32.to_be_bytes()); // one broker
        bytes.extend([0, 0, 0, 1, 0, 1, b'h', 0, 0, 0x23, 0x84, 0xff, 0xff]);
        bytes.extend([0, 0, 0, 1]); // controller
        bytes.extend(1i32.to_be_bytes()); // one topic with one partition
        bytes.extend([0, 0, 0, 4, b's', b'h', b'o', b'p', 0]);
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
        let whole = Metadata { brokers: 1, topics: vec!["shop".to_owned()] };
        assert_eq!(Answer(&bytes).metadata(), Some(whole));
        for length in 0..bytes.len() {
            assert_eq!(Answer(&bytes[..length]).metadata(), None, "{length}");
        }
    }
}
