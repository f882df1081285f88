//! One JSON line per request. Each thread adds its lines to a page of its own; the writer, a thread too, takes the pages
//! and writes them.
//!
//! If the writer falls behind, lines are dropped and counted; requests never wait for it, nor for each other.

use crate::headers::address::AddressText;
use crate::headers::trace::Trace;
use crossbeam_utils::atomic::AtomicCell;
use prometheus::IntCounter;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thread_local::ThreadLocal;
use time::OffsetDateTime;

/// A page takes no further line when it has so many bytes: some 8 000 lines.
const PAGE_BYTES_MAX: usize = 2 << 20;
/// A page that one busy moment made larger is not used again.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// The writer looks for pages this often. It is not woken for each, which would cost a system call per request.
const WRITE_EVERY: Duration = Duration::from_millis(20);

/// What a line says, beside the time.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its raw path without the query, which may hold secrets.
    pub path: &'a [u8],
    /// The status it was answered with; 499 if the client left before.
    pub status: u16,
    /// Who answered: a name of the plan's, as are the next two, so of letters, digits and hyphens.
    pub upstream: &'a str,
    /// Its slice, if it has one.
    pub slice: Option<&'a str>,
    /// Its route, if it has one.
    pub route: Option<&'a str>,
    /// Why that side answered, one of our own words.
    pub why: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// The client's address.
    pub client: IpAddr,
    /// The trace it belongs to.
    pub trace: Option<&'a Trace>,
}

/// Takes lines.
#[derive(Clone)]
pub struct AccessLog {
    desks: Arc<ThreadLocal<Desk>>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Starts the writer. It ends, after the last line, when all clones of the log are gone.
    pub fn start(
        sink: Box<dyn Write + Send>,
        dropped: IntCounter,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let desks: Arc<ThreadLocal<Desk>> = Arc::default();
        let log = Self { desks: Arc::clone(&desks), dropped };
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        let writer = writer.spawn(move || write_all(desks, sink))?;
        Ok((log, writer))
    }

    /// Puts a line on this thread's page; it ended now.
    pub fn write(&self, line: &Line<'_>) {
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

/// Where a thread and the writer hand each other pages. Each place is one pointer that is swapped, so neither ever waits.
#[derive(Default)]
struct Desk {
    /// Only the thread puts pages here, and takes them back for the next line unless the writer was quicker.
    begun: AtomicCell<Option<Box<Page>>>,
    /// Only the writer puts pages here, when they are written, so that their memory is used again.
    blank: AtomicCell<Option<Box<Page>>>,
}

const _: () = assert!(AtomicCell::<Option<Box<Page>>>::is_lock_free());

/// Lines, one after the other.
struct Page {
    text: Vec<u8>,
    /// RFC 3339 in UTC with milliseconds; all but these is made once a second.
    time: [u8; 24],
    second: u64,
}

impl Default for Page {
    fn default() -> Self {
        Self { text: Vec::new(), time: *b"1970-01-01T00:00:00.000Z", second: 0 }
    }
}

impl Page {
    /// Written by hand: this is done for every request, and a serializer takes five times as long.
    fn add(&mut self, line: &Line<'_>, now: Duration) {
        self.tell_time(now);
        let text = &mut self.text;
        text.extend_from_slice(b"{\"time\":\"");
        text.extend_from_slice(&self.time);
        text.push(b'"');
        string(text, b",\"method\":", line.method.as_bytes());
        string(text, b",\"path\":", line.path);
        number(text, b",\"status\":", line.status.into());
        word(text, b",\"upstream\":", line.upstream.as_bytes());
        if let Some(slice) = line.slice {
            word(text, b",\"slice\":", slice.as_bytes());
        }
        if let Some(route) = line.route {
            word(text, b",\"route\":", route.as_bytes());
        }
        word(text, b",\"why\":", line.why.as_bytes());
        number(text, b",\"ms\":", line.took.as_millis() as u64);
        text.push(b'.');
        text.extend_from_slice(&three_digits(line.took.subsec_micros() % 1000));
        number(text, b",\"bytes\":", line.bytes);
        word(text, b",\"client\":", AddressText::of(line.client).as_bytes());
        if let Some(trace) = line.trace {
            word(text, b",\"trace\":", trace.id());
        }
        text.extend_from_slice(b"}\n");
    }

    fn tell_time(&mut self, now: Duration) {
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

/// Adds a key and a string that has nothing to be escaped.
fn word(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    text.extend_from_slice(key);
    text.push(b'"');
    text.extend_from_slice(value);
    text.push(b'"');
}

/// Adds a key and a string that a client chose. What is no UTF-8 is replaced, as is usual.
fn string(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if value.iter().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\')) {
        return word(text, key, value);
    }
    text.extend_from_slice(key);
    // Text always serializes, and memory takes it.
    let _ = serde_json::to_writer(text, &String::from_utf8_lossy(value));
}

/// Adds a key and a JSON number.
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

fn three_digits(value: u32) -> [u8; 3] {
    [value / 100 % 10, value / 10 % 10, value % 10].map(|digit| b'0' + digit as u8)
}

fn write_all(mut desks: Arc<ThreadLocal<Desk>>, mut sink: Box<dyn Write + Send>) {
    loop {
        // Asked before the pages are taken: once nobody else holds them, no line can be added any more.
        let is_last = Arc::get_mut(&mut desks).is_some();
        for desk in desks.iter() {
            let Some(mut page) = desk.begun.take() else { continue };
            // A closed terminal or a full disk must not stop requests; there is no better place to say so.
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
            why: "unmatched",
            took: Duration::from_micros(1_020_305),
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
    fn lines_of_many_threads_all_arrive_in_each_ones_order() {
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
    fn a_line_has_these_words_in_this_order() {
        let mut page = Page::default();
        let (slice, route, trace) = (Some("orders"), Some("show"), Trace::start(0x4bf9));
        let long = Line { path: b"/orders/7", slice, route, trace: Some(&trace), bytes: 0, ..line() };
        page.add(&long, Duration::from_millis(1_767_225_599_007));
        let expected = r#"{"time":"2025-12-31T23:59:59.007Z","method":"GET","path":"/orders/7","status":200,"upstream":"monolith","slice":"orders","route":"show","why":"unmatched","ms":1020.305,"bytes":0,"client":"127.0.0.1","trace":"00000000000000000000000000004bf9"}"#;
        assert_eq!(String::from_utf8_lossy(&page.text).trim_end(), expected);
    }

    #[test]
    fn a_page_is_bounded_and_what_it_cannot_take_is_counted() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let log = AccessLog { desks: Arc::default(), dropped: dropped.clone() };
        while dropped.get() == 0 {
            log.write(&line());
        }
        let page = log.desks.get_or_default().begun.take().unwrap();
        assert!((PAGE_BYTES_MAX..PAGE_BYTES_MAX + 1024).contains(&page.text.len()));
    }
}
