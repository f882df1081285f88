//! Requests go where the table says. Clients keep their side, and none moves back when a share rises.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::plan::Sticky;
use rig::{Browser, Rig, SECRET, ask, route, text};

fn by_user(share: &str) -> Vec<migrations::control::TableRoute> {
    let list = migrations::control::TableRoute {
        sticky: Sticky::Header("X-User".to_owned()),
        ..route("list", "GET /orders", share, false)
    };
    vec![list]
}

#[test]
fn unmatched_requests_go_to_the_monolith_and_matched_ones_by_share() {
    let routes = vec![
        route("list", "GET /orders", "service", false),
        route("show", "GET /orders/{id}", "monolith", false),
        route("place", "POST /orders", "service", false),
    ];
    let rig = Rig::new(routes);
    assert_eq!(rig.ask("GET", "/").text(), "monolith");
    assert_eq!(rig.ask("GET", "/orders?page=2").text(), "service");
    assert_eq!(rig.service.last().target, "/orders?page=2");
    assert_eq!(rig.ask("HEAD", "/orders").status, 200);
    assert_eq!(rig.service.last().method, "HEAD");
    assert_eq!(rig.ask("GET", "/orders/7").text(), "monolith");
    assert_eq!(rig.ask("GET", "/orders/").text(), "monolith");
    assert_eq!(rig.ask("POST", "/orders").text(), "service");
    assert_eq!(rig.ask("DELETE", "/orders").text(), "monolith");
}

#[test]
fn another_spelling_does_not_go_round_a_route() {
    let routes = || {
        let moved = ["POST /orders", "POST /orders/{id}/pay", "GET /files/{*rest}", "GET /caf%c3%a9"];
        let named =
            moved.iter().enumerate().map(|(n, pattern)| route(&format!("r{n}"), pattern, "service", false));
        named.collect::<Vec<_>>()
    };
    let rig = Rig::new(routes());
    let plain = [
        "/%6frders",
        "/%6F%72ders?x=%2F",
        "/./orders",
        "/x/../orders",
        "/x/%2e%2E/orders",
        "http://shop.example/%6frders",
    ];
    for spelled in plain {
        assert_eq!(rig.ask("POST", spelled).text(), "service", "{spelled}");
        assert!(rig.service.last().target.starts_with("/orders"), "{spelled}: {}", rig.service.last().target);
    }
    assert_eq!(rig.ask("POST", "/orders/7/../8/%70ay").text(), "service");
    assert_eq!(rig.ask("GET", "/caf%C3%a9").text(), "service");
    // What leaves the files is none of them, and arrives as what it was matched as.
    assert_eq!(rig.ask("GET", "/files/../internal?a").text(), "monolith");
    assert_eq!(rig.monolith.last().target, "/internal?a");
    assert_eq!(rig.proxy.metric("strangler_proxy_paths_respelled_total "), 9.0);
    let doubtful = [
        "//orders",
        "/orders;v=1",
        "/;a/orders",
        "/orders;/7/pay",
        "/orders#x",
        "/orders%23",
        "/orders%00",
        "/%2forders",
        "/x%2f..%2forders",
        "/x/..%2Forders",
        "/x%5c..%5corders",
        "/orders/7%2fpay",
        "/orders/7//pay",
        "/%252forders",
        "/orders%3fx",
        "/x/..;/orders",
        "/orders\\7\\pay",
    ];
    let before = (rig.monolith.count(), rig.service.count());
    for spelled in doubtful {
        let got = rig.ask("POST", spelled);
        assert_eq!(got.status, 400, "{spelled}");
        assert!(got.text().contains("proxy.ambiguous_paths"), "{}", got.text());
    }
    assert_eq!(rig.ask("GET", "/files/a%2F..%2F..%2Finternal").status, 400);
    assert_eq!((rig.monolith.count(), rig.service.count()), before);
    // No route is near: they go as they came.
    for target in ["/a//b", "/a;b", "/a%2fb%20c", "/100%", "/a%zz"] {
        assert_eq!(rig.ask("POST", target).text(), "monolith", "{target}");
        assert_eq!(rig.monolith.last().target.to_lowercase(), target);
    }
    let rig =
        Rig::with("  ambiguous_paths: pass\n", routes(), |_| text(200, "monolith"), |_| text(200, "service"));
    assert_eq!(rig.ask("POST", "/orders;v=1").text(), "monolith");
    assert_eq!(rig.ask("GET", "/files/a%2fb").text(), "service");
    assert_eq!(rig.service.last().target, "/files/a%2Fb");
}

