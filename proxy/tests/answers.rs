//! Answers that end otherwise than they say, come too early or too late, or have more behind them than they should.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Bare, Rig, ask, connect, raw, read_answer, read_past, route, text, wait_until};
use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// A proxy whose monolith is this server.
fn before(bare: &Bare) -> Rig {
    with_lines("", bare)
}

fn with_lines(lines: &str, bare: &Bare) -> Rig {
    let mut rig = Rig::with(lines, vec![], |_| text(200, ""), |_| text(200, "service"));
    rig.generation += 1;
    let generation = rig.generation;
    let mut desired = rig.desired(generation, vec![]);
    desired.table.monolith = vec![bare.url()];
    rig.controller.publish(desired);
    wait_until("the table is in use", || {
        rig.proxy.metric("strangler_proxy_generation ") == generation as f64
    });
    rig
}

fn told(rig: &Rig, request: &str) -> String {
    String::from_utf8_lossy(&raw(rig.proxy.address, request.as_bytes())).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn an_answer_that_is_cut_off_never_looks_whole() {
    for (sent, is_chunked) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"[..], false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", true),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nz\r\n\r\n", true),
    ] {
        let bare = Bare::new(move |stream, _| {
            read_past(stream, b"\r\n\r\n");
            stream.write_all(sent).unwrap();
        });
        let back = told(&before(&bare), &GET.replace("close", "keep-alive"));
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
fn an_answer_that_can_be_read_in_two_ways_is_502() {
    for sent in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 700 Odd\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX\0: y\r\nContent-Length: 0\r\n\r\n",
    ] {
        let bare = Bare::new(move |stream, _| {
            read_past(stream, b"\r\n\r\n");
            stream.write_all(sent.as_bytes()).unwrap();
        });
        let back = told(&before(&bare), GET);
        assert!(back.starts_with("HTTP/1.1 502 "), "{sent:?} was answered {back:?}");
    }
}

#[test]
fn what_follows_an_answer_is_no_answer_to_the_next_request() {
    for first in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfirst",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
    ] {
        let bare = Bare::new(move |stream, number| {
            let second = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";
            while !read_past(stream, b"\r\n\r\n").is_empty() {
                stream.write_all(if number == 1 { first } else { second }).unwrap();
            }
        });
        let rig = before(&bare);
        let mut stream = connect(rig.proxy.address);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for expected in ["first", "second"] {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let got = read_answer(&mut reader, "GET").unwrap();
            assert_eq!((got.status, got.text().as_str()), (200, expected));
            assert!(got.header("content-length").is_none() || got.header("transfer-encoding").is_none());
        }
        assert_eq!(bare.count(), 2);
    }
}

#[test]
fn bytes_that_come_late_on_a_kept_connection_are_no_answer() {
    let bare = Bare::new(|stream, number| {
        while !read_past(stream, b"\r\n\r\n").is_empty() {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes())
                .unwrap();
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").unwrap();
        }
    });
    let rig = before(&bare);
    assert_eq!(rig.ask("GET", "/").text(), "1");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rig.ask("GET", "/").text(), "2");
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
    let rig = before(&bare);
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
    assert_eq!(bare.count(), 1, "all of it goes over one connection");
}

