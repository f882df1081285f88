//! What a hold waits for, and how the held writes go when it ends: each once, in turn, to the present owner.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::stage::Epoch;
use rig::{Asked, Bare, LONG, Reply, Rig, connect, orders, read_answer, read_past, text, wait_until};
use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn send(rig: &Rig, method: &str, target: &str) -> TcpStream {
    let mut stream = connect(rig.proxy.address);
    let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}");
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn status(stream: &TcpStream) -> u16 {
    read_answer(&mut BufReader::new(stream), "POST").unwrap().status
}

/// Holds the slice and so many of its writes.
fn fill(rig: &mut Rig, count: usize) -> Vec<TcpStream> {
    rig.hold(orders("monolith"), 1, LONG);
    let held = (0..count).map(|number| send(rig, "POST", &format!("/orders?{number}"))).collect();
    wait_until("all are held", || rig.reported().held == count as u64);
    held
}

/// An origin's answer that counts how many are asked at once.
fn crowd(takes: Duration) -> (Arc<AtomicUsize>, impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let counted = most.clone();
    let reply = move |_: &Asked| {
        counted.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::sleep(takes);
        now.fetch_sub(1, SeqCst);
        text(200, "service")
    };
    (most, reply)
}

#[test]
fn a_thousand_writes_that_are_held_at_once_are_each_answered_and_sent_exactly_once() {
    let mut rig = Rig::new(orders("monolith"));
    let held = fill(&mut rig, 1_000);
    rig.publish(orders("service"));
    for stream in &held {
        assert_eq!(status(stream), 200);
    }
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for asked in rig.service.asked.lock().unwrap().iter() {
        *sent.entry(asked.target.clone()).or_default() += 1;
    }
    assert!(sent.len() == 1_000 && sent.values().all(|count| *count == 1), "{sent:?}");
    assert_eq!(rig.monolith.count(), 0);
    wait_until("nothing is left", || {
        let traffic = rig.reported();
        (traffic.held, traffic.in_flight, traffic.holds) == (0, 0, None)
    });
}

#[test]
fn never_more_than_64_held_writes_go_at_once() {
    let (most, reply) = crowd(Duration::from_millis(20));
    let mut rig = Rig::with("", orders("monolith"), |_| text(200, "monolith"), reply);
    let held = fill(&mut rig, 300);
    rig.publish(orders("service"));
    held.iter().for_each(|stream| assert_eq!(status(stream), 200));
    let most = most.load(SeqCst);
    assert!((16..=64).contains(&most), "{most} at once");
}

#[test]
fn clients_that_send_their_bodies_slowly_do_not_keep_the_others_waiting() {
    let mut rig = Rig::new(orders("monolith"));
    rig.hold(orders("monolith"), 1, LONG);
    let head = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    let slow: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut stream = connect(rig.proxy.address);
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    wait_until("all are held", || rig.reported().held == 64);
    let quick = send(&rig, "POST", "/orders");
    wait_until("all are held", || rig.reported().held == 65);
    let released = Instant::now();
    rig.publish(orders("service"));
    assert_eq!(status(&quick), 200);
    assert!(released.elapsed() < Duration::from_secs(5), "{:?}", released.elapsed());
    drop(slow);
}

/// A second window of buffering opened while the first one was drained, and traffic paused to the maximum.
#[test]
fn vitess_15707_a_second_hold_while_the_first_is_released_does_not_pause_writes_to_the_maximum() {
    let (_, reply) = crowd(Duration::from_millis(50));
    let mut rig = Rig::with("", orders("monolith"), |_| text(200, "monolith"), reply);
    let held = fill(&mut rig, 300);
    let released = Instant::now();
    rig.publish(orders("service"));
    wait_until("some went", || rig.service.count() >= 64);
    rig.hold(orders("service"), 2, LONG);
    assert!(rig.reported().held > 0, "the first ones were all gone: the test shows nothing");
    wait_until("what went is drained", || rig.reported().is_drained(Epoch(2)));
    let sent = rig.service.count();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(rig.service.count(), sent, "a write was sent although its slice is held");
    rig.publish(orders("service"));
    held.iter().for_each(|stream| assert_eq!(status(stream), 200));
    assert_eq!(rig.service.count(), 300);
    assert!(released.elapsed() < Duration::from_secs(5), "{:?}", released.elapsed());
}

