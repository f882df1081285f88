//! A client that wrote, or saw newer data at the monolith, never reads older data from the service.

#![allow(clippy::unwrap_used)]

mod rig;

use migrations::control::TableRoute;
use migrations::plan::Sticky;
use rig::{Browser, Gate, Rig, ask, route};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn at(share: &str) -> Vec<TableRoute> {
    vec![route("list", "GET /orders", share, true), route("place", "POST /orders", "monolith", true)]
}

/// A rig whose reads all go to the service. The barrier of that raise has passed.
fn settled() -> Rig {
    let rig = Rig::new(at("service"));
    rig.proxy.until("the share is settled", || rig.ask("GET", "/orders").text() == "service");
    rig
}

fn barriers(gate: &Gate) -> usize {
    gate.asked.load(SeqCst)
}

#[test]
fn a_client_with_cookies_reads_its_write_from_the_monolith_until_the_barrier_has_passed() {
    let rig = settled();
    rig.controller.gate.open(false);
    let mut writer = Browser::new(rig.proxy.address);
    assert_eq!(writer.ask("POST", "/orders").text(), "monolith");
    assert!(writer.jar.contains_key("strangler_seen"), "{:?}", writer.jar);
    for _ in 0..5 {
        assert_eq!(writer.ask("GET", "/orders").text(), "monolith");
    }
    rig.controller.gate.open(true);
    rig.proxy.until("the service has caught up", || {
        std::thread::sleep(Duration::from_millis(5));
        ask(rig.proxy.address, "GET", "/orders", &[], b"").text() == "service"
    });
    let mut reads = 0;
    while writer.ask("GET", "/orders").text() == "monolith" {
        reads += 1;
        assert!(reads < 200, "the client is stuck at the monolith");
    }
    writer.ask("GET", "/orders");
    assert!(!writer.jar.contains_key("strangler_seen"), "the cookie is taken back: {:?}", writer.jar);
}

#[test]
fn a_client_without_cookies_is_remembered_by_its_key() {
    let mut routes = at("service");
    routes.iter_mut().for_each(|r| r.sticky = Sticky::Header("X-User".to_owned()));
    let rig = Rig::new(routes);
    let user =
        |name: &str, method: &str| ask(rig.proxy.address, method, "/orders", &[("X-User", name)], b"").text();
    rig.proxy
        .until("the share is settled", || user("ann", "GET") == "service" && user("bob", "GET") == "service");
    rig.controller.gate.open(false);
    assert_eq!(user("ann", "POST"), "monolith");
    for _ in 0..3 {
        assert_eq!(user("ann", "GET"), "monolith");
        assert_eq!(user("bob", "GET"), "service", "bob wrote nothing");
    }
    rig.controller.gate.open(true);
    rig.proxy.until("ann is back", || user("ann", "GET") == "service");
}

#[test]
fn every_write_marks_its_client_even_unmatched_or_failed() {
    let monolith = |asked: &rig::Asked| match (asked.method.as_str(), asked.target.as_str()) {
        ("DELETE", _) => rig::Reply::Close,
        _ => rig::text(200, "monolith"),
    };
    let rig = Rig::with("", at("service"), monolith, |_| rig::text(200, "service"));
    for (method, target) in [("PATCH", "/somewhere/else"), ("DELETE", "/broken")] {
        rig.controller.gate.open(true);
        let mut client = Browser::new(rig.proxy.address);
        rig.proxy.until("reads are at the service", || rig.ask("GET", "/orders").text() == "service");
        rig.controller.gate.open(false);
        client.ask(method, target);
        assert_eq!(client.ask("GET", "/orders").text(), "monolith", "after {method}");
    }
}

#[test]
fn a_write_marks_its_client_even_after_the_client_left() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let monolith = move |asked: &rig::Asked| {
        if asked.method == "POST" {
            // In either case, the answer comes too late.
            let _ = gone.lock().unwrap().recv_timeout(rig::PATIENCE);
        }
        rig::text(200, "monolith")
    };
    let rig = Rig::with("", at("service"), monolith, |_| rig::text(200, "service"));
    rig.proxy.until("the share is settled", || rig.ask("GET", "/orders").text() == "service");
    rig.controller.gate.open(false);
    {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(rig.proxy.address).unwrap();
        stream.write_all(b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
        let is_asked = || rig.monolith.asked.lock().unwrap().iter().any(|asked| asked.method == "POST");
        rig.proxy.until("the write is under way", is_asked);
    }
    rig.proxy.until("the proxy noticed", || rig.proxy.log_text().contains("499"));
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
    drop(go);
}

