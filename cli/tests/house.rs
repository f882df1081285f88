//! All parts without a database: `up --detach` in front of two tiny upstreams, routes changed under load, parts killed
//! with SIGKILL, `down`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the finding")]

#[path = "house/crashing.rs"]
mod crashing;
mod folder;
#[path = "house/reload.rs"]
mod reload;
#[path = "house/secure.rs"]
mod secure;
#[path = "house/upstreams.rs"]
mod upstreams;

use folder::{Folder, PATIENCE, signal};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Deref;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

struct House {
    folder: Folder,
    proxy: u16,
    controller: u16,
}

impl Deref for House {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl House {
    /// Two upstreams that answer with their names, and a plan of nine lines.
    fn new() -> Self {
        let (monolith, service) = (upstream("monolith"), upstream("service"));
        let [proxy, admin, controller] = free_ports();
        let plan = format!(
            "version: 1
name: shop
monolith: {{ upstream: \"http://127.0.0.1:{monolith}\" }}
services: {{ hello: {{ upstream: \"http://127.0.0.1:{service}\" }} }}
proxy: {{ listen: \"127.0.0.1:{proxy}\", admin: \"127.0.0.1:{admin}\" }}
controller: {{ listen: \"127.0.0.1:{controller}\" }}
slices:
  hello: {{ service: hello, routes: {{ hello: GET /hello, say: POST /hello }} }}
"
        );
        Self { folder: Folder::with(&plan), proxy, controller }
    }

    /// The stored route table still works, and `down` ends everything.
    fn serves_the_service_until_it_is_down(&self) {
        assert_eq!(self.ask(), "service", "{}", self.logs());
        assert!(self.ok(&["down"]).contains("stopped"));
        assert_eq!(self.processes(), [] as [i32; 0]);
    }

    /// A folder that was up and is down. Its proxy has stored a table that sends `hello` to the service.
    fn with_a_stored_table() -> Self {
        let house = Self::new();
        house.ok(&["up", "--detach"]);
        house.ok(&["route", "set", "hello", "service"]);
        house.ok(&["down"]);
        house
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.out(&[arguments, &["--output", "json"]].concat())).unwrap()
    }

    /// The side that answers a request through the proxy: `monolith` or `service`, or the error.
    fn ask(&self) -> String {
        ask(self.proxy).unwrap_or_else(|error| format!("failed: {error}"))
    }
}

/// Ports that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    [(); N].map(|()| lab::free_port().unwrap())
}

/// An HTTP server that answers every request with its name. It runs until the test process ends.
fn upstream(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || serve(connection, name));
        }
    });
    port
}

fn serve(connection: TcpStream, name: &str) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let mut length = 0usize;
        let mut first = true;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() && !first {
                break;
            }
            first = false;
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        reader.by_ref().take(length as u64).read_to_end(&mut Vec::new()).ok()?;
        write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()).ok()?;
    }
}

/// One request on a new connection. Returns the body of a 200.
fn ask(port: u16) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(connection, "GET /hello HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(head.to_owned()));
    }
    // The body may be one chunk.
    let name = ["monolith", "service"].into_iter().find(|name| body.contains(name));
    name.map(str::to_owned).ok_or_else(|| std::io::Error::other(answer.clone()))
}

/// Requests without a pause until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..4).map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match ask(port) {
                        Ok(_) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                failed
            })
        });
        Self { threads: threads.collect(), stop, done }
    }

    /// How many requests succeeded, and every failure.
    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (self.done.load(Ordering::Relaxed), failed)
    }
}

