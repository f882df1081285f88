//! Edits, restarts and new programs under load: no request is lost. The load opens connections, keeps some, and holds a
//! streamed answer and a WebSocket open.

use super::{House, PATIENCE, free_ports, signal};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// So many requests a second and client, so that a busy machine is not only busy with them.
const PAUSE: Duration = Duration::from_millis(4);
/// How long the streamed answer lasts, and how many parts it has.
const STREAM: Duration = Duration::from_millis(2_500);
const PARTS: u32 = 50;

/// A house in front of an upstream that streams and speaks a second protocol. `lines` are its settings under `proxy:`.
fn house(lines: &str) -> House {
    let house = House::new();
    let upstream = upstream();
    house.edit(|plan| {
        let monolith = plan.lines().find(|line| line.starts_with("monolith:")).unwrap().to_owned();
        let plan =
            plan.replace(&monolith, &format!("monolith: {{ upstream: 'http://127.0.0.1:{upstream}' }}"));
        plan.replace("proxy: {", &format!("proxy: {{ {lines}"))
    });
    house.ok(&["up", "--detach"]);
    house
}

impl House {
    fn edit(&self, edit: impl FnOnce(&str) -> String) {
        let plan = fs::read_to_string(self.plan()).unwrap();
        fs::write(self.plan(), edit(&plan)).unwrap();
    }

    fn pids(&self) -> [Option<i32>; 3] {
        ["up", "controller", "proxy"].map(|part| self.pid(part))
    }
}

/// Answers each request; `/stream` slowly, `/socket` with another protocol that echoes.
fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || serve(connection));
        }
    });
    port
}

fn serve(connection: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let head = head(&mut reader)?;
        if head.starts_with("GET /stream") {
            write!(writer, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").ok()?;
            for _ in 0..PARTS {
                write!(writer, "1\r\nx\r\n").ok()?;
                sleep(STREAM / PARTS);
            }
            write!(writer, "0\r\n\r\n").ok()?;
        } else if head.starts_with("GET /socket") {
            write!(
                writer,
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            )
            .ok()?;
            let mut byte = [0];
            while reader.read_exact(&mut byte).is_ok() {
                writer.write_all(&byte).ok()?;
            }
            return None;
        } else {
            write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nmonolith").ok()?;
        }
    }
}

fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// Clients that go on until the end, each with what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let mut load = Self { stop: Arc::default(), done: Arc::default(), clients: Vec::new() };
        for _ in 0..2 {
            load.client(move |_| super::ask(port).map(drop).map_err(|error| error.to_string()));
            let mut kept = None;
            load.client(move |path| kept_request(&mut kept, port, path));
        }
        load
    }

    fn client(&mut self, mut request: impl FnMut(&str) -> Result<(), String> + Send + 'static) {
        let (stop, done) = (Arc::clone(&self.stop), Arc::clone(&self.done));
        self.clients.push(thread::spawn(move || {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match request("/hello") {
                    Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                    Err(error) => failed.push(error),
                }
                sleep(PAUSE);
            }
            failed
        }));
    }

    /// Ends after more requests than were made so far.
    fn lost_nothing(self, house: &House) {
        let enough = self.done.load(Ordering::Relaxed) + 100;
        house.eventually("enough requests", || self.done.load(Ordering::Relaxed) >= enough);
        self.stop.store(true, Ordering::Relaxed);
        let failed: Vec<String> =
            self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let done = self.done.load(Ordering::Relaxed);
        assert!(
            failed.is_empty(),
            "{} of {done} failed: {:?}\n{}",
            failed.len(),
            &failed[..failed.len().min(3)],
            house.logs()
        );
    }
}

/// A request over a kept connection, or over a new one after an answer that closed it. A connection that closes without an
/// answer is a failure.
fn kept_request(kept: &mut Option<BufReader<TcpStream>>, port: u16, path: &str) -> Result<(), String> {
    let words = |error: std::io::Error| format!("kept connection: {error}");
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => BufReader::new(TcpStream::connect(("127.0.0.1", port)).map_err(words)?),
    };
    connection.get_ref().set_read_timeout(Some(Duration::from_secs(10))).map_err(words)?;
    connection
        .get_mut()
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: shop\r\n\r\n").as_bytes())
        .map_err(words)?;
    let head = head(&mut connection).ok_or("kept connection: closed without an answer")?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(head);
    }
    connection.read_exact(&mut [0; 8]).map_err(words)?;
    if !head.contains("connection: close") {
        *kept = Some(connection);
    }
    Ok(())
}