#[test]
fn a_raised_share_waits_for_a_barrier_and_only_for_the_new_clients() {
    let keyed = |share: &str| {
        let mut routes = at(share);
        routes.iter_mut().for_each(|r| r.sticky = Sticky::Header("X-User".to_owned()));
        routes
    };
    let mut rig = Rig::new(keyed("30%"));
    let side = |rig: &Rig, n: usize| {
        ask(rig.proxy.address, "GET", "/orders", &[("X-User", &n.to_string())], b"").text()
    };
    rig.proxy.until("the share is settled", || (0..60).any(|n| side(&rig, n) == "service"));
    std::thread::sleep(Duration::from_millis(100));
    let old: Vec<usize> = (0..60).filter(|n| side(&rig, *n) == "service").collect();
    assert!(!old.is_empty());
    rig.controller.gate.open(false);
    rig.publish(keyed("100%"));
    for n in 0..60 {
        let expected = if old.contains(&n) { "service" } else { "monolith" };
        assert_eq!(side(&rig, n), expected, "client {n}");
    }
    rig.controller.gate.open(true);
    rig.proxy.until("all are at the service", || (0..60).all(|n| side(&rig, n) == "service"));
}

#[test]
fn a_read_that_fell_back_marks_its_client() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_broken = broken.clone();
    let service = move |_: &rig::Asked| {
        if is_broken.load(SeqCst) { rig::Reply::Close } else { rig::text(200, "service") }
    };
    let rig = Rig::with("", at("service"), |_| rig::text(200, "monolith"), service);
    rig.proxy.until("the share is settled", || rig.ask("GET", "/orders").text() == "service");
    rig.controller.gate.open(false);
    broken.store(true, SeqCst);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
    broken.store(false, SeqCst);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith", "the service is back, but may be behind");
    rig.controller.gate.open(true);
    rig.proxy.until("it reads from the service again", || rig.ask("GET", "/orders").text() == "service");
}

#[test]
fn a_cookie_of_another_proxy_or_from_before_a_restart_must_wait() {
    let rig = settled();
    rig.controller.gate.open(false);
    let foreign = [("Cookie", "strangler_seen=abc.3; strangler_client=someone")];
    let got = ask(rig.proxy.address, "GET", "/orders", &foreign, b"");
    assert_eq!(got.text(), "monolith");
    assert!(!got.cookies()["strangler_seen"].starts_with("abc."), "it is given anew: {:?}", got.cookies());
    rig.controller.gate.open(true);
    rig.proxy.until("it may read from the service", || {
        ask(rig.proxy.address, "GET", "/orders", &foreign, b"").text() == "service"
    });
}

#[test]
fn after_a_restart_no_client_reads_from_the_service_before_a_barrier() {
    let mut rig = settled();
    rig.controller.gate.open(false);
    let controller = rig.controller.origin.url();
    rig.restart(&controller);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
    rig.controller.gate.open(true);
    rig.proxy.until("the barrier has passed", || rig.ask("GET", "/orders").text() == "service");
}

/// The copy may have been given up, and its tables be emptied.
#[test]
fn a_copy_is_not_read_while_no_controller_says_that_it_still_is_one() {
    let rig = settled();
    let side = || rig.ask("GET", "/orders").text();
    rig.controller.knows_more.store(true, SeqCst);
    rig.proxy.until("it reads elsewhere", || side() == "monolith");
    assert!(rig.proxy.metric("strangler_proxy_decisions_total{why=\"alone\"}") > 0.0);
    rig.proxy.until("it says so", || rig.proxy.metric("strangler_proxy_alone ") == 1.0);
    rig.controller.knows_more.store(false, SeqCst);
    rig.proxy.until("it reads the copy again", || side() == "service");
    rig.proxy.until("it is not alone", || rig.proxy.metric("strangler_proxy_alone ") == 0.0);
}

