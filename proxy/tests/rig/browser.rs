//! Clients: a single request, raw bytes, and a client that keeps cookies.

use super::bare::connect;
use super::wire::{Got, read_answer};
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many there were.
static BROWSERS: AtomicUsize = AtomicUsize::new(0);

pub struct Browser {
    pub to: SocketAddr,
    /// Each is another one.
    pub agent: String,
    pub jar: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(to: SocketAddr) -> Self {
        let number = BROWSERS.fetch_add(1, Relaxed);
        Self { to, agent: format!("Browser/{number}"), jar: BTreeMap::new() }
    }

    pub fn ask(&mut self, method: &str, target: &str) -> Got {
        let line: Vec<String> = self.jar.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let line = line.join("; ");
        let mut headers = vec![("User-Agent", &*self.agent), ("Accept-Language", "de")];
        if !line.is_empty() {
            headers.push(("Cookie", &line));
        }
        let got = ask(self.to, method, target, &headers, b"");
        for (name, value) in got.cookies() {
            if value.is_empty() {
                self.jar.remove(&name)
            } else {
                self.jar.insert(name, value)
            };
        }
        got
    }
}

/// One request on its own connection.
pub fn ask(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n");
    headers.iter().for_each(|(n, v)| request.push_str(&format!("{n}: {v}\r\n")));
    if !body.is_empty() || method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let sent = raw(to, &[request.as_bytes(), body].concat());
    let mut reader = BufReader::new(&sent[..]);
    read_answer(&mut reader, method).unwrap_or_else(|| panic!("no answer to {method} {target}: {sent:?}"))
}

/// Sends bytes and reads until the other side closes.
pub fn raw(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(to);
    stream.write_all(bytes).unwrap();
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    back
}
