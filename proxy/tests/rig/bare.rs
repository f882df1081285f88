//! A server of raw bytes that does what a test says, and a client that reads raw bytes.

use super::PATIENCE;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Listens until the test ends. `speak` gets each connection and its number, from 1.
pub struct Bare {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl Bare {
    pub fn new(speak: impl Fn(&mut TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (speak, counted) = (Arc::new(speak), connections.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (speak, counted) = (speak.clone(), counted.clone());
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    // A health check connects and sends nothing.
                    if stream.peek(&mut [0]).is_ok_and(|count| count > 0) {
                        speak(&mut stream, counted.fetch_add(1, SeqCst) + 1);
                    }
                });
            }
        });
        Self { address, connections }
    }

    /// Answers every head with these bytes and keeps the connection.
    pub fn saying(bytes: &'static [u8]) -> Self {
        Self::new(
            move |stream, _| {
                while !read_past(stream, b"\r\n\r\n").is_empty() && stream.write_all(bytes).is_ok() {}
            },
        )
    }

    /// Answers one head with these bytes and closes the connection.
    pub fn breaking_off_after(bytes: &[u8]) -> Self {
        let bytes = bytes.to_vec();
        Self::new(move |stream, _| {
            read_past(stream, b"\r\n\r\n");
            stream.write_all(&bytes).unwrap();
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn count(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Reads up to and including `end`. Empty if it does not come.
pub fn read_past(stream: &mut impl Read, end: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            _ => return Vec::new(),
        }
    }
    seen
}

pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
