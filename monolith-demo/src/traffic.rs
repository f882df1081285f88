//! Clients of the shop that keep a ledger of every answer they were promised, and hold the shop to it.
//!
//! During a run ([`run`]) each client checks that no read goes back in time; afterwards ([`proof`]) the
//! databases must hold everything that was acknowledged, once, and the same on both sides. Clients know
//! one address; who answers there is none of their business, they only count what answers say about it.

pub mod cookies;
pub mod customer;
pub mod deeds;
pub mod exchange;
pub mod lag;
pub mod latency;
pub mod ledger;
pub mod memory;
pub mod promise;
pub mod proof;
pub mod report;
pub mod run;
pub mod tables;
