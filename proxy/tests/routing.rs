//! Requests go where the table says. Clients keep their side, and none moves back when a share rises.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::plan::Sticky;
use rig::{Browser, Rig, SECRET, ask, route};

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
