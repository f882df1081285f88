//! What the tests stand on: origins that do exactly what a test says, a controller, a bridge, a proxy, a client.
//! All on loopback, on free ports, with bounded waits.
// Each test file uses its part; and what fails here is a failed test.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use migrations::control::{Desired, Link, Observed, Sticky, Table, TableRoute, VERSION};
use migrations::journal::{Generation, JournalId};
use migrations::plan::{ProxySettings, Secret};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const SECRET: &str = "a-secret-for-testers-only";

/// A request as an origin got it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An answer as a client got it.
#[derive(Debug, Clone)]
pub struct Got {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What an origin does with a request.
pub enum Reply {
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// The connection is closed without an answer.
    Close,
    /// The test speaks on the connection itself.
    Speak(Box<dyn FnOnce(&mut TcpStream) + Send>),
}

pub fn text(status: u16, body: &str) -> Reply {
    Reply::Answer(status, Vec::new(), body.as_bytes().to_vec())
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
    pub fn cookies(&self) -> BTreeMap<String, String> {
        let set = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie"));
        let pair = |v: &str| {
            let (name, value) = v.split(';').next()?.split_once('=')?;
            let gone = v.contains("Max-Age=0");
            Some((name.to_owned(), if gone { String::new() } else { value.to_owned() }))
        };
        set.filter_map(|(_, v)| pair(v)).collect()
    }
}

/// An HTTP/1.1 server that does what its closure says.
pub struct Origin {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl Origin {
    pub fn new(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), reply)
    }

    pub fn at(address: SocketAddr, reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let reply = Arc::new(reply);
        let (log, ended) = (asked.clone(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(SeqCst) {
                    return;
                }
                let (reply, log) = (reply.clone(), log.clone());
                std::thread::spawn(move || serve(stream, &*reply, &log));
            }
        });
        Self { address, asked, stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().expect("nothing was asked").clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

fn serve(mut stream: TcpStream, reply: &dyn Fn(&Asked) -> Reply, log: &Mutex<Vec<Asked>>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((first, headers)) = read_head(&mut reader) {
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(body) = read_body(&mut reader, &headers, false) else { return };
        let asked = Asked { method: method.to_owned(), target: target.to_owned(), headers, body };
        // A health check by TCP sends nothing; one by path is not a request of the test.
        if asked.header("user-agent") != Some("strangler-health") {
            log.lock().unwrap().push(asked.clone());
        }
        match reply(&asked) {
            Reply::Answer(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                headers.iter().for_each(|(n, v)| head.push_str(&format!("{n}: {v}\r\n")));
                let body = if asked.method == "HEAD" { Vec::new() } else { body };
                if stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).is_err() {
                    return;
                }
            }
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                return;
            }
            Reply::Close => return,
            Reply::Speak(speak) => return speak(&mut stream),
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|n| *n > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            return Some((first.trim_end().to_owned(), headers));
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_body(reader: &mut impl BufRead, headers: &[(String, String)], to_end: bool) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    if header(headers, "transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                return Some(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    match header(headers, "content-length") {
        Some(length) => {
            body.resize(length.parse().ok()?, 0);
            reader.read_exact(&mut body).ok()?;
        }
        None if to_end => drop(reader.read_to_end(&mut body)),
        None => {}
    }
    Some(body)
}

/// One request on a connection of its own.
pub fn ask(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n");
    headers.iter().for_each(|(n, v)| request.push_str(&format!("{n}: {v}\r\n")));
    if !body.is_empty() || method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let sent = raw(to, &[request.as_bytes(), body].concat());
    let mut reader = BufReader::new(&sent[..]);
    read_answer(&mut reader, method).unwrap_or_else(|| panic!("no answer to {method} {target}: {sent:?}"))
}

pub fn read_answer(reader: &mut impl BufRead, method: &str) -> Option<Got> {
    let (first, headers) = read_head(reader)?;
    let status = first.split(' ').nth(1)?.parse().ok()?;
    let bodiless = method == "HEAD" || status == 204 || status == 304 || status < 200;
    let body = if bodiless { Vec::new() } else { read_body(reader, &headers, true)? };
    Some(Got { status, headers, body })
}

/// Sends bytes and takes all that comes back until the other side closes.
pub fn raw(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    back
}

/// A client that keeps cookies.
pub struct Browser {
    pub to: SocketAddr,
    pub jar: BTreeMap<String, String>,
}

impl Browser {
    pub fn new(to: SocketAddr) -> Self {
        Self { to, jar: BTreeMap::new() }
    }

    pub fn ask(&mut self, method: &str, target: &str) -> Got {
        let line: Vec<String> = self.jar.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let line = line.join("; ");
        let headers: Vec<(&str, &str)> = if line.is_empty() { vec![] } else { vec![("Cookie", &line)] };
        let got = ask(self.to, method, target, &headers, b"");
        for (name, value) in got.cookies() {
            if value.is_empty() {
                self.jar.remove(&name)
            } else {
                self.jar.insert(name, value)
            };
        }
        got
    }
}

/// A gate that barriers wait at.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    bell: Condvar,
    pub asked: AtomicUsize,
}

impl Gate {
    pub fn open(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.bell.notify_all();
    }

