//! Orders whose total is kept in cents at the service, and that refer to customers.

pub const ITEMS: &str =
    "      - { from: public.order_items, to: public.items, rename: { qty: quantity }, drop: [legacy] }\n";

pub const AT_SOURCE: &str = "SELECT id, customer, (total * 100)::bigint, note FROM orders ORDER BY id";
pub const AT_SINK: &str = "SELECT id, customer, total_cents, note FROM orders ORDER BY id";

/// A plan with these tables beside the orders.
pub fn plan(tables: &str) -> String {
    format!(
        "
version: 1
name: shop
slices:
  orders:
    service: orders
    routes: {{ list: GET /orders }}
    tables:
      - from: public.orders
        drop: [total]
        set: {{ total_cents: '(total * 100)::bigint' }}
        reverse: {{ total: 'total_cents / 100.0' }}
{tables}    reference: [public.customers]
"
    )
}
