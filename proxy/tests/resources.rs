//! What one client, or many, can take from the proxy: memory, descriptors, places.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Apart, Bare, Rig, ask, connect, orders, read_answer, read_past, text, wait_until};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GET: &[u8] = b"GET /it HTTP/1.1\r\nHost: a\r\nUser-Agent: a browser\r\nAccept: */*\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// It serves in a process of its own, which is this test again.
#[test]
fn a_proxy_apart_serves() {
    if Apart::is_this() {
        return Apart::serve();
    }
    let proxy = apart(&Bare::saying(OK), "", 1000);
    assert_eq!(ask(proxy.address, "GET", "/", &[], b"").status, 200);
}

fn apart(bare: &Bare, lines: &str, open_files: u32) -> Apart {
    Apart::before(bare, lines, open_files, "a_proxy_apart_serves")
}

/// Sends a request on a kept connection and reads its answer. Returns the status.
fn ask_on(stream: &TcpStream) -> u16 {
    (&mut &*stream).write_all(GET).unwrap();
    let got = read_answer(&mut BufReader::new(stream), "GET").unwrap();
    assert_eq!(got.header("connection"), Some("keep-alive"));
    got.status
}

/// How much more memory the proxy has than before, in KiB. Requests in between let the allocator give memory back.
fn growth(proxy: &Apart, before: i64) -> i64 {
    ask(proxy.address, "GET", "/", &[], b"");
    proxy.resident_memory() - before
}

/// A proxy that has served a few requests at the same time, and its memory.
fn warm(bare: &Bare) -> (Apart, i64) {
    let proxy = apart(bare, "", 20_000);
    let clients: Vec<_> = (0..64).map(|_| connect(proxy.address)).collect();
    (0..4).for_each(|_| clients.iter().for_each(|client| assert_eq!(ask_on(client), 200)));
    drop(clients);
    let memory = proxy.resident_memory();
    (proxy, memory)
}

#[test]
fn an_idle_connection_takes_little_memory() {
    const CLIENTS: i64 = 600;
    let (proxy, before) = warm(&Bare::saying(OK));
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(proxy.address)).collect();
    clients.iter().for_each(|client| assert_eq!(ask_on(client), 200));
    assert_eq!(proxy.metric("strangler_proxy_connections "), CLIENTS as f64);
    let each = growth(&proxy, before) as f64 / CLIENTS as f64;
    assert!(each < 12.0, "{each:.1} KiB for each idle connection");
    println!("{each:.1} KiB for each idle connection");
}

#[test]
fn unfinished_heads_take_little_memory_and_give_it_back() {
    const CLIENTS: usize = 300;
    let (proxy, before) = warm(&Bare::saying(OK));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut stream = connect(proxy.address);
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
            // It is refused meanwhile.
            let _ = (0..16).try_for_each(|_| stream.write_all(&[b'x'; 64 << 10]));
            stream
        })
        .collect();
    wait_until("all are refused", || {
        proxy.metric("strangler_proxy_refused_total{why=\"head\"} ") == CLIENTS as f64
    });
    let grown = growth(&proxy, before);
    assert!(grown < 32 << 10, "{grown} KiB for {CLIENTS} heads");
    drop(clients);
    wait_until("its memory falls back", || growth(&proxy, before) < 8 << 10);
}

