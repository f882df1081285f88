//! A controller, or a bridge, that returns canned answers.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

/// Returns each path's answer, and never answers other paths. Returns its port, and every requested path.
pub fn start(answers: Vec<(&'static str, Value)>) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        let mut waiting = Vec::new();
        for connection in listener.incoming().flatten() {
            let Some(path) = path_asked(&connection) else { continue };
            match answers.iter().find(|(known, _)| *known == path) {
                Some((_, answer)) => _ = respond(&connection, &answer.to_string()),
                None => waiting.push(connection),
            }
            if sender.send(path).is_err() {
                return;
            }
        }
    });
    (port, asked)
}

/// Reads a request. Returns its path without the query.
fn path_asked(connection: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(connection);
    let (mut first, mut length) = (String::new(), 0u64);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).ok()?;
    first.split([' ', '?']).nth(1).map(str::to_owned)
}

fn respond(mut connection: &TcpStream, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(connection, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// The status of a plan whose slice `orders` has tables and is at stage `monolith`.
pub fn status(agents: &[Value], findings: &[Value]) -> Value {
    json!({
        "plan": "shop", "journal": "00000000-0000-0000-0000-000000000001", "generation": 3, "now": 0,
        "slices": { "orders": {
            "stage": "monolith", "epoch": 0, "owner": "monolith", "has_tables": true, "routes": [], "lanes": {},
            "next_steps": [],
        } },
        "agents": agents, "findings": findings,
    })
}

/// A live bridge at this port, without capture.
pub fn bridge(port: u16) -> Value {
    json!({
        "agent": { "kind": "bridge", "name": "one" }, "address": format!("http://127.0.0.1:{port}"), "live": true,
        "seen_ms_ago": 1, "generation": 3, "report": { "bridge": { "feeds": {}, "lanes": {}, "findings": [], "holds_nothing": true } },
    })
}

/// The outcome of a wish for slice `orders`, with this many live proxies that all act on it.
pub fn outcome(proxies: u32) -> Value {
    json!({
        "slice": "orders", "stage": "monolith", "epoch": 0, "owner": "monolith", "generation": 3, "now": 0,
        "proxies": { "live": proxies, "have": proxies }, "next_steps": ["strangler status"],
    })
}
