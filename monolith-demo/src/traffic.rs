//! Clients of the shop that write every promise to a ledger and check that the shop keeps it.
//!
//! During a run ([`run`]) each client checks that no read goes back in time. Afterwards ([`proof`]) the databases must
//! hold every acknowledged write exactly once, and the same rows on both sides. Credit and stock ([`books`]) must be right,
//! too. Clients know one or more addresses. They do not care which side answers there, and only count it.

mod books;
mod cookies;
mod customer;
mod deeds;
mod exchange;
pub mod incidents;
pub mod lag;
mod latency;
pub mod ledger;
mod memory;
pub mod promise;
pub mod proof;
pub mod report;
pub mod run;
mod tables;
