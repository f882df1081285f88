-- Seeds an empty monolith by formula: the same numbers give the same shop. {customers}, {products} and
-- {orders} are replaced by counts. Names and notes look like real ones (accents, quotes, line breaks,
-- empty and missing values), so that a wrong mapping shows.

insert into customers (id, name, email, credit_limit, created_at)
select g,
       (array['Zoë Müller', 'Ana O''Neill', 'Łukasz Nowak', '山田 太郎', 'Søren "Sam" Holm', 'Ines\Paz'])[1 + g % 6] || ' ' || g,
       'customer' || g || '@example.com',
       10000 + (g * 37 % 400) * 100 + (g % 4) * 0.25,
       now() - g * interval '1 hour'
  from generate_series(1, {customers}) g;

insert into products (id, sku, name, price, stock)
select g, 'SKU-' || lpad(g::text, 5, '0'),
       (array['Lamp', 'Chair', 'Désk', 'Shelf', 'Mug ☕'])[1 + g % 5] || ' no. ' || g,
       (199 + g * 37 % 9800) / 100.0, 200 + g % 300
  from generate_series(1, {products}) g;

-- The newest 150 orders are open, one in fifty of the older ones was cancelled.
with line as (
  select g as order_id, 1 + (g * 7 + k * 13) % {products} as product_id, 1 + (g + k) % 4 as qty
    from generate_series(1, {orders}) g, generate_series(1, 1 + g % 3) k
), total as (
  select line.order_id, sum(line.qty * p.price) as total
    from line join products p on p.id = line.product_id group by line.order_id
)
insert into orders (id, customer_id, status, note, total, placed_at, version)
select order_id, 1 + (order_id * 11) % {customers},
       case when order_id > {orders} - 150 then (array['placed', 'packed', 'shipped'])[1 + order_id % 3]
            when order_id % 50 = 0 then 'cancelled' else 'delivered' end::order_status,
       case order_id % 7 when 0 then null when 1 then '' when 2 then E'Ring twice,\nthen "wait" \\ thanks – Zoë'
            else 'Order no. ' || order_id end,
       total, now() - ({orders} - order_id) * interval '61.000123 seconds', 1 + order_id % 3
  from total order by order_id;

insert into order_items (order_id, product_id, qty, price)
select g, p.id, 1 + (g + k) % 4, p.price
  from generate_series(1, {orders}) g, generate_series(1, 1 + g % 3) k
  join products p on true
 where p.id = 1 + (g * 7 + k * 13) % {products}
 order by g, k;

insert into payments (order_id, amount, method, paid_at)
select id, total, (array['card', 'transfer', 'cash'])[1 + id % 3], placed_at + interval '5 minutes'
  from orders where status = 'delivered' and total > 0 order by id;

select setval(pg_get_serial_sequence('customers', 'id'), greatest({customers}, 1)),
       setval(pg_get_serial_sequence('products', 'id'), greatest({products}, 1)),
       setval(pg_get_serial_sequence('orders', 'id'), greatest({orders}, 1));
