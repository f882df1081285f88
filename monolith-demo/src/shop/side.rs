//! The SQL of each side: the only difference between monolith and service.
//!
//! Statements on both sides take the same parameters and return the same columns, so that the rules in
//! [`super::orders`] are written once. Amounts are cents here, as `bigint`.

#[derive(Clone, Debug)]
pub struct Side {
    /// The side's name in `x-served-by` and `served_by`.
    pub name: &'static str,
    /// Orders `o` with items and payments, without a condition: one statement, so one snapshot.
    pub order: &'static str,
    /// Column of `orders` that holds the status.
    pub status: &'static str,
    /// Inserts an order: customer `$1`, note `$2`, total in cents `$3`, status `$4`, version `$5`; returns its id.
    pub insert_order: &'static str,
    /// Inserts the lines of order `$1`: products `$2`, quantities `$3`, prices in cents `$4`.
    pub insert_items: &'static str,
    /// Inserts a payment to order `$1`: cents `$2`, method `$3`.
    pub insert_payment: &'static str,
    /// Locks order `$1`; returns version, status and total in cents.
    pub lock: &'static str,
    /// What was paid to order `$1`, in cents.
    pub paid: &'static str,
    /// Gives order `$1` the status `$2` and raises its version, if it is pending.
    pub settle: &'static str,
    /// The status of order `$1`.
    pub standing: &'static str,
    /// Cancels order `$1` and raises its version.
    pub cancel: &'static str,
    /// Deletes order `$1`, its items and its payments, in this order of statements.
    pub remove: &'static [&'static str],
}

impl Side {
    #[must_use]
    pub fn monolith() -> Self {
        Self {
            name: "monolith",
            order: "select o.id, o.customer_id, o.status::text as status, o.note, \
                      (o.total * 100)::bigint as total, o.placed_at, o.version, \
                      (select coalesce(json_agg(json_build_array(i.id, i.product_id, i.qty, \
                         (i.price * 100)::bigint) order by i.id), '[]') \
                         from order_items i where i.order_id = o.id) as items, \
                      (select coalesce(json_agg(json_build_array(p.id, (p.amount * 100)::bigint, p.method, \
                         p.paid_at) order by p.id), '[]') \
                         from payments p where p.order_id = o.id) as payments \
                    from orders o",
            status: "status",
            insert_order: "insert into orders (customer_id, note, total, status, version) \
                           values ($1, $2, $3::bigint / 100.0, $4::text::order_status, $5) returning id",
            insert_items: "insert into order_items (order_id, product_id, qty, price) \
                           select $1, l.product, l.qty, l.cents / 100.0 \
                             from unnest($2::bigint[], $3::int[], $4::bigint[]) as l (product, qty, cents)",
            insert_payment: "insert into payments (order_id, amount, method) \
                             values ($1, $2::bigint / 100.0, $3)",
            lock: "select version, status::text as status, (total * 100)::bigint as total \
                     from orders where id = $1 for update",
            paid: "select coalesce(sum((amount * 100)::bigint), 0)::bigint from payments where order_id = $1",
            settle: "update orders set status = $2::text::order_status, version = version + 1 \
                       where id = $1 and status = 'pending'",
            standing: "select status::text as status from orders where id = $1",
            cancel: "update orders set status = 'cancelled', version = version + 1 where id = $1",
            remove: &["delete from orders where id = $1"],
        }
    }

    #[must_use]
    pub fn orders() -> Self {
        Self {
            name: "orders",
            order: "select o.id, o.customer_id, o.state::text as status, o.note, \
                      o.total_cents as total, o.placed_at, o.version, \
                      (select coalesce(json_agg(json_build_array(i.id, i.product_id, i.quantity, \
                         i.unit_cents) order by i.id), '[]') \
                         from items i where i.order_id = o.id) as items, \
                      (select coalesce(json_agg(json_build_array(p.id, p.amount_cents, p.method, \
                         p.paid_at) order by p.id), '[]') \
                         from payments p where p.order_id = o.id) as payments \
                    from orders o",
            status: "state",
            insert_order: "insert into orders (customer_id, note, total_cents, state, version) \
                           values ($1, $2, $3, $4::text::order_status, $5) returning id",
            insert_items: "insert into items (order_id, product_id, quantity, unit_cents) \
                           select $1, l.product, l.qty, l.cents \
                             from unnest($2::bigint[], $3::int[], $4::bigint[]) as l (product, qty, cents)",
            insert_payment: "insert into payments (order_id, amount_cents, method) values ($1, $2, $3)",
            lock: "select version, state::text as status, total_cents as total \
                     from orders where id = $1 for update",
            paid: "select coalesce(sum(amount_cents), 0)::bigint from payments where order_id = $1",
            settle: "update orders set state = $2::text::order_status, version = version + 1 \
                       where id = $1 and state = 'pending'",
            standing: "select state::text as status from orders where id = $1",
            cancel: "update orders set state = 'cancelled', version = version + 1 where id = $1",
            remove: &[
                "delete from items where order_id = $1",
                "delete from payments where order_id = $1",
                "delete from orders where id = $1",
            ],
        }
    }
}
