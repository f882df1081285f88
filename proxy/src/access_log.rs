//! The access log: one JSON line per request.
//!
//! Each thread adds its lines to its own page. A writer thread takes the pages and writes them. If the writer falls
//! behind, lines are dropped and counted. Requests never wait for the writer or for each other.

use crate::exchange::{Arrived, CLIENT_LEFT};
use crate::headers::address::AddressText;
use crate::headers::trace::Trace;
use crate::route::decision::Why;
use crossbeam_utils::atomic::AtomicCell;
use http1::RequestHead;
use prometheus::IntCounter;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thread_local::ThreadLocal;
use time::OffsetDateTime;

/// A longer path or method is cut.
const TEXT_BYTES_MAX: usize = 2 << 10;
/// A page this long takes no more lines. It has about 8 000.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// The writer frees a larger page.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// The writer polls for pages. Waking it for each would cost a system call per request.
const WRITE_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) method: &'a str,
    /// The path without the query: a query may hold secrets.
    pub(crate) path: &'a [u8],
    pub(crate) status: u16,
    /// A name from the plan, like the next two: letters, digits and hyphens.
    pub(crate) upstream: &'a str,
    pub(crate) slice: Option<&'a str>,
    pub(crate) route: Option<&'a str>,
    /// Why that side answered. `None` if the request was refused before.
    pub(crate) why: Option<Why>,
    pub(crate) took: Duration,
    /// How long it was held, if it was.
    pub(crate) held: Option<Duration>,
    pub(crate) bytes: u64,
    pub(crate) client: IpAddr,
    pub(crate) trace: Option<&'a Trace>,
}

impl<'a> Line<'a> {
    /// The line of a refused request that ends now. The caller sets status and bytes.
    pub(crate) fn of(request: &'a RequestHead, arrived: Arrived) -> Self {
        Self {
            method: request.method(),
            path: request.path(),
            status: CLIENT_LEFT,
            upstream: "",
            slice: None,
            route: None,
            why: None,
            took: arrived.at.elapsed(),
            held: None,
            bytes: 0,
            client: arrived.address,
            trace: None,
        }
    }
}

#[derive(Clone)]
pub(crate) struct AccessLog {
    desks: Arc<ThreadLocal<Desk>>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Starts the writer. After the last clone of the log is dropped, the writer writes the remaining lines and ends.
    pub(crate) fn start(
        sink: Box<dyn Write + Send>,
        dropped: IntCounter,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let desks: Arc<ThreadLocal<Desk>> = Arc::default();
        let log = Self { desks: Arc::clone(&desks), dropped };
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        let writer = writer.spawn(move || write_all(desks, sink))?;
        Ok((log, writer))
    }

    /// Adds a line, with the present time, to this thread's page.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let desk = self.desks.get_or_default();
        let mut page = desk.begun.take().or_else(|| desk.blank.take()).unwrap_or_default();
        if page.text.len() < PAGE_BYTES_MAX {
            page.add(line, now);
        } else {
            self.dropped.inc();
        }
        desk.begun.store(Some(page));
    }
}

/// Where a thread and the writer exchange pages. Each place is one pointer that is swapped, so neither side waits.
#[derive(Default)]
struct Desk {
    /// Only the thread puts pages here. It takes its page back for the next line unless the writer was faster.
    begun: AtomicCell<Option<Box<Page>>>,
    /// Only the writer puts pages here, after it has written them. Their memory is used again.
    blank: AtomicCell<Option<Box<Page>>>,
}

const _: () = assert!(AtomicCell::<Option<Box<Page>>>::is_lock_free());

struct Page {
    text: Vec<u8>,
    /// RFC 3339 in UTC. All but the milliseconds is made once a second.
    time: [u8; 24],
    second: u64,
}

impl Default for Page {
    fn default() -> Self {
        Self { text: Vec::new(), time: *b"1970-01-01T00:00:00.000Z", second: 0 }
    }
}

