//! What this crate takes, hyper takes in the same way: the same requests, with the same bodies. Where two readers of HTTP
//! differ, requests can be smuggled.

#![allow(clippy::unwrap_used)]

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use http1::{Body, Framing, Malformed, RequestHead};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use proptest::prelude::*;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// A request as it was taken: method, path with query, body.
type Taken = (String, String, Vec<u8>);

/// The requests that we take from a connection that ends after these bytes.
fn ours(bytes: &[u8]) -> Vec<Taken> {
    let (mut taken, mut inbox, mut head) = (Vec::new(), BytesMut::from(bytes), RequestHead::default());
    while let Ok(Some(request)) = next(&mut head, &mut inbox) {
        taken.push(request);
        if !head.wants_more() {
            break;
        }
    }
    taken
}

fn next(head: &mut RequestHead, inbox: &mut BytesMut) -> Result<Option<Taken>, Malformed> {
    if !head.read(inbox)? {
        return Ok(None);
    }
    let mut body = Body::of(Framing::of_request(head)?);
    let mut bytes = Vec::new();
    loop {
        match body.next(inbox)? {
            0 if body.is_whole() => break,
            0 => return Ok(None),
            count => bytes.extend_from_slice(&inbox.split_to(count)),
        }
    }
    let target = String::from_utf8_lossy(head.target()).into_owned();
    Ok(Some((head.method().to_owned(), target, bytes)))
}

/// Bytes that arrive at once, and an end.
struct Wire(Bytes);

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.0.len().min(room.remaining());
        room.put_slice(&self.0[..count]);
        self.0.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The requests that hyper takes.
fn hypers(bytes: &[u8]) -> Vec<Taken> {
    let taken: Arc<Mutex<Vec<Taken>>> = Arc::default();
    let serve = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let taken = taken.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            taken.lock().unwrap().push((head.method.to_string(), target, body));
            Ok::<_, hyper::Error>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut connection = pin!(
        Builder::new()
            .half_close(true)
            .header_read_timeout(None)
            .serve_connection(Wire(Bytes::copy_from_slice(bytes)), serve)
    );
    let mut cx = Context::from_waker(Waker::noop());
    // Nothing is ever waited for, so it comes to its end within a few turns.
    let ends = (0..1000).any(|_| connection.as_mut().poll(&mut cx).is_ready());
    assert!(ends);
    let taken = taken.lock().unwrap();
    taken.clone()
}

fn line() -> impl Strategy<Value = String> {
    let lines = [
        "Content-Length: 5",
        "Content-Length: 0",
        "content-length: 5, 5",
        "Content-Length: +5",
        "Content-Length: 5 ",
        "Content-Length: 05",
        "Content-Length:5",
        "Content-Length : 5",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: chunked",
        "transfer-encoding: Chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: x",
        "Transfer-Encoding: ",
        "Transfer_Encoding: chunked",
        "Connection: close",
        "Connection: keep-alive",
        "Connection: Content-Length",
        "Connection: upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "Host: b",
        "X: y\r\n folded",
        "X: y\nZ: z",
        "X: \0",
        "no colon",
        ": empty",
        "X: caf\u{e9}",
    ];
    proptest::sample::select(lines.map(str::to_owned).to_vec())
}

fn body() -> impl Strategy<Value = String> {
    let bodies = [
        "",
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "05\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;\rx\r\nhello\r\n0\r\n\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "0\r\n\r\n",
        "0\r\n\r",
        "\r\n",
        "\n",
        "FFFFFFFFFFFFFFFF1\r\nhello",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "0\r\nTransfer-Encoding: x\r\n\r\n",
        "0\n\n",
    ];
    proptest::sample::select(bodies.map(str::to_owned).to_vec())
}

fn request() -> impl Strategy<Value = String> {
    let first = proptest::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.1",
        "POST /a HTTP/1.0",
        "GET http://a/b HTTP/1.1",
        "HEAD /x HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.2",
        "OPTIONS * HTTP/1.1",
        "GET /\t HTTP/1.1",
        "PUT / HTTP/1.1 ",
    ]);
    (first, proptest::collection::vec(line(), 0..4), body()).prop_map(|(first, lines, body)| {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{first}\r\nHost: a\r\n{lines}\r\n{body}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn hyper_takes_the_same_requests(requests in proptest::collection::vec(request(), 1..4)) {
        let sent = requests.concat();
        // Either of the two may refuse what the other one takes; none may take something else.
        for (ours, hypers) in ours(sent.as_bytes()).iter().zip(&hypers(sent.as_bytes())) {
            prop_assert_eq!(ours, hypers);
        }
    }
}

#[test]
fn both_take_requests_in_turn() {
    let sent = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: a\r\n\r\n";
    let expected = [("POST", "/a?b", "hi"), ("PUT", "/", "ho"), ("GET", "/c", "")];
    let expected = expected.map(|(method, target, body)| (method.to_owned(), target.to_owned(), body.into()));
    assert_eq!(ours(sent), expected);
    assert_eq!(hypers(sent), expected);
}
