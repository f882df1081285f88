//! A log's store on this machine's disk: one redb file, synced at every append.
//!
//! Each value is in it exactly once: those of a transaction that was never finished go when the next writer begins.

mod file;
mod store;

pub(crate) use store::Store;
