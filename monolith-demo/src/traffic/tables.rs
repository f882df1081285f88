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

/// What a side's open orders need of credit and stock.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// How many customers owe more than their credit limit.
    pub exceeded: &'static str,
    /// Order, customer and cents of every order that uses credit.
    pub credit: &'static str,
    /// Order, product and pieces of every order that has pieces set aside.
    pub stock: &'static str,
    /// How many orders are pending.
    pub pending: &'static str,
}

/// The open orders in the monolith.
pub const MONOLITH_OPEN: Open = Open {
    exceeded: "select count(*) from (select o.customer_id from orders o \
               where o.status in ('placed', 'packed', 'shipped') group by o.customer_id \
               having sum(o.total - coalesce((select sum(p.amount) from payments p where p.order_id = o.id), 0)) > \
                 (select c.credit_limit from customers c where c.id = o.customer_id)) too_much",
    credit: "select o.id, o.customer_id, ((o.total - coalesce((select sum(p.amount) from payments p \
               where p.order_id = o.id), 0)) * 100)::bigint from orders o \
             where o.status in ('placed', 'packed', 'shipped')",
    stock: "select i.order_id, i.product_id, sum(i.qty) from order_items i join orders o on o.id = i.order_id \
            where o.status in ('placed', 'packed') group by 1, 2",
    pending: "select count(*) from orders where status = 'pending'",
};

/// The open orders in the service.
pub const ORDERS_OPEN: Open = Open {
    exceeded: "select count(*) from (select o.customer_id from orders o \
               where o.state in ('placed', 'packed', 'shipped') group by o.customer_id \
               having sum(o.total_cents - coalesce((select sum(p.amount_cents) from payments p \
                 where p.order_id = o.id), 0)) > \
                 (select c.credit_limit * 100 from customers c where c.id = o.customer_id)) too_much",
    credit: "select o.id, o.customer_id, (o.total_cents - coalesce((select sum(p.amount_cents) from payments p \
               where p.order_id = o.id), 0))::bigint from orders o \
             where o.state in ('placed', 'packed', 'shipped')",
    stock: "select i.order_id, i.product_id, sum(i.quantity) from items i join orders o on o.id = i.order_id \
            where o.state in ('placed', 'packed') group by 1, 2",
    pending: "select count(*) from orders where state = 'pending'",
};
