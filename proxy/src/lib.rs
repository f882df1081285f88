//! The data plane for requests: a reverse proxy that sends each request to the monolith or to the service its
//! slice moves to, and never lets a client read older data than it knows.
//!
//! It pulls its table from the controller and keeps it on disk, so it serves on when everything else is down. It
//! is needed for availability, never for the safety of writes: that is the databases' own.
//!
//! Start reading at `request`, which follows a request from its first byte to its last.

mod access_log;
mod admin;
mod agent;
mod answer;
mod client;
mod connection;
mod deadline;
mod exchange;
mod failure;
mod freshness;
mod headers;
mod health;
mod metrics;
mod passage;
mod relay;
mod request;
mod route;
mod server;
mod table;
mod upstream;
mod visit;
mod wire;

pub use server::{ProxyError, Shutdown, Stopper, run, run_logging_to};