    fn pass(&self) -> bool {
        self.asked.fetch_add(1, SeqCst);
        let open = self.open.lock().unwrap();
        *self.bell.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap().0
    }
}

/// Controller and bridge in one.
pub struct Controller {
    pub origin: Origin,
    pub gate: Arc<Gate>,
    pub observed: Arc<Mutex<Vec<Observed>>>,
    desired: Arc<(Mutex<Option<Desired>>, Condvar)>,
}

impl Controller {
    /// Its barriers wait at the gate.
    pub fn new() -> Self {
        let gate = Arc::new(Gate { open: Mutex::new(true), ..Gate::default() });
        let barrier = gate.clone();
        Self { gate, ..Self::with_barrier(move || barrier.pass()) }
    }

    /// Its barriers are answered when this returns true.
    pub fn with_barrier(barrier: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let desired: Arc<(Mutex<Option<Desired>>, Condvar)> = Arc::default();
        let observed: Arc<Mutex<Vec<Observed>>> = Arc::default();
        let (wanted, seen) = (desired.clone(), observed.clone());
        let origin = Origin::new(move |asked| {
            if asked.header("authorization") != Some("Bearer token") {
                return text(401, "");
            }
            match asked.target.split('?').next() {
                Some("/v1/desired") => answer_desired(&wanted, &asked.target),
                Some("/v1/observed") => {
                    seen.lock().unwrap().push(serde_json::from_slice(&asked.body).unwrap());
                    text(204, "")
                }
                Some("/v1/barrier") if barrier() => text(200, r#"{"version":1,"passed":"0/1"}"#),
                _ => text(500, ""),
            }
        });
        Self { origin, gate: Arc::default(), observed, desired }
    }

    pub fn publish(&self, desired: Desired) {
        *self.desired.0.lock().unwrap() = Some(desired);
        self.desired.1.notify_all();
    }
}

fn answer_desired(wanted: &(Mutex<Option<Desired>>, Condvar), target: &str) -> Reply {
    let is_held = |d: &Option<Desired>| match d {
        None => true,
        Some(d) => {
            let (journal, generation) =
                (format!("journal={}", d.journal.0), format!("generation={}", d.generation));
            target.contains(&journal) && target.split('&').any(|part| part == generation)
        }
    };
    let desired = wanted.0.lock().unwrap();
    let desired = wanted.1.wait_timeout_while(desired, Duration::from_millis(500), |d| is_held(d)).unwrap().0;
    match &*desired {
        Some(d) if !is_held(&desired) => Reply::Answer(200, vec![], serde_json::to_vec(d).unwrap()),
        _ => text(204, ""),
    }
}

/// A route of slice `orders` that goes to service `orders`.
pub fn route(name: &str, pattern: &str, share: &str, follows: bool) -> TableRoute {
    let pattern: migrations::pattern::Pattern = pattern.parse().unwrap();
    TableRoute {
        slice: "orders".parse().unwrap(),
        route: name.parse().unwrap(),
        access: pattern.default_access(),
        pattern,
        service: "orders".parse().unwrap(),
        share: share.parse().unwrap(),
        sticky: Sticky::Own,
        follows,
    }
}

pub fn journal(n: u8) -> JournalId {
    serde_json::from_value(serde_json::json!(format!("00000000-0000-0000-0000-0000000000{n:02}"))).unwrap()
}

/// A proxy in front of a monolith and a service.
pub struct Rig {
    pub monolith: Origin,
    pub service: Origin,
    pub controller: Controller,
    pub proxy: Running,
    pub state: tempfile::TempDir,
    pub generation: u64,
    yaml: String,
}

pub struct Running {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub log: Arc<Mutex<Vec<u8>>>,
    stopper: proxy::Stopper,
    thread: Option<JoinHandle<Result<(), proxy::ProxyError>>>,
}

#[derive(Clone)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Settings as a plan with these lines under `proxy:` gives them.
pub fn settings(lines: &str) -> ProxySettings {
    let (listen, admin) = (free_address(), free_address());
    let plan = format!(
        "version: 1\nname: shop\nmonolith: {{ upstream: 'http://127.0.0.1:4000' }}\nservices:\n  orders: {{ upstream: 'http://127.0.0.1:4001' }}\nproxy:\n  listen: {listen}\n  admin: {admin}\n  override_secret: ${{SECRET}}\n{lines}slices:\n  orders:\n    service: orders\n    routes:\n      list: GET /orders\n"
    );
    let env = |name: &str| (name == "SECRET").then(|| SECRET.to_owned());
    match migrations::plan::check("strangler.yaml", &plan, &env) {
        Ok((plan, _)) => plan.proxy,
        Err(findings) => panic!("{findings:#?}"),
    }
}

impl Running {
    pub fn start(settings: ProxySettings, controller: &str, state: &std::path::Path) -> Self {
        let link = Link {
            controller: controller.to_owned(),
            token: Secret::new("token".to_owned()),
            state_dir: state.to_path_buf(),
        };
        let (address, admin) = (settings.listen.parse().unwrap(), settings.admin.parse().unwrap());
        let (stopper, shutdown) = proxy::Shutdown::by_hand();
        let page = Page(Arc::default());
        let log = page.0.clone();
        let thread =
            std::thread::spawn(move || proxy::run_logging_to(&settings, link, shutdown, Box::new(page)));
        let running = Self { address, admin, log, stopper, thread: Some(thread) };
        running
            .until("it listens", || TcpStream::connect(address).is_ok() && TcpStream::connect(admin).is_ok());
        running
    }

