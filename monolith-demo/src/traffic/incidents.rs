//! Every request that did not go well, with its time and its way, as JSON lines in a file: for whoever knows which part
//! was broken at that moment.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A 5xx, or no answer.
    Failed,
    /// A 503 with Retry-After.
    PutOff,
    /// An answer that broke a rule.
    Wrong,
}

/// When a request was under way, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trip {
    /// In milliseconds since 1970.
    pub from_ms: u64,
    pub until_ms: u64,
    /// The URL that it went to.
    pub proxy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub kind: Kind,
    #[serde(flatten)]
    pub trip: Trip,
    pub what: String,
}

impl Trip {
    /// One that ends now.
    #[must_use]
    pub fn since(began: SystemTime, proxy: &str) -> Self {
        Self { from_ms: since_1970(began), until_ms: since_1970(SystemTime::now()), proxy: proxy.to_owned() }
    }
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn begin(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("could not write {}: choose another file with --incidents", path.display()))
}

/// What cannot be written is logged: the counts have it all the same.
pub(super) fn write(mut file: &File, incident: &Incident) {
    let written = serde_json::to_vec(incident).map_err(std::io::Error::from).and_then(|mut line| {
        line.push(b'\n');
        file.write_all(&line)
    });
    if let Err(error) = written {
        tracing::error!(%error, ?incident, "an incident could not be written down");
    }
}
