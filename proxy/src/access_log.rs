//! One JSON line per request, written by a thread of its own: a request only hands its line over.
//!
//! If the writer falls behind, lines are dropped and counted; requests never wait for it.

use prometheus::IntCounter;
use serde::Serialize;
use std::cell::RefCell;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Lines that may wait for the writer.
const LINES_WAITING_MAX: usize = 16_384;
/// The writer looks for lines this often. It is not woken for each, which would cost a system call per request.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// The writer writes at least when it has so many bytes.
const WRITE_BYTES: usize = 64 * 1024;

/// What a line says.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When the request ended, RFC 3339 in UTC.
    pub time: &'a str,
    /// Its method.
    pub method: &'a str,
    /// Its path without the query, which may hold secrets.
    pub path: &'a str,
    /// The status it was answered with; 499 if the client left before.
    pub status: u16,
    /// Who answered.
    pub upstream: &'a str,
    /// Its slice, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slice: Option<&'a str>,
    /// Its route, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// Why that side answered.
    pub why: &'a str,
    /// How long it took, in ms.
    pub ms: f64,
    /// Bytes of the answer's body.
    pub bytes: usize,
    /// The client's address.
    pub client: std::net::IpAddr,
    /// The trace it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<&'a str>,
}

/// Takes lines.
#[derive(Clone)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Starts the writer. It ends, after the last line, when all clones of the log are gone.
    pub fn start(
        sink: Box<dyn Write + Send>,
        dropped: IntCounter,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        let writer = writer.spawn(move || write_all(&waiting, sink))?;
        Ok((Self { lines, dropped }, writer))
    }

    /// Hands a line over.
    pub fn write(&self, line: &Line<'_>) {
        let mut text = Vec::with_capacity(384);
        let written = serde_json::to_writer(&mut text, line);
        text.push(b'\n');
        if written.is_err() || self.lines.try_send(text).is_err() {
            self.dropped.inc();
        }
    }
}

/// Runs `then` with the present time as RFC 3339. The text up to the second is made once a second and thread.
pub fn with_time<T>(then: impl FnOnce(&str) -> T) -> T {
    thread_local!(static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LAST.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() {
            *second = now.as_secs();
            let date = OffsetDateTime::from_unix_timestamp(now.as_secs() as i64)
                .unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let (year, month, day) = date.to_calendar_date();
            let (hour, minute, second) = date.to_hms();
            *text =
                format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z", u8::from(month));
        }
        let millis = format!("{:03}", now.subsec_millis());
        let at = text.len().saturating_sub(4);
        text.replace_range(at..at + 3, &millis);
        then(text)
    })
}

fn write_all(waiting: &Receiver<Vec<u8>>, mut sink: Box<dyn Write + Send>) {
    let mut batch = Vec::with_capacity(2 * WRITE_BYTES);
    loop {
        let ended = loop {
            match waiting.try_recv() {
                Ok(line) if batch.len() < WRITE_BYTES => batch.extend_from_slice(&line),
                Ok(line) => {
                    batch.extend_from_slice(&line);
                    flush(&mut batch, &mut sink);
                }
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        flush(&mut batch, &mut sink);
        if ended {
            return;
        }
        std::thread::sleep(WRITE_EVERY);
    }
}

fn flush(batch: &mut Vec<u8>, sink: &mut Box<dyn Write + Send>) {
    if !batch.is_empty() {
        // A closed terminal or a full disk must not stop requests; there is no better place to say so.
        let _ = sink.write_all(batch).and_then(|()| sink.flush());
        batch.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
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

    #[test]
    fn every_line_is_json_and_none_is_lost_at_the_end() {
        let page = Page::default();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (log, writer) = AccessLog::start(Box::new(page.clone()), dropped.clone()).unwrap();
        for status in 200..300 {
            with_time(|time| {
                log.write(&Line {
                    time,
                    method: "GET",
                    path: "/a\"b\n",
                    status,
                    upstream: "monolith",
                    slice: None,
                    route: None,
                    why: "unmatched",
                    ms: 0.5,
                    bytes: 3,
                    client: std::net::IpAddr::from([127, 0, 0, 1]),
                    trace: None,
                });
            });
        }
        drop(log);
        writer.join().unwrap();
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 100);
        assert_eq!(lines[99]["status"], 299);
        assert_eq!(lines[0]["path"], "/a\"b\n");
        assert_eq!(lines[0]["time"].as_str().unwrap().len(), "2026-01-01T00:00:00.000Z".len());
        assert_eq!(dropped.get(), 0);
    }
}
