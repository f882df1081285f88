//! The table comes from the controller, only moves forward, and outlives both controller and proxy.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::problem::Diagnostic;
use rig::{Rig, Running, ask, journal, route, settings, text};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

fn all_at(share: &str) -> Vec<migrations::control::TableRoute> {
    vec![route("list", "GET /orders", share, false)]
}

#[test]
fn without_a_table_the_proxy_is_alive_but_not_ready() {
    let state = tempfile::tempdir().unwrap();
    let nobody = format!("http://{}", rig::free_address());
    let proxy = Running::start(settings(""), &nobody, state.path());
    assert_eq!(ask(proxy.admin, "GET", "/healthz", &[], b"").status, 200);
    assert_eq!(ask(proxy.admin, "GET", "/readyz", &[], b"").status, 503);
    let got = ask(proxy.address, "GET", "/", &[], b"");
    assert_eq!((got.status, got.header("retry-after")), (503, Some("1")));
    assert!(got.json()["hint"].as_str().unwrap().contains("controller"));
    assert_eq!(proxy.metric("strangler_proxy_ready "), 0.0);
}

#[test]
fn it_serves_from_its_stored_table_without_a_controller() {
    let mut rig = Rig::new(all_at("service"));
    let nobody = format!("http://{}", rig::free_address());
    rig.restart(&nobody);
    assert!(rig.proxy.is_ready());
    assert_eq!(rig.ask("GET", "/orders").text(), "service");
    assert_eq!(rig.ask("GET", "/").text(), "monolith");
}

#[test]
fn a_stored_table_of_a_slice_with_tables_is_used_when_no_controller_answers_for_long() {
    let follows = || vec![route("list", "GET /orders", "service", true)];
    let mut rig = Rig::new(follows());
    let nobody = format!("http://{}", rig::free_address());
    rig.restart(&nobody);
    rig.proxy.until("doubt", || rig.proxy.metric("strangler_proxy_table_in_doubt ") == 1.0);
    assert_eq!(rig.ask("GET", "/").text(), "monolith", "what matches no route waits for nobody");
    assert_eq!(rig.proxy.metric("strangler_proxy_table_in_doubt "), 1.0);
    assert_eq!(rig.ask("GET", "/orders").status, 200);
    rig.proxy.until("no doubt", || rig.proxy.metric("strangler_proxy_table_in_doubt ") == 0.0);
}

#[test]
fn a_stored_table_that_is_torn_is_not_used() {
    let mut rig = Rig::new(all_at("service"));
    rig.proxy.end();
    let file = rig.state.path().join("desired.json");
    let text = std::fs::read(&file).unwrap();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let nobody = format!("http://{}", rig::free_address());
    rig.restart(&nobody);
    assert!(!rig.proxy.is_ready());
    assert_eq!(rig.ask("GET", "/orders").status, 503);
}

#[test]
fn an_older_generation_is_never_taken_but_another_journal_is() {
    let mut rig = Rig::new(all_at("monolith"));
    rig.publish(all_at("service"));
    let observed = || rig.controller.observed.lock().unwrap().iter().filter_map(|o| o.acts_on).next_back();
    rig.controller.publish(rig.desired(1, all_at("monolith")));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(rig.ask("GET", "/orders").text(), "service");
    assert_eq!(observed().map(|(_, g)| g.0), Some(2));
    let mut other = rig.desired(1, all_at("monolith"));
    other.journal = journal(2);
    rig.controller.publish(other);
    rig.proxy
        .until("the other journal's table", || observed().map(|(j, g)| (j, g.0)) == Some((journal(2), 1)));
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
}

#[test]
fn a_table_that_cannot_be_used_leaves_the_present_one_in_use() {
    let rig = Rig::new(all_at("service"));
    let mut bad = rig.desired(2, all_at("monolith"));
    bad.table.monolith = vec!["nonsense".to_owned()];
    let mut newer = rig.desired(3, all_at("monolith"));
    newer.version = 99;
    for unusable in [bad, newer] {
        let generation = unusable.generation.0;
        rig.controller.publish(unusable);
        // A proxy that asks a second time has checked the table once.
        rig.proxy.until("it was refused", || {
            rig.controller.given.lock().unwrap().iter().filter(|given| **given == generation).count() >= 2
        });
        assert_eq!(rig.ask("GET", "/orders").text(), "service", "generation {generation}");
    }
    rig.controller.publish(rig.desired(4, all_at("monolith")));
    rig.proxy.until("a good one again", || rig.ask("GET", "/orders").text() == "monolith");
}