impl Page {
    /// Written by hand: a serializer takes five times as long, for every request.
    fn add(&mut self, line: &Line<'_>, now: Duration) {
        self.set_time(now);
        let text = &mut self.text;
        text.extend_from_slice(b"{\"time\":\"");
        text.extend_from_slice(&self.time);
        text.push(b'"');
        string(text, b",\"method\":", cut(line.method.as_bytes()));
        string(text, b",\"path\":", cut(line.path));
        if line.path.len() > TEXT_BYTES_MAX {
            number(text, b",\"cut\":", line.path.len() as u64);
        }
        number(text, b",\"status\":", line.status.into());
        word(text, b",\"upstream\":", line.upstream.as_bytes());
        if let Some(slice) = line.slice {
            word(text, b",\"slice\":", slice.as_bytes());
        }
        if let Some(route) = line.route {
            word(text, b",\"route\":", route.as_bytes());
        }
        word(text, b",\"why\":", line.why.map_or("refused", Why::word).as_bytes());
        milliseconds(text, b",\"ms\":", line.took);
        if let Some(held) = line.held {
            milliseconds(text, b",\"held\":", held);
        }
        number(text, b",\"bytes\":", line.bytes);
        word(text, b",\"client\":", AddressText::of(line.client).as_bytes());
        if let Some(trace) = line.trace {
            word(text, b",\"trace\":", trace.id());
        }
        text.extend_from_slice(b"}\n");
    }

    fn set_time(&mut self, now: Duration) {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            let at = OffsetDateTime::from_unix_timestamp(now.as_secs() as i64)
                .unwrap_or(OffsetDateTime::UNIX_EPOCH);
            let (year, month, day) = at.to_calendar_date();
            let (hour, minute, second) = at.to_hms();
            let month = u8::from(month);
            let mut rest = &mut self.time[..];
            // It cannot fail while years have four digits.
            let _ = write!(rest, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        }
        self.time[20..23].copy_from_slice(&three_digits(now.subsec_millis()));
    }
}

fn cut(text: &[u8]) -> &[u8] {
    &text[..text.len().min(TEXT_BYTES_MAX)]
}

/// Adds a key and a string that needs no escapes.
fn word(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    text.extend_from_slice(key);
    text.push(b'"');
    text.extend_from_slice(value);
    text.push(b'"');
}

/// Adds a key and a string that a client chose. Bytes that are not UTF-8 are replaced.
fn string(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if value.iter().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')) {
        return word(text, key, value);
    }
    text.extend_from_slice(key);
    // A string always serializes, and memory takes it.
    let _ = serde_json::to_writer(text, &String::from_utf8_lossy(value));
}

fn number(text: &mut Vec<u8>, key: &[u8], mut value: u64) {
    text.extend_from_slice(key);
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return text.extend_from_slice(&digits[at..]);
        }
    }
}

fn milliseconds(text: &mut Vec<u8>, key: &[u8], time: Duration) {
    number(text, key, time.as_millis() as u64);
    text.push(b'.');
    text.extend_from_slice(&three_digits(time.subsec_micros() % 1000));
}

fn three_digits(value: u32) -> [u8; 3] {
    [value / 100 % 10, value / 10 % 10, value % 10].map(|digit| b'0' + digit as u8)
}

