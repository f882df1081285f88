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
