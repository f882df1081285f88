-- The monolith's tables. Flink needs the old row of each update: REPLICA IDENTITY FULL.
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, town text NOT NULL);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint NOT NULL REFERENCES customers, note text NOT NULL,
                     total_cents bigint NOT NULL, state text NOT NULL DEFAULT 'new',
                     placed timestamptz NOT NULL DEFAULT now());
ALTER TABLE customers REPLICA IDENTITY FULL;
ALTER TABLE orders REPLICA IDENTITY FULL;
