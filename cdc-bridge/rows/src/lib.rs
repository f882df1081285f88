//! Rows on their way: what a source says of them, how a log keeps them, how others read them, and the SQL that a sink
//! needs. Bytes and values only; no socket, no clock, no runtime.

#![warn(unreachable_pub)]

pub mod assemble;
pub mod binary;
pub mod change;
pub mod characters;
pub mod copy_text;
pub mod envelope;
pub mod mapping;
pub mod order;
pub mod page;
pub mod pgoutput;
pub mod progress;
pub mod reduce;
