-- The service's own tables, which the bridge keeps up to date.
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, town text NOT NULL);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers, note text NOT NULL,
                     total_cents bigint NOT NULL, state text NOT NULL, placed timestamptz NOT NULL);
