CREATE TABLE orders (id int PRIMARY KEY, state text NOT NULL, total numeric(10,2) NOT NULL DEFAULT 0);
CREATE TABLE lines (order_id int REFERENCES orders (id) ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE, number int, item text, PRIMARY KEY (order_id, number));
CREATE TABLE emptied (id int PRIMARY KEY, note text);
CREATE TABLE emptied_too (id int PRIMARY KEY, emptied_id int REFERENCES emptied (id));

-- operations
BEGIN; INSERT INTO orders VALUES (1, 'new', 1.5); INSERT INTO lines VALUES (1, 1, 'a'), (1, 2, 'b'); UPDATE orders SET total = 3 WHERE id = 1; COMMIT;
BEGIN; INSERT INTO orders VALUES (2, 'new', 2); SAVEPOINT s; INSERT INTO orders VALUES (3, 'lost', 2); ROLLBACK TO s; INSERT INTO orders VALUES (4, 'kept', 2); COMMIT;
BEGIN; INSERT INTO orders VALUES (5, 'lost', 2); ROLLBACK;
INSERT INTO orders SELECT g, 'many', g FROM generate_series(100, 160) g;
UPDATE orders SET state = 'all' WHERE id >= 100;
BEGIN; UPDATE orders SET total = 4 WHERE id = 1; UPDATE orders SET total = 5 WHERE id = 1; DELETE FROM orders WHERE id = 2; INSERT INTO orders VALUES (2, 'again', 1); COMMIT;
BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE orders SET id = 1000 WHERE id = 1; UPDATE orders SET id = 1001 WHERE id = 1000; COMMIT;
BEGIN; UPDATE orders SET id = 4000 WHERE id = 4; UPDATE orders SET id = 4 WHERE id = 4000; COMMIT;
DELETE FROM orders WHERE id = 1001;
INSERT INTO orders VALUES (7, 'x', 1) ON CONFLICT (id) DO UPDATE SET state = 'y';
INSERT INTO orders VALUES (7, 'x', 1) ON CONFLICT (id) DO UPDATE SET state = 'y';
DELETE FROM orders WHERE id > 120;
INSERT INTO emptied VALUES (1, 'a'), (2, 'b');
INSERT INTO emptied_too VALUES (1, 1);
TRUNCATE emptied, emptied_too;
INSERT INTO emptied VALUES (3, 'c');
TRUNCATE emptied CASCADE;
TRUNCATE emptied_too RESTART IDENTITY;
INSERT INTO emptied VALUES (4, 'd');
BEGIN; DELETE FROM emptied; TRUNCATE emptied CASCADE; INSERT INTO emptied VALUES (5, 'e'); COMMIT;
