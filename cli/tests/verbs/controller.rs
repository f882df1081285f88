//! A controller, or a bridge, that returns canned answers.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

/// What was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub body: Value,
}

/// Returns each path's answer, and never answers other paths. Returns its port, and every request.
pub fn start(answers: Vec<(&'static str, Value)>) -> (u16, mpsc::Receiver<Request>) {
    play(move |request| {
        let known = answers.iter().find(|(known, _)| *known == request.path);
        known.map(|(_, answer)| (200, answer.clone()))
    })
}

/// Answers with a status code and a document. A request without an answer waits for ever.
pub fn play(
    mut answer: impl FnMut(&Request) -> Option<(u16, Value)> + Send + 'static,
) -> (u16, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        let mut waiting = Vec::new();
        for connection in listener.incoming().flatten() {
            let Some(request) = read(&connection) else { continue };
            match answer(&request) {
                Some((code, document)) => _ = respond(&connection, code, &document.to_string()),
                None => waiting.push(connection),
            }
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (port, asked)
}

fn read(connection: &TcpStream) -> Option<Request> {
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
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok()?;
    let mut words = first.split(' ');
    let method = words.next()?.to_owned();
    let (path, query) = words.next().map(|target| target.split_once('?').unwrap_or((target, "")))?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), body })
}

fn respond(mut connection: &TcpStream, code: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(connection, "HTTP/1.1 {code} It\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
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
        "slice": "orders", "stage": "monolith", "epoch": 0, "owner": "monolith", "generation": 3,
        "proxies": { "live": proxies, "have": proxies }, "next_steps": ["strangler status"],
    })
}
