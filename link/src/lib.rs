//! How agents and their controller speak over HTTP: an agent pulls `desired` by a long poll, keeps the last one on disk,
//! and posts `observed` when something changed. The words themselves are `migrations::control`'s. How a part's process hands
//! over to the next one is in `handover`.

#![warn(unreachable_pub)]

mod agent;
pub mod bearer;
pub mod file;
pub mod handover;
pub mod serving;
mod stored;

pub use agent::{ActsOn, Agent, Confirmation, Told};
pub use stored::{Stored, StoredError};

use migrations::plan::Secret;
use std::path::PathBuf;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How an agent finds its controller, and where it keeps what must survive a restart.
#[derive(Debug, Clone)]
pub struct Link {
    /// The controller's API, e.g. `http://127.0.0.1:7401`.
    pub controller: String,
    /// The bearer token of the API and of the bridge's port.
    pub token: Secret,
    /// The agent's own folder: its last `desired`, the embedded log.
    pub state_dir: PathBuf,
}

/// A client for requests between strangler's own parts. It ignores the web proxy that the environment may name.
///
/// # Errors
/// If the system offers no resolver or no sockets.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build()
}
