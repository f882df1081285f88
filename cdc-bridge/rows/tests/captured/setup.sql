CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'glücklich');
CREATE TABLE every_type (
    id bigint PRIMARY KEY, i2 smallint, i4 integer, i8 bigint, o oid, b boolean, f4 real, f8 double precision,
    n numeric(12, 3), nn numeric(5, -2), na numeric, t text, vc varchar(20), c char(5), by bytea, u uuid, j json, jb jsonb,
    d date, t0 time(0), t6 time, ts3 timestamp(3), ts timestamp, tz timestamptz, m mood,
    ai integer[], at text[], an numeric[], atz timestamptz[], am mood[], aby bytea[]);
CREATE TABLE by_key (a integer, b text, body text, plain text NOT NULL DEFAULT 'x', PRIMARY KEY (a, b));
CREATE TABLE by_full (id integer PRIMARY KEY, body text, plain text);
ALTER TABLE by_full REPLICA IDENTITY FULL;
CREATE TABLE by_index (id integer PRIMARY KEY, code text NOT NULL UNIQUE, plain text);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
ALTER TABLE by_key ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE by_full ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE one (id integer PRIMARY KEY);
CREATE TABLE two (id integer PRIMARY KEY REFERENCES one);
CREATE PUBLICATION all_tables FOR ALL TABLES;
