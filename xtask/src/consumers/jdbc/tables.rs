//! The tables that Debezium's JDBC sink reads, and what is done to their rows: one table for each type, and some for
//! keys, names and large values.

use std::fmt::Write;

/// A type with values of it, as SQL.
struct Kind {
    /// The table's name.
    name: &'static str,
    sql: &'static str,
    /// Three or more, without repetition.
    values: &'static [&'static str],
}

const fn kind(name: &'static str, sql: &'static str, values: &'static [&'static str]) -> Kind {
    Kind { name, sql, values }
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    kind("smallints", "smallint", &["-32768", "0", "7", "32767"]),
    kind("integers", "integer", &["-2147483648", "0", "42", "2147483647"]),
    kind("bigints", "bigint", &["-9223372036854775808", "0", "9007199254740993", "9223372036854775807"]),
    kind("reals", "real", &["0", "1.5", "3.3", "-1e10", "1e-5"]),
    kind("doubles", "double precision", &["0", "-0.1", "1e21", "123456789.123456789"]),
    kind("booleans", "boolean", &["true", "false", "NULL"]),
    kind("oids", "oid", &["0", "7", "4294967295"]),
    kind("cents", "numeric(10,2)", &["0", "1.10", "-1.28", "99999999.99"]),
    kind("wholes", "numeric(20)", &["0", "127", "128", "-99999999999999999999"]),
    kind("deep_decimals", "numeric(38,18)", &["0", "1.5", "-0.000000000000000001", "12345678901234567890.123456789012345678"]),
    kind("free_decimals", "numeric", &["0", "1.50", "100", "-0.0001", "123456789.5"]),
    kind("moneys", "money", &["'1.50'", "'-20'", "'0'", "'92233720368547758.07'"]),
    kind("texts", "text", &["''", "'a \"b\" \\ c'", "'🐘 ž'", "E'tab\\tline\\n'", "repeat('long ', 400)"]),
    kind("varchars", "varchar(12)", &["''", "'null'", "'word'", "'žluť'"]),
    kind("chars", "char(6)", &["''", "'ab'", "'🐘'"]),
    kind("letters", "\"char\"", &["'a'", "'b'", "'z'"]),
    kind("names", "name", &["'a'", "'A name'", "'ž'"]),
    kind("citexts", "citext", &["'a'", "'A'", "'ž'"]),
    kind("byteas", "bytea", &["'\\x'", "'\\x00ff'", "'\\xdeadbeef'"]),
    kind("uuids", "uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'", "'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    kind("jsons", "json", &["'{ \"b\": 1, \"a\": [1.50, null] }'", "'null'", "'[]'", "'\"é\"'"]),
    kind("jsonbs", "jsonb", &["'{ \"b\": 1, \"a\": [1.50, null] }'", "'null'", "'\"é\"'", "'{}'"]),
    kind("xmls", "xml", &["'<a b=\"c\">d &amp; e</a>'", "'<a/>'", "'<b>é</b>'"]),
    kind("moods", "mood", &["'sad'", "'so so'", "'it''s'"]),
    kind("domains", "amount", &["0", "1.10", "-1.28"]),
    kind("dates", "date", &["'1970-01-01'", "'2016-11-04'", "'1582-10-15'", "'9999-12-31'"]),
    kind("times", "time", &["'00:00'", "'13:51:30.123456'", "'23:59:59.999999'"]),
    kind("times_3", "time(3)", &["'00:00'", "'13:51:30.123'", "'23:59:59.999'"]),
    kind("timetzs", "timetz", &["'13:51:30.5+02'", "'00:00+00'", "'23:30:00-05:30'"]),
    kind("timestamps", "timestamp", &["'1970-01-01'", "'2016-11-04 13:51:30.123456'", "'1936-10-25 22:10:12.608'"]),
    kind("timestamps_3", "timestamp(3)", &["'1970-01-01'", "'2016-11-04 13:51:30.123'", "'1936-10-25 22:10:12.608'"]),
    kind("timestamptzs", "timestamptz", &["'2020-04-01 11:51:02+02'", "'1969-12-31 23:59:59.999999+00'", "'2020-06-30 12:00:00.5+00'"]),
    kind("intervals", "interval", &["'3 days 04:05:06'", "'-1 day'", "'0'"]),
    kind("bits", "bit(1)", &["'0'", "'1'", "NULL"]),
    kind("inets", "inet", &["'127.0.0.1'", "'2001:db8::1/64'", "'10.0.0.0/8'"]),
    kind("cidrs", "cidr", &["'127.0.0.1/32'", "'2001:db8::/64'", "'10.0.0.0/8'"]),
    kind("macaddrs", "macaddr", &["'08:00:2b:01:02:03'", "'00:00:00:00:00:00'", "'ff:ff:ff:ff:ff:ff'"]),
    kind("int4ranges", "int4range", &["'[1,5)'", "'empty'", "'(,)'"]),
    kind("numranges", "numrange", &["'[1.5,5]'", "'empty'", "'(,2)'"]),
    kind("tsranges", "tsrange", &["'[2020-01-01 00:00,)'", "'empty'", "'(,)'"]),
    kind("tstzranges", "tstzrange", &["'[2020-01-01 00:00+00,)'", "'empty'", "'(,)'"]),
    kind("dateranges", "daterange", &["'[2020-01-01,)'", "'empty'", "'(,)'"]),
    kind("boxes", "box", &["'(1,1),(0,0)'", "'(2,2),(0,0)'", "'(1,1),(1,1)'"]),
    kind("paths", "path", &["'[(1,1),(0,0)]'", "'((1,1),(0,0))'", "'[(1,1)]'"]),
    kind("hstores", "hstore", &["'a=>1'", "''", "'a=>NULL, \"b c\"=>\"d\"'"]),
    kind("ltrees", "ltree", &["'Top'", "'Top.Science'", "''"]),
    kind("tsvectors", "tsvector", &["'a b'", "''", "'a:1 b:2A'"]),
    kind("lsns", "pg_lsn", &["'0/0'", "'16/B374D848'", "'FFFFFFFF/FFFFFFFF'"]),
    kind("integer_arrays", "integer[]", &["'{}'", "'{1,NULL,3}'", "'{-7}'"]),
    kind("bigint_arrays", "bigint[]", &["'{}'", "'{1,NULL,9223372036854775807}'", "'{-7}'"]),
    kind("text_arrays", "text[]", &["'{}'", "'{\"a b\",NULL,\"null\"}'", "'{\"q\\\"\"}'"]),
    kind("varchar_arrays", "varchar(9)[]", &["'{}'", "'{\"a b\",\"null\"}'", "'{x}'"]),
    kind("boolean_arrays", "boolean[]", &["'{}'", "'{t,f}'", "'{t}'"]),
    kind("double_arrays", "double precision[]", &["'{}'", "'{0.1,1e20}'", "'{0}'"]),
    kind("uuid_arrays", "uuid[]", &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'", "'{}'", "'{00000000-0000-0000-0000-000000000000}'"]),
];

const TYPES: &str = "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree; \
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s'); CREATE DOMAIN amount AS numeric(10,2);";

/// Tables whose keys, names and values matter, and what is done to them in both rounds.
const OTHERS: &[(&str, &str, [&str; 2])] = &[
    (
        "bigint_keys",
        "(note text, id bigint PRIMARY KEY)",
        [
            "INSERT INTO bigint_keys VALUES ('x', 10), ('y', 9223372036854775807), ('z', -1)",
            "UPDATE bigint_keys SET id = id - 5, note = note || '!' WHERE id > 0; DELETE FROM bigint_keys WHERE id = 5",
        ],
    ),
    (
        "text_keys",
        "(id text PRIMARY KEY, note text)",
        [
            "INSERT INTO text_keys VALUES ('', 'empty'), ('a \"b\"', 'quoted'), ('🐘', 'not ASCII'), (E'tab\\tline\\n', 'control')",
            "UPDATE text_keys SET id = id || 'x' WHERE note <> 'empty'; DELETE FROM text_keys WHERE note = 'quoted'",
        ],
    ),
    (
        "uuid_keys",
        "(id uuid PRIMARY KEY, note text)",
        [
            "INSERT INTO uuid_keys VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a'), ('00000000-0000-0000-0000-000000000000', 'b'), ('00000000-0000-0000-0000-000000000001', 'c')",
            "UPDATE uuid_keys SET id = 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' WHERE note = 'a'; DELETE FROM uuid_keys WHERE note = 'b'",
        ],
    ),
    (
        "decimal_keys",
        "(id numeric(10,2) PRIMARY KEY, note text)",
        [
            "INSERT INTO decimal_keys VALUES (1.10, 'a'), (0, 'b'), (-1.28, 'c'), (99999999.99, 'd')",
            "UPDATE decimal_keys SET id = id - 0.5, note = note || '!'; DELETE FROM decimal_keys WHERE id < -1",
        ],
    ),
    (
        "day_keys",
        "(day date, at timestamptz, note text, PRIMARY KEY (at, day))",
        [
            "INSERT INTO day_keys VALUES ('2020-04-01', '2020-04-01 11:51:02.5+00', 'a'), ('2020-04-02', '2020-04-01 11:51:02.5+00', 'b')",
            "UPDATE day_keys SET day = day + 1 WHERE note = 'b'; DELETE FROM day_keys WHERE note = 'a'",
        ],
    ),
    (
        "many_keys",
        "(note text, b int, a text, c numeric(6,2), PRIMARY KEY (c, a, b))",
        [
            "INSERT INTO many_keys VALUES ('x', 1, 'a', 1.10), ('y', 2, 'b', 2.20), (NULL, 3, 'ž', -1.28)",
            "UPDATE many_keys SET a = 'aa' WHERE b = 1; DELETE FROM many_keys WHERE b = 2",
        ],
    ),
    (
        "only_keys",
        "(a int, b int, PRIMARY KEY (a, b))",
        [
            "INSERT INTO only_keys VALUES (1, 2), (3, 4), (5, 6)",
            "UPDATE only_keys SET b = 5 WHERE a = 1; DELETE FROM only_keys WHERE a = 3",
        ],
    ),
    (
        "defaults",
        "(id int PRIMARY KEY, i int NOT NULL DEFAULT 5, t text NOT NULL DEFAULT 'it''s', n numeric(10,2) NOT NULL DEFAULT 9.99, at timestamptz NOT NULL DEFAULT '2020-01-02Z', day date NOT NULL DEFAULT '2020-01-02', b boolean NOT NULL DEFAULT true, u uuid NOT NULL DEFAULT gen_random_uuid())",
        [
            "INSERT INTO defaults (id) SELECT generate_series(1, 9)",
            "UPDATE defaults SET i = 0, t = '', n = 0, b = false WHERE id > 4; DELETE FROM defaults WHERE id = 9",
        ],
    ),
    (
        "generated",
        "(id int PRIMARY KEY, net numeric(10,2) NOT NULL, gross numeric(10,2) GENERATED ALWAYS AS (net * 1.19) STORED, note text)",
        [
            "INSERT INTO generated (id, net) VALUES (1, 100), (2, 0.01), (3, 5)",
            "UPDATE generated SET net = net + 1; DELETE FROM generated WHERE id = 3",
        ],
    ),
    (
        "large",
        "(id int PRIMARY KEY, note text, large text)",
        [
            "INSERT INTO large SELECT g, 'new', repeat('large ' || g, 500) FROM generate_series(1, 5) g",
            "UPDATE large SET large = large || '!' WHERE id > 1; DELETE FROM large WHERE id = 5",
        ],
    ),
    (
        "large_full",
        "(id int PRIMARY KEY, note text, large text)",
        [
            "INSERT INTO large_full SELECT g, 'new', repeat('large ' || g, 500) FROM generate_series(1, 5) g",
            "UPDATE large_full SET note = 'changed'; DELETE FROM large_full WHERE id = 5",
        ],
    ),
    (
        "Ünïcode-dash",
        "(id int PRIMARY KEY, note text)",
        [
            "INSERT INTO \"Ünïcode-dash\" VALUES (1, 'a'), (2, 'b'), (3, 'c')",
            "UPDATE \"Ünïcode-dash\" SET note = note || '!'; DELETE FROM \"Ünïcode-dash\" WHERE id = 3",
        ],
    ),
    (
        "Capital with space",
        "(\"Id\" int PRIMARY KEY, \"camelCase\" text)",
        [
            "INSERT INTO \"Capital with space\" VALUES (1, 'a'), (2, 'b'), (3, 'c')",
            "UPDATE \"Capital with space\" SET \"camelCase\" = 'd'; DELETE FROM \"Capital with space\" WHERE \"Id\" = 3",
        ],
    ),
    (
        "column_names",
        "(\"key one\" int, \"key.two\" text, \"a.b\" text, \"with space\" int, \"naïve\" text, \"日本\" int, \"🐘\" text, \"$dollar\" int, \"1digit\" int, \"-dash\" int, \"back\\slash\" text, \"order\" text, \"op\" int, PRIMARY KEY (\"key one\", \"key.two\"))",
        [
            "INSERT INTO column_names VALUES (1, 'k', 'a', 2, 'c', 3, 'd', 4, 5, 6, 'e', 'f', 8), (2, 'l', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            "UPDATE column_names SET \"a.b\" = 'm', \"order\" = 'n'",
        ],
    ),
];

/// What is in no table here, because the sink cannot take it from Debezium's own topics either, and why. `docs/bridge.md`
/// repeats it.
pub const NOT_TAKEN: &[(&str, &str)] = &[
    ("bit(2) and longer", "it reads the bytes with a sign, and fails at 128 and above"),
    ("bit varying", "it pads the bits to the column's length"),
    ("point, PostGIS", "its database needs PostGIS"),
    ("fractions of seconds in interval", "it drops them"),
    ("more than 17 digits in numeric without a scale", "its column is double precision"),
    ("numeric[], timestamp[]", "it looks for an array type with a length"),
    ("a column whose name has a double quote", "its SQL does not escape the quote"),
    (
        "a large value that did not change",
        "it writes `__debezium_unavailable_value`, unless the table has REPLICA IDENTITY FULL",
    ),
    ("date[]", "it writes the days' numbers as text"),
];

/// The name of every table.
pub fn names() -> Vec<&'static str> {
    KINDS.iter().map(|kind| kind.name).chain(OTHERS.iter().map(|(name, _, _)| *name)).collect()
}

/// Makes all tables.
pub fn made() -> String {
    let mut sql = TYPES.to_owned();
    for Kind { name, sql: of, .. } in KINDS {
        // Writing into a text does not fail.
        let _ = write!(sql, "CREATE TABLE {name} (id int PRIMARY KEY, v {of}, note text);");
    }
    for (name, columns, _) in OTHERS {
        let _ = write!(sql, "CREATE TABLE \"{}\" {columns};", name.replace('"', "\"\""));
    }
    for name in ["large", "large_full"] {
        let _ = write!(sql, "ALTER TABLE {name} ALTER large SET STORAGE EXTERNAL;");
    }
    sql + "ALTER TABLE large_full REPLICA IDENTITY FULL;"
}

/// Rows that come, and some that change.
pub fn first() -> String {
    let mut sql = String::new();
    for Kind { name, sql: of, values } in KINDS {
        for (at, value) in values.iter().enumerate() {
            let _ = write!(sql, "INSERT INTO {name} VALUES ({0}, ({value})::{of}, 'row {0}');", at + 1);
        }
        let _ = write!(sql, "INSERT INTO {name} SELECT 20, v, 'same' FROM {name} WHERE id = 3;");
        let _ = write!(sql, "INSERT INTO {name} VALUES (9, NULL, 'none'), (30, NULL, NULL);");
    }
    OTHERS.iter().fold(sql, |sql, (_, _, [first, _])| sql + first + ";")
}

/// Rows that change, that change their keys, and that go.
pub fn second() -> String {
    let mut sql = String::new();
    for Kind { name, .. } in KINDS {
        let _ = write!(
            sql,
            "UPDATE {name} SET id = id + 100 WHERE id = 2; DELETE FROM {name} WHERE id = 3; \
             UPDATE {name} SET v = (SELECT v FROM {name} WHERE id = 102), note = 'filled' WHERE id = 9; \
             UPDATE {name} SET v = NULL WHERE id = 20; UPDATE {name} SET note = note || '!' WHERE id = 1;"
        );
    }
    OTHERS.iter().fold(sql, |sql, (_, _, [_, second])| sql + second + ";")
}

/// What comes while the bridge is dead.
pub fn third() -> String {
    let mut sql = String::new();
    for Kind { name, .. } in KINDS {
        let _ = write!(
            sql,
            "INSERT INTO {name} SELECT id + 1000, v, note FROM {name} WHERE id < 100; DELETE FROM {name} WHERE id = 30;"
        );
    }
    sql
}
