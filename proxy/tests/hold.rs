//! While a slice is held, its writes wait in the proxy: unsent, bounded, and only as long as they may.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::control::TableRoute;
use rig::{Bare, Got, LONG, Origin, Rig, connect, orders, read_answer, read_past, route, search, text};
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(200);

/// Another slice, whose writes go to the service.
fn stock() -> TableRoute {
    TableRoute { slice: "stock".parse().unwrap(), ..route("set", "POST /stock", "service", false) }
}

/// Sends a write without waiting for its answer.
fn send(rig: &Rig, text: &str) -> TcpStream {
    let mut stream = connect(rig.proxy.address);
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn post(rig: &Rig) -> TcpStream {
    send(rig, "POST /orders HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\n\r\n{}")
}

fn answer(stream: &TcpStream) -> Got {
    read_answer(&mut BufReader::new(stream), "POST").unwrap()
}

fn until_held(rig: &Rig, count: u64) {
    let metric = || rig.proxy.metric("strangler_proxy_held{slice=\"orders\"} ");
    rig.proxy.until("it is held", || metric() == count as f64);
}

fn outcomes(rig: &Rig, outcome: &str) -> f64 {
    rig.proxy.metric(&format!("strangler_proxy_held_total{{outcome=\"{outcome}\",slice=\"orders\"}} "))
}

fn writes(origin: &Origin) -> usize {
    origin.asked.lock().unwrap().iter().filter(|asked| asked.method != "GET").count()
}

/// Nothing arrives within a short time.
fn is_silent(stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(SHORT)).unwrap();
    let is_silent = stream.peek(&mut [0]).is_err();
    stream.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    is_silent
}

#[test]
fn a_write_is_held_before_its_body_and_goes_to_the_owner_of_the_newer_table() {
    for side in ["service", "monolith"] {
        let mut rig = Rig::new(orders("monolith"));
        rig.hold(orders("monolith"), 1, LONG);
        let held = post(&rig);
        until_held(&rig, 1);
        assert!(is_silent(&held), "it was answered");
        assert_eq!((writes(&rig.monolith), writes(&rig.service)), (0, 0), "it was sent");
        rig.publish(orders(side));
        assert_eq!(answer(&held).text(), side);
        let sent = (writes(&rig.monolith), writes(&rig.service));
        assert_eq!(sent, if side == "service" { (0, 1) } else { (1, 0) });
        let line = || rig.proxy.log_text();
        rig.proxy.until("it is logged", || line().contains("\"POST\""));
        let line: serde_json::Value =
            serde_json::from_str(line().lines().find(|line| line.contains("\"POST\"")).unwrap()).unwrap();
        assert!(
            line["held"].as_f64().unwrap() >= 200.0 && line["ms"].as_f64() >= line["held"].as_f64(),
            "{line}"
        );
        assert_eq!(line["upstream"], if side == "service" { "orders" } else { "monolith" });
        until_held(&rig, 0);
        assert_eq!(outcomes(&rig, "released"), 1.0);
    }
}

#[test]
fn what_the_plan_pins_is_neither_held_nor_counted_nor_moved() {
    let pinned = |service_leads: bool| {
        let mut routes = orders("monolith");
        let draft = TableRoute { pinned: true, ..route("draft", "PUT /orders/{id:int}", "monolith", true) };
        routes.push(TableRoute { leads: service_leads, follows: !service_leads, ..draft });
        routes
    };
    let mut rig = Rig::new(pinned(false));
    rig.hold(pinned(false), 1, LONG);
    assert_eq!(rig.ask("PUT", "/orders/7").text(), "monolith", "it is held");
    let held = send(&rig, "PUT /orders/seven HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 2\r\n\r\n{}");
    until_held(&rig, 1);
    rig.publish(pinned(true));
    assert_eq!(answer(&held).text(), "monolith");
    let headers = [("X-Strangler-Side", "service"), ("X-Strangler-Secret", rig::SECRET)];
    assert_eq!(rig::ask(rig.proxy.address, "PUT", "/orders/7", &headers, b"").text(), "monolith");
    let pinned = || rig.proxy.metric("strangler_proxy_decisions_total{why=\"pinned\"} ");
    rig.proxy.until("both are counted", || pinned() == 2.0);
}

