//! The bridge: it captures a source's committed changes, keeps them in a log, copies a slice's rows once, and
//! applies every change after them to the service's database.
//!
//! It decides nothing about a slice's life: it acts on `desired` and reports what it observed.

mod bridge;
mod feed;
pub mod lane;
pub mod log;
mod port;

pub use bridge::{BridgeError, serve};
