//! One table on both sides, which most tests do with.

use super::House;

pub const SOURCE: &str = "
    CREATE TABLE orders (id bigint PRIMARY KEY, note text);
    INSERT INTO orders SELECT g, 'note ' || g FROM generate_series(1, 1000) g;";
pub const SINK: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, note text);";
pub const PLAN: &str = "
version: 1
name: shop
slices:
  orders:
    service: orders
    routes: { list: GET /orders }
    tables: [public.orders]
";
/// Its tables. Another test puts others there.
const TABLES: &str = "    tables: [public.orders]\n";
pub const ALL: &str = "SELECT id, note FROM orders ORDER BY id";
pub const SUMS: &str = "SELECT id, md5(note) FROM orders ORDER BY id";

/// The same plan with this in place of its tables.
pub fn plan(slice: &str) -> String {
    PLAN.replace(TABLES, slice)
}

pub async fn following() -> House {
    House::following(SOURCE, SINK, PLAN).await
}
