//! Every type that is carried, on two real clusters: each value arrives as the text that it was, by copy and by stream,
//! as a value and as a key, and what expressions make of it is what the monolith would make of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[allow(dead_code, reason = "each test file uses its part")]
mod house;

use house::crossing::there;
use house::verification::{clean, verified};
use house::{House, kafka};
use migrations::code::Code;
use std::fmt::Write;

/// Types that both databases have. The extensions' are in a schema that no search path names. A type of somebody's own
/// has no binary form, no operators, and a cast to text that says less than it prints.
const TYPES: &str = r#"
    RESET ROLE;
    CREATE SCHEMA "Ext"; GRANT USAGE ON SCHEMA "Ext" TO PUBLIC;
    CREATE EXTENSION citext SCHEMA "Ext"; CREATE EXTENSION hstore SCHEMA "Ext"; CREATE EXTENSION ltree SCHEMA "Ext";
    CREATE EXTENSION isn SCHEMA "Ext"; CREATE EXTENSION cube SCHEMA "Ext"; CREATE EXTENSION seg SCHEMA "Ext";
    CREATE TYPE "Ext".vector;
    CREATE FUNCTION "Ext".vector_in(cstring) RETURNS "Ext".vector AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
    CREATE FUNCTION "Ext".vector_out("Ext".vector) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
    CREATE TYPE "Ext".vector (INPUT = "Ext".vector_in, OUTPUT = "Ext".vector_out, LIKE = text);
    CREATE FUNCTION "Ext".said("Ext".vector) RETURNS text AS $$SELECT 'a vector'$$ LANGUAGE sql IMMUTABLE;
    CREATE CAST ("Ext".vector AS text) WITH FUNCTION "Ext".said("Ext".vector);
    SET ROLE app;
    CREATE TYPE mood AS ENUM ('sad', 'so, "so"', 'Happy');
    CREATE DOMAIN short AS varchar(5) CHECK (VALUE <> 'bad');
    CREATE DOMAIN shorter AS short NOT NULL CHECK (length(VALUE) > 1);
    CREATE DOMAIN padded AS char(5);
    CREATE DOMAIN cents AS numeric(12,2);
    CREATE DOMAIN tags AS text[];
    CREATE TYPE spot AS (name varchar(8), at point, price numeric(8,2), moods mood[]);
    CREATE TYPE house AS (street text, "where" spot, email "Ext".citext, code shorter);
    CREATE TYPE textrange AS RANGE (subtype = text);
    CREATE TYPE pair AS (word "Ext".citext, number numeric, part padded);
"#;

