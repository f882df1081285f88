//! One run of `wrk` against a proxy, and its result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::super::house::pinned;
use lab::process;

/// Which requests are sent, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// A Lua script with the paths to request.
    pub script: PathBuf,
    /// How long requests are sent before a run is measured.
    pub warm_up: Option<Duration>,
    pub time: Duration,
    pub cpu: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    pub requests: f64,
    /// All but one in a hundred were answered within this.
    pub p99_ms: f64,
}

impl Load {
    /// Sends requests to `port` on 32 kept connections.
    pub fn on(&self, port: u16, time: Duration) -> Result<Outcome> {
        let mut wrk = pinned(self.cpu, Path::new("wrk"));
        wrk.args(["-t1", "-c32", "--latency", &format!("-d{}s", time.as_secs().max(1)), "-s"]);
        wrk.arg(&self.script).arg(format!("http://127.0.0.1:{port}"));
        let text = process::output(&mut wrk, time + Duration::from_secs(30))?;
        read(&text).with_context(|| format!("wrk said:\n{text}"))
    }
}

/// The script for `wrk`: requests the paths in turn, again and again.
pub fn script(paths: &[String]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| format!("wrk.format('GET', '{path}')")).collect();
    format!(
        "local at = 0\nlocal asked = nil\nfunction init()\n  asked = {{\n{}\n  }}\nend\n\
         function request()\n  at = at % #asked + 1\n  return asked[at]\nend\n",
        paths.join(",\n")
    )
}

fn read(text: &str) -> Result<Outcome> {
    for trouble in ["Socket errors:", "Non-2xx or 3xx responses:"] {
        if let Some(line) = text.lines().find(|line| line.contains(trouble)) {
            bail!("not every request was answered well: {}", line.trim());
        }
    }
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let (requests, _) = requests.context("no number of requests")?;
    let p99 = text.lines().find_map(|line| line.trim().strip_prefix("99%")).context("no 99th percentile")?;
    Ok(Outcome { requests: requests.parse()?, p99_ms: milliseconds(p99.trim())? })
}

/// `612.00us`, `1.05ms`, `1.20s`.
fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)];
    let found = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let (number, scale) = found.with_context(|| format!("{text:?} is no time"))?;
    let number: f64 = number.parse().with_context(|| format!("{text:?} is no time"))?;
    Ok(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Running 5s test @ http://127.0.0.1:1\n  1 threads and 32 connections\n  Latency Distribution\n     \
        50%  512.00us\n     75%  600.00us\n     90%  700.00us\n     99%    1.05ms\n  300123 requests in 5.00s, 350.00MB \
        read\nRequests/sec:  60024.60\nTransfer/sec:     70.00MB\n";

    #[test]
    fn what_wrk_says_is_read() {
        assert_eq!(read(GOOD).unwrap(), Outcome { requests: 300_123.0, p99_ms: 1.05 });
        assert!((milliseconds("512.00us").unwrap() - 0.512).abs() < 1e-9);
        assert!((milliseconds("1.20s").unwrap() - 1200.0).abs() < 1e-9);
    }

    #[test]
    fn errors_are_no_figures() {
        let bad = format!("{GOOD}  Non-2xx or 3xx responses: 7\n");
        assert!(read(&bad).unwrap_err().to_string().contains("responses: 7"));
        assert!(read("nothing").is_err());
    }
}
