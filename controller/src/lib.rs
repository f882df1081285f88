//! The controller: it keeps the journal, answers people and agents over HTTP, looks at the live systems, and
//! installs what strangler needs in databases.
//!
//! It decides nothing by itself: what a wish or a report means, and what a crossing does next, is asked of `migrations`. It
//! never touches the rows of a slice; the bridge does.

#![warn(unreachable_pub)]

mod access;
mod agents;
mod api;
mod awake;
mod coordinator;
mod copies;
mod course;
mod desk;
mod drive;
mod emergency;
mod ends;
mod install;
mod metrics;
mod observe;
mod place;
mod recall;
mod reconcile;
mod remembered;
mod serve;
#[cfg(test)]
mod simulation;
mod store;
mod trial;

pub use access::{readers, writers};
pub use install::{InstallError, install, locked_out, uninstall};
pub use observe::{doctor, upstreams};
pub use serve::{ServeError, serve};
pub use store::{Draft, Loaded, Store, StoreError, forget_elsewhere};
