//! Certificates that are renewed, broken or missing, and listeners that come, go and change hands.

#![allow(clippy::unwrap_used)]

mod rig;

use link::Link;
use migrations::control::Report;
use migrations::finding::Finding;
use migrations::plan::Secret;
use migrations::problem::Diagnostic;
use rig::{
    Certificates, Rig, Running, Secure, ask, ask_securely, come, read_answer, settings, shown_to, text,
    wait_until,
};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

fn rig(certificates: &Certificates, names: &[&str]) -> Rig {
    Rig::with(&certificates.lines(names, ""), vec![], |_| text(200, "monolith"), |_| text(200, ""))
}

/// Clients by TLS that go on until the end: new connections and kept ones. Each failure is kept.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(to: SocketAddr) -> Self {
        let mut load = Self { stop: Arc::default(), done: Arc::default(), clients: Vec::new() };
        for _ in 0..2 {
            load.client(move || ask_securely(to, "GET /", "").map(drop).map_err(|error| error.to_string()));
            let mut kept = None;
            load.client(move || on_kept(&mut kept, to));
        }
        load
    }

    fn client(&mut self, mut request: impl FnMut() -> Result<(), String> + Send + 'static) {
        let (stop, done) = (self.stop.clone(), self.done.clone());
        self.clients.push(std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stop.load(Relaxed) {
                match request() {
                    Ok(()) => _ = done.fetch_add(1, Relaxed),
                    Err(error) => failed.push(error),
                }
                std::thread::sleep(Duration::from_millis(4));
            }
            failed
        }));
    }

    fn lost_nothing(self) {
        let enough = self.done.load(Relaxed) + 50;
        wait_until("enough requests", || self.done.load(Relaxed) >= enough);
        self.stop.store(true, Relaxed);
        let failed: Vec<String> =
            self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let done = self.done.load(Relaxed);
        assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
    }
}

fn on_kept(kept: &mut Option<Secure>, to: SocketAddr) -> Result<(), String> {
    let words = |error: std::io::Error| format!("kept connection: {error}");
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => come(to, "shop.example").map_err(words)?,
    };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").map_err(words)?;
    let got = read_answer(&mut BufReader::new(&mut stream), "GET").ok_or("closed without an answer")?;
    if got.header("connection") == Some("keep-alive") {
        *kept = Some(stream);
    }
    if got.status == 200 { Ok(()) } else { Err(got.text()) }
}

/// What the proxy told the controller last.
fn reported(rig: &Rig) -> Vec<Finding> {
    match rig.controller.observed.lock().unwrap().last().map(|observed| &observed.report) {
        Some(Report::Proxy(report)) => report.findings.clone(),
        _ => Vec::new(),
    }
}

#[test]
fn a_renewed_certificate_is_shown_and_no_request_is_lost() {
    let certificates = Certificates::of(&["shop shop.example", "other other.example"]);
    let rig = rig(&certificates, &["shop", "other"]);
    let load = Load::start(certificates.address);
    let (before, other) = (certificates.shown("shop"), certificates.shown("other"));
    assert!(shown_to(certificates.address, "shop.example") == before);
    let mut kept = come(certificates.address, "shop.example").unwrap();
    // For another host, too, and for many days.
    certificates.make("shop shop.example,new.example", 40);
    wait_until("the new one is shown", || {
        shown_to(certificates.address, "shop.example") == certificates.shown("shop")
    });
    assert!(before != certificates.shown("shop"));
    assert!(shown_to(certificates.address, "new.example") == certificates.shown("shop"));
    assert!(shown_to(certificates.address, "other.example") == other);
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut BufReader::new(&mut kept), "GET").unwrap().status, 200);
    load.lost_nothing();
    let ends = rig.proxy.metric("strangler_proxy_certificate_ends_seconds ");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((1.0..3.0).contains(&((ends - now) / 86_400.0)), "the other one ends first: {ends}");
}

