//! A feed: the changes of one database, captured into a log, and the log kept no larger than its readers need.
//!
//! Knows which tables are wanted, not what is done with their changes.

pub(crate) mod begin;
pub(crate) mod capture;
pub(crate) mod end;
mod opening;
pub(crate) mod pending;
pub(crate) mod retention;
mod session;
pub(crate) mod source;
pub(crate) mod status;
