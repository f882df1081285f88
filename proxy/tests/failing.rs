//! An upstream fails: reads of the service fall back, writes never do, and the client gets an error.

#![allow(clippy::unwrap_used)]

mod rig;

use rig::{Asked, Reply, Rig, ask, route, search, text};
use std::time::Duration;

const QUICK: &str = "  connect_timeout: 500ms\n  read_timeout: 700ms\n";

fn reads_and_writes() -> Vec<migrations::control::TableRoute> {
    vec![
        route("list", "GET /orders", "service", false),
        route("place", "POST /orders", "service", false),
        route("put", "PUT /orders/{id}", "service", false),
        route("drop", "DELETE /orders/{id}", "service", false),
        search("service", false),
    ]
}

fn rig_with(service: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Rig {
    Rig::with(QUICK, reads_and_writes(), |_| text(200, "monolith"), service)
}

fn hang(_: &Asked) -> Reply {
    Reply::Speak(Box::new(|_| std::thread::sleep(Duration::from_secs(3))))
}

#[test]
fn a_read_that_the_service_breaks_off_is_answered_by_the_monolith() {
    let rig = rig_with(|_| Reply::Close);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
    let found = ask(rig.proxy.address, "POST", "/orders/search", &[], b"what");
    assert_eq!(found.text(), "monolith");
    assert_eq!(rig.monolith.last().body, b"what");
    assert!(rig.proxy.metric("strangler_proxy_decisions_total{why=\"fallback\"} ") >= 2.0);
}

/// Reads whose 5xx the plan does not want.
fn falling_back() -> Vec<migrations::control::TableRoute> {
    let mut routes = reads_and_writes();
    routes.iter_mut().for_each(|route| route.falls_back = true);
    routes
}

#[test]
fn a_read_that_the_service_answers_with_5xx_is_answered_by_the_monolith_if_the_plan_says_so() {
    let broken = |_: &Asked| text(500, "service");
    let mut rig = Rig::with(QUICK, falling_back(), |_| text(200, "monolith"), broken);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
    let found = ask(rig.proxy.address, "POST", "/orders/search", &[], b"what");
    assert_eq!((found.text(), rig.monolith.last().body.as_slice()), ("monolith".to_owned(), &b"what"[..]));
    for (method, target) in [("POST", "/orders"), ("PUT", "/orders/7"), ("DELETE", "/orders/7")] {
        assert_eq!(rig.ask(method, target).status, 500, "{method} was sent twice");
    }
    let large = ask(rig.proxy.address, "POST", "/orders/search", &[], &vec![b'x'; 200_000]);
    assert_eq!(large.status, 500, "its body was not kept");
    let headers = [("X-Strangler-Side", "service"), ("X-Strangler-Secret", rig::SECRET)];
    assert_eq!(ask(rig.proxy.address, "GET", "/orders", &headers, b"").status, 500, "a tester sees it");
    assert_eq!(rig.monolith.count(), 2);
    assert_eq!(rig.proxy.metric("strangler_proxy_decisions_total{why=\"erred\"} "), 2.0);
    let mut led = falling_back();
    led.iter_mut().for_each(|route| route.leads = true);
    rig.publish(led);
    assert_eq!(rig.ask("GET", "/orders").status, 500, "the monolith is behind");
    rig.publish(reads_and_writes());
    assert_eq!(rig.ask("GET", "/orders").status, 500, "the plan does not say so");
    assert_eq!(rig.monolith.count(), 2);
}

#[test]
fn how_requests_fared_is_reported_by_route_and_side() {
    let service = |asked: &Asked| match asked.method.as_str() {
        "GET" => text(500, "service"),
        "PUT" => Reply::Close,
        _ => text(200, "service"),
    };
    let mut rig = Rig::with(QUICK, falling_back(), |_| text(200, "monolith"), service);
    for (method, target) in
        [("GET", "/orders"), ("GET", "/orders"), ("PUT", "/orders/7"), ("POST", "/orders")]
    {
        rig.ask(method, target);
    }
    // The counts outlive a swap of the table.
    rig.publish(falling_back());
    rig.ask("GET", "/about");
    let fared = || {
        let reports = rig.controller.observed.lock().unwrap();
        let Some(migrations::control::Report::Proxy(last)) = reports.last().map(|o| o.report.clone()) else {
            return Vec::new();
        };
        let row = |row: &migrations::fared::RouteFared| {
            let route = row.route.as_ref().map_or("-", |(_, route)| route.as_str());
            format!(
                "{route} {:?} {} {} {}",
                row.side, row.fared.requests, row.fared.errors, row.fared.unanswered
            )
        };
        assert!(last.fared.iter().all(|row| row.fared.took.iter().sum::<u64>() == row.fared.requests));
        let mut rows: Vec<String> = last.fared.iter().map(row).collect();
        rows.sort();
        rows
    };
    let expected = [
        "- Monolith 1 0 0",
        "list Monolith 2 0 0",
        "list Service 2 2 0",
        "place Service 1 0 0",
        "put Service 1 0 1",
    ];
    rig.proxy.until("it is reported", || fared() == expected);
}

#[test]
fn a_read_of_what_the_service_owns_is_never_answered_by_the_monolith() {
    let mut routes = reads_and_writes();
    routes.iter_mut().for_each(|route| route.leads = true);
    let rig = Rig::with(QUICK, routes, |_| text(200, "monolith"), |_| Reply::Close);
    let got = rig.ask("GET", "/orders");
    assert_eq!((got.status, got.json()["upstream"].as_str()), (502, Some("orders")));
    assert_eq!(rig.monolith.count(), 0);
}

#[test]
fn a_read_whose_body_was_too_large_to_keep_is_not_sent_again() {
    let rig = rig_with(|_| Reply::Close);
    let found = ask(rig.proxy.address, "POST", "/orders/search", &[], &vec![b'x'; 200_000]);
    assert_eq!(found.status, 502);
    assert_eq!(rig.monolith.count(), 0);
}

#[test]
fn a_read_that_the_service_does_not_answer_in_time_is_answered_by_the_monolith() {
    let rig = rig_with(hang);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
}

#[test]
fn a_broken_write_is_never_sent_again() {
    let rig = rig_with(|_| Reply::Close);
    for (method, target) in [("POST", "/orders"), ("PUT", "/orders/1"), ("DELETE", "/orders/1")] {
        let before = rig.service.count();
        let got = rig.ask(method, target);
        assert_eq!(got.status, 502, "{method}");
        assert_eq!(rig.service.count(), before + 1, "{method} was sent once");
        let told = got.json();
        assert_eq!(told["upstream"], "orders");
        assert!(told["error"].is_string() && told["hint"].is_string());
    }
    assert_eq!(rig.monolith.count(), 0);
    assert_eq!(rig.proxy.metric("strangler_proxy_failed_total "), 3.0);
}

#[test]
fn a_late_write_is_504() {
    let rig = rig_with(hang);
    let got = rig.ask("POST", "/orders");
    assert_eq!((got.status, got.json()["upstream"].as_str()), (504, Some("orders")));
    assert!(
        rig.proxy.metric("strangler_proxy_upstream_failures_total{kind=\"timeout\",upstream=\"orders\"} ")
            >= 1.0
    );
}

#[test]
fn an_error_that_the_service_answers_is_passed_on() {
    let rig = rig_with(|_| text(503, "busy"));
    let got = rig.ask("GET", "/orders");
    assert_eq!((got.status, got.text().as_str()), (503, "busy"));
    assert_eq!(rig.monolith.count(), 0);
}

#[test]
fn a_monolith_that_is_down_is_502_at_once() {
    let mut rig = rig_with(|_| text(200, "service"));
    let gone = format!("http://{}", rig::free_address());
    rig.publish_with(reads_and_writes(), |table| table.monolith = vec![gone]);
    let started = std::time::Instant::now();
    let got = rig.ask("GET", "/");
    assert_eq!((got.status, got.json()["upstream"].as_str()), (502, Some("monolith")));
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn several_addresses_take_turns_and_a_dead_one_is_skipped_even_for_writes() {
    let mut rig = rig_with(|_| text(200, "service"));
    let other = rig::Origin::new(|_| text(200, "other"));
    let addresses = vec![rig.monolith.url(), format!("http://{}", rig::free_address()), other.url()];
    rig.publish_with(reads_and_writes(), |table| table.monolith = addresses);
    for _ in 0..12 {
        assert_eq!(rig.ask("POST", "/anything").status, 200);
    }
    assert!(rig.monolith.count() >= 3 && other.count() >= 3);
    rig.proxy.until("the dead one is known", || {
        let reports = rig.controller.observed.lock().unwrap();
        let last = reports.last().map(|o| serde_json::to_string(o).unwrap()).unwrap_or_default();
        last.contains("unhealthy\":[\"http://")
    });
}

/// `localhost` is 127.0.0.1 and, where there is IPv6, `::1`, at which nobody listens.
#[test]
fn a_name_serves_by_the_address_at_which_somebody_listens() {
    let mut rig = rig_with(|_| text(200, "service"));
    let by_name = rig.monolith.url().replace("127.0.0.1", "localhost");
    rig.publish_with(reads_and_writes(), |table| table.monolith = vec![by_name]);
    for _ in 0..3 {
        assert_eq!(rig.ask("POST", "/anything").text(), "monolith");
    }
}

#[test]
fn only_the_check_decides_whether_a_checked_service_is_well() {
    let asked_host = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let seen = asked_host.clone();
    let service = move |asked: &Asked| {
        if asked.target == "/health" {
            *seen.lock().unwrap() = asked.header("host").unwrap_or_default().to_owned();
        }
        text(500, "service")
    };
    let rig = Rig::with("  health_path: /health\n", reads_and_writes(), |_| text(200, "monolith"), service);
    rig.proxy.until("the service is unwell", || rig.ask("GET", "/orders").text() == "monolith");
    for _ in 0..20 {
        assert_eq!(rig.ask("POST", "/orders").text(), "service");
        assert_eq!(rig.ask("GET", "/orders").text(), "monolith", "an answer to a write says nothing");
    }
    assert_eq!(format!("http://{}", asked_host.lock().unwrap()), rig.service.url());
}

#[test]
fn an_unwell_service_is_not_asked_for_reads() {
    let lines = "  health_path: /health\n  health_host: shop.example:81\n";
    // It is unwell for the host that it is asked as, and well for every other one.
    let service = |asked: &Asked| match (&*asked.target, asked.header("host")) {
        ("/health", Some("shop.example:81")) => text(500, ""),
        _ => text(200, "service"),
    };
    let rig = Rig::with(lines, reads_and_writes(), |_| text(200, "monolith"), service);
    rig.proxy.until("the service is unwell", || rig.ask("GET", "/orders").text() == "monolith");
    assert_eq!(rig.ask("POST", "/orders").text(), "service", "a write has nowhere else to go");
}
