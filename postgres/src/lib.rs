//! Everything that is said to a Postgres server: connections, TLS, session settings, replication, and what its errors
//! mean.
//!
//! It knows no slice and no log. What the answers mean for a migration is decided in `migrations`.

#![warn(unreachable_pub)]

pub mod access;
pub mod catalog;
pub mod clock;
mod connect;
pub mod gate;
pub mod locks;
mod refusal;
pub mod replication;
pub mod slot;
pub mod stamp;
mod tls;

pub use connect::{Address, ConnectError, Session, connect, connect_as_other, connect_unplanned};
pub use refusal::{Refusal, function_of, in_words};