#[test]
fn a_copy_is_not_read_while_the_controller_says_that_it_is_too_old() {
    let mut rig = settled();
    let withhold = |rig: &Rig, slices: &[&str]| {
        *rig.controller.withheld.lock().unwrap() = slices.iter().map(|name| name.parse().unwrap()).collect();
    };
    withhold(&rig, &["another"]);
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(rig.ask("GET", "/orders").text(), "service", "another slice's copy");
    withhold(&rig, &["orders"]);
    rig.proxy.until("it reads elsewhere", || rig.ask("GET", "/orders").text() == "monolith");
    assert!(rig.proxy.metric("strangler_proxy_decisions_total{why=\"old\"}") > 0.0);
    let controller = rig.controller.origin.url();
    rig.restart(&controller);
    for _ in 0..100 {
        assert_eq!(rig.ask("GET", "/orders").text(), "monolith", "a proxy that starts hears it first");
        std::thread::sleep(Duration::from_millis(10));
    }
    withhold(&rig, &[]);
    rig.proxy.until("it reads the copy again", || rig.ask("GET", "/orders").text() == "service");
}

#[test]
fn without_shared_reads_there_are_no_marks_and_no_barriers() {
    let rig = Rig::new(at("monolith"));
    let mut client = Browser::new(rig.proxy.address);
    for _ in 0..10 {
        client.ask("POST", "/orders");
        client.ask("GET", "/orders");
    }
    assert!(client.jar.is_empty(), "{:?}", client.jar);
    assert_eq!(barriers(&rig.controller.gate), 0);
    assert_eq!(rig.proxy.metric("strangler_proxy_marks_total "), 0.0);
}

#[test]
fn barriers_run_one_at_a_time_and_stop_when_no_client_waits() {
    let rig = settled();
    rig.proxy.until("nobody waits any more", || {
        let before = barriers(&rig.controller.gate);
        std::thread::sleep(Duration::from_millis(200));
        barriers(&rig.controller.gate) == before
    });
    let before = barriers(&rig.controller.gate);
    for _ in 0..10 {
        assert_eq!(rig.ask("GET", "/orders").text(), "service");
    }
    assert_eq!(barriers(&rig.controller.gate), before, "a read at the service asks for nothing");
    rig.controller.gate.open(false);
    for _ in 0..20 {
        rig.ask("POST", "/orders");
    }
    rig.proxy.until("a barrier is asked for", || barriers(&rig.controller.gate) > before);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(barriers(&rig.controller.gate), before + 1, "one in flight");
}

/// A monolith whose data is one version, and a service that gets it a little later.
#[derive(Default)]
struct World {
    monolith: AtomicU64,
    service: AtomicU64,
    is_broken: AtomicBool,
    at_service: AtomicU64,
}

impl World {
    fn monolith(&self, asked: &rig::Asked) -> rig::Reply {
        let version = match asked.method.as_str() {
            "POST" => self.monolith.fetch_add(1, SeqCst) + 1,
            _ => self.monolith.load(SeqCst),
        };
        rig::text(200, &version.to_string())
    }

    fn service(&self) -> rig::Reply {
        if self.is_broken.load(SeqCst) {
            return rig::Reply::Close;
        }
        self.at_service.fetch_add(1, SeqCst);
        rig::text(200, &self.service.load(SeqCst).to_string())
    }

