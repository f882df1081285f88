//! Requests that two servers could read in two ways. An upstream gets nothing of them, or reads them in one way only.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Rig, connect, raw, read_answer, text};
use std::io::{BufReader, Read, Write};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn must_be_refused(rig: &Rig, cases: &[String]) {
    for case in cases {
        let back = String::from_utf8_lossy(&raw(rig.proxy.address, case.as_bytes())).into_owned();
        assert!(back.starts_with("HTTP/1.1 4"), "{case:?} was answered {back:?}");
        assert!(back.contains("\r\nConnection: close\r\n"), "{back}");
        assert_eq!(back.matches("HTTP/1.1 4").count(), 1, "{case:?} was answered {back:?}");
    }
    assert_eq!(rig.monolith.count(), 0, "{:#?}", rig.monolith.asked.lock().unwrap());
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() {
    let of = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n0\r\n\r\n{SMUGGLED}");
    let mut cases: Vec<String> = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\r\n\tfolded",
        "X: y\nTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\0z",
        "X\0: y",
        ": y",
        "no colon",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: 5 6",
        "Content-Length: 0x5",
        "Content-Length: 5.0",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Host: b",
        "Connection: host",
        "Connection: close, X-Forwarded-For",
        "Connection: \"X-Forwarded-For\"",
    ]
    .map(of)
    .into();
    cases.extend([
        format!("GET / HTTP/1.1\r\n\r\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\nHost: a\n\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n{SMUGGLED}"),
        format!("GET a HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n{SMUGGLED}"),
        format!("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET  / HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET / HTTP/1.2\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET / HTTP/2.0\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("GET /\r\n\r\n{SMUGGLED}"),
        format!("G@T / HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        format!("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(1100)),
    ]);
    must_be_refused(&Rig::new(vec![]), &cases);
}

#[test]
fn a_malformed_chunked_body_never_arrives_complete() {
    let of = |body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{SMUGGLED}")
    };
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(5000));
    let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let cases = [
        "3\nabc\n0\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "0\n\r\n",
        &long,
        &trailers,
    ];
    must_be_refused(&Rig::new(vec![]), &cases.map(of));
}

#[test]
fn a_truncated_body_never_arrives_complete() {
    let rig = Rig::new(vec![]);
    for sent in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(sent.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        let _ = stream.read_to_end(&mut back);
        assert!(back.is_empty(), "{sent:?} was answered {:?}", String::from_utf8_lossy(&back));
    }
    assert_eq!(rig.monolith.count(), 0, "{:#?}", rig.monolith.asked.lock().unwrap());
}

#[test]
fn pipelined_requests_are_answered_in_turn_and_end_where_they_say() {
    let rig = Rig::with(
        "",
        vec![],
        |asked| text(200, &format!("{} {:?}", asked.target, asked.body)),
        |_| text(200, ""),
    );
    let sent = "\r\n\r\nPOST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nGET /POST /two HTTP/1.1\r\nHost: \
                a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\nGET http://a/three?x HTTP/1.1\r\n\
                Host: a\r\n\r\nHEAD /four HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS * HTTP/1.1\r\nhost: a\r\nConnection: close\r\n\r\nGET \
                /never HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut stream = connect(rig.proxy.address);
    stream.write_all(sent.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let one = read_answer(&mut reader, "POST").unwrap();
    assert_eq!(one.text(), format!("/one {:?}", b"GET /"));
    assert_eq!(one.header("connection"), Some("keep-alive"));
    assert_eq!(read_answer(&mut reader, "POST").unwrap().text(), format!("/two {:?}", b"abc"));
    assert_eq!(read_answer(&mut reader, "GET").unwrap().text(), "/three?x []");
    let four = read_answer(&mut reader, "HEAD").unwrap();
    assert_eq!((four.status, four.header("content-length")), (200, Some("8")));
    let five = read_answer(&mut reader, "OPTIONS").unwrap();
    assert_eq!((five.text().as_str(), five.header("connection")), ("* []", Some("close")));
    assert!(read_answer(&mut reader, "GET").is_none());
    let asked = rig.monolith.asked.lock().unwrap();
    assert_eq!(asked.len(), 5, "{asked:#?}");
    assert_eq!(asked[0].header("content-length"), Some("5"));
    assert_eq!(asked[1].header("transfer-encoding"), Some("chunked"));
    assert_eq!((asked[2].target.as_str(), asked[2].header("host")), ("/three?x", Some("a")));
}

#[test]
fn a_head_may_arrive_byte_by_byte_and_an_http_1_0_client_may_keep_its_connection() {
    let rig = Rig::new(vec![]);
    let mut stream = connect(rig.proxy.address);
    for byte in b"GET /drip HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let got = read_answer(&mut reader, "GET").unwrap();
    assert_eq!((got.status, got.header("connection")), (200, Some("keep-alive")));
    stream.write_all(b"GET /again HTTP/1.0\r\n\r\n").unwrap();
    let got = read_answer(&mut reader, "GET").unwrap();
    assert_eq!((got.status, got.header("connection")), (200, Some("close")));
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}
