//! The shop: the code of both the monolith and the split-out service `orders`.
//!
//! The two differ in their database schema ([`side`]) and in what they serve ([`server`]). The business rules
//! ([`orders`]) and the HTTP contract ([`api`]) are the same, so a proxy can send a request to either. Nothing here
//! knows that such a proxy exists.

mod api;
pub(crate) mod catalogue;
pub mod database;
pub(crate) mod money;
pub(crate) mod order;
pub(crate) mod orders;
mod page;
mod refusal;
pub mod schema;
pub mod server;
pub mod side;
pub mod warehouse;

use std::sync::Arc;

use deadpool_postgres::Pool;

use side::Side;

/// One running side of the shop: its database, and the SQL for that database's schema.
#[derive(Clone)]
pub struct Shop {
    pool: Pool,
    side: Arc<Side>,
}

impl Shop {
    #[must_use]
    pub fn new(pool: Pool, side: Side) -> Self {
        Self { pool, side: Arc::new(side) }
    }

    /// Which side answers: `monolith` or `orders`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.side.name
    }
}
