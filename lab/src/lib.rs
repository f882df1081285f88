//! Real servers on this machine for tests, benches and the demo: Postgres clusters, Kafka brokers and Connect workers on
//! free ports, which can be killed and started again. They end with their owner.
//!
//! It knows nothing of strangler. Where a server's programs are missing, the error says how to install them.

mod certificate;
pub mod comparison;
pub mod connect;
mod dice;
pub mod interrupt;
pub mod kafka;
mod maven;
pub mod port;
pub mod postgres;
pub mod process;

pub use certificate::certificates;
pub use dice::Dice;
pub use kafka::Broker;
pub use maven::OLDEST_JAVA;
pub use port::free_port;
pub use postgres::{Access, Cluster};

use std::path::{Path, PathBuf};

/// What the folders of servers are called, in the system's folder for temporary files.
pub const FOLDER_PREFIX: &str = "strangler-";

pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, or `target` in the root.
pub fn target() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
