//! What passes unchanged, what is changed on the way, and what is refused.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Reply, Rig, ask, connect, raw, read_past, route, text, websocket};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn forwarded_headers_are_replaced_and_host_stays() {
    let rig = Rig::new(vec![]);
    let sent = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "444"),
        ("X-Forwarded-Ssl", "on"),
        ("X-Real-IP", "203.0.113.9"),
        ("Forwarded", "for=1.2.3.4"),
    ];
    ask(rig.proxy.address, "GET", "/", &sent, b"");
    let asked = rig.monolith.last();
    assert_eq!(asked.header("host"), Some("shop.example"));
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("http"));
    assert_eq!(asked.header("x-forwarded-port"), Some("80"));
    for name in ["x-forwarded-host", "x-forwarded-ssl", "x-real-ip"] {
        assert_eq!(asked.header(name), None, "{name}");
    }
    assert_eq!(asked.header("forwarded"), None);
    assert_eq!(rig.proxy.metric("strangler_proxy_forwarded_ignored_total "), 1.0);
    ask(rig.proxy.address, "GET", "/", &[("X-Forwarded-For", "203.0.113.9")], b"");
    assert_eq!(rig.proxy.metric("strangler_proxy_forwarded_ignored_total "), 1.0, "it says nothing of TLS");
    rig.proxy.until("the controller hears of it", || {
        let reports = rig.controller.observed.lock().unwrap();
        reports
            .last()
            .is_some_and(|last| serde_json::to_string(last).unwrap().contains("\"ignores_forwarded\":true"))
    });
}