#[test]
fn a_swap_is_reported_at_once_and_loses_no_request() {
    let mut rig = Rig::new(all_at("monolith"));
    let address = rig.proxy.address;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = stop.clone();
    let load = std::thread::spawn(move || {
        let mut statuses = Vec::new();
        while !ended.load(std::sync::atomic::Ordering::SeqCst) && statuses.len() < 100_000 {
            statuses.push(ask(address, "GET", "/orders", &[], b"").status);
        }
        statuses
    });
    let started = Instant::now();
    for n in 0..20 {
        rig.publish(all_at(if n % 2 == 0 { "service" } else { "monolith" }));
        let generation = rig.generation;
        rig.proxy.until("it is reported", || {
            let reports = rig.controller.observed.lock().unwrap();
            reports.last().and_then(|o| o.acts_on).is_some_and(|(_, g)| g.0 == generation)
        });
    }
    // Without the notice, reports come once a second, and twenty swaps would take twice as long.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let statuses = load.join().unwrap();
    assert!(statuses.len() > 20 && statuses.iter().all(|s| *s == 200), "{statuses:?}");
}

#[test]
fn a_request_under_way_is_finished_when_it_is_told_to_stop() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let slow = move |_: &rig::Asked| {
        gone.lock().unwrap().recv_timeout(rig::PATIENCE).unwrap();
        text(200, "slow")
    };
    let mut rig = Rig::with("", vec![], slow, |_| text(200, ""));
    let mut stream = TcpStream::connect(rig.proxy.address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    rig.proxy.until("it is under way", || rig.monolith.count() == 1);
    rig.proxy.stop();
    // The stop has time to cut the request off.
    std::thread::sleep(Duration::from_millis(300));
    go.send(()).unwrap();
    let mut back = Vec::new();
    stream.set_read_timeout(Some(rig::PATIENCE)).unwrap();
    stream.read_to_end(&mut back).unwrap();
    let back = String::from_utf8_lossy(&back).into_owned();
    assert!(back.contains("200") && back.ends_with("slow"), "{back}");
    rig.proxy.join();
    assert!(TcpStream::connect(rig.proxy.address).is_err());
}

#[test]
fn a_request_is_counted_once_under_the_table_that_it_began_with() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let service = move |asked: &rig::Asked| {
        if asked.target.ends_with("?slow") {
            gone.lock().unwrap().recv_timeout(rig::PATIENCE).unwrap();
        }
        text(200, "service")
    };
    let mut rig = Rig::with("", all_at("service"), |_| text(404, "monolith"), service);
    let count = |rig: &Rig, upstream: &str, class: &str| {
        rig.proxy.metric(&format!(
            "strangler_proxy_requests_total{{class=\"{class}\",route=\"list\",slice=\"orders\",upstream=\"{upstream}\"}}"
        ))
    };
    let address = rig.proxy.address;
    let slow = std::thread::spawn(move || ask(address, "GET", "/orders?slow", &[], b"").status);
    rig.proxy.until("the slow one is under way", || !rig.service.asked.lock().unwrap().is_empty());
    for _ in 0..3 {
        assert_eq!(rig.ask("GET", "/orders").status, 200);
    }
    rig.publish(all_at("monolith"));
    for _ in 0..2 {
        assert_eq!(rig.ask("GET", "/orders").status, 404);
    }
    rig.proxy.until("what has ended is counted", || count(&rig, "monolith", "4xx") == 2.0);
    assert_eq!(count(&rig, "orders", "2xx"), 3.0);
    rig.publish(all_at("service"));
    go.send(()).unwrap();
    assert_eq!(slow.join().unwrap(), 200);
    rig.proxy.until("the slow one too", || count(&rig, "orders", "2xx") == 4.0);
    assert_eq!(count(&rig, "monolith", "4xx"), 2.0);
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut settings = settings("");
    settings.listen = taken.local_addr().unwrap().to_string();
    let state = tempfile::tempdir().unwrap();
    let link = link::Link {
        controller: "http://127.0.0.1:1".to_owned(),
        token: migrations::plan::Secret::new("t".to_owned()),
        state_dir: state.path().to_path_buf(),
    };
    let (_stopper, shutdown) = proxy::Shutdown::by_hand();
    let error = proxy::run(&settings, link, shutdown).unwrap_err();
    assert!(error.to_string().contains(&settings.listen) && error.remedy().contains("proxy.listen"));
}
