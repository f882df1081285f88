//! Answers that end early, come too early or too late, or can be read in two ways.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Bare, Rig, ask, connect, raw, read_answer, read_past, route, search, text};
use std::io::{BufReader, Read, Write};
use std::time::Duration;

fn told(rig: &Rig, request: &str) -> String {
    String::from_utf8_lossy(&raw(rig.proxy.address, request.as_bytes())).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn a_truncated_answer_never_looks_complete() {
    for (sent, is_chunked) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"[..], false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nz\r\n\r\n", true),
    ] {
        let back =
            told(&Rig::before("", &Bare::breaking_off_after(sent)), &GET.replace("close", "keep-alive"));
        let (head, body) = back.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{back}");
        if is_chunked {
            assert!(head.contains("Transfer-Encoding: chunked") && body == "5\r\nhello\r\n", "{back}");
        } else {
            assert!(head.contains("Content-Length: 10") && body == "hello", "{back}");
        }
    }
}

#[test]
fn an_ambiguous_answer_is_502() {
    for sent in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\0: y\r\nContent-Length: 0\r\n\r\n",
    ] {
        let back = told(&Rig::before("", &Bare::breaking_off_after(sent.as_bytes())), GET);
        assert!(back.starts_with("HTTP/1.1 502 "), "{sent:?} was answered {back:?}");
        assert!(back.contains("cannot be passed on") && back.contains("\"hint\":\"it"), "{sent:?}: {back}");
    }
}

#[test]
fn what_old_servers_do_is_passed_on() {
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X: y\r\n".repeat(1000));
    for (sent, status) in [
        ("HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok", 600),
        ("HTTP/1.1 999 Request denied\r\nContent-Length: 2\r\n\r\nok", 999),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive; timeout=5\r\nContent-Length: 2\r\n\r\nok", 200),
        (
            "HTTP/1.1 200 OK\r\nConnection: \"keep-alive\", a b, X-Forwarded-For\r\nContent-Length: 2\r\n\r\nok",
            200,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            200,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200),
        (&many, 200),
    ] {
        let back = told(&Rig::before("", &Bare::breaking_off_after(sent.as_bytes())), GET);
        let got = read_answer(&mut BufReader::new(back.as_bytes()), "GET").unwrap();
        assert_eq!((got.status, got.text().as_str()), (status, "ok"), "{sent:?} was answered {back:?}");
        assert!(back.matches("ransfer-Encoding").count() < 2 && !back.contains("timeout=5"), "{back}");
    }
}

#[test]
fn a_malformed_answer_is_not_asked_for_again() {
    let odd = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello";
    let service = Bare::saying(odd);
    let rig = Rig::beside(&service, vec![route("list", "GET /orders", "service", false)]);
    let get = GET.replace("GET /", "GET /orders");
    let (first, second) = (told(&rig, &get), told(&rig, &get));
    assert!(
        first.contains("two different values") && second.contains("two different values"),
        "{first}{second}"
    );
    assert_eq!((service.count(), rig.monolith.count()), (2, 0));
}

