//! The bridge. Feeds capture the committed changes of databases into logs; lanes copy a slice's rows once and apply every
//! change after that.
//!
//! It decides nothing about a slice's life: it acts on `desired` and reports what it observed.

#![warn(unreachable_pub)]

mod bridge;
mod expiry;
mod feed;
pub mod lane;
pub mod log;
mod port;
mod publish;
mod tailed;
mod verify;

pub use bridge::{BridgeError, serve};
