//! A client keeps its side: with its first requests at once, before it has a cookie, through caches, and in preflights.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::pattern::Access;
use rig::{Browser, LONG, Reply, Rig, ask, orders, route};
use std::collections::BTreeSet;

const BROWSERS: usize = 24;

fn shared(share: &str) -> Vec<migrations::control::TableRoute> {
    vec![route("list", "GET /orders", share, false)]
}

#[test]
fn the_first_requests_of_a_browser_get_one_id_and_one_side_at_every_proxy() {
    let rigs = [Rig::new(shared("50%")), Rig::new(shared("50%"))];
    let mut sides = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for _ in 0..BROWSERS {
        let agent = Browser::new(rigs[0].proxy.address).agent;
        let first = |number: usize| {
            let mut browser = Browser::new(rigs[number % 2].proxy.address);
            browser.agent.clone_from(&agent);
            let got = browser.ask("GET", "/orders");
            (got.text(), browser.jar["strangler_client"].clone())
        };
        let first = &first;
        let got: BTreeSet<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..6).map(|number| scope.spawn(move || first(number))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(got.len(), 1, "{got:?}");
        let (side, id) = got.into_iter().next().unwrap();
        // With the cookie, from wherever it comes.
        let cookie = format!("strangler_client={id}");
        let later = ask(rigs[1].proxy.address, "GET", "/orders", &[("Cookie", &cookie)], b"");
        assert_eq!((later.text(), later.header("set-cookie")), (side.clone(), None));
        sides.insert(side);
        ids.insert(id);
    }
    assert_eq!((sides.len(), ids.len()), (2, BROWSERS));
}

#[test]
fn a_raised_share_moves_no_client_back_with_or_without_its_cookie() {
    let mut rig = Rig::new(shared("10%"));
    let mut browsers: Vec<_> = (0..BROWSERS).map(|_| Browser::new(rig.proxy.address)).collect();
    let mut before = [false; BROWSERS];
    for share in ["10%", "30%", "60%", "90%", "service"] {
        rig.publish(shared(share));
        for (number, browser) in browsers.iter_mut().enumerate() {
            // Every third keeps no cookies.
            if number % 3 == 0 {
                browser.jar.clear();
            }
            let is_at_service = browser.ask("GET", "/orders").text() == "service";
            assert!(is_at_service || !before[number], "browser {number} moved back at {share}");
            before[number] = is_at_service;
        }
    }
    assert!(before.iter().all(|is_at_service| *is_at_service));
}

#[test]
fn no_cookie_of_ours_is_on_an_answer_that_a_shared_cache_may_keep() {
    let as_asked = |side: &'static str| {
        move |asked: &rig::Asked| {
            let named = asked.header("x-wanted").unwrap_or_default();
            let fields = named.split('|').filter_map(|field| field.split_once(": "));
            let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            Reply::Answer(200, fields, side.into())
        }
    };
    let rig = Rig::with("", shared("50%"), as_asked("monolith"), as_asked("service"));
    let mut sides = BTreeSet::new();
    for number in 0..BROWSERS {
        let agent = format!("Reader/{number}");
        let asked = |wanted: &str| {
            let got = ask(
                rig.proxy.address,
                "GET",
                "/orders",
                &[("User-Agent", &agent), ("X-Wanted", wanted)],
                b"",
            );
            (got.text(), got.cookies())
        };
        let (side, none) = asked("Cache-Control: public, max-age=60");
        assert!(none.is_empty(), "{none:?}");
        for kept in [
            "Cache-Control: s-maxage=5",
            "Cache-Control: max-age=5",
            "Expires: Thu, 01 Dec 2050 16:00:00 GMT",
        ] {
            let (same, none) = asked(kept);
            assert!(same == side && none.is_empty(), "{kept}: {none:?}");
        }
        for own in [
            "Cache-Control: private, max-age=5",
            "Cache-Control: no-store",
            "",
            "Cache-Control: public|Set-Cookie: a=b",
        ] {
            let (same, some) = asked(own);
            assert!(same == side && some.contains_key("strangler_client"), "{own}: {some:?}");
        }
        sides.insert(side);
    }
    assert_eq!(sides.len(), 2);
}

/// A preflight for this method, without cookies.
fn preflight(rig: &Rig, agent: &str, method: &str, target: &str) -> rig::Got {
    let fields = [
        ("User-Agent", agent),
        ("Accept-Language", "de"),
        ("Origin", "http://other.example"),
        ("Access-Control-Request-Method", method),
    ];
    ask(rig.proxy.address, "OPTIONS", target, &fields, b"")
}

#[test]
fn a_preflight_follows_the_route_of_the_method_that_it_asks_for() {
    let mut rig = Rig::new(vec![
        route("place", "POST /orders", "service", false),
        route("list", "GET /orders", "monolith", false),
        route("own", "OPTIONS /own", "monolith", false),
        route("put", "PUT /own", "service", false),
    ]);
    assert_eq!(preflight(&rig, "x", "POST", "/orders").text(), "service");
    assert_eq!(preflight(&rig, "x", "POST", "/%6frders").text(), "service");
    assert_eq!(preflight(&rig, "x", "GET", "/orders").text(), "monolith");
    assert_eq!(preflight(&rig, "x", "DELETE", "/orders").text(), "monolith");
    assert_eq!(preflight(&rig, "x", "PUT", "/own").text(), "monolith", "OPTIONS has a route itself");
    assert_eq!(preflight(&rig, "x", "POST", "//orders").status, 400);
    assert_eq!(ask(rig.proxy.address, "OPTIONS", "/orders", &[], b"").text(), "monolith");
    // It is no write, so it does not wait, and no write is counted.
    rig.hold(orders("service"), 1, LONG);
    assert_eq!(preflight(&rig, "x", "POST", "/orders").text(), "service");
    assert_eq!(rig.proxy.metric("strangler_proxy_held_total{outcome=\"released\",slice=\"orders\"} "), 0.0);
}

#[test]
fn a_preflight_takes_its_clients_side_and_sets_no_cookie() {
    let search = migrations::control::TableRoute {
        access: Access::Read,
        ..route("search", "POST /orders", "50%", false)
    };
    let rig = Rig::new(vec![search]);
    let mut sides = BTreeSet::new();
    for _ in 0..BROWSERS {
        let mut browser = Browser::new(rig.proxy.address);
        let asked = preflight(&rig, &browser.agent, "POST", "/orders");
        assert!(asked.cookies().is_empty());
        let side = asked.text();
        assert_eq!(browser.ask("POST", "/orders").text(), side, "the request itself");
        assert_eq!(browser.ask("POST", "/orders").text(), side, "and the next, with a cookie");
        sides.insert(side);
    }
    assert_eq!(sides.len(), 2);
}
