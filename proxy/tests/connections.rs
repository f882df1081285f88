//! Connections: which are used again, and how they end.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Bare, Rig, connect, read_answer, read_past};
use std::io::{BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[test]
fn bytes_after_an_answer_never_answer_the_next_request() {
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
        let rig = Rig::before("", &bare);
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
fn both_directions_move_at_once_and_nothing_piles_up() {
    const LENGTH: usize = 32 << 20;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    // It echoes, and stops reading while its answer is not taken.
    let bare = Bare::new(move |stream, _| {
        read_past(stream, b"\r\n\r\n");
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes()).unwrap();
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            stream.write_all(&piece[..count]).unwrap();
            counted.fetch_add(count, SeqCst);
        }
    });
    let rig = Rig::before("", &bare);
    let mut stream = connect(rig.proxy.address);
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
        sender.write_all(head.as_bytes()).unwrap();
        (0..LENGTH / 1024).for_each(|n| sender.write_all(&[n as u8; 1024]).unwrap());
    });
    // The client does not read yet, so the sockets' buffers bound what moves.
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
    let rig = Rig::before("", &bare);
    for _ in 0..2 {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        drop(stream);
        assert!(noticed.recv_timeout(Duration::from_secs(5)).unwrap(), "the upstream still works for nobody");
    }
    rig.proxy.until("it is logged", || rig.proxy.log_text().contains("\"status\":499"));
}

#[test]
fn a_stale_connection_costs_a_read_nothing_and_a_write_is_not_repeated() {
    let heads = Arc::new(AtomicUsize::new(0));
    let closes = Arc::new(AtomicBool::new(false));
    let (counted, is_closing) = (heads.clone(), closes.clone());
    let bare = Bare::new(move |stream, _| {
        for number in 1.. {
            if read_past(stream, b"\r\n\r\n").is_empty() {
                return;
            }
            counted.fetch_add(1, SeqCst);
            if number > 1 && is_closing.load(SeqCst) {
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let rig = Rig::before("", &bare);
    rig.earn_trust(&bare);
    closes.store(true, SeqCst);
    // Two requests on one connection, so that the second finds the first one's connection to the upstream.
    let ask_two = |methods: [&str; 2]| {
        let mut stream = connect(rig.proxy.address);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        methods.map(|method| {
            let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            read_answer(&mut reader, method).unwrap().status
        })
    };
    let before = (heads.load(SeqCst), bare.count());
    assert_eq!(ask_two(["GET", "GET"]), [200, 200]);
    let after = (heads.load(SeqCst), bare.count());
    assert_eq!((after.0 - before.0, after.1 - before.1), (3, 2), "it was sent again on a fresh connection");
    for method in ["PUT", "DELETE", "POST"] {
        let before = heads.load(SeqCst);
        assert_eq!(ask_two(["GET", method]), [200, 502]);
        assert_eq!(heads.load(SeqCst), before + 2, "{method} was sent once");
    }
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
    let rig = Rig::before("", &bare);
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

#[test]
fn a_stop_closes_idle_connections_and_lets_requests_finish() {
    let bare = Bare::new(|stream, _| {
        while !read_past(stream, b"\r\n\r\n").is_empty() {
            std::thread::sleep(Duration::from_millis(400));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
        }
    });
    let rig = Rig::before("", &bare);
    let ask = || {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        BufReader::new(stream)
    };
    let mut silent = ask();
    assert_eq!(read_answer(&mut silent, "GET").unwrap().header("connection"), Some("keep-alive"));
    let mut busy = ask();
    std::thread::sleep(Duration::from_millis(100));
    rig.proxy.stop();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let got = read_answer(&mut busy, "GET").unwrap();
    assert_eq!((got.text().as_str(), got.header("connection")), ("done", Some("close")));
}
