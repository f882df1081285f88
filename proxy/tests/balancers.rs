//! What load balancers and their clients send: addresses with ports, lists, absolute targets, fields that imitate others.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Reply, Rig, ask, connect, raw, read_past, route, text, websocket};
use std::io::{Read, Write};

const TRUSTING: &str = "  trust_forwarded: true\n";

fn told(rig: &Rig, request: &str) -> String {
    String::from_utf8_lossy(&raw(rig.proxy.address, request.as_bytes())).into_owned()
}

#[test]
fn clients_are_told_apart_by_an_address_with_a_port() {
    let shared = vec![route("list", "GET /orders", "50%", false)];
    let rig = Rig::with(TRUSTING, shared, |_| text(200, "monolith"), |_| text(200, "service"));
    let side =
        |address: &str| ask(rig.proxy.address, "GET", "/orders", &[("X-Forwarded-For", address)], b"").text();
    let v4 = |n: usize, port: usize| format!("203.0.113.{n}:{port}, 10.0.0.1");
    let v6 = |n: usize, port: usize| format!("[2001:db8::{n:x}]:{port}");
    for of in [v4, v6] {
        let sides: Vec<_> = (0..40).map(|n| side(&of(n, 1000 + n))).collect();
        let at_service = sides.iter().filter(|side| *side == "service").count();
        assert!((5..36).contains(&at_service), "{at_service} of 40");
        let again: Vec<_> = (0..40).map(|n| side(&of(n, 9999 - n))).collect();
        assert_eq!(sides, again, "another port is the same client");
    }
    rig.proxy.until("it is logged", || rig.proxy.log_text().contains(r#""client":"203.0.113.7""#));
}

#[test]
fn the_first_of_several_schemes_is_the_clients() {
    let back = |asked: &rig::Asked| {
        let own = format!("http://{}/login", asked.header("x-own").unwrap_or_default());
        Reply::Answer(302, vec![("Location".to_owned(), own)], vec![])
    };
    let rig = Rig::with(TRUSTING, vec![], back, |_| text(200, ""));
    let own = rig.monolith.address.to_string();
    let location = |proto: &str| {
        let got = ask(rig.proxy.address, "GET", "/", &[("X-Forwarded-Proto", proto), ("X-Own", &own)], b"");
        got.header("location").unwrap_or_default().to_owned()
    };
    assert_eq!(location("https,http"), "https://shop.example/login");
    assert_eq!(location("http, https"), "http://shop.example/login");
    assert_eq!(rig.monolith.last().header("x-forwarded-proto"), Some("http, https"));
}

#[test]
fn a_field_that_a_server_takes_for_another_does_not_arrive() {
    for lines in ["", TRUSTING] {
        let rig = Rig::with(lines, vec![], |_| text(200, ""), |_| text(200, ""));
        let sent = "POST / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1.1.1.1\r\nX.Forwarded.For: 1.1.1.1\r\ncontent_length: 1\r\n\
                    Transfer_Encoding: chunked\r\nX-Tenant: us\r\nX_TENANT: them\r\nX_Api_Key: k\r\nContent-Length: 2\r\n\
                    Connection: close\r\n\r\nhi";
        assert!(told(&rig, sent).starts_with("HTTP/1.1 200 "));
        let asked = rig.monolith.last();
        assert_eq!((asked.header("x-tenant"), asked.header("x_api_key")), (Some("us"), Some("k")));
        assert_eq!(asked.body, b"hi");
        for name in ["x_forwarded_for", "x.forwarded.for", "content_length", "transfer_encoding", "x_tenant"]
        {
            assert_eq!(asked.header(name), None, "{name}");
        }
    }
}

#[test]
fn a_connection_field_takes_away_nothing_that_the_server_relies_on() {
    let rig = Rig::with(TRUSTING, vec![], |_| text(200, ""), |_| text(200, ""));
    for name in [
        "X-Forwarded-For",
        "Cookie",
        "traceparent",
        "Content-Length",
        "Authorization",
        "X-Real-IP",
        "Forwarded",
    ] {
        let sent = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, {name}\r\n{name}: 1\r\n\r\n");
        assert!(told(&rig, &sent).starts_with("HTTP/1.1 400 "), "{name}");
    }
    assert_eq!(rig.monolith.count(), 0);
}

#[test]
fn an_absolute_target_goes_on_as_its_path_and_host() {
    let rig = Rig::new(vec![route("list", "GET /orders", "service", false)]);
    for (target, host, sent) in [
        ("http://Shop.example/orders?a", "shop.example", "Shop.example"),
        ("http://shop.example:80/orders?a", "shop.example", "shop.example:80"),
        ("http://shop.example/orders?a", "SHOP.example:80", "shop.example"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert!(told(&rig, &head).ends_with("service"), "{target}");
        let asked = rig.service.last();
        assert_eq!((&*asked.target, asked.header("host")), ("/orders?a", Some(sent)));
    }
    let before = rig.monolith.count() + rig.service.count();
    for host in ["a b", "a/b", "a,b", "a:b", "[::1", "", "a:80:80", "<a>", "b\u{fc}cher"] {
        let back = told(&rig, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(back.starts_with("HTTP/1.1 400 ") && back.contains("`Host`"), "{host}: {back}");
    }
    let back = told(&rig, "GET http://other.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert!(back.starts_with("HTTP/1.1 400 "), "{back}");
    assert_eq!(rig.monolith.count() + rig.service.count(), before);
}

#[test]
fn a_request_that_may_not_be_forwarded_ends_at_the_proxy() {
    let rig = Rig::new(vec![]);
    let ask_with = |method: &str, forwards: &str| {
        told(
            &rig,
            &format!(
                "{method} /a?b HTTP/1.1\r\nHost: a\r\nMax-Forwards: {forwards}\r\nConnection: close\r\n\r\n"
            ),
        )
    };
    let options = ask_with("OPTIONS", "0");
    assert!(options.starts_with("HTTP/1.1 200 ") && options.contains("\r\nAllow: GET, HEAD, "), "{options}");
    let trace = ask_with("TRACE", "0");
    assert!(trace.contains("\r\n\r\nTRACE /a?b HTTP/1.1\r\nHost: a\r\n"), "{trace}");
    assert_eq!(rig.monolith.count(), 0);
    assert!(ask_with("TRACE", "x").starts_with("HTTP/1.1 400 "));
    for (method, sent, left) in
        [("OPTIONS", "5", "4"), ("TRACE", "1", "0"), ("GET", "5", "5"), ("GET", "0", "0")]
    {
        assert!(ask_with(method, sent).starts_with("HTTP/1.1 200 "), "{method} {sent}");
        assert_eq!(rig.monolith.last().header("max-forwards"), Some(left), "{method}");
    }
    rig.proxy.until("it is logged", || rig.proxy.log_text().matches(r#""why":"here""#).count() == 2);
    assert_eq!(rig.proxy.metric("strangler_proxy_decisions_total{why=\"here\"} "), 2.0);
}

#[test]
fn a_websocket_may_say_that_its_request_has_no_body() {
    let rig = Rig::with("", vec![], |_| websocket(), |_| text(200, ""));
    let mut stream = connect(rig.proxy.address);
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nping";
    stream.write_all(head.as_bytes()).unwrap();
    let seen = read_past(&mut stream, b"\r\n\r\n");
    assert!(seen.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&seen));
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"gnip");
}

#[test]
fn a_refused_head_leaves_a_line_in_the_access_log() {
    let rig = Rig::new(vec![]);
    let heads = [
        ("GET /no-host?secret HTTP/1.1\r\n\r\n", "GET", "/no-host"),
        ("DELETE /no-colon HTTP/1.1\r\nHost\r\n\r\n", "DELETE", "/no-colon"),
        ("GET /bare HTTP/1.1\nHost: a\n\n", "GET", "/bare"),
        ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n", "", ""),
    ];
    for (number, (head, method, path)) in heads.iter().enumerate() {
        assert!(told(&rig, head).starts_with("HTTP/1.1 400 "), "{head:?}");
        rig.proxy.until("it is logged", || rig.proxy.log_text().lines().count() > number);
        let log = rig.proxy.log_text();
        let mut found = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let is_it = |line: &serde_json::Value| line["method"] == *method && line["path"] == *path;
        let line = found.find(is_it).unwrap_or_else(|| panic!("{head:?}: {log}"));
        assert_eq!((line["status"].as_u64(), line["why"].as_str()), (Some(400), Some("refused")), "{line}");
        assert_eq!(line["client"], "127.0.0.1");
    }
    assert!(!rig.proxy.log_text().contains("secret"));
}
