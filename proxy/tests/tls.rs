//! Clients that come by TLS: what they are shown, what they get, and who is refused.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{
    Certificates, Got, Reply, Rig, ask, ask_securely, client, come, come_as, connect, raw, read_answer,
    read_past, shown_to, text, wait_until, websocket,
};
use rustls::{AlertDescription, SignatureScheme};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A proxy with a certificate for `shop.example`, and its lines.
fn rig(more: &str, monolith: impl Fn(&rig::Asked) -> Reply + Send + Sync + 'static) -> (Rig, Certificates) {
    let certificates = Certificates::of(&["shop shop.example"]);
    let lines = certificates.lines(&["shop"], more);
    (Rig::with(&lines, vec![], monolith, |_| text(200, "")), certificates)
}

fn handshakes(rig: &Rig, outcome: &str) -> f64 {
    rig.proxy.metric(&format!("strangler_proxy_handshakes_total{{outcome=\"{outcome}\"}} "))
}

#[test]
fn a_host_is_shown_its_certificate_and_everyone_else_the_first() {
    let certificates = Certificates::of(&[
        "first first.example",
        "shop shop.example,*.shop.example",
        "both-ec both.example",
        "both-rsa both.example",
    ]);
    let lines = certificates.lines(&["first", "shop", "both-ec", "both-rsa"], "");
    let _rig = Rig::with(&lines, vec![], |_| text(200, ""), |_| text(200, ""));
    for (host, name) in [
        ("first.example", "first"),
        ("shop.example", "shop"),
        ("SHOP.example", "shop"),
        ("a.shop.example", "shop"),
        ("a.b.shop.example", "first"),
        ("unknown.example", "first"),
        ("example", "first"),
        // It names no host.
        ("127.0.0.1", "first"),
        ("both.example", "both-ec"),
    ] {
        assert!(shown_to(certificates.address, host) == certificates.shown(name), "{host}");
    }
    let old = client(&[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]);
    let stream = come_as(old, certificates.address, "both.example").unwrap();
    assert!(stream.conn.peer_certificates().unwrap()[0][..] == certificates.shown("both-rsa"));
}