#[test]
fn a_second_hold_gives_no_write_a_longer_wait_than_the_plan_says() {
    let lines = "  hold: { max_wait: 1500ms }\n";
    let mut rig = Rig::with(lines, orders("monolith"), |_| text(200, "monolith"), |_| text(200, "service"));
    rig.hold(orders("monolith"), 1, LONG);
    let asked = Instant::now();
    let held = send(&rig, "POST", "/orders");
    wait_until("it is held", || rig.reported().held == 1);
    std::thread::sleep(Duration::from_millis(500));
    rig.hold(orders("monolith"), 2, LONG);
    assert_eq!(status(&held), 503);
    assert!((1_500..2_500).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
}

/// A service whose answers wait for a word of the test.
fn slow() -> (Sender<()>, impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let reply = move |asked: &Asked| {
        if asked.method != "GET" {
            gone.lock().unwrap().recv_timeout(rig::PATIENCE).unwrap();
        }
        text(200, "slow")
    };
    (go, reply)
}

#[test]
fn a_hold_and_the_end_of_the_last_write_are_reported_at_once() {
    let (go, reply) = slow();
    let mut rig = Rig::with("", orders("monolith"), reply, |_| text(200, "service"));
    let began = Instant::now();
    for epoch in 1..=15 {
        let under_way = send(&rig, "POST", "/orders");
        wait_until("it is sent", || rig.monolith.count() as u64 == epoch);
        rig.hold(orders("monolith"), epoch, LONG);
        wait_until("the hold is reported", || rig.reported().holds == Some(Epoch(epoch)));
        let traffic = rig.reported();
        assert_eq!((traffic.in_flight, traffic.is_drained(Epoch(epoch))), (1, false));
        let held = send(&rig, "POST", "/orders");
        wait_until("a held write is reported", || rig.reported().held == 1);
        go.send(()).unwrap();
        wait_until("it is drained", || rig.reported().is_drained(Epoch(epoch)));
        assert_eq!(status(&under_way), 200);
        drop(held);
        wait_until("it is reported that the client left", || rig.reported().held == 0);
        rig.publish(orders("monolith"));
        wait_until("the end is reported", || rig.reported().holds.is_none());
    }
    // Without news, a report comes each half second, and these would be five of them each time.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn a_write_whose_client_left_counts_until_the_upstream_has_ended_it() {
    let (go, reply) = slow();
    let mut rig = Rig::with("", orders("monolith"), reply, |_| text(200, "service"));
    let left = send(&rig, "POST", "/orders");
    wait_until("it is sent", || rig.monolith.count() == 1);
    rig.hold(orders("monolith"), 1, LONG);
    drop(left);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!((rig.reported().in_flight, rig.reported().holds), (1, Some(Epoch(1))));
    go.send(()).unwrap();
    wait_until("it is drained", || rig.reported().is_drained(Epoch(1)));
    wait_until("it is logged", || rig.proxy.log_text().contains("\"status\":499,\"upstream\":\"monolith\""));
}

#[test]
fn a_held_put_or_delete_is_never_sent_twice() {
    let heads = Arc::new(AtomicUsize::new(0));
    let counted = heads.clone();
    // It answers a read, and closes the connection when a write comes.
    let bare = Bare::new(move |stream, _| {
        loop {
            let head = read_past(stream, b"\r\n\r\n");
            if !head.starts_with(b"GET") {
                counted.fetch_add(usize::from(!head.is_empty()), SeqCst);
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
    });
    let mut rig = Rig::new(vec![]);
    let publish = |rig: &mut Rig, hold: Option<u64>| {
        let service = vec![bare.url()];
        let hold = hold.map(|epoch| rig.hold_until(epoch, LONG));
        rig.publish_with(orders("service"), |table| {
            table.services = [("orders".parse().unwrap(), service)].into();
            table.holds.extend(hold);
        });
    };
    for (number, method) in ["PUT", "DELETE"].into_iter().enumerate() {
        publish(&mut rig, None);
        // So that there is a kept connection that breaks when it is used.
        assert_eq!(rig.ask("GET", "/orders").text(), "ok");
        publish(&mut rig, Some(number as u64 + 1));
        let held = send(&rig, method, "/orders/7");
        wait_until("it is held", || rig.reported().held == 1);
        publish(&mut rig, None);
        assert_eq!(status(&held), 502);
        assert_eq!(heads.load(SeqCst), number + 1, "{method}");
    }
    assert_eq!(rig.monolith.count(), 0);
}

#[test]
fn a_slice_without_routes_is_held_and_drained_too() {
    let mut rig = Rig::new(vec![]);
    rig.hold(vec![], 3, LONG);
    wait_until("it is reported", || rig.reported().is_drained(Epoch(3)));
    rig.publish(vec![]);
    wait_until("its end is reported", || rig.reported().holds.is_none());
}