/// A streamed answer, read to its end: how many parts came.
fn stream(port: u16) -> JoinHandle<usize> {
    let mut connection = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
    connection
        .get_mut()
        .write_all(b"GET /stream HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
        .unwrap();
    head(&mut connection).unwrap();
    thread::spawn(move || {
        let mut body = String::new();
        let _ = connection.read_to_string(&mut body);
        if body.ends_with("0\r\n\r\n") { body.matches('x').count() } else { 0 }
    })
}

struct Socket(BufReader<TcpStream>);

impl Socket {
    fn open(port: u16) -> Self {
        let mut connection = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
        connection.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request =
            "GET /socket HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        connection.get_mut().write_all(request.as_bytes()).unwrap();
        assert!(head(&mut connection).unwrap().contains(" 101 "));
        Self(connection)
    }

    fn echoes(&mut self) -> bool {
        let mut byte = [0];
        self.0.get_mut().write_all(b"?").is_ok() && self.0.read_exact(&mut byte).is_ok() && byte == *b"?"
    }
}

#[test]
fn a_reload_takes_routes_and_a_slice_and_nobody_notices() {
    let house = house("");
    let before = house.pids();
    let (load, stream, mut socket) =
        (Load::start(house.proxy), stream(house.proxy), Socket::open(house.proxy));
    house.edit(|plan| {
        let more = "  more: { service: hello, routes: { all: GET /more } }\n";
        plan.replace("say: POST /hello", "say: POST /hello, look: GET /look") + more
    });
    let (_, said) = house.tried(&["status"]);
    assert!(said.contains("differs from what runs") && said.contains("`strangler reload`"), "{said}");
    let warned = house.ok(&["route", "set", "hello", "monolith"]);
    assert!(warned.contains("differs from what runs"), "{warned}");

    let taken = house.json(&["reload"]);
    assert_eq!(taken["replaced"], serde_json::json!(["controller"]), "{taken}");
    let status = house.json(&["status"]);
    assert_eq!(status["plan_hash"], taken["hash"]);
    assert_eq!(status["findings"], serde_json::json!([]), "{status}");
    assert_eq!(status["slices"]["more"]["owner"], "monolith", "{status}");
    let said = house.ok(&["route", "set", "more", "service"]);
    assert!(said.contains("on 1 of 1 live proxies") && !said.contains("differs"), "{said}");

    let after = house.pids();
    assert_eq!((before[0], before[2]), (after[0], after[2]), "only the controller is another process");
    assert_ne!(before[1], after[1]);
    assert_eq!(stream.join().unwrap(), PARTS as usize);
    assert!(socket.echoes(), "a socket stays open over an edit of routes");
    load.lost_nothing(&house);
}

#[test]
fn new_settings_of_the_proxy_replace_it_and_what_is_under_way_ends() {
    let house = house("drain: 4s, ");
    let before = house.pids();
    let (load, stream, mut socket) =
        (Load::start(house.proxy), stream(house.proxy), Socket::open(house.proxy));
    house.edit(|plan| plan.replace("drain: 4s", "drain: 4s, read_timeout: 7s"));
    let taken = house.json(&["reload"]);
    assert_eq!(taken["replaced"], serde_json::json!(["controller", "proxy"]), "{taken}");
    assert!(socket.echoes(), "it has the time of `proxy.drain`");
    assert_eq!(stream.join().unwrap(), PARTS as usize, "a streamed answer ends");
    let old = before[2].unwrap();
    assert_ne!(house.pids()[2], before[2]);
    house.eventually("the old proxy's end", || !house.processes().contains(&old));
    assert!(!socket.echoes(), "after `proxy.drain` a socket is cut off");
    load.lost_nothing(&house);
    let said = house.ok(&["route", "set", "hello", "service"]);
    assert!(said.contains("on 1 of 1 live proxies"), "who left is not waited for: {said}");
}

#[test]
fn up_over_a_running_house_replaces_each_part() {
    let house = house("");
    let before = house.pids();
    let load = Load::start(house.proxy);
    let up = house.json(&["up", "--detach"]);
    assert_eq!(
        (&up["already"], &up["replaced"]),
        (&true.into(), &serde_json::json!(["controller", "proxy"])),
        "{up}"
    );
    // A supervisor that was killed leaves its parts: the next one replaces them in the same way.
    signal(house.pid("up").unwrap(), Signal::SIGKILL);
    house.ok(&["up", "--detach"]);
    let after = house.pids();
    assert!(before.iter().zip(after).all(|(before, after)| *before != after), "{before:?} {after:?}");
    house.eventually("the end of the old ones", || house.processes().len() == 3);
    load.lost_nothing(&house);
    house.ok(&["down"]);
    assert_eq!(house.processes(), [] as [i32; 0]);
}

#[test]
fn a_broken_plan_changes_nothing_and_a_restart_does_not_meet_it() {
    let house = house("");
    let before = house.pids();
    let load = Load::start(house.proxy);
    house.edit(|plan| plan.replace("slices:", "slces:"));
    let (code, said) = house.tried(&["reload"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("slces"), "{said}");
    assert_eq!(house.pids(), before);
    house.kill("controller");
    house.eventually("a controller with the plan that was accepted", || house.status()["plan"] == "shop");
    assert!(house.tried(&["status"]).1.contains("differs from what runs"));
    load.lost_nothing(&house);
}

#[test]
fn a_plan_that_tears_what_is_in_use_is_refused() {
    let house = house("");
    house.ok(&["route", "set", "hello.hello", "service"]);
    let before = house.pids();
    let plan = fs::read_to_string(house.plan()).unwrap();
    house.edit(|plan| plan.replace("hello: GET /hello, ", ""));
    let (code, said) = house.tried(&["reload"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("hello.hello") && said.contains("route set hello.hello monolith"), "{said}");
    house.edit(|_| plan.replace(&house_port(&plan), &free_ports::<1>()[0].to_string()));
    let (code, said) = house.tried(&["reload"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("controller.listen") && said.contains("strangler down"), "{said}");
    assert_eq!(house.pids(), before);
    house.edit(|_| plan.clone());
    assert_eq!(house.ask(), "service");
    // A part that cannot start leaves the one that runs.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    house.edit(|plan| plan.replace(&house.proxy_port(), &port));
    let (code, said) = house.tried(&["reload"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the new proxy") && said.contains("the one that runs goes on"), "{said}");
    assert_eq!(house.ask(), "service");
    house.edit(|_| plan.clone());
    house.ok(&["reload"]);
    assert_eq!(house.ask(), "service");
}

fn house_port(plan: &str) -> String {
    let line = plan.lines().find(|line| line.starts_with("controller:")).unwrap();
    line.chars().skip_while(|c| *c != '1').skip("127.0.0.1:".len()).take_while(char::is_ascii_digit).collect()
}

impl House {
    fn proxy_port(&self) -> String {
        self.proxy.to_string()
    }
}

/// A part that no `up` watches; it ends with the test.
struct Alone(Child);

impl Alone {
    fn start(house: &House, part: &str) -> Self {
        let mut command = house.command(&[part]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// A controller that answers: it has made the token.
    fn controller(house: &House) -> Self {
        let alone = Self::start(house, "controller");
        house.eventually("a controller", || house.status()["plan"] == "shop");
        alone
    }

    fn has_ended(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            sleep(Duration::from_millis(50));
        }
        false
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn parts_that_are_started_again_by_hand_take_the_place_of_those_that_run() {
    let house = House::new();
    let mut controller = Alone::controller(&house);
    let mut proxy = Alone::start(&house, "proxy");
    house.eventually("an answer", || house.ask() == "monolith");
    let load = Load::start(house.proxy);
    let next = Alone::start(&house, "controller");
    assert!(controller.has_ended());
    controller = next;
    let next = Alone::start(&house, "proxy");
    assert!(proxy.has_ended());
    proxy = next;
    load.lost_nothing(&house);
    // One that is killed leaves its socket behind.
    signal(proxy.0.id().cast_signed(), Signal::SIGKILL);
    assert!(!proxy.has_ended());
    let _last = Alone::start(&house, "proxy");
    house.eventually("an answer", || house.ask() == "monolith");
    drop(controller);
}

#[test]
fn a_proxy_listens_at_the_sockets_that_systemd_passes() {
    let house = House::new();
    let _controller = Alone::controller(&house);
    // It stores its table, so that the next one serves at once.
    let mut proxy = Alone::start(&house, "proxy");
    house.eventually("an answer", || house.ask() == "monolith");
    signal(proxy.0.id().cast_signed(), Signal::SIGTERM);
    assert!(proxy.has_ended());
    let listener = TcpListener::bind(("127.0.0.1", house.proxy)).unwrap();
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    // Who comes before the proxy waits in the socket's queue.
    let port = house.proxy;
    let early = thread::spawn(move || super::ask(port));
    let start = |house: &House| {
        let strangler = house.command(&["proxy"]);
        let mut shell = std::process::Command::new("bash");
        let script = format!(
            "exec 3<&{}; LISTEN_FDS=1 LISTEN_PID=$$ exec {} proxy",
            listener.as_raw_fd(),
            strangler.get_program().display()
        );
        shell.args(["-c", &script]).current_dir(house.path());
        Alone(shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    let mut first = start(&house);
    assert_eq!(early.join().unwrap().unwrap(), "monolith");
    let load = Load::start(house.proxy);
    signal(first.0.id().cast_signed(), Signal::SIGTERM);
    assert!(first.has_ended());
    let _second = start(&house);
    house.eventually("an answer", || house.ask() == "monolith");
    load.lost_nothing(&house);
}