    /// As the bridge does: the service must have what is there now.
    fn barrier(&self) -> bool {
        let version = self.monolith.load(SeqCst);
        let deadline = Instant::now() + rig::PATIENCE;
        while self.service.load(SeqCst) < version && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn follow(&self, until: Instant) {
        let mut pause = 1;
        while Instant::now() < until {
            let version = self.monolith.load(SeqCst);
            std::thread::sleep(Duration::from_millis(pause));
            self.service.store(version, SeqCst);
            pause = pause % 9 + 2;
        }
    }
}

/// Reads and writes for a while. No read may return less than the client knows.
fn live_a_life(mut ask: impl FnMut(&str, u64) -> rig::Got, until: Instant, salt: u64) -> u64 {
    let (mut known, mut reads) = (0, 0);
    while Instant::now() < until {
        let method = if (reads + salt).is_multiple_of(7) { "POST" } else { "GET" };
        let got = ask(method, reads);
        assert_eq!(got.status, 200, "{}", got.text());
        let version: u64 = got.text().parse().unwrap();
        assert!(version >= known, "client {salt} knew {known} and its {method} {reads} said {version}");
        known = version;
        reads += 1;
        if reads.is_multiple_of(5) {
            std::thread::sleep(Duration::from_millis(salt * 3));
        }
    }
    reads
}

#[test]
fn no_client_reads_back_in_time_while_shares_move_and_the_service_breaks() {
    let world: Arc<World> = Arc::default();
    let (monolith, service, bridge, follower) = (world.clone(), world.clone(), world.clone(), world.clone());
    let controller = rig::Controller::with_barrier(move || bridge.barrier());
    let mut rig =
        Rig::under(controller, "", at("50%"), move |a| monolith.monolith(a), move |_| service.service());
    let until = Instant::now() + Duration::from_secs(4);
    let mut lives = vec![std::thread::spawn(move || {
        follower.follow(until + Duration::from_secs(1));
        0
    })];
    for salt in 0..5 {
        let mut browser = Browser::new(rig.proxy.address);
        lives.push(std::thread::spawn(move || {
            live_a_life(|method, _| browser.ask(method, "/orders"), until, salt)
        }));
    }
    let address = rig.proxy.address;
    // Without cookies, this machine is one client, so only one may run.
    let plain = move |method: &str, _| ask(address, method, "/orders", &[], b"");
    lives.push(std::thread::spawn(move || live_a_life(plain, until, 5)));
    let shares = ["100%", "20%", "80%", "monolith", "60%", "service"];
    for share in shares.iter().cycle().take_while(|_| Instant::now() < until) {
        rig.publish(at(share));
        world.is_broken.store(*share == "80%", SeqCst);
        std::thread::sleep(Duration::from_millis(150));
    }
    let reads: u64 = lives.into_iter().map(|life| life.join().unwrap()).sum();
    let at_service = world.at_service.load(SeqCst);
    assert!(at_service > 20, "{at_service} of {reads} reads were the service's: this proved nothing");
}

/// Nothing is remembered of a client, so it may come without cookies, through either proxy, and know what it read on other
/// paths. One proxy has heard of less than the other: its share is lower.
#[test]
fn with_strong_consistency_no_client_of_two_proxies_reads_back_in_time() {
    let world: Arc<World> = Arc::default();
    let follower = world.clone();
    let one = || {
        let (monolith, service, bridge) = (world.clone(), world.clone(), world.clone());
        let controller = rig::Controller::with_barrier(move || bridge.barrier());
        let lines = "  consistency: strong\n";
        Rig::under(
            controller,
            lines,
            at("monolith"),
            move |a| monolith.monolith(a),
            move |_| service.service(),
        )
    };
    let mut rigs = [one(), one()];
    let until = Instant::now() + Duration::from_secs(4);
    let mut lives = vec![std::thread::spawn(move || {
        follower.follow(until + Duration::from_secs(1));
        0
    })];
    let addresses = rigs.each_ref().map(|rig| rig.proxy.address);
    for salt in 0..5 {
        let one = move |method: &str, n: u64| {
            let address = addresses[((n + salt) % 3 % 2) as usize];
            let target = if n % 5 == 2 { "/of/another/route" } else { "/orders" };
            let got = ask(address, method, target, &[], b"");
            assert!(got.headers.iter().all(|(_, value)| !value.contains("strangler_seen")));
            got
        };
        lives.push(std::thread::spawn(move || live_a_life(one, until, salt)));
    }
    for n in 0.. {
        if Instant::now() > until {
            break;
        }
        let share = ["service", "monolith", "60%"][n / 2 % 3];
        rigs[n % 2].publish(at(share));
        std::thread::sleep(Duration::from_millis(150));
    }
    let reads: u64 = lives.into_iter().map(|life| life.join().unwrap()).sum();
    let at_service = world.at_service.load(SeqCst);
    assert!(at_service > 20, "{at_service} of {reads} reads were the service's: this proved nothing");
}

#[test]
fn with_strong_consistency_a_read_without_proof_is_the_monoliths() {
    let rig = Rig::with(
        "  consistency: strong\n",
        at("service"),
        |_| rig::text(200, "monolith"),
        |_| rig::text(200, "service"),
    );
    rig.proxy.until("the share is settled", || rig.ask("GET", "/orders").text() == "service");
    let before = barriers(&rig.controller.gate);
    assert_eq!(rig.ask("GET", "/orders").text(), "service");
    assert!(barriers(&rig.controller.gate) > before, "each read has its proof");
    rig.controller.gate.open(false);
    assert_eq!(rig.ask("GET", "/orders").text(), "monolith");
    rig.proxy.until("the log says why", || rig.proxy.log_text().contains(r#""why":"behind""#));
    rig.controller.gate.open(true);
    rig.proxy.until("the service has caught up", || rig.ask("GET", "/orders").text() == "service");
}
