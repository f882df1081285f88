CREATE TYPE fruit AS ENUM ('apple', 'pear');
CREATE DOMAIN dozen AS int;
CREATE TABLE required (id int PRIMARY KEY,
    i2 smallint NOT NULL,
    i4 int NOT NULL,
    i8 bigint NOT NULL,
    f4 real NOT NULL,
    f8 double precision NOT NULL,
    b boolean NOT NULL,
    o oid NOT NULL,
    n numeric(10,2) NOT NULL,
    n_whole numeric(5) NOT NULL,
    n_free numeric NOT NULL,
    cash money NOT NULL,
    t text NOT NULL,
    vc varchar(5) NOT NULL,
    c char(3) NOT NULL,
    letter "char" NOT NULL,
    label name NOT NULL,
    bytes bytea NOT NULL,
    u uuid NOT NULL,
    j json NOT NULL,
    jb jsonb NOT NULL,
    x xml NOT NULL,
    e fruit NOT NULL,
    d date NOT NULL,
    tm time NOT NULL,
    tm_3 time(3) NOT NULL,
    tmz timetz NOT NULL,
    ts timestamp NOT NULL,
    ts_3 timestamp(3) NOT NULL,
    tsz timestamptz NOT NULL,
    iv interval NOT NULL,
    bit_one bit(1) NOT NULL,
    bits bit(4) NOT NULL,
    bits_any bit varying NOT NULL,
    ip inet NOT NULL,
    net cidr NOT NULL,
    mac macaddr NOT NULL,
    r int4range NOT NULL,
    nr numrange NOT NULL,
    tr tstzrange NOT NULL,
    p point NOT NULL,
    a_int int[] NOT NULL,
    a_text text[] NOT NULL,
    a_n numeric(5,2)[] NOT NULL,
    words tsvector NOT NULL,
    dom dozen NOT NULL);

-- operations
INSERT INTO required VALUES (1, '1', '2', '3', '1.5', '2.5', 'true', '7', '1.5', '5', '1.50', '1.5', 'a', 'b', 'c', 'x', 'n', '\x01', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{}', '{}', '<a/>', 'pear', '2020-01-02', '12:00:00.5', '12:00:00.5', '12:00:00+00', '2020-01-02 03:04:05', '2020-01-02 03:04:05', '2020-01-02 03:04:05+00', '1 day', '1', '1010', '101', '127.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', '[1,5)', '[1,5)', '[2020-01-01 00:00+00,)', '(1,2)', '{1}', '{a}', '{1.5}', 'a', '12');
INSERT INTO required VALUES (2, '1', '2', '3', '1.5', '2.5', 'true', '7', '1.5', '5', '1.50', '1.5', 'a', 'b', 'c', 'x', 'n', '\x01', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{}', '{}', '<a/>', 'pear', '2020-01-02', '12:00:00.5', '12:00:00.5', '12:00:00+00', '2020-01-02 03:04:05', '2020-01-02 03:04:05', '2020-01-02 03:04:05+00', '1 day', '1', '1010', '101', '127.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', '[1,5)', '[1,5)', '[2020-01-01 00:00+00,)', '(1,2)', '{1}', '{a}', '{1.5}', 'a', '12');
INSERT INTO required VALUES (3, '1', '2', '3', '1.5', '2.5', 'true', '7', '1.5', '5', '1.50', '1.5', 'a', 'b', 'c', 'x', 'n', '\x01', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{}', '{}', '<a/>', 'pear', '2020-01-02', '12:00:00.5', '12:00:00.5', '12:00:00+00', '2020-01-02 03:04:05', '2020-01-02 03:04:05', '2020-01-02 03:04:05+00', '1 day', '1', '1010', '101', '127.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', '[1,5)', '[1,5)', '[2020-01-01 00:00+00,)', '(1,2)', '{1}', '{a}', '{1.5}', 'a', '12');
UPDATE required SET i4 = 5 WHERE id = 1;
UPDATE required SET id = 10 WHERE id = 2;
DELETE FROM required WHERE id = 3;
DELETE FROM required;
