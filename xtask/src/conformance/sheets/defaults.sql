CREATE TYPE size AS ENUM ('small', 'large');
CREATE SEQUENCE own_numbers START 100;
CREATE FUNCTION answer() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 42';
CREATE TABLE defaults (id int PRIMARY KEY, i2 smallint DEFAULT -2, i4 int DEFAULT 42, i8 bigint DEFAULT 9223372036854775807,
    f4 real DEFAULT 1.5, f8 double precision DEFAULT -2.25e10, b boolean DEFAULT true, b_false boolean DEFAULT 'no',
    n numeric(10,2) DEFAULT 12.3, n_free numeric DEFAULT 1.50, cash money DEFAULT 12.34, t text DEFAULT 'it''s "quoted"',
    t_empty text DEFAULT '', t_null text DEFAULT NULL, vc varchar(20) DEFAULT 'word'::varchar, c char(5) DEFAULT 'ab', bytes bytea DEFAULT '\x0102',
    u uuid DEFAULT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', j json DEFAULT '{"a": 1}', jb jsonb DEFAULT '[1, 2]', x xml DEFAULT '<a/>',
    e size DEFAULT 'large', d date DEFAULT '2020-01-02', tm time DEFAULT '12:34:56.789', tm_3 time(3) DEFAULT '12:34:56.789',
    tmz timetz DEFAULT '12:34:56+02', ts timestamp DEFAULT '2020-01-02 03:04:05.678901', ts_3 timestamp(3) DEFAULT '2020-01-02 03:04:05.678',
    tsz timestamptz DEFAULT '2020-01-02 03:04:05.678901+00', iv interval DEFAULT '1 day 02:00:00', bit_one bit DEFAULT '1', bits bit(4) DEFAULT '1010',
    bits_any bit varying DEFAULT '101', ip inet DEFAULT '127.0.0.1', net cidr DEFAULT '10.0.0.0/8', mac macaddr DEFAULT '08:00:2b:01:02:03',
    r int4range DEFAULT '[1,5)', p point DEFAULT '(1,2)', a_int int[] DEFAULT '{1,2}', a_text text[] DEFAULT ARRAY['a','b'],
    a_empty text[] DEFAULT '{}', o oid DEFAULT 7, ts_inf timestamp DEFAULT 'infinity', words tsvector DEFAULT 'a b');
CREATE TABLE computed_defaults (id int PRIMARY KEY DEFAULT nextval('own_numbers'), at timestamptz DEFAULT now(), day date DEFAULT current_date,
    at_local timestamp DEFAULT localtimestamp, tag uuid DEFAULT gen_random_uuid(), sum int DEFAULT 1 + 2, neg int DEFAULT -(-5), who text DEFAULT current_user,
    own int DEFAULT answer(), chance double precision DEFAULT random(), both_words text DEFAULT 'a' || 'b', low text DEFAULT lower('ABC'),
    next bigint DEFAULT nextval('own_numbers'), at_epoch timestamp DEFAULT (to_timestamp(0) AT TIME ZONE 'UTC'), cast_number numeric(8,3) DEFAULT '7'::numeric,
    span interval DEFAULT '1 day'::interval * 2, day_text date DEFAULT '2020-01-02'::date, list int[] DEFAULT array_fill(1, ARRAY[2]));
CREATE TABLE required_defaults (id int PRIMARY KEY, i int NOT NULL DEFAULT 5, t text NOT NULL DEFAULT 'none', n numeric(10,2) NOT NULL DEFAULT 9.99,
    at timestamptz NOT NULL DEFAULT now(), day date NOT NULL DEFAULT '2020-01-02', b boolean NOT NULL DEFAULT true, e size NOT NULL DEFAULT 'small',
    u uuid NOT NULL DEFAULT gen_random_uuid(), j jsonb NOT NULL DEFAULT '{}', a int[] NOT NULL DEFAULT '{}', own int NOT NULL DEFAULT answer(),
    next bigint NOT NULL DEFAULT nextval('own_numbers'), ts timestamp NOT NULL DEFAULT '2020-01-02 03:04:05', iv interval NOT NULL DEFAULT '1 hour',
    bytes bytea NOT NULL DEFAULT '\x01', f double precision NOT NULL DEFAULT 0.5);
CREATE TABLE default_keys (a int DEFAULT 3, b text DEFAULT 'key', c numeric(5,2) DEFAULT 1.5, note text, PRIMARY KEY (a, b, c));

-- operations
INSERT INTO defaults (id) VALUES (1);
INSERT INTO defaults VALUES (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE defaults SET i4 = 0, t = NULL WHERE id = 1;
DELETE FROM defaults;
INSERT INTO computed_defaults DEFAULT VALUES;
INSERT INTO computed_defaults VALUES (1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE computed_defaults SET sum = NULL;
DELETE FROM computed_defaults;
INSERT INTO required_defaults (id) VALUES (1), (2);
UPDATE required_defaults SET i = 6 WHERE id = 1;
UPDATE required_defaults SET id = 3 WHERE id = 2;
DELETE FROM required_defaults;
INSERT INTO default_keys (note) VALUES ('x');
UPDATE default_keys SET a = 4, note = NULL;
DELETE FROM default_keys;