/// A type and values of it, as SQL.
type Case = (&'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    ("short", &["'abc'", "''", "'ž€'"]),
    ("shorter", &["'abc'", "'de'", "'ef'"]),
    ("padded", &["'ab'", "''", "' x'"]),
    ("cents", &["1.5", "'NaN'", "-0.01"]),
    ("tags", &["'{a,NULL,\"\"}'", "'{}'"]),
    ("short[]", &["'{abc,NULL,\"a b\"}'"]),
    ("char(5)", &["'ab'", "''", "' a'"]),
    ("name", &["'a name'", "''"]),
    ("\"char\"", &["'x'", "''", "' '"]),
    ("\"Ext\".citext", &["'Word'", "'WORD'", "''"]),
    ("\"Ext\".citext[]", &["'{Word,\"wo rd\",NULL}'"]),
    (
        "interval",
        &["'1 day'", "'24 hours'", "'-1 year 2 mons -3 days 04:05:06.789'", "'0'", "'178000000 years'"],
    ),
    ("interval(2)", &["'1.239 s'"]),
    ("interval[]", &["'{1 day,NULL,-00:00:00.000001}'"]),
    ("timetz", &["'11:51:30.123789+00'", "'24:00:00-15:59:59'", "'00:00+05:30'"]),
    ("timetz[]", &["'{11:51:30-02,NULL}'"]),
    ("money", &["0", "'1234567.89'", "'-92233720368547758.08'"]),
    ("money[]", &["'{1.50,NULL,-1000}'"]),
    ("bit(1)", &["B'1'", "B'0'"]),
    ("bit(11)", &["B'10000000001'"]),
    ("varbit", &["B'101'", "B''", "repeat('10', 100)::varbit"]),
    ("varbit(9)", &["B'000000001'"]),
    ("bit(3)[]", &["ARRAY[B'101', NULL]"]),
    ("inet", &["'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'fe80::/64'"]),
    ("cidr", &["'10.0.0.0/8'", "'::/0'"]),
    ("inet[]", &["'{10.0.0.1,NULL,::1/64}'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("int4range", &["'[1,5]'", "'empty'", "'(,)'"]),
    ("numrange", &["'(1.50,2.0]'", "'[,3)'"]),
    ("tstzrange", &["'[2020-01-01 00:00+02,infinity)'", "'empty'"]),
    ("daterange[]", &["'{\"[2020-01-01,2020-02-01)\",empty,NULL}'"]),
    ("int8multirange", &["'{}'", "'{[1,3),[5,9)}'"]),
    ("textrange", &["'[\"a, b\",\"c\\\"d\")'", "'(,)'"]),
    ("textmultirange", &["'{[a,b),(x,)}'"]),
    ("\"Ext\".hstore", &["''", "'a=>1, \"b c\"=>NULL, \"q\\\"\\\\\\\\\"=>\"\"'"]),
    ("\"Ext\".hstore[]", &["ARRAY['a=>1', NULL, '']::\"Ext\".hstore[]"]),
    ("\"Ext\".ltree", &["'Top.Science.Astronomy'", "''"]),
    ("\"Ext\".lquery[]", &["'{*.a.*}'"]),
    ("\"Ext\".isbn13", &["'978-0-393-04002-9'"]),
    ("\"Ext\".cube", &["'(1,2.5),(3,4)'"]),
    ("\"Ext\".seg", &["'6.25 .. 6.50'", "'~1.0'"]),
    ("\"Ext\".vector", &["'[1,2.5,-3e-05]'", "''"]),
    ("\"Ext\".vector[]", &["'{\"[1,2]\",NULL}'"]),
    (
        "xml",
        &[
            "'<a b=\"1\"> &lt; </a>'",
            "'text <b/>'",
            "'<?xml version=\"1.0\"?><a/>'",
            "'<!DOCTYPE a><a/>'",
            "''",
        ],
    ),
    ("xml[]", &["ARRAY['<a/>'::xml, NULL]"]),
    ("tsvector", &["'a fat cat'", "'''it''''s'':1A,2 b'", "''"]),
    ("tsquery", &["'fat & (rat | !cat)'", "'a <2> b:*A'", "''"]),
    ("jsonpath", &["'$.a[*] ? (@.b > 1)'", "'strict $.\"x y\"'"]),
    ("pg_lsn", &["'16/B374D848'", "'0/0'"]),
    ("xid8", &["'18446744073709551615'"]),
    ("pg_snapshot", &["'10:20:10,14,15'"]),
    ("tid", &["'(4294967295,65535)'"]),
    ("int2vector", &["'1 2 3'", "''"]),
    ("refcursor", &["'a portal'"]),
    ("point", &["'(1,2)'", "'(1e-300,Infinity)'", "'(NaN,-0)'"]),
    ("line", &["'{1,2,3}'"]),
    ("lseg", &["'[(1,2),(3,4)]'"]),
    ("box", &["'(3,4),(1,2)'"]),
    ("path", &["'[(1,2),(3,4)]'", "'((1,2),(3,4))'"]),
    ("polygon", &["'((0,0),(0,1),(1,0))'"]),
    ("circle", &["'<(1,2),3>'"]),
    ("box[]", &["'{(3,4),(1,2);(1,1),(0,0)}'"]),
    ("mood", &["'sad'", "'so, \"so\"'"]),
    ("mood[]", &["'{sad,\"so, \\\"so\\\"\",NULL}'"]),
    (
        "spot",
        &[
            "ROW('a,\"b', '(1,2)', 1.5, '{sad,Happy}')",
            "ROW(NULL, NULL, NULL, NULL)",
            "ROW('', NULL, 'NaN', '{}')",
        ],
    ),
    ("spot[]", &["ARRAY[ROW('x', '(0,0)', 0, NULL)::spot, NULL]"]),
    ("house", &["ROW('Main \\ \"St\"', ROW('a', NULL, 2, '{NULL}'), 'A@b.c', 'ab')"]),
];

/// Types of keys, each with values that no row has twice. Some differ and are equal, as their own operators see it.
const KEYS: &[Case] = &[
    ("\"Ext\".citext", &["'a'", "'b'", "'c'", "'A'"]),
    ("interval", &["'1 day'", "'1 mon'", "'1 year'", "'24 hours'"]),
    ("numeric", &["1", "2", "3", "1.00"]),
    ("timetz", &["'10:00+00'", "'11:00+00'", "'12:00-01'", "'10:00:00.0+00'"]),
    ("money", &["1", "2", "3", "'1.00'"]),
    ("bit(3)", &["B'001'", "B'010'", "B'011'", "B'001'"]),
    ("varbit", &["B'1'", "B'10'", "B''", "B'1'"]),
    ("inet", &["'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'10.0.0.1/32'"]),
    (
        "macaddr8",
        &[
            "'08:00:2b:01:02:03:04:05'",
            "'08:00:2b:01:02:03:04:06'",
            "'08:00:2b:01:02:03:04:07'",
            "'08-00-2b-01-02-03-04-05'",
        ],
    ),
    ("int4range", &["'[1,5)'", "'empty'", "'(,)'", "'[1,4]'"]),
    ("int4multirange", &["'{}'", "'{[1,3)}'", "'{(,)}'", "'{}'"]),
    ("\"Ext\".hstore", &["'a=>1'", "''", "'b=>2'", "'\"a\"=>\"1\"'"]),
    ("\"Ext\".ltree", &["'a.b'", "'a'", "''", "'a.b'"]),
    ("\"char\"", &["'a'", "'b'", "' '", "'a'"]),
    ("tsvector", &["'a b'", "'b'", "''", "'b a'"]),
    ("pg_lsn", &["'0/1'", "'0/2'", "'1/0'", "'0/01'"]),
    ("mood", &["'sad'", "'so, \"so\"'", "'Happy'", "'sad'"]),
    ("mood[]", &["'{sad}'", "'{}'", "'{Happy}'", "'{ sad }'"]),
    ("short", &["'a'", "'b'", "''", "'a'"]),
    ("padded", &["'a'", "'b'", "''", "'a  '"]),
    ("pair", &["ROW('a', 1, 'x')", "ROW(NULL, NULL, NULL)", "ROW('b', 2, '')", "ROW('A', 1.0, 'x')"]),
];

const ROWS: usize = 5;

fn column_list() -> String {
    let columns = CASES.iter().enumerate().map(|(n, (kind, _))| format!(", c{n} {kind}"));
    columns.collect::<String>()
}

/// The n-th row; where a type has fewer values, NULL, but for the one that has no NULL.
fn row(id: usize, n: usize) -> String {
    let value = |(kind, values): &Case| match (values.get(n), *kind) {
        (Some(value), _) => format!(", {value}"),
        (None, "shorter") => ", 'gh'".to_owned(),
        (None, _) => ", NULL".to_owned(),
    };
    format!("INSERT INTO things VALUES ({id}{});", CASES.iter().map(value).collect::<String>())
}

fn keyed(n: usize) -> String {
    let (kind, _) = KEYS[n];
    // The second column of the key has operators of another schema.
    format!("CREATE TABLE keyed_{n} (no int, key {kind}, note text, PRIMARY KEY (no, key));")
}

/// The tables of both sides. COPY cannot write a table in binary if the type of one of its columns has no such form.
fn tables() -> String {
    let keyed: String = (0..KEYS.len()).map(keyed).collect();
    format!(
        "{TYPES} CREATE TABLE things (id int PRIMARY KEY {}); {keyed}
         CREATE TABLE plain (id int PRIMARY KEY, note text);",
        column_list()
    )
}

fn filled() -> String {
    let mut sql = String::from("INSERT INTO plain SELECT g, 'note ' || g FROM generate_series(1, 100) g;");
    (0..ROWS).for_each(|n| sql += &row(n, n));
    for (n, (_, values)) in KEYS.iter().enumerate() {
        write!(sql, "INSERT INTO keyed_{n} VALUES (1, {}, 'copied'), (2, {0}, 'copied');", values[0])
            .unwrap();
    }
    sql
}

fn plan(more: &str) -> String {
    let keyed: String = (0..KEYS.len()).map(|n| format!("      - public.keyed_{n}\n")).collect();
    format!(
        "version: 1\nname: shop\n{more}\nslices:\n  orders:\n    service: orders\n    routes: {{ list: GET /orders }}\n    \
         tables:\n      - public.things\n      - public.plain\n{keyed}"
    )
}

/// One transaction for each table of keys, then what a batch would confuse if it took a key for its text.
fn changed_keys() -> String {
    let mut sql = String::new();
    for (n, (_, keys)) in KEYS.iter().enumerate() {
        let (table, [first, second, third, like_first]) = (format!("keyed_{n}"), keys) else { panic!("{n}") };
        write!(
            sql,
            "BEGIN; INSERT INTO {table} VALUES (1, {second}, 'new'); UPDATE {table} SET note = 'changed' WHERE no = 2;
             UPDATE {table} SET key = {third} WHERE no = 1 AND note = 'copied'; COMMIT;
             BEGIN; DELETE FROM {table} WHERE no = 2; INSERT INTO {table} VALUES (2, {like_first}, 'again'); COMMIT;
             UPDATE {table} SET key = {first} WHERE no = 2; UPDATE {table} SET key = {like_first} WHERE no = 2;
             DELETE FROM {table} WHERE no = 1 AND note = 'new';"
        )
        .unwrap();
    }
    sql
}

/// Every value as a line of its own with its type, so that a failure names it.
async fn same(house: &House) {
    let value = |(n, (kind, _)): (usize, &Case)| format!("format('%s: %s', '{kind}', c{n}), c{n} IS NULL");
    let values = CASES.iter().enumerate().map(value).collect::<Vec<_>>().join("), (");
    let mut sql = vec![format!("SELECT id::text, v.* FROM things, LATERAL (VALUES ({values})) AS v")];
    for (n, (kind, _)) in KEYS.iter().enumerate() {
        sql.push(format!("SELECT format('{kind} %s: %s', no, key), note, key IS NULL FROM keyed_{n}"));
    }
    sql.push("SELECT id::text, note, true FROM plain".to_owned());
    let sql = format!("{} ORDER BY 1, 2", sql.join(" UNION ALL "));
    house.same(&sql, &sql).await;
}

async fn every_type_arrives(log: &str) {
    let tables = tables();
    let service =
        "ALTER TABLE plain ADD kept \"Ext\".vector, ADD gone \"Ext\".vector; ALTER TABLE plain DROP gone;";
    let house =
        House::following(&format!("{tables} {}", filled()), &format!("{tables} {service}"), &plan(log)).await;
    same(&house).await;
    let mut sql = changed_keys();
    for n in 0..ROWS {
        // Every row gets the values of another one, all at once and one by one, and goes again.
        let (from, id) = ((n + 1) % ROWS, 100 + n);
        sql += &row(id, n);
        let columns: Vec<String> = (0..CASES.len()).map(|n| format!("c{n}")).collect();
        let columns = columns.join(", ");
        write!(
            sql,
            "UPDATE things SET ({columns}) = (SELECT {columns} FROM things WHERE id IN ({from}, 1000 + {from})) WHERE id = {id};
             UPDATE things SET id = id + 1000 WHERE id = {n};"
        )
        .unwrap();
    }
    sql += "DELETE FROM things WHERE id IN (100, 1001); INSERT INTO plain VALUES (200, 'streamed');";
    house.at_source(&sql);
    same(&house).await;
    let report = verified(&house).await;
    clean(&report);
    assert_eq!(report.rows, 8 + 2 * KEYS.len() as u64 + 101, "{report:?}");
    // The rows of a composite lose a value without a word in the stream, also of one within another one.
    house.at_source("ALTER TYPE spot DROP ATTRIBUTE price, ADD ATTRIBUTE price numeric(8,2)");
    let _ = house.passes().await;
    assert_eq!(house.stopped(&there()).await.0.code, Code::SourceSchemaChanged);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_the_text_that_it_was() {
    every_type_arrives("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_the_text_that_it_was_over_kafka() {
    every_type_arrives(&kafka()).await;
}

/// Columns of the monolith that expressions read: name, type, and the values of three rows.
const INPUTS: &[(&str, &str, [&str; 3])] = &[
    ("ch", "char(5)", ["'ab'", "''", "'abcde'"]),
    ("dch", "padded", ["'ab'", "' a'", "''"]),
    ("vc", "varchar(7)", ["'ab  '", "''", "'žluť'"]),
    ("sh", "short", ["'ab '", "''", "'ABC'"]),
    ("tx", "text", ["'Ab '", "'ÄÖ'", "''"]),
    ("tc", "text COLLATE \"C\"", ["'äÖ'", "'B'", "'a'"]),
    ("ti", "varchar(9) COLLATE \"de-x-icu\"", ["'äÖ'", "'B'", "'a'"]),
    ("nm", "name", ["'Name'", "''", "repeat('x', 63)"]),
    ("qc", "\"char\"", ["'x'", "''", "' '"]),
    ("ci", "\"Ext\".citext", ["'Word'", "'WORD'", "'word '"]),
    ("i2", "smallint", ["32767", "-1", "0"]),
    ("i4", "integer", ["7", "-2147483648", "0"]),
    ("i8", "bigint", ["9007199254740993", "-1", "0"]),
    ("oi", "oid", ["4294967295", "1", "0"]),
    ("f4", "real", ["0.1", "'NaN'", "16777217"]),
    ("f8", "double precision", ["0.1", "'-Infinity'", "-0.0"]),
    ("nu", "numeric(12,2)", ["1.5", "-0.01", "'NaN'"]),
    ("na", "numeric", ["1.500", "1e-20", "100"]),
    ("ce", "cents", ["2", "0.10", "-1"]),
    ("mo", "money", ["'1234.5'", "-1", "0"]),
    ("bo", "boolean", ["true", "false", "NULL"]),
    ("d", "date", ["'2024-02-29'", "'infinity'", "'0044-03-15 BC'"]),
    ("t3", "time(3)", ["'13:51:30.1239'", "'24:00'", "'0:00'"]),
    ("tz", "timetz", ["'13:51:30+02'", "'24:00-05:30'", "'0:00+00'"]),
    ("ts", "timestamp(0)", ["'2024-02-29 13:51:30.6'", "'infinity'", "'1969-12-31'"]),
    ("tt", "timestamptz", ["'2024-02-29 13:51:30.6+02'", "'-infinity'", "'1969-12-31Z'"]),
    ("iv", "interval", ["'1 day'", "'24:00'", "'-1 year 2 mons'"]),
    ("by", "bytea", ["'\\x00ff'", "''", "'\\x61'"]),
    (
        "uu",
        "uuid",
        ["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "NULL", "'00000000-0000-0000-0000-000000000000'"],
    ),
    ("js", "json", ["'{\"a\":  1.50, \"a\": 2}'", "'null'", "'[1]'"]),
    ("jb", "jsonb", ["'{\"b\":  1.50, \"a\": 2}'", "'null'", "'[1]'"]),
    ("bi", "bit(5)", ["B'10100'", "B'00000'", "B'11111'"]),
    ("vb", "varbit", ["B'101'", "B''", "B'0'"]),
    ("ip", "inet", ["'10.0.0.1'", "'10.1.2.3/8'", "'::1'"]),
    ("cd", "cidr", ["'10.0.0.0/8'", "'::/0'", "'10.1.2.3/32'"]),
    ("ma", "macaddr", ["'08:00:2b:01:02:03'", "NULL", "'00:00:00:00:00:00'"]),
    ("ra", "int4range", ["'[1,5]'", "'empty'", "'(,3)'"]),
    ("mr", "datemultirange", ["'{[2020-01-01,2020-02-01]}'", "'{}'", "NULL"]),
    ("hs", "\"Ext\".hstore", ["'a=>1, b=>NULL'", "''", "'c=>x'"]),
    ("lt", "\"Ext\".ltree", ["'Top.Science'", "''", "'a.b.c.d'"]),
    ("xm", "xml", ["'<a>b</a>'", "'text'", "'<?xml version=\"1.0\" standalone=\"yes\"?><a/>'"]),
    ("tv", "tsvector", ["'a fat cat'", "''", "'b:2A'"]),
    ("tq", "tsquery", ["'fat & cat'", "'!a'", "''"]),
    ("pt", "point", ["'(1,2)'", "'(0,0)'", "NULL"]),
    ("bx", "box", ["'(3,4),(1,2)'", "'(0,0),(0,0)'", "NULL"]),
    ("en", "mood", ["'Happy'", "'sad'", "'so, \"so\"'"]),
    ("co", "spot", ["ROW('a', '(1,2)', 1.5, '{sad}')", "ROW(NULL, NULL, NULL, NULL)", "NULL"]),
    ("ca", "char(3)[]", ["'{a,b}'", "'{}'", "'{NULL,abc}'"]),
    ("ea", "mood[]", ["'{sad,Happy}'", "'{}'", "NULL"]),
    ("ta", "tags", ["'{a,NULL}'", "'{}'", "NULL"]),
    ("ve", "\"Ext\".vector", ["'[1,2]'", "'[]'", "''"]),
];

/// Expressions over them. Each gives another result if an input has another type, length, precision or collation.
const EXPRESSIONS: &[&str] = &[
    "ch = 'ab'",
    "length(ch)",
    "octet_length(ch)",
    "ch || '-'",
    "ch LIKE 'ab'",
    "upper(ch) || '|'",
    "md5(ch)",
    "concat(ch, '|')",
    "format('%s|', ch)",
    "ch < 'ab '",
    "coalesce(ch, 'none') || '|'",
    "CASE WHEN ch = 'ab' THEN ch ELSE 'other' END || '|'",
    "to_json(ch)",
    "dch = 'ab'",
    "length(dch)",
    "concat(dch, '|')",
    "to_json(dch)",
    "vc || '-'",
    "length(vc)",
    "vc = 'ab'",
    "sh || '-'",
    "sh = 'ab'",
    "length(tx)",
    "upper(tx)",
    "upper(tc)",
    "lower(tc)",
    "upper(ti)",
    "ti < 'b'",
    "tc < 'b'",
    "tc > 'C'",
    "ti > 'C'",
    "initcap(ti)",
    "nm || '-'",
    "length(nm)",
    "nm < 'a'",
    "qc::text || '-'",
    "qc = 'x'",
    "ascii(qc::text)",
    "ci = 'word'",
    "ci::text = 'word'",
    "ci || '-'",
    "length(ci)",
    "i2 / 2",
    "pg_column_size(i2)",
    "i4 / 2",
    "i8 / 2",
    "oi > 5",
    "f4 * 3",
    "f4::text",
    "f8 * 3",
    "f8 + f4",
    "nu * 3",
    "nu / 3",
    "scale(nu)",
    "na / 3",
    "scale(na)",
    "na::text",
    "ce / 3",
    "scale(ce)",
    "mo * 2",
    "mo / 3",
    "mo::numeric",
    "NOT bo",
    "d + 1",
    "d::text",
    "extract(epoch from d)",
    "t3 + interval '1.5 s'",
    "t3::text",
    "tz::text",
    "extract(timezone from tz)",
    "ts + interval '1 h'",
    "ts::text",
    "date_trunc('hour', tt)",
    "tt::text",
    "iv * 2",
    "iv = '24:00'",
    "justify_hours(iv)",
    "iv::text",
    "length(by)",
    "by || '\\x00'",
    "md5(by)",
    "uu::text",
    "js->'a'",
    "js::text",
    "jb->'b'",
    "jb::text",
    "jb @> '[1]'",
    "bi || B'1'",
    "length(bi)",
    "~bi",
    "bi << 1",
    "bi::int",
    "vb || B'1'",
    "length(vb)",
    "host(ip)",
    "masklen(ip)",
    "ip + 1",
    "ip::text",
    "abbrev(ip)",
    "cd::text",
    "abbrev(cd)",
    "broadcast(cd)",
    "trunc(ma)",
    "upper(ra)",
    "ra @> 2",
    "ra * '[2,9)'",
    "lower(mr)",
    "mr::text",
    "hs::text",
    "lt::text",
    "xm::text",
    "xmlcomment(xm::text)",
    "tv::text",
    "tv @@ tq",
    "length(tv)",
    "numnode(tq)",
    "pt + '(1,1)'",
    "pt[0]",
    "area(bx)",
    "center(bx)",
    "en > 'sad'",
    "en::text",
    "enum_first(en)::text",
    "(co).name",
    "(co).price * 2",
    "co::text",
    "co IS NULL",
    "ca[1] || '|'",
    "ca::text",
    "array_length(ca, 1)",
    "ea[1]",
    "ea || 'sad'::mood",
    "cardinality(ta)",
    "ta || 'x'::text",
    "ve::text",
    "format('%s', ve)",
];

/// The types that every other test leaves to `pg_typeof`: a domain is its base type there.
fn expressions() -> Vec<String> {
    let types = INPUTS.iter().filter(|(_, kind, _)| !["padded", "short", "cents", "tags"].contains(kind));
    let types = types.map(|(name, _, _)| format!("pg_typeof({name})"));
    types.chain(EXPRESSIONS.iter().map(|expression| (*expression).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_makes_of_every_type_what_the_monolith_would() {
    let expressions = expressions();
    let columns: String = INPUTS.iter().map(|(name, kind, _)| format!(", {name} {kind}")).collect();
    let results: String = (0..expressions.len()).map(|n| format!(", e{n} text")).collect();
    let insert = |id: usize, n: usize| {
        let values: String = INPUTS.iter().map(|(_, _, values)| format!(", {}", values[n])).collect();
        format!("INSERT INTO things VALUES ({id}{values});")
    };
    let source = format!(
        "{TYPES} CREATE TABLE things (id int PRIMARY KEY{columns}); ALTER TABLE things REPLICA IDENTITY FULL; {}{}{}",
        insert(0, 0),
        insert(1, 1),
        insert(2, 2)
    );
    // One column goes over as it is as well, and is computed on as the monolith has it.
    let sink =
        format!("{TYPES} CREATE TABLE things (id int PRIMARY KEY, ch char(5), en text, uu text{results});");
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let set: Vec<String> =
        expressions.iter().enumerate().map(|(n, one)| format!("e{n}: \"({})::text\"", quoted(one))).collect();
    let drop: Vec<&str> =
        INPUTS.iter().map(|(name, _, _)| *name).filter(|name| !["ch", "en", "uu"].contains(name)).collect();
    let plan = format!(
        "version: 1\nname: shop\nslices:\n  orders:\n    service: orders\n    routes: {{ list: GET /orders }}\n    tables:\n\
         \x20     - from: public.things\n        drop: [{}]\n        set: {{ {} }}\n",
        drop.join(", "),
        set.join(", ")
    );
    // The very session settings that the bridge has.
    let pinned =
        "SET intervalstyle = postgres; SET timezone = 'UTC'; SET lc_monetary = 'C'; SET bytea_output = hex;";
    let computed: Vec<String> = expressions
        .iter()
        .enumerate()
        .map(|(n, one)| format!("({n}, '{}', ({one})::text)", one.replace('\'', "''")))
        .collect();
    let there: Vec<String> = (0..expressions.len())
        .map(|n| format!("({n}, '{}', e{n})", expressions[n].replace('\'', "''")))
        .collect();
    let asked = |values: &[String]| {
        format!(
            "{pinned} SELECT id, v.* FROM things, LATERAL (VALUES {}) AS v (n, expression, result) ORDER BY id, n",
            values.join(", ")
        )
    };
    let house = House::new(&source, &sink, &plan).await;
    house.at_source(&asked(&computed));
    house.start();
    house.follow().await;
    house.same(&asked(&computed), &asked(&there)).await;
    let names: Vec<&str> = INPUTS.iter().map(|(name, _, _)| *name).collect();
    let names = names.join(", ");
    house.at_source(&format!(
        "{} UPDATE things SET ({names}) = (SELECT {names} FROM things AS other WHERE other.id = 2) WHERE id = 1; {}",
        insert(3, 1), insert(4, 2)
    ));
    house.same(&asked(&computed), &asked(&there)).await;
    house.stop().await;
}
