//! A stranger's HTTP request to the proxy, to see which side answers.
//!
//! Each request brings the proxy's own cookie with a new value, so the proxy sees another client each time. Without
//! the cookie, all requests would come from one client, known by the address of this machine.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The proxy knows a client by this cookie. Any new value is a new client.
const CLIENT_COOKIE: &str = "strangler_client";
const LIMIT: Duration = Duration::from_secs(10);
const MAX_ANSWER_BYTES: u64 = 4 << 20;

static STRANGERS: AtomicU32 = AtomicU32::new(0);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The side that gave it, by its own word: `monolith` or `orders`.
    pub served_by: Option<String>,
    pub body: String,
}

pub fn send(address: &str, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("nobody listens on {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let content = body.map_or(String::new(), |body| {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    });
    let body = body.unwrap_or_default();
    let cookie = format!("cookie: {CLIENT_COOKIE}=stranger-{}", STRANGERS.fetch_add(1, Ordering::Relaxed));
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{cookie}\r\n{content}");
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).context("no answer came")?;
    parse(&String::from_utf8_lossy(&answer))
}

/// How many of `clients` strangers' reads the service answered, and how many the monolith.
pub fn shares(address: &str, path: &str, clients: u32) -> Result<(u32, u32)> {
    let (mut service, mut monolith) = (0, 0);
    for _ in 0..clients {
        let answer = send(address, "GET", path, None)?;
        match answer.served_by.as_deref() {
            Some("monolith") => monolith += 1,
            Some(_) => service += 1,
            None => bail!("GET {path} was answered {} by neither side", answer.status),
        }
    }
    Ok((service, monolith))
}

fn parse(text: &str) -> Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.split("\r\n");
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("that is not HTTP")?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let mut served = headers.filter(|(name, _)| name.eq_ignore_ascii_case("x-served-by"));
    let served_by = served.next().map(|(_, side)| side.trim().to_owned());
    Ok(Answer { status, served_by, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_side_is_read_from_the_headers_only() {
        let answer = parse("HTTP/1.1 200 OK\r\nX-Served-By: orders\r\n\r\nx-served-by: monolith").unwrap();
        let body = "x-served-by: monolith".to_owned();
        assert_eq!(answer, Answer { status: 200, served_by: Some("orders".to_owned()), body: body.clone() });
        let answer = parse("HTTP/1.1 502 Bad Gateway\r\n\r\nx-served-by: monolith").unwrap();
        assert_eq!(answer, Answer { status: 502, served_by: None, body });
        assert!(parse("SSH-2.0").is_err());
    }
}
