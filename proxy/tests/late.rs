//! Upstreams that say more than they were asked for. Nobody takes it for an answer.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Bare, Rig, connect, read_answer, read_past};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const CLIENTS: usize = 12;
const REQUESTS: usize = 5;

/// The method and the target of the next request; empty at the end.
fn next(stream: &mut TcpStream) -> [String; 2] {
    let head = String::from_utf8(read_past(stream, b"\r\n\r\n")).unwrap();
    let mut words = head.split(' ').map(str::to_owned);
    [words.next().unwrap_or_default(), words.next().unwrap_or_default()]
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What an upstream says after its answer to a request for this target.
type More = fn(&str) -> String;

/// Answers each request with what it asked for, and says the same again in another way after a gap, if it is rude.
fn rude(gap: Duration, more: More, is_rude: Arc<AtomicBool>) -> Bare {
    Bare::new(move |stream, _| {
        loop {
            let [method, target] = next(stream);
            let of_target = match (method.as_str(), target.rsplit('/').next()) {
                ("", _) => return,
                ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_owned(),
                (_, Some("empty")) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                (_, Some("same")) => "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
                _ => answer(&target),
            };
            let more = if is_rude.load(SeqCst) { more(&target) } else { String::new() };
            if gap.is_zero() {
                let _ = stream.write_all((of_target + &more).as_bytes());
                continue;
            }
            if stream.write_all(of_target.as_bytes()).is_err() {
                return;
            }
            let mut later = stream.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(gap);
                let _ = later.write_all(more.as_bytes());
            });
        }
    })
}

/// Many clients at the same time, each with some requests on one connection. Returns the bodies, each beside what was asked
/// for.
fn crowd(to: SocketAddr, method: &str, last: &str) -> Vec<[String; 2]> {
    let client = |number: usize| {
        let mut stream = connect(to);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut got = Vec::new();
        for request in 0..REQUESTS {
            let target = format!("/{number}/{request}/{last}");
            if stream.write_all(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).is_err()
            {
                break;
            }
            let Some(answer) = read_answer(&mut reader, method) else { break };
            got.push([target, answer.text()]);
        }
        assert_eq!(got.len(), REQUESTS, "{got:?}");
        got
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn whole(target: &str) -> String {
    answer(&format!("late {target}"))
}

#[test]
fn an_upstream_that_always_says_more_never_answers_another_request() {
    let garbage = |_: &str| "\r\n\r\nwhat nobody asked for".to_owned();
    let early_hints = |target: &str| format!("HTTP/1.1 103 Early Hints\r\nLink: <{target}>\r\n\r\n");
    let cases: [(&str, &str, u64, More); 13] = [
        ("GET", "", 0, whole),
        ("GET", "", 1, whole),
        ("GET", "", 5, whole),
        ("GET", "", 50, whole),
        ("GET", "", 500, whole),
        ("GET", "", 0, garbage),
        ("GET", "", 5, garbage),
        ("GET", "", 5, early_hints),
        ("GET", "empty", 0, whole),
        ("GET", "same", 0, whole),
        ("GET", "empty", 5, whole),
        ("HEAD", "", 0, |_| "body".to_owned()),
        ("HEAD", "", 5, whole),
    ];
    for reuse in ["own", "shared"] {
        for (method, last, gap, more) in cases {
            let bare = rude(Duration::from_millis(gap), more, Arc::new(AtomicBool::new(true)));
            let rig = Rig::before(&format!("  reuse: {reuse}\n"), &bare);
            let got = crowd(rig.proxy.address, method, last);
            let is_bodiless = method == "HEAD" || !last.is_empty();
            let is_right =
                |[asked, got]: &&[String; 2]| if is_bodiless { got.is_empty() } else { asked == got };
            let wrong: Vec<_> = got.iter().filter(|pair| !is_right(pair)).collect();
            assert!(wrong.is_empty(), "{method} {gap} ms: {wrong:?}");
            assert_eq!(bare.count(), CLIENTS * REQUESTS, "each request has a connection of its own");
            rig.proxy.until("it is counted", || rig.proxy.metric("strangler_proxy_unasked_total ") >= 1.0);
        }
    }
}

#[test]
fn an_upstream_that_begins_to_say_more_never_answers_another_client() {
    for gap in [1, 5, 50] {
        let is_rude = Arc::new(AtomicBool::new(false));
        let bare = rude(Duration::from_millis(gap), whole, is_rude.clone());
        let rig = Rig::before("", &bare);
        rig.earn_trust(&bare);
        is_rude.store(true, SeqCst);
        for [asked, got] in crowd(rig.proxy.address, "GET", "") {
            let client = |path: &str| path.trim_start_matches("late ").split('/').nth(1).map(str::to_owned);
            assert_eq!(client(&asked), client(&got), "{asked} was answered {got}");
        }
    }
}

#[test]
fn what_comes_while_a_shared_connection_rests_closes_it() {
    let is_rude = Arc::new(AtomicBool::new(false));
    let bare = rude(Duration::from_millis(100), whole, is_rude.clone());
    let rig = Rig::before("  reuse: shared\n", &bare);
    rig.earn_trust(&bare);
    let before = bare.count();
    assert_eq!((rig.ask("GET", "/1").text(), bare.count()), ("/1".to_owned(), before), "it is shared");
    is_rude.store(true, SeqCst);
    assert_eq!((rig.ask("GET", "/2").text(), bare.count()), ("/2".to_owned(), before));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((rig.ask("GET", "/3").text(), bare.count()), ("/3".to_owned(), before + 1));
}

#[test]
fn nothing_follows_an_answer_that_came_before_the_body_it_was_asked_about() {
    let followed = Arc::new(AtomicUsize::new(0));
    let counted = followed.clone();
    let bare = Bare::new(move |stream, _| {
        while !read_past(stream, b"\r\n\r\n").is_empty() {
            stream.write_all(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nn").unwrap();
            // What follows would be the next request.
            let mut rest = Vec::new();
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let _ = stream.read_to_end(&mut rest);
            stream.set_read_timeout(None).unwrap();
            let _ = stream.write_all(b"o");
            let _ = stream.read_to_end(&mut rest);
            counted.fetch_add(rest.len(), SeqCst);
        }
    });
    let rig = Rig::before("", &bare);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = smuggled.len() + 100_000;
    let head =
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
    for is_body_at_once in [false, true] {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(head.as_bytes()).unwrap();
        if is_body_at_once {
            stream.write_all(smuggled.as_bytes()).unwrap();
        }
        let answer = String::from_utf8(read_past(&mut stream, b"\r\n\r\n")).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 401") && answer.contains("connection: close"), "{answer}");
        // The rest comes while the answer is on its way.
        let rest = if is_body_at_once { "" } else { smuggled };
        let _ = stream.write_all(rest.as_bytes());
        let _ = stream.write_all(&[b'x'; 100_000]);
        let mut body = String::new();
        let _ = stream.read_to_string(&mut body);
        assert_eq!(body, "no");
    }
    assert_eq!(rig.ask("GET", "/").status, 401);
    assert_eq!(bare.count(), 3);
    assert!(followed.load(SeqCst) <= smuggled.len(), "only what was sent before the answer may follow");
}

#[test]
fn connections_are_used_again_for_the_same_client() {
    let bare = Bare::saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let rig = Rig::before("", &bare);
    rig.earn_trust(&bare);
    let before = bare.count();
    assert_eq!(rig.ask("GET", "/").status, 200);
    assert_eq!(bare.count(), before + 1, "another client gets another connection");
}