#[test]
fn slow_bodies_take_bounded_memory_and_give_it_back() {
    const CLIENTS: usize = 200;
    // It reads the head and nothing more.
    let bare = Bare::new(|stream, _| {
        let head = read_past(stream, b"\r\n\r\n");
        if !head.starts_with(b"POST") {
            return stream.write_all(OK).unwrap();
        }
        while !stream.peek(&mut [0]).is_ok_and(|count| count == 0) {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let proxy = apart(&bare, "read_timeout: 6s", 20_000);
    let before = growth(&proxy, 0);
    let slow = || {
        let mut stream = connect(proxy.address);
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        while stream.write_all(&[0; 64 << 10]).is_ok() {}
        stream
    };
    let clients: Vec<_> = std::thread::scope(|scope| {
        let some = || (0..CLIENTS / 8).map(|_| slow()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(some)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let each = growth(&proxy, before) / CLIENTS as i64;
    assert!(each < 160, "{each} KiB for each body");
    drop(clients);
    wait_until("its memory falls back", || growth(&proxy, before) < 8 << 10);
}

/// Answers what it is asked, after the two bytes of a POST.
fn patient() -> Bare {
    Bare::new(|stream, _| {
        loop {
            let head = read_past(stream, b"\r\n\r\n");
            let is_post = head.starts_with(b"POST");
            if head.is_empty() || is_post && stream.read_exact(&mut [0; 2]).is_err() {
                return;
            }
            stream.write_all(OK).unwrap();
        }
    })
}

#[test]
fn silent_clients_shut_nobody_out() {
    let proxy = apart(&patient(), "", 200);
    let mut silent: Vec<TcpStream> = Vec::new();
    let mut busy = connect(proxy.address);
    busy.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1").unwrap();
    let kept = connect(proxy.address);
    for round in 0..6 {
        assert_eq!(ask_on(&kept), 200, "it is never the one that has waited longest");
        silent.extend((0..20).map(|_| connect(proxy.address)));
        let mut unfinished = connect(proxy.address);
        unfinished.write_all(b"GET / HTTP/1.1\r\nHost").unwrap();
        silent.push(unfinished);
        let begun = Instant::now();
        assert_eq!(ask(proxy.address, "GET", "/", &[], b"").status, 200, "round {round}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    assert!(proxy.metric("strangler_proxy_evicted_total ") >= 70.0);
    assert!(proxy.metric("strangler_proxy_connections ") <= 57.0);
    for at in ["accept", "connect", "check"] {
        assert_eq!(proxy.metric(&format!("strangler_proxy_shortages_total{{at=\"{at}\"}} ")), 0.0);
    }
    assert_eq!(proxy.metric("strangler_proxy_unwell_addresses "), 0.0);
    assert_eq!(silent[0].read(&mut [0]).unwrap(), 0, "the first to come left first");
    busy.write_all(b"2").unwrap();
    assert_eq!(read_answer(&mut BufReader::new(busy), "POST").unwrap().status, 200);
}

#[test]
fn a_bound_of_the_plan_holds_and_new_clients_wait_while_all_are_busy() {
    let bare = patient();
    let proxy = apart(&bare, "max_connections: 2", 20_000);
    let mut busy: Vec<_> = (0..2).map(|_| connect(proxy.address)).collect();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1";
    busy.iter_mut().for_each(|stream| stream.write_all(head).unwrap());
    wait_until("both are at the upstream", || bare.count() == 2);
    let mut third = connect(proxy.address);
    third.write_all(GET).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.read(&mut [0]).is_err(), "there was a place");
    third.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    busy[0].write_all(b"2").unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&busy[0]), "POST").unwrap().status, 200);
    assert_eq!(read_answer(&mut BufReader::new(&third), "GET").unwrap().status, 200);
}

/// A client may leave each write that it sends, one after the other.
#[test]
fn writes_whose_clients_left_leave_room_for_reads() {
    let bare = Bare::new(|stream, _| {
        while !read_past(stream, b"\r\n\r\n").starts_with(b"POST") {
            if stream.write_all(OK).is_err() {
                return;
            }
        }
        // It works on, and sees no client leave.
        std::thread::sleep(rig::PATIENCE);
    });
    let mut rig = Rig::before("  max_connections: 4\n", &bare);
    rig.publish_with(orders("monolith"), |table| table.monolith = vec![bare.url()]);
    for number in 0..12 {
        let before = bare.count();
        let mut left = connect(rig.proxy.address);
        left.write_all(b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        wait_until("it is at the upstream", || bare.count() > before);
        drop(left);
        let logged = || rig.proxy.log_text().matches("\"status\":499").count();
        wait_until("its client has left", || logged() == number + 1);
    }
    let all: Vec<_> = (0..4).map(|_| connect(rig.proxy.address)).collect();
    all.iter().for_each(|client| assert_eq!(ask_on(client), 200));
    wait_until("one of them is waited for", || rig.reported().in_flight == 1);
}

#[test]
fn a_want_of_descriptors_is_the_proxys_own_failure() {
    let proxy = apart(&Bare::saying(OK), "", 1000);
    let (kept, other) = (connect(proxy.address), connect(proxy.address));
    assert_eq!((ask_on(&kept), ask_on(&other)), (200, 200));
    // Its own connections to the upstream are closed by then.
    wait_until("a check was made", || {
        proxy.limit_open_files(5);
        std::thread::sleep(Duration::from_millis(500));
        proxy.limit_open_files(1000);
        proxy.metric("strangler_proxy_shortages_total{at=\"check\"} ") >= 2.0
    });
    assert_eq!(proxy.metric("strangler_proxy_unwell_addresses "), 0.0);
    proxy.limit_open_files(5);
    (&mut &kept).write_all(GET).unwrap();
    let got = read_answer(&mut BufReader::new(&kept), "GET").unwrap();
    assert_eq!((got.status, got.header("retry-after")), (503, Some("1")));
    assert!(got.json()["hint"].as_str().unwrap().contains("ulimit -n"), "{}", got.text());
    let waits = connect(proxy.address);
    std::thread::sleep(Duration::from_millis(200));
    proxy.limit_open_files(1000);
    assert_eq!(ask_on(&waits), 200, "it was accepted when there were descriptors again");
    assert!(proxy.metric("strangler_proxy_shortages_total{at=\"accept\"} ") >= 1.0);
    assert!(
        proxy.metric("strangler_proxy_shortages_total{at=\"accept\"} ") <= 20.0,
        "it went round without a pause"
    );
    assert_eq!(proxy.metric("strangler_proxy_shortages_total{at=\"connect\"} "), 1.0);
    let failures = "strangler_proxy_upstream_failures_total{kind=\"broken\",upstream=\"monolith\"} ";
    assert_eq!(proxy.metric(failures), 0.0);
}

#[test]
fn a_head_is_refused_as_soon_as_it_is_too_large() {
    let rig = Rig::with("  max_head: 8KiB\n", vec![], |_| text(200, ""), |_| text(200, ""));
    let fields = format!("X: y\r\n{}\r\n", "X:\r\n".repeat(1024));
    let unfinished = "x".repeat(9000);
    for (rest, reason) in [(&unfinished, "max_head"), (&fields, "1024 fields")] {
        let mut stream = connect(rig.proxy.address);
        stream.write_all(b"GET /long?secret HTTP/1.1\r\nHost: a\r\nA: b\r\n").unwrap();
        stream.write_all(rest.as_bytes()).unwrap();
        let got = read_answer(&mut BufReader::new(stream), "GET").unwrap();
        assert_eq!((got.status, got.header("connection")), (431, Some("close")));
        assert!(got.json()["hint"].as_str().unwrap().contains(reason), "{}", got.text());
    }
    assert_eq!(rig.proxy.metric("strangler_proxy_refused_total{why=\"head\"} "), 2.0);
    assert_eq!(ask(rig.proxy.address, "GET", "/", &[("X", &"x".repeat(8000))], b"").status, 200);
}

#[test]
fn an_answer_with_too_large_a_head_is_not_passed_on() {
    let answer = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let rig = Rig::before("", &Bare::breaking_off_after(answer.as_bytes()));
    let got = rig.ask("GET", "/");
    assert_eq!(got.status, 502);
    assert!(got.json()["hint"].as_str().unwrap().contains("max_head"), "{}", got.text());
}