#[test]
fn a_route_changes_under_load_and_survives_kills_and_down_leaves_nothing() {
    let house = House::new();
    let up = house.json(&["up", "--detach"]);
    assert_eq!(up["already"], false, "{up}");
    assert_eq!(house.ask(), "monolith");
    assert!(house.ok(&["up", "--detach"]).contains("already up"));

    let load = Load::start(house.proxy);
    let said = house.out(&["route", "set", "hello", "25%"]);
    assert_eq!(said, "hello: requests go to the service for 25 % of clients, on 1 of 1 live proxies\n");
    for _ in 0..10 {
        house.ok(&["route", "set", "hello", "service"]);
        assert_eq!(house.ask(), "service", "a route is set when the command returns");
        house.ok(&["route", "set", "hello", "monolith"]);
        assert_eq!(house.ask(), "monolith");
    }
    let (done, failed) = load.end();
    assert!(failed.is_empty(), "{} of {done} failed: {:?}", failed.len(), failed.first());
    assert!(done > 100, "only {done} requests");

    house.ok(&["route", "set", "hello.hello", "service"]);
    house.kill("proxy");
    house.eventually("the service's answer after the proxy's death", || house.ask() == "service");
    house.kill("controller");
    house.eventually("a controller", || house.tried(&["status"]).0 == 0);
    let said = house.ok(&["route", "set", "hello.hello", "service"]);
    assert!(said.contains("on 1 of 1 live proxies"), "a new controller knows the proxy: {said}");
    let routes = house.json(&["route", "list"]);
    assert_eq!(routes["routes"][0]["share"], "service", "{routes}");
    assert_eq!(routes["routes"][1]["share"], "monolith", "{routes}");
    assert_eq!(house.ask(), "service");
    let status = house.json(&["status"]);
    assert_eq!(status["slices"]["hello"]["owner"], "monolith", "{status}");
    let journal = house.out(&["journal", "--output", "json"]);
    assert_eq!(journal.lines().count(), 23, "{journal}");

    assert!(house.ok(&["down"]).contains("stopped"));
    assert_eq!(house.processes(), [] as [i32; 0], "{}", house.logs());
    assert!(TcpStream::connect(("127.0.0.1", house.proxy)).is_err());
    assert!(house.ok(&["down"]).contains("nothing of this plan is running here"));

    // The routes survive a restart.
    house.ok(&["up", "--detach"]);
    house.eventually("the service's answer after a restart", || house.ask() == "service");
    // A killed supervisor leaves its parts running, and nobody restarts them. The next one replaces them.
    signal(house.pid("up").unwrap(), Signal::SIGKILL);
    house.eventually("the words that nobody watches the parts", || {
        house.tried(&["status"]).1.contains("nobody restarts controller, proxy")
    });
    let left = house.processes();
    signal(house.pid("controller").unwrap(), Signal::SIGKILL);
    house.ok(&["up", "--detach"]);
    house.eventually("the end of those that were left", || {
        house.processes().iter().all(|pid| !left.contains(pid))
    });
    assert!(!house.tried(&["status"]).1.contains("nobody restarts"));
    house.kill("proxy");
    house.eventually("the service's answer from a watched proxy", || house.ask() == "service");
    // `down` ends what a killed supervisor left, too.
    signal(house.pid("up").unwrap(), Signal::SIGKILL);
    house.ok(&["down"]);
    assert_eq!(house.processes(), [] as [i32; 0]);
}

#[test]
fn ctrl_c_stops_an_up_in_the_foreground() {
    stops_by(Signal::SIGINT);
}

#[test]
fn an_up_in_the_foreground_leaves_nothing_behind_when_its_terminal_closes() {
    stops_by(Signal::SIGHUP);
}

fn stops_by(end: Signal) {
    let house = House::new();
    let mut up = hearing_hangups(&house.command(&["up"]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    house.eventually("an answer", || house.ask() == "monolith");
    signal(up.id().cast_signed(), end);
    assert!(ended(&mut up), "{}", house.logs());
    house.eventually("the end of all", || house.processes().is_empty());
    assert!(!house.state().join("run/up.json").exists());
}

/// The command with SIGHUP enabled, as a terminal starts it: the test runner may ignore SIGHUP.
fn hearing_hangups(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => env.env(name, value),
            None => env.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        env.current_dir(folder);
    }
    env
}

fn ended(child: &mut Child) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill().and_then(|()| child.wait());
    false
}

#[test]
fn a_serving_proxy_is_left_running_when_the_database_is_down() {
    let house = House::with_a_stored_table();
    // From now on the journal is in a database that is not running.
    let [bridge, nobody] = free_ports();
    let plan = fs::read_to_string(house.plan()).unwrap();
    let database = format!("\", database: \"postgres://strangler:p@127.0.0.1:{nobody}/shop\" }}\nservices");
    let plan = plan.replacen("\" }\nservices", &database, 1)
        + &format!("bridge: {{ listen: \"127.0.0.1:{bridge}\" }}\n");
    fs::write(house.plan(), plan).unwrap();
    let (code, err) = house.tried(&["up", "--detach", "--timeout", "4"]);
    assert_eq!(code, 8, "{err}\n{}", house.logs());
    assert!(err.contains("left running"), "{err}");
    house.serves_the_service_until_it_is_down();
}

#[test]
fn a_serving_proxy_is_left_running_when_the_controller_cannot_start() {
    let house = House::with_a_stored_table();
    let taken = TcpListener::bind(("127.0.0.1", house.controller)).unwrap();
    thread::spawn(move || taken.incoming().for_each(drop));
    let (code, err) = house.tried(&["up", "--detach"]);
    assert_eq!(code, 1, "{err}\n{}", house.logs());
    assert!(err.contains("the controller does not stay up") && err.contains("left running"), "{err}");
    house.serves_the_service_until_it_is_down();
}

#[test]
fn up_names_a_part_that_cannot_start_and_shows_the_end_of_its_log() {
    let house = House::new();
    let _taken = TcpListener::bind(("127.0.0.1", house.proxy)).unwrap();
    let (code, err) = house.tried(&["up", "--detach"]);
    assert_eq!(code, 1, "{err}\n{}", house.logs());
    assert!(err.contains("the proxy does not stay up") && err.contains("proxy.log"), "{err}");
    assert_eq!(house.processes(), [] as [i32; 0]);
}