    pub fn is_ready(&self) -> bool {
        ask(self.admin, "GET", "/readyz", &[], b"").status == 200
    }

    pub fn metrics(&self) -> String {
        ask(self.admin, "GET", "/metrics", &[], b"").text()
    }

    pub fn metric(&self, line: &str) -> f64 {
        let text = self.metrics();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        wait_until(what, is_so);
    }

    pub fn stop(&self) {
        self.stopper.stop();
    }

    pub fn end(&mut self) {
        self.stopper.stop_at_once();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop_at_once();
    }
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it was never so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Rig {
    /// Origins that say who they are, and a proxy with these routes.
    pub fn new(routes: Vec<TableRoute>) -> Self {
        Self::with("", routes, |_| text(200, "monolith"), |_| text(200, "service"))
    }

    pub fn with(
        lines: &str,
        routes: Vec<TableRoute>,
        monolith: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        service: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::under(Controller::new(), lines, routes, monolith, service)
    }

    pub fn under(
        controller: Controller,
        lines: &str,
        routes: Vec<TableRoute>,
        monolith: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        service: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (monolith, service) = (Origin::new(monolith), Origin::new(service));
        let state = tempfile::tempdir().unwrap();
        let proxy = Running::start(settings(lines), &controller.origin.url(), state.path());
        let mut rig =
            Self { monolith, service, controller, proxy, state, generation: 0, yaml: lines.to_owned() };
        rig.publish(routes);
        rig
    }

    pub fn desired(&self, generation: u64, routes: Vec<TableRoute>) -> Desired {
        let services = [("orders".parse().unwrap(), vec![self.service.url()])].into();
        Desired {
            version: VERSION,
            journal: journal(1),
            generation: Generation(generation),
            plan: "plan".to_owned(),
            table: Table { monolith: vec![self.monolith.url()], services, routes },
            streams: BTreeMap::new(),
            bridge: Some(self.controller.origin.url()),
        }
    }

    /// Publishes a table of the next generation and waits until the proxy acts on it.
    pub fn publish(&mut self, routes: Vec<TableRoute>) {
        self.generation += 1;
        self.controller.publish(self.desired(self.generation, routes));
        let generation = self.generation;
        self.proxy.until("the table is in use", || {
            self.proxy.metric("strangler_proxy_generation ") == generation as f64 && self.proxy.is_ready()
        });
    }

    pub fn ask(&self, method: &str, target: &str) -> Got {
        ask(self.proxy.address, method, target, &[], b"")
    }

    /// Ends the proxy and starts another on the same state, with this controller.
    pub fn restart(&mut self, controller: &str) {
        self.proxy.end();
        self.proxy = Running::start(settings(&self.yaml), controller, self.state.path());
    }
}
