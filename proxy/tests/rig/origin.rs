//! An HTTP/1.1 server that does what a test says, and remembers its requests.

use super::PATIENCE;
use super::wire::{Asked, read_body, read_head};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub enum Reply {
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// Closes the connection without an answer.
    Close,
    /// The test uses the connection itself.
    Speak(Box<dyn FnOnce(&mut TcpStream) + Send>),
}

pub fn text(status: u16, body: &str) -> Reply {
    Reply::Answer(status, Vec::new(), body.as_bytes().to_vec())
}

/// Takes an upgrade, and sends each four bytes back in reverse.
pub fn websocket() -> Reply {
    Reply::Speak(Box::new(|stream: &mut TcpStream| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut frame = [0; 4];
        while stream.read_exact(&mut frame).is_ok() {
            frame.reverse();
            stream.write_all(&frame).unwrap();
        }
    }))
}

/// An HTTP/1.1 server that does what its closure says.
pub struct Origin {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl Origin {
    pub fn new(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
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
        // A health check by TCP sends nothing, and one by path does not count.
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
            Reply::Close => return,
            Reply::Speak(speak) => return speak(&mut stream),
        }
    }
}