fn write_all(mut desks: Arc<ThreadLocal<Desk>>, mut sink: Box<dyn Write + Send>) {
    loop {
        // Checked before the pages are taken: if nobody else has the log, no line can come later.
        let is_last = Arc::get_mut(&mut desks).is_some();
        for desk in desks.iter() {
            let Some(mut page) = desk.begun.take() else { continue };
            // A closed terminal or a full disk must not stop requests, and there is no better place to report it.
            let _ = sink.write_all(&page.text).and_then(|()| sink.flush());
            page.text.clear();
            if page.text.capacity() <= KEPT_BYTES_MAX {
                desk.blank.store(Some(page));
            }
        }
        if is_last {
            return;
        }
        std::thread::sleep(WRITE_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn line() -> Line<'static> {
        Line {
            method: "GET",
            path: b"/a\"b\n\xff",
            status: 200,
            upstream: "monolith",
            slice: None,
            route: None,
            why: Some(Why::Unmatched),
            took: Duration::from_micros(1_020_305),
            held: None,
            bytes: 3,
            client: IpAddr::from([127, 0, 0, 1]),
            trace: None,
        }
    }

    #[test]
    fn every_line_is_json_and_none_is_lost_at_the_end() {
        let sink = Sink::default();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (log, writer) = AccessLog::start(Box::new(sink.clone()), dropped.clone()).unwrap();
        for status in 200..300 {
            log.write(&Line { status, ..line() });
        }
        drop(log);
        writer.join().unwrap();
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 100);
        assert_eq!(lines[99]["status"], 299);
        assert_eq!(lines[0]["path"], "/a\"b\n\u{fffd}");
        assert_eq!(lines[0]["time"].as_str().unwrap().len(), "2026-01-01T00:00:00.000Z".len());
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn lines_of_many_threads_all_arrive_in_each_threads_order() {
        let sink = Sink::default();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (log, writer) = AccessLog::start(Box::new(sink.clone()), dropped.clone()).unwrap();
        let threads: Vec<_> = (0..4u16)
            .map(|thread| {
                let log = log.clone();
                let write = move |bytes| log.write(&Line { status: 200 + thread, bytes, ..line() });
                std::thread::spawn(move || (0..3_000).for_each(write))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(log);
        writer.join().unwrap();
        let mut next = [0; 4];
        for line in sink.0.lock().unwrap().split_inclusive(|byte| *byte == b'\n') {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            let next = &mut next[line["status"].as_u64().unwrap() as usize - 200];
            assert_eq!(line["bytes"], *next);
            *next += 1;
        }
        assert_eq!((next, dropped.get()), ([3_000; 4], 0));
    }

    #[test]
    fn a_line_has_these_fields_in_this_order() {
        let mut page = Page::default();
        let (slice, route, trace) = (Some("orders"), Some("show"), Trace::start(0x4bf9));
        let long = Line { path: b"/orders/7", slice, route, trace: Some(&trace), bytes: 0, ..line() };
        page.add(&long, Duration::from_millis(1_767_225_599_007));
        let expected = r#"{"time":"2025-12-31T23:59:59.007Z","method":"GET","path":"/orders/7","status":200,"upstream":"monolith","slice":"orders","route":"show","why":"unmatched","ms":1020.305,"bytes":0,"client":"127.0.0.1","trace":"00000000000000000000000000004bf9"}"#;
        assert_eq!(String::from_utf8_lossy(&page.text).trim_end(), expected);
        page.text.clear();
        page.add(&Line { held: Some(Duration::from_micros(250_007)), ..line() }, Duration::ZERO);
        assert!(String::from_utf8_lossy(&page.text).contains(r#""ms":1020.305,"held":250.007,"bytes":3"#));
    }

    #[test]
    fn a_long_path_is_cut_and_marked() {
        let (mut page, path) = (Page::default(), [b'x'; 60_000]);
        page.add(&Line { path: &path, method: "y".repeat(9_000).as_str(), ..line() }, Duration::ZERO);
        let read: serde_json::Value = serde_json::from_slice(&page.text).unwrap();
        assert_eq!(read["path"].as_str().map(str::len), Some(TEXT_BYTES_MAX));
        assert_eq!(read["method"].as_str().map(str::len), Some(TEXT_BYTES_MAX));
        assert_eq!(read["cut"], 60_000);
    }

    #[test]
    fn a_page_is_bounded_and_lines_it_cannot_take_are_counted() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let log = AccessLog { desks: Arc::default(), dropped: dropped.clone() };
        while dropped.get() == 0 {
            log.write(&line());
        }
        let page = log.desks.get_or_default().begun.take().unwrap();
        assert!((PAGE_BYTES_MAX..PAGE_BYTES_MAX + 1024).contains(&page.text.len()));
    }
}
