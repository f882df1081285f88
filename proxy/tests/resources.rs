//! What one client, or many, can take from the proxy: memory, descriptors, places.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Bare, Rig, ask, connect, read_answer, text};
use std::io::{BufReader, Write};

#[test]
fn a_head_is_refused_as_soon_as_it_is_too_large() {
    let rig = Rig::with("  max_head: 8KiB\n", vec![], |_| text(200, ""), |_| text(200, ""));
    let fields = format!("X: y\r\n{}\r\n", "X:\r\n".repeat(1024));
    let unfinished = "x".repeat(9000);
    for (rest, reason) in [(&unfinished, "max_head"), (&fields, "1024 fields")] {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(b"GET /long?secret HTTP/1.1\r\nHost: a\r\nA: b\r\n").unwrap();
        stream.write_all(rest.as_bytes()).unwrap();
        let got = read_answer(&mut BufReader::new(stream), "GET").unwrap();
        assert_eq!((got.status, got.header("connection")), (431, Some("close")));
        assert!(got.json()["hint"].as_str().unwrap().contains(reason), "{}", got.text());
    }
    assert_eq!(rig.proxy.metric("strangler_proxy_refused_total{why=\"head\"} "), 2.0);
    assert_eq!(ask(rig.proxy.address, "GET", "/", &[("X", &"x".repeat(8000))], b"").status, 200);
}

#[test]
fn an_answer_with_too_large_a_head_is_not_passed_on() {
    let answer = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let rig = Rig::before("", &Bare::breaking_off_after(answer.as_bytes()));
    let got = rig.ask("GET", "/");
    assert_eq!(got.status, 502);
    assert!(got.json()["hint"].as_str().unwrap().contains("max_head"), "{}", got.text());
}
