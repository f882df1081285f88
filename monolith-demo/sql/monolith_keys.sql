-- Foreign keys and secondary indexes of the monolith, made once, after the seed.

do $$ begin
  if not exists (select from pg_constraint where conname = 'orders_customer' and conrelid = 'orders'::regclass) then
    alter table orders add constraint orders_customer
      foreign key (customer_id) references customers (id);
    alter table order_items add constraint order_items_order
      foreign key (order_id) references orders (id) on delete cascade;
    alter table order_items add constraint order_items_product
      foreign key (product_id) references products (id);
    alter table payments add constraint payments_order
      foreign key (order_id) references orders (id) on delete cascade;
  end if;
end $$;

create index if not exists orders_by_customer on orders (customer_id, id);
create index if not exists orders_open on orders (status, id) where status in ('placed', 'packed', 'shipped');
create index if not exists order_items_by_order on order_items (order_id);
create index if not exists payments_by_order on payments (order_id);

-- The books of credit and stock, for every order that is not finished, wherever it is kept. An order that another
-- program keeps may not be in this database yet, so there is no foreign key to orders.
do $$ begin
  if to_regclass('credit_held') is null then
    -- What an open order still owes: its total without its payments.
    create table credit_held (
      order_id    bigint primary key,
      customer_id bigint not null references customers (id),
      cents       bigint not null check (cents >= 0)
    );
    -- Pieces that were taken off products.stock for an order, and have not left the house.
    create table stock_held (
      order_id   bigint not null,
      product_id bigint not null references products (id),
      qty        int    not null check (qty > 0),
      primary key (order_id, product_id)
    );
    insert into credit_held
    select o.id, o.customer_id,
           (o.total * 100)::bigint
             - coalesce((select sum((p.amount * 100)::bigint) from payments p where p.order_id = o.id), 0)
      from orders o where o.status in ('placed', 'packed', 'shipped');
    insert into stock_held
    select i.order_id, i.product_id, sum(i.qty)::int
      from order_items i join orders o on o.id = i.order_id
     where o.status in ('placed', 'packed') group by 1, 2;
    update products p set stock = greatest(p.stock - held.qty, 0)
      from (select product_id, sum(qty)::int as qty from stock_held group by 1) held where held.product_id = p.id;
  end if;
end $$;

create index if not exists credit_held_by_customer on credit_held (customer_id);

-- Calls to the books by other programs, by the caller's key: a call that comes again gets the same answer, and does
-- nothing again. It is written in the same transaction as what the call does.
create table if not exists calls (
  key    text primary key,
  what   jsonb,               -- null: the call was taken back before it came
  answer jsonb,
  at     timestamptz not null default now()
);
