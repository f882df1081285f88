//! The admin port: what it answers, and to how many at a time.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Rig, ask, connect, raw, read_answer};
use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};

#[test]
fn a_kept_connection_is_answered_as_often_as_it_asks() {
    let rig = Rig::new(vec![]);
    let mut stream = connect(rig.proxy.admin);
    for (method, path, status, kind) in [
        ("GET", "/healthz", 200, "application/json"),
        ("HEAD", "/readyz", 200, "application/json"),
        ("GET", "/metrics", 200, "text/plain; version=0.0.4"),
        ("GET", "/secrets", 404, "application/json"),
        ("DELETE", "/readyz", 404, "application/json"),
    ] {
        stream.write_all(format!("{method} {path}?a HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let got = read_answer(&mut BufReader::new(&stream), method).unwrap();
        assert_eq!((got.status, got.header("content-type")), (status, Some(kind)), "{method} {path}");
        assert_eq!(got.header("connection"), Some("keep-alive"));
    }
    // A body is not read, so nothing can follow it.
    let back = raw(rig.proxy.admin, b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert!(back.starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&back));
    for bad in
        ["GET /healthz HTTP/1.1\r\n\r\n".to_owned(), format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(20_000))]
    {
        assert!(raw(rig.proxy.admin, bad.as_bytes()).starts_with(b"HTTP/1.1 400 "));
    }
}

#[test]
fn silent_connections_shut_nobody_out() {
    let rig = Rig::new(vec![]);
    let mut silent: Vec<_> = (0..100).map(|_| connect(rig.proxy.admin)).collect();
    silent.iter_mut().step_by(2).for_each(|stream| stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap());
    let begun = Instant::now();
    assert_eq!(ask(rig.proxy.admin, "GET", "/readyz", &[], b"").status, 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(rig.proxy.metric("strangler_proxy_admin_connections ") <= 32.0);
    assert!(rig.proxy.metric("strangler_proxy_admin_evicted_total ") >= 68.0);
    assert_eq!(silent[1].read(&mut [0]).unwrap(), 0, "the first to come left first");
    // Those of the clients are others.
    assert_eq!(ask(rig.proxy.address, "GET", "/", &[], b"").status, 200);
    assert_eq!(rig.proxy.metric("strangler_proxy_evicted_total "), 0.0);
}
