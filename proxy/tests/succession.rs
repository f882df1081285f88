//! One proxy takes the place of another at the same sockets.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::plan::Sticky;
use rig::{Asked, Bare, Rig, Running, ask, connect, read_answer, read_past, route, text, wait_until};
use std::io::{BufReader, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

fn again(rig: &Rig) -> Running {
    rig.proxy.again(&rig.controller.origin.url(), rig.state.path())
}

/// The side that answers this client, which keeps no cookies.
fn user(rig: &Rig, name: &str, method: &str) -> String {
    ask(rig.proxy.address, method, "/orders", &[("X-User", name)], b"").text()
}

/// Asks until the new proxy answers.
fn until_it_serves(rig: &Rig, next: &Running) {
    wait_until("the new proxy serves", || {
        user(rig, "bob", "GET");
        !next.log_text().is_empty()
    });
}

/// A third one may follow before the first one has ended, and the second may be killed.
#[test]
fn what_a_client_writes_at_an_old_proxy_it_reads_at_every_later_one() {
    let may_answer = Arc::new(AtomicBool::new(false));
    let answers = may_answer.clone();
    let monolith = move |asked: &Asked| {
        while asked.method == "POST" && !answers.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        text(200, "monolith")
    };
    let mut routes =
        vec![route("list", "GET /orders", "service", true), route("place", "POST /orders", "monolith", true)];
    routes.iter_mut().for_each(|route| route.sticky = Sticky::Header("X-User".to_owned()));
    let rig = Rig::with("", routes, monolith, |_| text(200, "service"));
    rig.proxy.until("the share is settled", || user(&rig, "ann", "GET") == "service");

    std::thread::scope(|scope| {
        let write = scope.spawn(|| user(&rig, "ann", "POST"));
        rig.proxy.until("the write is under way", || {
            rig.monolith.asked.lock().unwrap().iter().any(|asked| asked.method == "POST")
        });
        let mut second = again(&rig);
        until_it_serves(&rig, &second);
        let third = again(&rig);
        until_it_serves(&rig, &third);
        let is_hidden = |from: &str| {
            for _ in 0..20 {
                assert_eq!(
                    user(&rig, "ann", "GET"),
                    "monolith",
                    "what ann writes is not known at {from} yet"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        is_hidden("the third");
        wait_until("the second has nothing under way", || second.has_ended());
        second.join();
        is_hidden("the third");
        // The fourth never met the first. Nobody hands over to it.
        let mut third = third;
        third.end();
        let fourth = again(&rig);
        until_it_serves(&rig, &fourth);
        is_hidden("the fourth");
        assert!(!rig.proxy.has_ended());
        may_answer.store(true, SeqCst);
        assert_eq!(write.join().unwrap(), "monolith", "a write under way ends");
        wait_until("the new one has settled", || user(&rig, "ann", "GET") == "service");
        wait_until("the old one has ended", || rig.proxy.has_ended());
        assert_eq!(user(&rig, "ann", "GET"), "service");
    });
}

#[test]
fn a_proxy_without_a_table_takes_no_place() {
    let rig = Rig::new(vec![route("list", "GET /orders", "service", false)]);
    rig.proxy.until("it serves", || user(&rig, "bob", "GET") == "service");
    std::fs::remove_file(rig.state.path().join("desired.json")).unwrap();
    let next = rig.proxy.again("http://127.0.0.1:9", rig.state.path());
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..20 {
        assert_eq!(user(&rig, "bob", "GET"), "service");
    }
    assert!(next.log_text().is_empty() && !rig.proxy.has_ended());
}

#[test]
fn a_client_that_waits_for_a_place_finds_one_at_the_new_proxy() {
    let may_answer = Arc::new(AtomicBool::new(false));
    let answers = may_answer.clone();
    let bare = Bare::new(move |stream, _| {
        let is_write = read_past(stream, b"\r\n\r\n").starts_with(b"POST");
        while is_write && !answers.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let rig = Rig::before("  max_connections: 2\n", &bare);
    let mut busy: Vec<_> = (0..2).map(|_| connect(rig.proxy.address)).collect();
    for stream in &mut busy {
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    }
    rig.proxy.until("both are at the upstream", || bare.count() == 2);
    let mut third = connect(rig.proxy.address);
    third.write_all(b"GET /third HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let is_here = || rig.proxy.metric("strangler_proxy_connections ") > 2.0 || bare.count() > 2;
    (0..30).for_each(|_| assert!(!is_here(), "there was a place"));
    let next = again(&rig);
    assert_eq!(read_answer(&mut BufReader::new(third), "GET").unwrap().status, 200);
    wait_until("the new proxy has answered it", || next.log_text().contains("/third"));
    assert!(!rig.proxy.has_ended());
    may_answer.store(true, SeqCst);
    for stream in busy {
        assert_eq!(read_answer(&mut BufReader::new(stream), "POST").unwrap().status, 200);
    }
}