#[test]
fn answers_without_a_body_leave_the_connections_in_order() {
    let bare = Bare::new(|stream, _| {
        loop {
            let head = read_past(stream, b"\r\n\r\n");
            let answer: &[u8] = match head.get(..7) {
                Some(b"HEAD / ") => b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n",
                Some(b"GET /20") => b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
                Some(b"GET /30") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n",
                Some(_) => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                None => return,
            };
            stream.write_all(answer).unwrap();
        }
    });
    let rig = Rig::before("", &bare);
    rig.earn_trust(&bare);
    let before = bare.count();
    let mut stream = connect(rig.proxy.address);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for (method, target, status, length) in [
        ("HEAD", "/", 200, Some("77")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("9")),
        ("GET", "/", 200, Some("2")),
    ] {
        stream.write_all(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let got = read_answer(&mut reader, method).unwrap();
        assert_eq!((got.status, got.header("content-length")), (status, length), "{method} {target}");
    }
    assert_eq!(bare.count(), before + 1, "all of it goes over one connection");
}

#[test]
fn an_answer_is_framed_as_its_client_understands_it() {
    let until_close = Bare::breaking_off_after(b"HTTP/1.0 200 OK\r\nX-Kept : yes\r\n\r\nto the end");
    let rig = Rig::before("", &until_close);
    let back = told(&rig, GET);
    assert!(back.ends_with("\r\n\r\na\r\nto the end\r\n0\r\n\r\n"), "{back}");
    assert!(back.starts_with("HTTP/1.1 200 OK\r\n") && back.contains("\r\nX-Kept: yes\r\n"), "{back}");
    let back = told(&rig, "GET / HTTP/1.0\r\n\r\n");
    assert!(back.ends_with("Connection: close\r\n\r\nto the end"), "{back}");
    let chunked = Bare::saying(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    );
    let rig = Rig::before("", &chunked);
    let back = told(&rig, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(back.starts_with("HTTP/1.1 200 OK\r\n") && back.ends_with("close\r\n\r\nhello"), "{back}");
    let back = told(&rig, GET);
    assert!(back.starts_with("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"), "{back}");
    assert!(back.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n") && !back.contains("Trailer"), "{back}");
}

#[test]
fn a_client_that_expects_100_continue_gets_it_from_the_upstream() {
    let bare = Bare::new(|stream, _| {
        let head = String::from_utf8(read_past(stream, b"\r\n\r\n")).unwrap();
        assert!(head.contains("Expect: 100-continue"), "{head}");
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    let rig = Rig::before("", &bare);
    let mut stream = connect(rig.proxy.address);
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(read_past(&mut stream, b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    let got = read_answer(&mut BufReader::new(stream), "POST").unwrap();
    assert_eq!((got.status, got.text().as_str()), (200, "hello"));
}

#[test]
fn an_early_answer_closes_both_connections() {
    let bare = Bare::saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let rig = Rig::before("", &bare);
    for _ in 0..2 {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello").unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let got = read_answer(&mut reader, "POST").unwrap();
        assert_eq!((got.status, got.header("connection")), (403, Some("close")));
        // The client is still sending. It must get its answer all the same.
        let _ = stream.write_all(&[b'x'; 100_000]);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(bare.count(), 2);
}

#[test]
fn a_silent_upstream_times_out_whatever_the_client_sends() {
    let bare = Bare::new(|stream, _| {
        read_past(stream, b"\r\n\r\n");
        std::thread::sleep(Duration::from_secs(4));
    });
    let rig = Rig::before("  read_timeout: 500ms\n", &bare);
    let started = std::time::Instant::now();
    let mut stream = connect(rig.proxy.address);
    for _ in 0..4 {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(200));
    }
    let got = read_answer(&mut BufReader::new(stream), "GET").unwrap();
    assert_eq!(got.status, 504);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_read_with_a_body_is_sent_again_with_all_of_it() {
    let rig = Rig::with(
        "",
        vec![search("service", false)],
        |asked| text(200, &String::from_utf8_lossy(&asked.body)),
        |_| rig::Reply::Close,
    );
    let sent = "POST /orders/search HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: \
                chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let back = raw(rig.proxy.address, sent.as_bytes());
    assert!(back.ends_with(b"\r\n\r\nabcdefg"), "{}", String::from_utf8_lossy(&back));
    assert_eq!(ask(rig.proxy.address, "POST", "/orders/search", &[], &[b'x'; 60_000]).body.len(), 60_000);
}

/// The next attempt's answer is read from its beginning, however long the unfinished head before it was.
#[test]
fn the_monolith_answers_when_the_service_breaks_off_in_its_head() {
    let half = format!("HTTP/1.1 200 OK\r\nX-Half: {}", "x".repeat(400));
    let service = Bare::breaking_off_after(half.as_bytes());
    let rig = Rig::beside(&service, vec![route("list", "GET /orders", "100%", false)]);
    let back = told(&rig, &GET.replace("GET /", "GET /orders"));
    assert!(back.starts_with("HTTP/1.1 200 ") && back.ends_with("monolith"), "{back}");
}

/// While the client must send, its own limit counts, not the upstream's.
#[test]
fn the_proxy_waits_for_a_client_that_got_100_continue() {
    let bare = Bare::new(|stream, _| {
        read_past(stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        read_past(stream, b"hello");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let rig = Rig::before("  read_timeout: 500ms\n", &bare);
    let mut client = connect(rig.proxy.address);
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    assert!(read_past(&mut client, b"\r\n\r\n").starts_with(b"HTTP/1.1 100 "));
    std::thread::sleep(Duration::from_millis(1500));
    client.write_all(b"hello").unwrap();
    let head = read_past(&mut client, b"\r\n\r\n");
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
}