#[test]
fn an_answer_is_framed_as_its_client_understands_it() {
    let until_close = Bare::new(|stream, _| {
        read_past(stream, b"\r\n\r\n");
        stream.write_all(b"HTTP/1.0 200 OK\r\nX-Kept : yes\r\n\r\nto the end").unwrap();
    });
    let rig = before(&until_close);
    let back = told(&rig, GET);
    assert!(back.ends_with("\r\n\r\na\r\nto the end\r\n0\r\n\r\n"), "{back}");
    assert!(back.starts_with("HTTP/1.1 200 OK\r\n") && back.contains("\r\nX-Kept: yes\r\n"), "{back}");
    let back = told(&rig, "GET / HTTP/1.0\r\n\r\n");
    assert!(back.ends_with("Connection: close\r\n\r\nto the end"), "{back}");
    let chunked = Bare::saying(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    );
    let rig = before(&chunked);
    let back = told(&rig, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(back.starts_with("HTTP/1.1 200 OK\r\n") && back.ends_with("close\r\n\r\nhello"), "{back}");
    let back = told(&rig, GET);
    assert!(back.starts_with("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"), "{back}");
    assert!(back.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n") && !back.contains("Trailer"), "{back}");
}

#[test]
fn a_client_that_waits_for_leave_to_go_on_gets_it_from_the_upstream() {
    let bare = Bare::new(|stream, _| {
        let head = String::from_utf8(read_past(stream, b"\r\n\r\n")).unwrap();
        assert!(head.contains("Expect: 100-continue"), "{head}");
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    let rig = before(&bare);
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
fn an_answer_before_the_requests_end_ends_both_connections() {
    let bare = Bare::saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let rig = before(&bare);
    for _ in 0..2 {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello").unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let got = read_answer(&mut reader, "POST").unwrap();
        assert_eq!((got.status, got.header("connection")), (403, Some("close")));
        // The client is still sending; its answer must not be lost by that.
        let _ = stream.write_all(&[b'x'; 100_000]);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(bare.count(), 2);
}

#[test]
fn both_directions_move_at_once_and_nothing_piles_up() {
    const LENGTH: usize = 32 << 20;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    // It answers with what it reads, and reads no further while its answer is not taken.
    let bare = Bare::new(move |stream, _| {
        read_past(stream, b"\r\n\r\n");
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes()).unwrap();
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..count]).unwrap();
            counted.fetch_add(count, SeqCst);
        }
    });
    let rig = before(&bare);
    let mut stream = connect(rig.proxy.address);
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
        sender.write_all(head.as_bytes()).unwrap();
        (0..LENGTH / 1024).for_each(|n| sender.write_all(&[n as u8; 1024]).unwrap());
    });
    // Nobody takes the answer yet: what moves is bounded by the sockets' buffers.
    let mut before = usize::MAX;
    while written.load(SeqCst) != before {
        before = written.load(SeqCst);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(before < LENGTH / 2, "{before} bytes piled up");
    read_past(&mut stream, b"\r\n\r\n");
    let mut body = vec![0; LENGTH];
    stream.read_exact(&mut body).unwrap();
    sending.join().unwrap();
    assert!(body.chunks(1024).enumerate().all(|(n, piece)| piece.iter().all(|byte| *byte == n as u8)));
}

#[test]
fn a_client_that_leaves_ends_its_request_at_the_upstream() {
    let (left, noticed) = std::sync::mpsc::channel();
    let left = std::sync::Mutex::new(left);
    let bare = Bare::new(move |stream, number| {
        read_past(stream, b"\r\n\r\n");
        if number == 2 {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n").unwrap();
        }
        left.lock().unwrap().send(matches!(stream.read(&mut [0]), Ok(0) | Err(_))).unwrap();
    });
    let rig = before(&bare);
    for _ in 0..2 {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        drop(stream);
        assert!(noticed.recv_timeout(Duration::from_secs(5)).unwrap(), "the upstream still works for nobody");
    }
    rig.proxy.until("it is logged", || {
        String::from_utf8_lossy(&rig.proxy.log.lock().unwrap()).contains("\"status\":499")
    });
}

#[test]
fn a_worn_out_connection_costs_a_read_nothing_and_a_write_is_not_repeated() {
    let heads = Arc::new(AtomicUsize::new(0));
    let counted = heads.clone();
    // Each connection answers once, and breaks at its second request.
    let bare = Bare::new(move |stream, _| {
        read_past(stream, b"\r\n\r\n");
        counted.fetch_add(1, SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        if !read_past(stream, b"\r\n\r\n").is_empty() {
            counted.fetch_add(1, SeqCst);
        }
    });
    let rig = before(&bare);
    assert_eq!(rig.ask("GET", "/").status, 200);
    assert_eq!(rig.ask("GET", "/").status, 200);
    assert_eq!((heads.load(SeqCst), bare.count()), (3, 2), "it was sent again on a fresh connection");
    for method in ["PUT", "DELETE", "POST"] {
        let before = heads.load(SeqCst);
        assert_eq!(rig.ask(method, "/").status, 502);
        assert_eq!(heads.load(SeqCst), before + 1, "{method} was sent once");
        assert_eq!(rig.ask("GET", "/").status, 200);
    }
}

#[test]
fn a_silent_upstream_is_late_whatever_the_client_sends_meanwhile() {
    let bare = Bare::new(|stream, _| {
        read_past(stream, b"\r\n\r\n");
        std::thread::sleep(Duration::from_secs(4));
    });
    let rig = with_lines("  read_timeout: 500ms\n", &bare);
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
        vec![migrations::control::TableRoute {
            access: migrations::pattern::Access::Read,
            ..route("search", "POST /orders/search", "service", false)
        }],
        |asked| text(200, &String::from_utf8_lossy(&asked.body)),
        |_| rig::Reply::Close,
    );
    let sent = "POST /orders/search HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: \
                chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let back = raw(rig.proxy.address, sent.as_bytes());
    assert!(back.ends_with(b"\r\n\r\nabcdefg"), "{}", String::from_utf8_lossy(&back));
    assert_eq!(ask(rig.proxy.address, "POST", "/orders/search", &[], &[b'x'; 60_000]).body.len(), 60_000);
}

#[test]
fn a_tunnel_ends_when_either_side_ends() {
    let bare = Bare::new(|stream, number| {
        read_past(stream, b"\r\n\r\n");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello",
            )
            .unwrap();
        if number == 1 {
            // The client ends it.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    });
    let rig = before(&bare);
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    for is_ended_by_client in [true, false] {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(head.as_bytes()).unwrap();
        let answer = String::from_utf8(read_past(&mut stream, b"\r\n\r\n")).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("Upgrade: websocket"), "{answer}");
        let mut words = [0; 5];
        stream.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"hello");
        if is_ended_by_client {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        assert_eq!(stream.read(&mut words).unwrap(), 0);
    }
}
