-- From the topics of two tables to two indexes. A topic's record has the old row and the new one (`debezium-json`), so Flink
-- knows what to take back when a row changes.

-- A bridge that was killed may write a change twice.
SET 'table.exec.source.cdc-events-duplicate' = 'true';
-- Documents are sent at every checkpoint.
SET 'execution.checkpointing.interval' = '500 ms';
SET 'restart-strategy.type' = 'fixed-delay';
SET 'restart-strategy.fixed-delay.attempts' = '30';

CREATE TABLE customers (
    id BIGINT, name STRING, town STRING,
    PRIMARY KEY (id) NOT ENFORCED
) WITH (
    'connector' = 'kafka', 'topic' = 'shop.public.customers', 'properties.bootstrap.servers' = '${BROKERS}',
    'scan.startup.mode' = 'earliest-offset', 'format' = 'debezium-json'
);

CREATE TABLE orders (
    id BIGINT, customer_id BIGINT, note STRING, total_cents BIGINT, state STRING, placed STRING,
    PRIMARY KEY (id) NOT ENFORCED
) WITH (
    'connector' = 'kafka', 'topic' = 'shop.public.orders', 'properties.bootstrap.servers' = '${BROKERS}',
    'scan.startup.mode' = 'earliest-offset', 'format' = 'debezium-json'
);

CREATE TABLE order_documents (
    id BIGINT, customer STRING, town STRING, note STRING, total_cents BIGINT, state STRING, placed STRING,
    PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'opensearch', 'url' = '${SEARCH}', 'index' = 'orders');

CREATE TABLE customer_documents (
    id BIGINT, customer STRING, orders BIGINT, spent_cents BIGINT,
    PRIMARY KEY (id) NOT ENFORCED
) WITH ('connector' = 'opensearch', 'url' = '${SEARCH}', 'index' = 'customers');

-- Each order, with its customer's name of today.
INSERT INTO order_documents
SELECT o.id, c.name, c.town, o.note, o.total_cents, o.state, o.placed
  FROM orders AS o JOIN customers AS c ON c.id = o.customer_id;

-- Each customer, with how many orders and how much.
INSERT INTO customer_documents
SELECT c.id, MAX(c.name), COUNT(o.id), COALESCE(SUM(o.total_cents), 0)
  FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id AND o.state <> 'cancelled'
 GROUP BY c.id;
