//! A source database: its slot and its stream, captured into the log.
//!
//! One session at a time reads one slot. It knows which tables are wanted, not what slices do with them. What makes
//! sense of the stream is in `source/`; confirming to the slot is done only behind what the log attests as durable.

pub mod assemble;
pub mod begin;
pub mod pgoutput;
mod session;

pub use session::PROBE_INTERVAL;

use crate::connect::ConnectError;
use crate::log::LogError;
use migrations::control::CaptureReport;
use migrations::finding::Finding;
use migrations::journal::Generation;
use migrations::lsn::{EndLsn, Timeline};
use migrations::names::{SliceName, TableName};
use std::collections::BTreeSet;