#[test]
fn hop_by_hop_fields_are_not_passed_on() {
    let rig = Rig::new(vec![]);
    let fields = [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("TE", "trailers"),
        ("Trailer", "X-Sum"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ];
    for (name, value) in fields {
        let answer = raw(
            rig.proxy.address,
            format!("GET /one HTTP/1.0\r\nHost: shop.example\r\n{name}: {value}\r\nX-Kept: yes\r\n\r\n")
                .as_bytes(),
        );
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{name}: {}", String::from_utf8_lossy(&answer));
        let asked = rig.monolith.last();
        assert_eq!((asked.header(name), asked.header("x-kept")), (None, Some("yes")), "{name}");
    }
    ask(rig.proxy.address, "GET", "/", &[("Connection", "X-Once"), ("X-Once", "1"), ("X-Kept", "yes")], b"");
    let asked = rig.monolith.last();
    assert_eq!((asked.header("x-once"), asked.header("x-kept")), (None, Some("yes")));
}

#[test]
fn a_trusted_balancers_headers_are_appended_to() {
    let rig = Rig::with("  trust_forwarded: true\n", vec![], |_| text(200, ""), |_| text(200, ""));
    let sent =
        [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=1.2.3.4")];
    ask(rig.proxy.address, "GET", "/", &sent, b"");
    let asked = rig.monolith.last();
    assert_eq!(asked.header("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("https"));
    assert_eq!(asked.header("forwarded"), Some("for=1.2.3.4"));
}

#[test]
fn a_trace_is_passed_on_or_started() {
    let rig = Rig::new(vec![]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    ask(rig.proxy.address, "GET", "/", &[("traceparent", parent)], b"");
    assert_eq!(rig.monolith.last().header("traceparent"), Some(parent));
    ask(rig.proxy.address, "GET", "/", &[("traceparent", "nonsense")], b"");
    let started = rig.monolith.last().header("traceparent").unwrap().to_owned();
    // Whether the trace is sampled is the service's choice.
    assert_eq!((started.len(), &started[..3], &started[52..]), (55, "00-", "-00"));
    // Two threads may have served the two requests, and the log keeps the order within a thread only.
    let logged = |trace: &str| {
        let log = rig.proxy.log_text();
        log.lines().find(|line| line.contains(trace)).map(str::to_owned)
    };
    rig.proxy
        .until("both are logged", || logged(&started[3..35]).is_some() && logged(&parent[3..35]).is_some());
    let first: serde_json::Value = serde_json::from_str(&logged(&parent[3..35]).unwrap()).unwrap();
    assert_eq!(first["trace"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((first["status"].as_u64(), first["upstream"].as_str()), (Some(200), Some("monolith")));
}

#[test]
fn a_redirect_to_an_upstream_stays_on_the_proxy() {
    let service = |asked: &rig::Asked| {
        let own = asked.header("x-own").unwrap_or_default().to_owned();
        Reply::Answer(302, vec![("Location".to_owned(), own)], vec![])
    };
    let rig = Rig::with("", vec![route("list", "GET /orders", "service", false)], |_| text(200, ""), service);
    let location = |target: &str| {
        let got = ask(rig.proxy.address, "GET", "/orders", &[("X-Own", target)], b"");
        got.header("location").unwrap_or_default().to_owned()
    };
    assert_eq!(location(&format!("{}/orders/7?x=y", rig.service.url())), "http://shop.example/orders/7?x=y");
    assert_eq!(location(&format!("{}/login", rig.monolith.url())), "http://shop.example/login");
    assert_eq!(location("https://pay.example/x"), "https://pay.example/x");
    assert_eq!(location("/orders/7"), "/orders/7");
}

#[test]
fn an_upgraded_connection_carries_any_bytes_both_ways() {
    let rig = Rig::with("  read_timeout: 1s\n", vec![], |_| websocket(), |_| text(200, ""));
    let mut stream = connect(rig.proxy.address);
    let head = "GET /ws HTTP/1.1\r\nHost: shop.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let seen = read_past(&mut stream, b"\r\n\r\n");
    assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
    let mut frame = [0; 4];
    for round in 0..3u8 {
        stream.write_all(&[0, 0xff, round, b'\n']).unwrap();
        stream.read_exact(&mut frame).unwrap();
        assert_eq!(frame, [b'\n', round, 0xff, 0]);
    }
    // This is longer than the read timeout. An upgraded connection may be silent.
    std::thread::sleep(Duration::from_millis(1500));
    stream.write_all(b"abcd").unwrap();
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"dcba");
}

#[test]
fn a_streamed_answer_reaches_the_client_as_it_comes() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let monolith = move |_: &rig::Asked| {
        let gone = gone.clone();
        Reply::Speak(Box::new(move |stream: &mut TcpStream| {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(b"8\r\ndata: 1\n\r\n").unwrap();
            gone.lock().unwrap().recv_timeout(rig::PATIENCE).unwrap();
            stream.write_all(b"8\r\ndata: 2\n\r\n0\r\n\r\n").unwrap();
        }))
    };
    let rig = Rig::with("", vec![], monolith, |_| text(200, ""));
    let mut stream = connect(rig.proxy.address);
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut seen = read_past(&mut stream, b"data: 1\n");
    assert!(!seen.is_empty(), "the first event waits for the second");
    go.send(()).unwrap();
    stream.read_to_end(&mut seen).unwrap();
    assert!(String::from_utf8_lossy(&seen).contains("data: 2"));
}

#[test]
fn a_streamed_request_arrives_whole() {
    let rig = Rig::new(vec![]);
    let mut stream = connect(rig.proxy.address);
    stream
        .write_all(b"POST /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let mut sent = Vec::new();
    for n in 0..50u8 {
        let chunk = vec![n; 5000];
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).unwrap();
        stream.write_all(&chunk).unwrap();
        stream.write_all(b"\r\n").unwrap();
        sent.extend(chunk);
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let got = rig::read_answer(&mut BufReader::new(stream), "POST").unwrap();
    assert_eq!(got.status, 200);
    assert_eq!(rig.monolith.last().body, sent);
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let rig = Rig::with("", vec![], |asked| text(200, &asked.target), |_| text(200, ""));
    let two =
        b"GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let back = String::from_utf8(raw(rig.proxy.address, two)).unwrap();
    let (one, two) = (back.find("/one"), back.find("/two"));
    assert!(one.is_some() && two.is_some() && one < two, "{back}");
}

#[test]
fn ambiguous_framing_is_never_forwarded() {
    let rig = Rig::new(vec![]);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello{smuggled}"
        ),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello{smuggled}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello{smuggled}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello{smuggled}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\nhello{smuggled}"),
        format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("POST / HTTP/1.1\r\nHost: a\r\n X: y\r\nContent-Length: 0\r\n\r\n{smuggled}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{smuggled}"),
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    for case in &cases {
        let back = String::from_utf8_lossy(&raw(rig.proxy.address, case.as_bytes())).into_owned();
        assert!(back.is_empty() || back.starts_with("HTTP/1.1 4"), "{case:?} was answered {back:?}");
    }
    assert_eq!(rig.monolith.count(), 0, "{:#?}", rig.monolith.asked.lock().unwrap());
}

#[test]
fn bytes_after_a_refused_upgrade_are_not_forwarded_as_they_are() {
    let rig = Rig::new(vec![]);
    let sent = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\nConnection: close\r\n\r\n";
    raw(rig.proxy.address, sent.as_bytes());
    let asked = rig.monolith.asked.lock().unwrap();
    assert!(asked.iter().all(|a| a.header("x-forwarded-for") == Some("127.0.0.1")), "{asked:#?}");
}

#[test]
fn bodies_beyond_the_limit_are_refused() {
    let big = |_: &rig::Asked| text(200, &"x".repeat(3000));
    let rig = Rig::with("  max_body: 2KiB\n", vec![], big, |_| text(200, ""));
    let got = ask(rig.proxy.address, "POST", "/", &[], &vec![b'x'; 3000]);
    assert_eq!(got.status, 413);
    assert!(got.json()["hint"].is_string());
    assert_eq!(rig.monolith.count(), 0);
    let chunked = [
        &b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nbb8\r\n"[..],
        &[b'x'; 3000],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let back = raw(rig.proxy.address, &chunked);
    assert!(back.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&back));
    let got = rig.ask("GET", "/");
    assert_eq!((got.status, got.json()["upstream"].as_str()), (502, Some("monolith")));
}

#[test]
fn heads_beyond_the_limit_are_refused() {
    let rig = Rig::new(vec![]);
    let mut stream = connect(rig.proxy.address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap();
    let line = format!("X-Long: {}\r\n", "x".repeat(60_000));
    // The proxy may close the connection during these writes.
    let _ = (0..40).try_for_each(|_| stream.write_all(line.as_bytes()));
    let _ = stream.write_all(b"\r\n");
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    assert!(back.is_empty() || back.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&back));
    assert_eq!(rig.monolith.count(), 0);
}
