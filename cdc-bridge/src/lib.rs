//! The bridge: it captures a source's committed changes, keeps them in a log, copies a slice's rows once, and
//! applies every change after them to the service's database.
//!
//! It decides nothing about a slice's life: it acts on `desired` and reports what it observed.

pub mod agent;
pub mod apply;
pub mod bridge;
pub mod capture;
pub mod catalog;
pub mod connect;
pub mod copy;
pub mod filled;
pub mod kept;
pub mod log;
mod opening;
pub mod port;
mod removal;
pub mod replication;
mod retention;
pub mod session;
pub mod sink;
pub mod source;
pub mod stream;

pub use bridge::{BridgeError, serve};
