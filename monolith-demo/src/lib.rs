//! A small real shop, and clients that remember what they were promised.
//!
//! [`shop`] is a monolith with one Postgres, and the service `orders` that was split out of it, with its own database
//! and column names. Credit and stock stay the monolith's. [`traffic`] plays the shop's customers. After a run it checks
//! the databases: no promise may be broken. [`guestbook`] and [`steady`] are smaller: an application and its visitors, for
//! measuring.
//!
//! Nothing here knows the tool that moves the shop: the patient does not know the surgeon.

pub mod guestbook;
pub mod shop;
pub mod steady;
pub mod traffic;

/// Logs to stderr, at level `info` unless `RUST_LOG` says otherwise.
pub fn start_log() {
    // The database client logs every notice of every migration.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,tokio_postgres=warn"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    // A test may call this twice; the first log stays.
    let _ = log.try_init();
}