#[test]
fn a_client_that_waits_for_100_gets_it_from_the_owner_after_the_hold() {
    let bare = Bare::new(|stream, _| {
        let head = String::from_utf8(read_past(stream, b"\r\n\r\n")).unwrap();
        assert!(head.contains("Expect: 100-continue"), "{head}");
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"hello");
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let mut rig = Rig::new(orders("monolith"));
    rig.hold(orders("monolith"), 1, LONG);
    let mut held =
        send(&rig, "POST /orders HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    until_held(&rig, 1);
    assert!(is_silent(&held), "the proxy asked for the body");
    rig.publish_with(orders("service"), |table| {
        table.services = [("orders".parse().unwrap(), vec![bare.url()])].into();
    });
    assert!(read_past(&mut held, b"\r\n\r\n").starts_with(b"HTTP/1.1 100 "));
    held.write_all(b"hello").unwrap();
    assert_eq!(answer(&held).status, 201);
    assert_eq!(writes(&rig.monolith), 0);
}

#[test]
fn reads_other_slices_and_what_matches_no_route_go_on_during_a_hold() {
    let mut routes = orders("monolith");
    routes.push(stock());
    routes.push(search("monolith", true));
    let mut rig = Rig::new(routes.clone());
    rig.hold(routes, 1, LONG);
    let held = post(&rig);
    until_held(&rig, 1);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
    assert_eq!(rig.ask("POST", "/orders/search").text(), "monolith");
    assert_eq!(rig.ask("POST", "/stock").text(), "service");
    assert_eq!(rig.ask("POST", "/elsewhere").text(), "monolith");
    assert!(is_silent(&held));
    assert_eq!(outcomes(&rig, "released"), 0.0);
}

#[test]
fn a_hold_that_nobody_ends_expires_and_nothing_of_it_is_sent() {
    let mut rig = Rig::new(orders("monolith"));
    let began = Instant::now();
    rig.hold(orders("monolith"), 1, 1_000);
    let held = post(&rig);
    let got = answer(&held);
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!((got.status, got.header("retry-after")), (503, Some("1")));
    assert_eq!(
        (got.json()["code"].as_str(), got.header("connection")),
        (Some("hold.expired"), Some("close"))
    );
    // New writes are refused at once, until a newer table comes.
    let asked = Instant::now();
    for method in ["POST", "POST", "POST"] {
        assert_eq!(rig.ask(method, "/orders").json()["code"], "hold.expired");
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(rig.ask("GET", "/orders").status, 200);
    assert_eq!((writes(&rig.monolith), writes(&rig.service)), (0, 0));
    assert_eq!(outcomes(&rig, "expired"), 4.0);
    rig.proxy.until("they are logged", || {
        let log = rig.proxy.log_text();
        log.matches("\"why\":\"held\"").count() == 4
            && log.matches("\"status\":503,\"upstream\":\"\"").count() == 4
    });
    rig.publish(orders("service"));
    assert_eq!(rig.ask("POST", "/orders").text(), "service");
}

#[test]
fn a_write_waits_no_longer_than_the_plan_says() {
    let lines = "  hold: { max_wait: 400ms }\n";
    let mut rig = Rig::with(lines, orders("monolith"), |_| text(200, ""), |_| text(200, ""));
    rig.hold(orders("monolith"), 1, LONG);
    let asked = Instant::now();
    let got = answer(&post(&rig));
    assert_eq!((got.status, got.json()["code"].as_str()), (503, Some("hold.expired")));
    assert!(asked.elapsed() >= Duration::from_millis(400), "{:?}", asked.elapsed());
    assert_eq!(writes(&rig.monolith), 0);
}

#[test]
fn more_writes_or_bytes_than_the_bounds_are_refused_at_once_and_room_is_used_again() {
    let lines = "  max_head: 1MiB\n  hold: { max_writes: 3, max_bytes: 1MiB }\n";
    let mut rig = Rig::with(lines, orders("monolith"), |_| text(200, "monolith"), |_| text(200, ""));
    rig.hold(orders("monolith"), 1, LONG);
    let mut held: Vec<TcpStream> = (0..3).map(|_| post(&rig)).collect();
    until_held(&rig, 3);
    let got = rig.ask("POST", "/orders");
    assert_eq!((got.status, got.header("retry-after")), (503, Some("1")));
    assert_eq!(got.json()["code"], "hold.full");
    assert_eq!(rig.ask("GET", "/orders").status, 200);
    held.truncate(1);
    until_held(&rig, 1);
    // A head of 600 KiB fits once.
    let large = format!(
        "POST /orders HTTP/1.1\r\nHost: a\r\nX: {}\r\nContent-Length: 0\r\n\r\n",
        "x".repeat(600 << 10)
    );
    held.push(send(&rig, &large));
    until_held(&rig, 2);
    assert_eq!(answer(&send(&rig, &large)).json()["code"], "hold.full");
    held.push(post(&rig));
    until_held(&rig, 3);
    assert_eq!((outcomes(&rig, "overflowed"), outcomes(&rig, "left")), (2.0, 2.0));
    rig.publish(orders("monolith"));
    held.iter().for_each(|stream| assert_eq!(answer(stream).text(), "monolith"));
    assert_eq!(writes(&rig.monolith), 3);
}

#[test]
fn a_client_that_leaves_frees_its_place_and_is_not_sent() {
    let mut rig = Rig::new(orders("monolith"));
    rig.hold(orders("monolith"), 1, LONG);
    let head =
        |length: usize| format!("POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    // No body, a whole one, a part of one, and more than is read ahead.
    let texts = [head(5), head(2) + "{}", head(9) + "{}", head(40_000) + &"x".repeat(40_000)];
    let mut held: Vec<TcpStream> = texts.iter().map(|text| send(&rig, text)).collect();
    let stays = post(&rig);
    until_held(&rig, 5);
    // Bytes of a next request are no end.
    (&stays).write_all(b"GET /orders HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(is_silent(&stays));
    for left in 1..=4 {
        let stream = held.pop().unwrap();
        if left == 2 {
            // The system then sends a reset and not an end.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        until_held(&rig, 5 - left);
        assert_eq!(outcomes(&rig, "left"), left as f64);
    }
    rig.publish(orders("service"));
    let mut reader = BufReader::new(&stays);
    assert_eq!(read_answer(&mut reader, "POST").unwrap().text(), "service");
    assert_eq!(read_answer(&mut reader, "GET").unwrap().text(), "service");
    assert_eq!((writes(&rig.monolith), writes(&rig.service)), (0, 1));
    rig.proxy.until("they are logged", || {
        let log = rig.proxy.log_text();
        log.matches("\"status\":499,\"upstream\":\"\"").count() == 4
    });
}

#[test]
fn a_proxy_that_restarts_inside_a_hold_goes_on_holding() {
    let mut rig = Rig::new(orders("monolith"));
    rig.hold(orders("monolith"), 7, 4_000);
    let nobody = format!("http://{}", rig::free_address());
    rig.restart(&nobody);
    let held = post(&rig);
    until_held(&rig, 1);
    let got = answer(&held);
    assert_eq!(
        (got.status, got.json()["code"].as_str()),
        (503, Some("hold.expired")),
        "without a controller"
    );
    // Its end is in the past now.
    rig.restart(&nobody);
    assert_eq!(rig.ask("POST", "/orders").json()["code"], "hold.expired");
    let controller = rig.controller.origin.url();
    rig.restart(&controller);
    rig.hold(orders("monolith"), 7, LONG);
    rig.restart(&controller);
    rig.proxy.until("it reports the hold", || rig.reported().holds.is_some_and(|epoch| epoch.0 == 7));
    let held = post(&rig);
    until_held(&rig, 1);
    rig.publish(orders("service"));
    assert_eq!(answer(&held).text(), "service");
    assert_eq!((writes(&rig.monolith), writes(&rig.service)), (0, 1));
}

#[test]
fn a_proxy_that_stops_refuses_what_it_holds() {
    let mut rig = Rig::new(orders("monolith"));
    rig.hold(orders("monolith"), 1, LONG);
    let held = post(&rig);
    until_held(&rig, 1);
    let stopped = Instant::now();
    rig.proxy.stop();
    let got = answer(&held);
    assert_eq!((got.status, got.json()["code"].as_str()), (503, Some("hold.expired")));
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
    assert_eq!(writes(&rig.monolith), 0);
}

#[test]
fn a_hold_closes_the_upgraded_connections_of_its_slice_and_no_others() {
    let bare = Bare::new(|stream, _| {
        read_past(stream, b"\r\n\r\n");
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(head).unwrap();
        let mut word = [0; 4];
        while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
    });
    let mut rig = Rig::new(vec![]);
    let publish = |rig: &mut Rig, hold: bool| {
        let monolith = vec![bare.url()];
        let hold = hold.then(|| rig.hold_until(1, LONG));
        rig.publish_with(orders("monolith"), |table| {
            table.monolith = monolith;
            table.holds.extend(hold);
        });
    };
    publish(&mut rig, false);
    let upgrade = |rig: &Rig, path: &str| {
        let text =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        send(rig, &text)
    };
    let speak = |stream: &mut TcpStream| {
        stream.write_all(b"ping").unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).is_ok() && &word == b"ping"
    };
    let (mut ours, mut other) = (upgrade(&rig, "/socket"), upgrade(&rig, "/elsewhere"));
    for stream in [&mut ours, &mut other] {
        assert!(read_past(stream, b"\r\n\r\n").starts_with(b"HTTP/1.1 101 "));
        assert!(speak(stream));
    }
    rig.proxy.until("it counts as in flight", || rig.reported().in_flight == 1);
    publish(&mut rig, true);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "it was closed");
    rig.proxy.until("it is drained", || rig.reported().is_drained(migrations::stage::Epoch(1)));
    assert!(speak(&mut other));
    assert_eq!(rig.proxy.metric("strangler_proxy_upgrades_closed_total{slice=\"orders\"} "), 1.0);
    // A new one waits like a write.
    let mut late = upgrade(&rig, "/socket");
    until_held(&rig, 1);
    assert!(is_silent(&late));
    publish(&mut rig, false);
    assert!(read_past(&mut late, b"\r\n\r\n").starts_with(b"HTTP/1.1 101 "));
    assert!(speak(&mut late) && speak(&mut other));
}
