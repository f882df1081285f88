//! `cargo xtask kafka`: one broker on this machine until Ctrl-C.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use lab::{Broker, interrupt};

use crate::terminal;

/// Runs the broker in `folder`, or in a private one.
pub fn run(port: Option<u16>, folder: Option<&Path>) -> Result<ExitCode> {
    let mut broker = match folder {
        Some(folder) => Broker::open(folder, port)?,
        None => Broker::start(port)?,
    };
    terminal::note("Kafka answers; Ctrl-C ends it");
    println!("{}", broker.address());
    loop {
        if let Err(interrupted) = interrupt::sleep(Duration::from_millis(500)) {
            broker.stop()?;
            return Err(interrupted);
        }
        broker.must_run()?;
    }
}