#[test]
fn clients_keep_their_side_and_none_moves_back_when_the_share_rises() {
    let mut rig = Rig::new(by_user("20%"));
    let at_service = |rig: &Rig| -> Vec<bool> {
        let side =
            |user: usize| ask(rig.proxy.address, "GET", "/orders", &[("X-User", &user.to_string())], b"");
        (0..100).map(|user| side(user).text() == "service").collect()
    };
    let first = at_service(&rig);
    assert_eq!(first, at_service(&rig), "the same client, the same side");
    let count = first.iter().filter(|is| **is).count();
    assert!((5..40).contains(&count), "{count} of 100 at 20%");
    rig.publish(by_user("60%"));
    let then = at_service(&rig);
    assert!(first.iter().zip(&then).all(|(before, after)| !before || *after), "nobody moved back");
    assert!(then.iter().filter(|is| **is).count() > count);
}

#[test]
fn a_client_without_a_key_gets_our_cookie_and_keeps_its_side_by_it() {
    let rig = Rig::new(vec![route("list", "GET /orders", "50%", false)]);
    let mut sides = Vec::new();
    for _ in 0..20 {
        let mut browser = Browser::new(rig.proxy.address);
        let first = browser.ask("GET", "/orders");
        let cookie = first.header("set-cookie").unwrap().to_owned();
        assert!(cookie.starts_with("strangler_client="), "{cookie}");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
        let second = browser.ask("GET", "/orders");
        assert_eq!(second.header("set-cookie"), None);
        sides.push(second.text());
        assert_eq!(browser.ask("GET", "/orders").text(), second.text());
    }
    assert!(
        sides.iter().any(|side| side == "service") && sides.iter().any(|side| side == "monolith"),
        "{sides:?}"
    );
}

#[test]
fn no_cookie_is_set_where_nothing_is_shared() {
    let rig = Rig::new(vec![
        route("list", "GET /orders", "service", false),
        route("show", "GET /orders/{id}", "monolith", false),
    ]);
    assert_eq!(rig.ask("GET", "/orders").header("set-cookie"), None);
    assert_eq!(rig.ask("GET", "/orders/1").header("set-cookie"), None);
    assert_eq!(rig.ask("GET", "/other").header("set-cookie"), None);
}

#[test]
fn a_tester_chooses_the_side_only_with_the_secret() {
    let rig = Rig::new(vec![route("list", "GET /orders", "monolith", false)]);
    let with = |side: &str, secret: &str| {
        let headers = [("X-Strangler-Side", side), ("X-Strangler-Secret", secret)];
        ask(rig.proxy.address, "GET", "/orders", &headers, b"").text()
    };
    assert_eq!(with("service", SECRET), "service");
    let asked = rig.service.last();
    assert_eq!((asked.header("x-strangler-side"), asked.header("x-strangler-secret")), (None, None));
    assert_eq!(with("monolith", SECRET), "monolith");
    assert_eq!(with("service", "wrong"), "monolith");
    assert_eq!(rig.monolith.last().header("x-strangler-secret"), None);
    assert_eq!(
        ask(rig.proxy.address, "GET", "/orders", &[("X-Strangler-Side", "service")], b"").text(),
        "monolith"
    );
    assert_eq!(rig.proxy.metric("strangler_proxy_overrides_refused_total "), 2.0);
}

#[test]
fn a_write_of_a_slice_with_tables_is_not_moved_by_a_tester() {
    let rig = Rig::new(vec![route("place", "POST /orders", "monolith", true)]);
    let headers = [("X-Strangler-Side", "service"), ("X-Strangler-Secret", SECRET)];
    assert_eq!(ask(rig.proxy.address, "POST", "/orders", &headers, b"x").text(), "monolith");
    assert_eq!(rig.service.count(), 0);
}
