//! The shop: what both the monolith and the split-out service `orders` are made of.
//!
//! The two differ in their database schema ([`side`]) and in what they serve ([`server`]); the rules of
//! the trade ([`orders`]) and the HTTP contract ([`api`]) are the same, which is what lets a proxy send a
//! request to either. Nothing here knows that such a proxy exists.

pub mod api;
pub mod catalogue;
pub mod database;
pub mod money;
pub mod order;
pub mod orders;
pub mod page;
pub mod refusal;
pub mod schema;
pub mod server;
pub mod side;
pub mod warehouse;

use std::sync::Arc;

use deadpool_postgres::Pool;

use side::Side;

/// One running side of the shop: its database and how that database names things.
#[derive(Clone)]
pub struct Shop {
    pool: Pool,
    side: Arc<Side>,
}

impl Shop {
    /// A shop on `pool`, whose schema is the one of `side`.
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
