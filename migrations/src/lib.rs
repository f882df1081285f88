//! What a migration is and what it may do next: the plan, the stages of a slice, the journal, and the
//! words that controller, proxy and bridge speak to each other.
//!
//! Nothing here is asynchronous or touches a clock, a file or a socket. Everything the other crates decide,
//! they decide by asking this one; what they do about it is theirs.

#![warn(unreachable_pub)]

pub mod access;
pub mod api;
pub mod code;
pub mod column_type;
pub mod control;
pub mod crossing;
pub mod cutover;
pub mod fared;
pub mod filled;
pub mod finding;
pub mod fingerprint;
pub mod gate;
pub mod journal;
pub mod lane;
pub mod lsn;
pub mod names;
pub mod path;
pub mod pattern;
pub mod plan;
pub mod preflight;
pub mod problem;
pub mod share;
pub mod sql;
pub mod stage;
pub mod tail;
pub mod text;
pub mod verify;
