//! A small real shop, and clients that remember what they were promised.
//!
//! [`shop`] is the patient: a monolith with one Postgres, and the service `orders` that was split out of
//! it, with its own database and its own column names. [`traffic`] plays the shop's customers and proves
//! afterwards, from the databases, that no promise was broken.
//!
//! Nothing here knows of the tool that moves the shop: the patient does not know the surgeon.

pub mod shop;
pub mod traffic;

/// Starts the log on standard error; `RUST_LOG` chooses what is said, `info` otherwise.
pub fn start_log() {
    // The database client repeats every notice of every migration.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,tokio_postgres=warn"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // A second start, as tests do, keeps the first.
    let _ = log.try_init();
}
