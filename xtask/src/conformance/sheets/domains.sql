-- A domain over an enum is missing: with one in the database, Debezium's connector does not start.
CREATE DOMAIN amount AS numeric(10,2);
CREATE DOMAIN big_amount AS amount CHECK (VALUE > 100);
CREATE DOMAIN word AS text NOT NULL DEFAULT 'none';
CREATE DOMAIN code AS varchar(5);
CREATE DOMAIN whole AS int DEFAULT 7;
CREATE DOMAIN moment AS timestamp(3);
CREATE DOMAIN list AS int[];
CREATE DOMAIN flag AS bit(1);
CREATE DOMAIN stamp AS timestamptz;
CREATE DOMAIN blob AS bytea;
CREATE DOMAIN tag AS uuid;
CREATE DOMAIN doc AS jsonb;
CREATE TABLE domains (id whole PRIMARY KEY, price amount, big_price big_amount, name word, short code, number whole, at moment,
    many list, bit flag, stamped stamp, data blob, tag tag, doc doc);

-- operations
INSERT INTO domains VALUES (1, 1.5, 100.01, 'a', 'b', 2, '2016-11-04 13:51:30.1234', '{1,2}', '1', '2020-04-01 11:51:02+00', '\x01',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1}');
INSERT INTO domains (id, name) VALUES (2, 'x');
INSERT INTO domains (price) VALUES (3);
UPDATE domains SET price = price + 1;
DELETE FROM domains WHERE id IN (1, 2);
