//! Orders whose total is kept in cents at the service, and that refer to customers.

pub const SOURCE: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, total numeric(12,2) NOT NULL,
        note text);
    INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 20) g;
    INSERT INTO orders SELECT g, 1 + g % 20, g * 1.25, 'note ' || g FROM generate_series(1, 500) g;";
/// The service has a column of its own.
pub const SINK: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL REFERENCES customers, total_cents bigint NOT NULL,
        note text, shelf text);";

pub const ITEMS: &str =
    "      - { from: public.order_items, to: public.items, rename: { qty: quantity }, drop: [legacy] }\n";

pub const AT_SOURCE: &str = "SELECT id, customer, (total * 100)::bigint, note FROM orders ORDER BY id";
pub const AT_SINK: &str = "SELECT id, customer, total_cents, note FROM orders ORDER BY id";

/// A plan with these tables beside the orders.
pub fn plan(tables: &str) -> String {
    let orders = "    tables:
      - from: public.orders
        drop: [total]
        set: { total_cents: '(total * 100)::bigint' }
        reverse: { total: 'total_cents / 100.0' }
";
    super::one_table::plan(&format!("{orders}{tables}    reference: [public.customers]\n"))
}
