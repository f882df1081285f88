//! A proxy that stood still while a slice moved. The controller is played, so that it can stand still too.

use super::controller::{Request, play};
use super::{PLAN, TempDir, folder_at};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// What the controller desires, and whether it answers at all.
#[derive(Default)]
struct Word {
    desired: Value,
    is_frozen: bool,
}

struct Stage {
    word: Arc<Mutex<Word>>,
    proxy: Child,
    port: u16,
    upstreams: [u16; 2],
    _folder: TempDir,
    /// The controller plays on while somebody may read what it was asked.
    _asked: Receiver<Request>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.proxy.kill().and_then(|()| self.proxy.wait());
    }
}

impl Stage {
    /// A proxy that acts on a first table, in which the service owns the slice.
    fn new() -> Stage {
        let word: Arc<Mutex<Word>> = Arc::default();
        let said = word.clone();
        let (controller, asked) = play(move |request| {
            let word = said.lock().unwrap();
            match request.path.as_str() {
                _ if word.is_frozen => None,
                "/v1/observed" => Some((204, Value::Null)),
                _ if !request.query.contains(&format!("generation={}", word.desired["generation"])) => {
                    Some((200, word.desired.clone()))
                }
                _ if request.query.contains("wait_ms=0") => Some((204, Value::Null)),
                _ => None,
            }
        });
        let [port, admin] = [(); 2].map(|()| lab::free_port().unwrap());
        let folder = folder_at(
            &format!("{PLAN}proxy: {{ listen: \"127.0.0.1:{port}\", admin: \"127.0.0.1:{admin}\" }}\n"),
            controller,
        );
        let upstreams = ["monolith", "service"].map(upstream);
        word.lock().unwrap().desired = desired(1, true, upstreams);
        let mut command = Command::new(env!("CARGO_BIN_EXE_strangler"));
        command.arg("proxy").current_dir(folder.path()).env("STRANGLER_TOKEN", "token");
        let proxy = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let stage = Stage { word, proxy, port, upstreams, _folder: folder, _asked: asked };
        let began = Instant::now();
        while stage.ask("GET").is_none_or(|answer| answer != "service") {
            assert!(began.elapsed() < PATIENCE, "the proxy does not serve");
            sleep(Duration::from_millis(50));
        }
        stage
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.proxy.id()).unwrap()), signal).unwrap();
    }

    fn ask(&self, method: &str) -> Option<String> {
        ask(self.port, method)
    }
}

/// The slice is the service's, or follows the monolith again.
fn desired(generation: u64, leads: bool, [monolith, service]: [u16; 2]) -> Value {
    let share = if leads { "service" } else { "monolith" };
    let route = |name: &str, pattern: &str, access: &str| {
        json!({
            "slice": "orders", "route": name, "match": pattern, "access": access, "service": "orders",
            "share": share, "sticky": "own", "follows": !leads, "leads": leads,
        })
    };
    json!({
        "version": migrations::control::VERSION, "journal": "00000000-0000-0000-0000-000000000001",
        "generation": generation, "plan": "",
        "table": {
            "monolith": [format!("http://127.0.0.1:{monolith}")],
            "services": { "orders": [format!("http://127.0.0.1:{service}")] },
            "routes": [route("list", "GET /orders", "read"), route("place", "POST /orders", "write")],
            "holds": {},
        },
        "lanes": {},
    })
}

/// Answers each request with its name.
fn upstream(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut head = [0; 4_096];
            let _ = connection.read(&mut head);
            let length = name.len();
            let _ = write!(
                connection,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{name}"
            );
        }
    });
    port
}

/// The body of the answer.
fn ask(port: u16, method: &str) -> Option<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    connection.set_read_timeout(Some(PATIENCE)).ok()?;
    let head =
        format!("{method} /orders HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    connection.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[test]
fn a_proxy_that_stood_still_while_a_slice_moved_asks_before_it_answers() {
    let stage = Stage::new();
    stage.signal(Signal::SIGSTOP);
    *stage.word.lock().unwrap() = Word { desired: desired(2, false, stage.upstreams), is_frozen: true };
    sleep(Duration::from_millis(1_500));
    stage.signal(Signal::SIGCONT);
    let asking = ["GET", "POST"].map(|method| {
        let port = stage.port;
        thread::spawn(move || ask(port, method))
    });
    sleep(Duration::from_millis(1_500));
    assert!(asking.iter().all(|one| !one.is_finished()), "nobody has said where the slice is");
    stage.word.lock().unwrap().is_frozen = false;
    for one in asking {
        assert_eq!(one.join().unwrap().as_deref(), Some("monolith"));
    }
}

#[test]
fn a_proxy_that_runs_goes_on_while_the_controller_stands_still() {
    let stage = Stage::new();
    stage.word.lock().unwrap().is_frozen = true;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let asked = Instant::now();
        assert_eq!(stage.ask("GET").as_deref(), Some("service"));
        assert!(asked.elapsed() < Duration::from_secs(5), "it waited for the controller");
        sleep(Duration::from_millis(100));
    }
}
