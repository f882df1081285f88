//! The shop: the code of both the monolith and the split-out service `orders`.
//!
//! The two differ in their database schema ([`side`]), in what they serve ([`server`]), and in where credit and stock are
//! kept: in the monolith's [`books`], which the service reaches by [`saga`]s. The business rules ([`orders`]) and the
//! HTTP contract ([`api`]) are the same, so a proxy can send a request to either. Nothing here knows that such a proxy
//! exists.

mod api;
pub(crate) mod books;
pub(crate) mod catalogue;
pub mod database;
pub(crate) mod deal;
mod internal;
pub(crate) mod money;
pub mod nightly;
pub(crate) mod order;
pub(crate) mod orders;
mod page;
mod refusal;
pub mod saga;
pub mod schema;
pub mod server;
pub(crate) mod settle;
pub(crate) mod side;
pub mod warehouse;

use std::sync::Arc;

use deadpool_postgres::Pool;

use saga::driver::Sagas;
use side::Side;

/// One running side of the shop: its database, the SQL for that database's schema, and the way to the books.
#[derive(Clone)]
pub struct Shop {
    pool: Pool,
    side: Arc<Side>,
    books: Books,
}

/// Where credit and stock are kept.
#[derive(Clone)]
enum Books {
    /// In the same database, so an entry is part of the order's transaction.
    Here,
    /// At the monolith.
    Elsewhere(Sagas),
}

impl Shop {
    #[must_use]
    pub fn monolith(pool: Pool) -> Self {
        Self { pool, side: Arc::new(Side::monolith()), books: Books::Here }
    }

    /// The service `orders`. Someone must run its sagas.
    #[must_use]
    pub fn orders(pool: Pool, sagas: Sagas) -> Self {
        Self { pool, side: Arc::new(Side::orders()), books: Books::Elsewhere(sagas) }
    }

    /// Which side answers: `monolith` or `orders`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.side.name
    }
}
