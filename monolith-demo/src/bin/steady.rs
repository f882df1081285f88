//! Visits the guestbook at a fixed rate until it is stopped.

use std::path::PathBuf;

use clap::Parser;
use monolith_demo::shop::server::stop_when_asked;
use monolith_demo::steady;

/// Send requests to a guestbook at a fixed rate, and log when each was due and how long it took.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// URL of the guestbook.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    proxy: String,
    /// Writes per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    writes: u32,
    /// Reads per second.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    reads: u32,
    /// Pages that the guestbook has.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pages: u32,
    /// File for one line per request.
    #[arg(long, default_value = "steady.log")]
    log: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    monolith_demo::start_log();
    let Args { proxy, writes, reads, pages, log } = Args::parse();
    steady::run(&steady::Settings { proxy, writes, reads, pages, log }, stop_when_asked()).await
}