#[test]
fn a_new_file_that_cannot_be_used_changes_nothing_and_is_reported() {
    let certificates = Certificates::of(&["shop shop.example", "spare shop.example"]);
    certificates.make("shop shop.example", 40);
    let rig = rig(&certificates, &["shop"]);
    let (good, key) = (certificates.shown("shop"), std::fs::read(certificates.path("shop.key")).unwrap());
    let whole = std::fs::read(certificates.path("shop.pem")).unwrap();
    let spare = std::fs::read(certificates.path("spare.pem")).unwrap();
    let put = |file: &str, text: &[u8]| std::fs::write(certificates.path(file), text).unwrap();
    assert_eq!(reported(&rig), []);
    for (what, file, text, why) in [
        ("no PEM", "shop.pem", &b"something else"[..], "holds no certificate in PEM"),
        ("half of it", "shop.pem", &whole[..whole.len() / 2], "holds PEM that is broken"),
        ("another key's", "shop.pem", &spare, "does not belong to the certificate"),
        ("no key", "shop.key", b"", "holds no private key in PEM"),
    ] {
        put(file, text);
        wait_until(what, || reported(&rig).iter().any(|finding| finding.message.contains(why)));
        let found = reported(&rig);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert!(!finding.is_error() && finding.message.contains(file), "{finding}");
        assert!(finding.message.contains("read before is shown on"), "{finding}");
        assert!(shown_to(certificates.address, "shop.example") == good, "{what}");
        put("shop.pem", &whole);
        put("shop.key", &key);
        wait_until("all is well again", || reported(&rig).is_empty());
    }
    std::fs::remove_file(certificates.path("shop.key")).unwrap();
    wait_until("it is missing", || {
        reported(&rig).iter().any(|one| one.message.contains("shop.key: No such file"))
    });
    // One that has ended is not taken for one that has not.
    certificates.make("shop shop.example", -1);
    wait_until("it has ended", || reported(&rig).iter().any(|one| one.message.contains("ended on")));
    assert!(shown_to(certificates.address, "shop.example") == good);
    certificates.make("shop shop.example", 1);
    wait_until("the new one is shown", || {
        shown_to(certificates.address, "shop.example") == certificates.shown("shop")
    });
    wait_until("all is well again", || reported(&rig).is_empty());
}

#[test]
fn a_file_that_cannot_be_used_keeps_a_proxy_from_starting() {
    let certificates = Certificates::of(&["shop shop.example", "spare shop.example"]);
    let start = |lines: &str| {
        let state = tempfile::tempdir().unwrap();
        let link = Link {
            controller: "http://127.0.0.1:9".to_owned(),
            token: Secret::new("token".to_owned()),
            state_dir: state.path().to_path_buf(),
        };
        let (_stopper, shutdown) = proxy::Shutdown::by_hand();
        let error =
            proxy::run_logging_to(&settings(lines), link, shutdown, Box::new(std::io::sink())).unwrap_err();
        (error.to_string(), error.remedy())
    };
    let (why, remedy) = start(&certificates.lines(&["shop", "absent"], ""));
    assert!(
        why.contains("absent.pem: No such file") && remedy.contains("put the file there"),
        "{why}: {remedy}"
    );
    std::fs::copy(certificates.path("spare.key"), certificates.path("shop.key")).unwrap();
    let (why, remedy) = start(&certificates.lines(&["shop"], ""));
    assert!(why.contains("shop.key does not belong") && remedy.contains("made together"), "{why}: {remedy}");
    let lock = "openssl pkey -in spare.key -aes256 -passout pass:word -out shop.key";
    lab::certificates(certificates.path("").as_path(), lock).unwrap();
    let (why, remedy) = start(&certificates.lines(&["shop"], ""));
    assert!(
        why.contains("protected by a passphrase") && remedy.contains("openssl pkey -in"),
        "{why}: {remedy}"
    );
    // What has ended is shown all the same: plain clients and other hosts must not suffer.
    certificates.make("shop shop.example", -1);
    let rig = rig(&certificates, &["shop"]);
    assert_eq!(ask_securely(certificates.address, "GET /", "").unwrap().status, 200);
    wait_until("it is reported", || {
        reported(&rig).iter().any(|one| one.is_error() && one.message.contains("ended on"))
    });
}

fn next(rig: &Rig, lines: &str) -> Running {
    let mut settings = settings(lines);
    settings.listen = rig.proxy.address.to_string();
    settings.admin = rig.proxy.admin.to_string();
    Running::start(settings, &rig.controller.origin.url(), rig.state.path())
}

fn until_it_serves(next: &Running, ask: impl Fn()) {
    wait_until("the new proxy serves", || {
        ask();
        !next.log_text().is_empty()
    });
}

#[test]
fn a_listener_with_tls_is_handed_over_added_and_taken_away() {
    let certificates = Certificates::of(&["shop shop.example"]);
    let mut rig = rig(&certificates, &["shop"]);
    let lines = certificates.lines(&["shop"], "");
    let load = Load::start(certificates.address);
    let plain = rig.proxy.address;
    let securely = || drop(ask_securely(certificates.address, "GET /", "").unwrap());
    let second = next(&rig, &lines);
    until_it_serves(&second, securely);
    wait_until("the old one has ended", || rig.proxy.has_ended());
    load.lost_nothing();
    // Without TLS: plain clients notice nothing.
    rig.proxy = second;
    let third = next(&rig, "");
    until_it_serves(&third, || assert_eq!(ask(plain, "GET", "/", &[], b"").status, 200));
    wait_until("the TLS listener is gone", || TcpStream::connect(certificates.address).is_err());
    wait_until("the old one has ended", || rig.proxy.has_ended());
    rig.proxy = third;
    // And with it again.
    let fourth = next(&rig, &lines);
    wait_until("it listens for TLS", || TcpStream::connect(certificates.address).is_ok());
    until_it_serves(&fourth, securely);
    assert_eq!(ask(plain, "GET", "/", &[], b"").status, 200);
}
