//! Visitors of the guestbook who come at a fixed rate, whether the earlier ones were answered or not. A request's time
//! counts from when it was due, so a pause of the system shows in all requests that fall into it.
//!
//! Every request becomes one line of the log: when it was due, how long it took until it was answered, the status (0: no
//! answer), what it was, and its mark or page. The log says what was promised; comparing it with a database is for others.

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

/// The longest wait for an answer, from the time that the request was sent.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A kept connection is closed before the proxy closes it, so no write meets a connection that is just ending.
const KEPT: Duration = Duration::from_secs(10);
/// Requests under way at once. At any sensible rate this is many seconds of standstill; beyond it nothing is sent.
const UNDER_WAY_MAX: u32 = 20_000;
/// Lines on their way to the file.
const LINES_MAX: usize = 10_000;
/// Read and liked pages are far apart from one request to the next: a prime.
const STRIDE: u64 = 7919;

#[derive(Clone, Debug)]
pub struct Settings {
    pub proxy: String,
    /// Writes per second: entries and likes in turn.
    pub writes: u32,
    /// Reads per second.
    pub reads: u32,
    /// Number of pages, from 1.
    pub pages: u32,
    pub log: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Read { page: u64 },
    Like { page: u64 },
    Entry { mark: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    due_us: u128,
    took_us: u128,
    status: u16,
    wish: Wish,
}

/// Sends until `stop` becomes true, then waits for the answers.
///
/// # Errors
/// When the log cannot be written. What the application answers is in the log.
pub async fn run(settings: &Settings, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let http =
        reqwest::Client::builder().no_proxy().tcp_nodelay(true).timeout(TIMEOUT).pool_idle_timeout(KEPT);
    let http = http.build().context("could not create an HTTP client")?;
    let base: Arc<str> = settings.proxy.trim_end_matches('/').into();
    let (lines, received) = mpsc::channel(LINES_MAX);
    let writer = log_writer(&settings.log, received)?;
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX as usize));
    let (begun, begun_at) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
    for number in 0.. {
        let after = settings.due(number);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep_until(begun + after) => {}
        }
        let (wish, due) = (settings.wish(number), begun + after);
        let line = Line { due_us: (begun_at + after).as_micros(), took_us: 0, status: 0, wish };
        let Ok(place) = room.clone().try_acquire_owned() else {
            lines.send(line).await.context("the log ended")?;
            continue;
        };
        let (http, base, lines) = (http.clone(), base.clone(), lines.clone());
        tokio::spawn(async move {
            let status = send(&http, &base, wish).await;
            // A log that ended is reported by its writer.
            let _ = lines.send(Line { took_us: due.elapsed().as_micros(), status, ..line }).await;
            drop(place);
        });
    }
    let _all = room.acquire_many(UNDER_WAY_MAX).await?;
    drop(lines);
    tokio::task::spawn_blocking(move || writer.join()).await?.map_err(|_| anyhow::anyhow!("the log broke"))?
}

/// The status of the whole answer; 0 if there was none.
async fn send(http: &reqwest::Client, base: &str, wish: Wish) -> u16 {
    let request = match wish {
        Wish::Read { page } => http.get(format!("{base}/pages/{page}")),
        Wish::Like { page } => http.post(format!("{base}/pages/{page}/like")),
        Wish::Entry { mark } => {
            http.post(format!("{base}/entries")).json(&json!({ "mark": mark, "text": "was here" }))
        }
    };
    let answer = async {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        answer.bytes().await.map(|_| status)
    };
    answer.await.unwrap_or(0)
}

/// Writes the lines in a thread of its own, because a disk may block.
fn log_writer(
    path: &Path,
    mut lines: mpsc::Receiver<Line>,
) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
    let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(std::thread::spawn(move || {
        let mut file = BufWriter::new(file);
        while let Some(line) = lines.blocking_recv() {
            writeln!(file, "{line}").context("the log cannot be written")?;
        }
        file.flush().context("the log cannot be written")
    }))
}

impl Settings {
    fn rate(&self) -> u64 {
        u64::from(self.writes) + u64::from(self.reads)
    }

    /// When a request is due, after the start.
    fn due(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate().max(1) as f64)
    }

    /// Writes are spread evenly among the reads.
    fn wish(&self, number: u64) -> Wish {
        let writes_before = |number: u64| number * u64::from(self.writes) / self.rate().max(1);
        let (before, after) = (writes_before(number), writes_before(number + 1));
        let page = |of: u64| 1 + of * STRIDE % u64::from(self.pages.max(1));
        match (after > before, before % 2) {
            (false, _) => Wish::Read { page: page(number) },
            (true, 0) => Wish::Entry { mark: before + 1 },
            (true, _) => Wish::Like { page: page(before) },
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { due_us, took_us, status, wish } = self;
        let (what, of) = match wish {
            Wish::Read { page } => ("read", page),
            Wish::Like { page } => ("like", page),
            Wish::Entry { mark } => ("entry", mark),
        };
        write!(f, "{due_us} {took_us} {status} {what} {of}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(writes: u32, reads: u32) -> Settings {
        Settings { proxy: String::new(), writes, reads, pages: 10, log: PathBuf::new() }
    }

    #[test]
    fn each_second_has_its_writes_and_reads_and_no_mark_comes_twice() {
        let settings = settings(500, 2000);
        let wishes: Vec<Wish> = (0..5000).map(|number| settings.wish(number)).collect();
        let writes = |part: &[Wish]| part.iter().filter(|wish| !matches!(wish, Wish::Read { .. })).count();
        assert_eq!((writes(&wishes[..2500]), writes(&wishes[2500..])), (500, 500));
        let marks: Vec<u64> = wishes
            .iter()
            .filter_map(|wish| if let Wish::Entry { mark } = wish { Some(*mark) } else { None })
            .collect();
        assert_eq!(marks.len(), 500);
        assert!(marks.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(settings.due(2500), Duration::from_secs(1));
    }

    #[test]
    fn a_line_says_everything_about_its_request() {
        let line = Line { due_us: 5, took_us: 70, status: 201, wish: Wish::Entry { mark: 9 } };
        assert_eq!(line.to_string(), "5 70 201 entry 9");
    }
}
