//! What connections cost that do nothing: idle after an answer, or with a head that never ends.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::process::Background;

use super::super::account;

/// They take what memory the server has kept free from the load before. Those that are measured come after them.
const FIRST: usize = 400;
/// More would need more open files than many systems allow: a proxy takes two for each.
const IDLE: usize = 500;
const UNFINISHED: usize = 300;
/// Of each head that never ends.
const HEAD_BYTES: usize = 1 << 20;
/// What a server frees, it frees within this.
const SETTLING: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST: &[u8] =
    b"GET /plain/7 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: a browser\r\nAccept: */*\r\n\r\n";

/// Opens connections to a server that has served others before. Returns the memory for each, in KiB: a second after its
/// answer, some seconds later, and with a head that does not end.
pub fn costs(server: &Background, port: u16) -> Result<[f64; 3]> {
    let crowd = |count| (0..count).map(|_| served(port)).collect::<Result<Vec<TcpStream>>>();
    let first = crowd(FIRST)?;
    std::thread::sleep(SETTLING);
    let before = account::resident_kib(server.pid())?;
    let idle = crowd(IDLE)?;
    std::thread::sleep(Duration::from_secs(1));
    let soon = account::resident_kib(server.pid())?;
    std::thread::sleep(SETTLING);
    let later = account::resident_kib(server.pid())?;
    drop((first, idle));
    std::thread::sleep(SETTLING);
    let before_heads = account::resident_kib(server.pid())?;
    let heads: Vec<TcpStream> = (0..UNFINISHED).map(|_| unfinished(port)).collect::<Result<_>>()?;
    let with_heads = account::resident_kib(server.pid())?;
    drop(heads);
    let each = |grown: f64, count: usize| grown.max(0.0) / count as f64;
    Ok([each(soon - before, IDLE), each(later - before, IDLE), each(with_heads - before_heads, UNFINISHED)])
}

/// A connection with one request behind it.
fn served(port: u16) -> Result<TcpStream> {
    let mut stream = connected(port)?;
    stream.write_all(REQUEST)?;
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    // The origin's body ends with this.
    while !seen.ends_with(b"\"}") {
        let count = stream.read(&mut piece).context("no answer on a connection of a crowd")?;
        ensure!(count > 0, "the server closed a connection of a crowd");
        seen.extend_from_slice(&piece[..count]);
    }
    ensure!(seen.starts_with(b"HTTP/1.1 200"), "it answered {:?}", String::from_utf8_lossy(&seen));
    Ok(stream)
}

/// A connection with a head that does not end. The server may refuse it before all of it is sent.
fn unfinished(port: u16) -> Result<TcpStream> {
    let mut stream = connected(port)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nX: ")?;
    for _ in 0..HEAD_BYTES / 4096 {
        match stream.write_all(&[b'x'; 4096]) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(stream)
}

fn connected(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
