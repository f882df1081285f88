//! The data plane for requests: a reverse proxy that sends each request to the monolith or to the service that its
//! slice moves to. No client reads older data than it has seen.
//!
//! The proxy pulls its table from the controller and keeps it on disk. So it serves when everything else is down.
//! Availability depends on it; the safety of writes does not: the databases enforce that.
//!
//! Start with `request`: it follows a request from its head to its line in the access log. The crate `http1` reads
//! and writes HTTP/1.1.

#![warn(unreachable_pub)]

mod access_log;
mod admin;
mod agent;
mod answer;
mod client;
mod connection;
mod deadline;
mod descriptors;
mod doubt;
mod drain;
mod entrance;
mod exchange;
mod failure;
mod freshness;
mod guests;
mod headers;
mod health;
mod hold;
mod last_hop;
mod metrics;
mod own;
mod passage;
mod redirect;
mod relay;
mod request;
mod route;
mod server;
mod shutdown;
mod succession;
mod table;
mod tally;
mod tls;
mod trust;
mod upstream;
mod visit;
mod wait;
mod wire;

pub use server::{ProxyError, check_certificates, run, run_logging_to};
pub use shutdown::{Shutdown, Stopper};
pub use tls::certificate_findings;