#[test]
fn upstreams_hear_that_the_client_came_by_tls() {
    let own = |asked: &rig::Asked| {
        let own = format!("http://{}/login", asked.header("x-own").unwrap_or_default());
        Reply::Answer(302, vec![("Location".to_owned(), own)], vec![])
    };
    let (rig, certificates) = rig("", own);
    let lines =
        format!("X-Forwarded-Proto: http\r\nX-Forwarded-Port: 81\r\nX-Own: {}\r\n", rig.monolith.address);
    let got = ask_securely(certificates.address, "GET /", &lines).unwrap();
    assert_eq!(got.header("location"), Some("https://shop.example/login"));
    let asked = rig.monolith.last();
    for (name, value) in [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-for", "127.0.0.1"),
        ("host", "shop.example"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
    // Plain clients are served as before.
    assert_eq!(ask(rig.proxy.address, "GET", "/", &[], b"").status, 302);
    assert_eq!(rig.monolith.last().header("x-forwarded-proto"), Some("http"));
    let mut stream = come(certificates.address, "shop.example").unwrap();
    for _ in 0..3 {
        stream.write_all(GET).unwrap();
        let got = read_answer(&mut BufReader::new(&mut stream), "GET").unwrap();
        assert_eq!(got.header("connection"), Some("keep-alive"));
    }
    assert_eq!(handshakes(&rig, "done"), 2.0);
}

#[test]
fn bodies_of_any_size_and_upgrades_pass() {
    const LENGTH: usize = 24 << 20;
    let (rig, certificates) = rig("", |asked| match asked.header("upgrade") {
        Some(_) => websocket(),
        None => Reply::Answer(200, vec![], asked.body.clone()),
    });
    let mut stream = come(certificates.address, "shop.example").unwrap();
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let body: Vec<u8> = (0..LENGTH).map(|n| (n / 997) as u8).collect();
    stream.write_all(&body).unwrap();
    let mut reader = BufReader::new(&mut stream);
    let mut got = read_answer(&mut reader, "POST").unwrap();
    while got.status == 100 {
        got = read_answer(&mut reader, "POST").unwrap();
    }
    assert!(got.status == 200 && got.body == body, "{} of {} bytes", got.body.len(), body.len());
    drop(reader);
    drop(stream);

    let mut stream = come(certificates.address, "shop.example").unwrap();
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert!(read_past(&mut stream, b"\r\n\r\n").starts_with(b"HTTP/1.1 101"));
    for word in [b"abcd", b"\x00\x16\x03\x01"] {
        stream.write_all(word).unwrap();
        let mut frame = [0; 4];
        stream.read_exact(&mut frame).unwrap();
        frame.reverse();
        assert_eq!(&frame, word);
    }
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the tunnel ends on both sides");
    rig.proxy.until("nobody is left", || rig.proxy.metric("strangler_proxy_connections ") == 0.0);
}

#[test]
fn a_plain_request_is_sent_to_the_same_place_by_tls() {
    let (rig, certificates) = rig("    redirect: true\n", |_| text(200, "monolith"));
    let port = certificates.address.port();
    let plain = |method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]| {
        let got = ask(rig.proxy.address, method, target, fields, body);
        (got.status, got.header("location").unwrap_or_default().to_owned())
    };
    let there = |target: &str| (308, format!("https://shop.example:{port}{target}"));
    assert_eq!(plain("GET", "/a?b=c", &[], b""), there("/a?b=c"));
    assert_eq!(plain("POST", "/a", &[], &[b'x'; 100_000]), there("/a"));
    assert_eq!(plain("GET", "/", &[("X-Forwarded-Proto", "https")], b""), there("/"), "anyone can say so");
    assert_eq!(
        plain("GET", "/.well-known/acme-challenge/../a", &[], b""),
        there("/.well-known/acme-challenge/../a")
    );
    assert!(raw(rig.proxy.address, b"GET / HTTP/1.0\r\n\r\n").starts_with(b"HTTP/1.1 400 "));
    assert_eq!(rig.monolith.count(), 0);
    // An authority asks whether the host is ours.
    assert_eq!(plain("GET", "/.well-known/acme-challenge/t0-k_n", &[], b""), (200, String::new()));
    assert_eq!(ask_securely(certificates.address, "GET /a", "").unwrap().text(), "monolith");
    rig.proxy.until("they are logged", || rig.proxy.log_text().matches(r#""status":308"#).count() == 4);

    // A balancer that is trusted says how the client came.
    let lines = certificates.lines(&["shop"], "    redirect: 443\n  trust_forwarded: true\n");
    let lines = lines.replace(&certificates.address.to_string(), &rig::free_address().to_string());
    let behind = Rig::with(&lines, vec![], |_| text(200, "monolith"), |_| text(200, ""));
    let status = |proto: &str| {
        let got = ask(behind.proxy.address, "GET", "/x", &[("X-Forwarded-Proto", proto)], b"");
        (got.status, got.header("location").unwrap_or_default().to_owned())
    };
    assert_eq!(status("https"), (200, String::new()));
    assert_eq!(status("http"), (308, "https://shop.example/x".to_owned()));
}

/// The alert that answers this first message.
fn alert(rig: &Certificates, message: &[u8]) -> Vec<u8> {
    let mut stream = connect(rig.address);
    stream.write_all(message).unwrap();
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    back
}

/// A ClientHello of this version (RFC 5246, 7.4.1.2) that is good for 3.3.
fn hello(version: u8) -> Vec<u8> {
    let suites = [0, 4, 0xc0, 0x13, 0xc0, 0x2b];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let groups = [0, 10, 0, 4, 0, 2, 0, 29];
    let body = [&[3, version][..], &[7; 32], &[0], &suites, &[1, 0, 0, 16], &signatures, &groups].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

#[test]
fn who_does_not_speak_as_we_do_is_refused_in_words() {
    let (rig, certificates) = rig("", |_| text(200, "monolith"));
    for version in [0, 1, 2] {
        let back = alert(&certificates, &hello(version));
        assert_eq!(back, [21, 3, 3, 0, 2, 2, 70], "protocol_version for 3.{version}");
    }
    let mut stream = connect(certificates.address);
    stream.write_all(&hello(3)).unwrap();
    let mut record = [0];
    stream.read_exact(&mut record).unwrap();
    assert_eq!(record, [22], "TLS 1.2 is spoken");
    drop(stream);
    assert!(!alert(&certificates, b"\x16garbage that is no record at all, and goes on").contains(&b'H'));
    let offering = |protocols: &[&str]| {
        let mut config = client(&[]);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut stream = come_as(config, certificates.address, "shop.example")?;
        stream.write_all(GET)?;
        let status = read_answer(&mut BufReader::new(&mut stream), "GET").unwrap().status;
        let agreed = stream.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        Ok::<_, std::io::Error>((status, agreed))
    };
    assert_eq!(offering(&["h2", "http/1.1"]).unwrap(), (200, Some("http/1.1".to_owned())));
    assert_eq!(offering(&["http/1.0"]).unwrap(), (200, Some("http/1.0".to_owned())));
    assert_eq!(offering(&[]).unwrap(), (200, None));
    let refused = offering(&["h2"]).unwrap_err();
    let refused = refused.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()).cloned();
    assert_eq!(refused, Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
    rig.proxy.until("all are counted", || handshakes(&rig, "failed") == 6.0);

    let back = raw(certificates.address, b"POST /secret HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    let got: Got = read_answer(&mut BufReader::new(&back[..]), "POST").unwrap();
    assert!(got.status == 400 && got.json()["hint"].as_str().unwrap().contains("https://"), "{}", got.text());
    assert_eq!(handshakes(&rig, "plain"), 1.0);
    assert_eq!(rig.proxy.metric("strangler_proxy_refused_total{why=\"tls\"} "), 1.0);
    assert!(rig.monolith.asked.lock().unwrap().iter().all(|asked| asked.target == "/"));
}

#[test]
fn a_slow_handshake_is_cut_and_shuts_nobody_out() {
    let (rig, certificates) = rig("  max_connections: 3\n", |_| text(200, "monolith"));
    let begun = Instant::now();
    let silent: Vec<_> = (0..6).map(|_| connect(certificates.address)).collect();
    let mut slow = connect(certificates.address);
    let slowly = hello(3);
    slow.write_all(&slowly[..20]).unwrap();
    assert_eq!(ask_securely(certificates.address, "GET /", "").unwrap().status, 200);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(
        rig.proxy.metric("strangler_proxy_evicted_total ") >= 5.0,
        "each has a place from its first moment"
    );
    // Byte by byte it takes longer than it may.
    let mut at = 20;
    while slow.write_all(&slowly[at..=at]).is_ok() {
        at += 1;
        assert!(begun.elapsed() < Duration::from_secs(20), "it may take as long as it likes");
        std::thread::sleep(Duration::from_millis(800));
        if !matches!(slow.set_nonblocking(true).and_then(|()| slow.peek(&mut [0])), Err(error) if error.kind() == ErrorKind::WouldBlock)
        {
            break;
        }
        slow.set_nonblocking(false).unwrap();
    }
    assert!(begun.elapsed() > Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(handshakes(&rig, "late") >= 1.0);
    drop(silent);
}

#[test]
fn an_end_is_said_and_one_that_is_not_said_does_no_harm() {
    let (rig, certificates) = rig("", |asked| text(200, &asked.body.len().to_string()));
    // It has the whole answer and then the word that this was the end: `ask_securely` fails otherwise.
    assert_eq!(ask_securely(certificates.address, "GET /", "").unwrap().status, 200);
    // A client that goes away in the middle of a body, without a word.
    let mut stream = come(certificates.address, "shop.example").unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc").unwrap();
    wait_until("it is under way", || rig.proxy.metric("strangler_proxy_connections ") == 1.0);
    std::thread::sleep(Duration::from_millis(200));
    drop(stream.sock);
    // One that has its answer and goes.
    let mut stream = come(certificates.address, "shop.example").unwrap();
    stream.write_all(GET).unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&mut stream), "GET").unwrap().status, 200);
    drop(stream.sock);
    rig.proxy.until("nobody is left", || rig.proxy.metric("strangler_proxy_connections ") == 0.0);
    let posts = |asked: &[rig::Asked]| asked.iter().filter(|asked| asked.method == "POST").count();
    assert_eq!(posts(&rig.monolith.asked.lock().unwrap()), 0, "half a body is no request");
    // The proxy says so, too, when it ends.
    let mut kept = come(certificates.address, "shop.example").unwrap();
    kept.write_all(GET).unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&mut kept), "GET").unwrap().status, 200);
    rig.proxy.stop();
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
}
