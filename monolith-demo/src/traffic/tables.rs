//! The mapping between the two databases: two statements per table that return the same text.
//!
//! Each row becomes its id and one JSON array, compared as text. Only these statements know how types, names and units
//! differ between the sides.

/// One table on both sides. The statements have no condition and no order.
#[derive(Clone, Copy, Debug)]
pub struct Mapped {
    pub name: &'static str,
    /// `id` and `row` from the monolith.
    pub monolith: &'static str,
    /// `id` and `row` from the service.
    pub orders: &'static str,
}

/// Every table of the slice, and the tables that the service only reads.
pub const TABLES: [Mapped; 5] = [
    Mapped {
        name: "orders",
        monolith: "select id, json_build_array(customer_id, status, note, (total * 100)::bigint, placed_at, \
                   version)::text as row from orders",
        orders: "select id, json_build_array(customer_id, state, note, total_cents, placed_at, \
                 version)::text as row from orders",
    },
    Mapped {
        name: "order_items",
        monolith: "select id, json_build_array(order_id, product_id, qty, (price * 100)::bigint)::text as row \
                   from order_items",
        orders: "select id, json_build_array(order_id, product_id, quantity, unit_cents)::text as row from items",
    },
    Mapped {
        name: "payments",
        monolith: "select id, json_build_array(order_id, (amount * 100)::bigint, method, paid_at)::text as row \
                   from payments",
        orders: "select id, json_build_array(order_id, amount_cents, method, paid_at)::text as row from payments",
    },
    Mapped {
        name: "customers",
        monolith: "select id, json_build_array(name, email, credit_limit, created_at)::text as row from customers",
        orders: "select id, json_build_array(name, email, credit_limit, created_at)::text as row from customers",
    },
    Mapped {
        name: "products",
        monolith: "select id, json_build_array(sku, name, price, stock)::text as row from products",
        orders: "select id, json_build_array(sku, name, price, stock)::text as row from products",
    },
];
