//! Values as a real server sends them: each is the column's text, and becomes the JSON that the server's own functions
//! confirm. Keys and defaults as a real catalog has them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what is called by tests may fail like tests")]

use base64::Engine;
use bytes::Bytes;
use lab::Cluster;
use migrations::column_type::ColumnType;
use migrations::lsn::{CommitLsn, Position};
use migrations::names::TableName;
use migrations::plan::Publish;
use num_bigint::BigInt;
use rows::assemble::{Assembler, Step};
use rows::change::{Change, Column, Operation, Relation, Transaction, Tuple, Value};
use rows::envelope::{Context, Encoded, Encoder};
use rows::pgoutput::{self, WireRelation};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// How the text is pinned, as the bridge does for its sessions.
const PINNED: &str = "SET DateStyle = ISO; SET TimeZone = 'UTC'; SET extra_float_digits = 1; \
    SET bytea_output = hex; SET IntervalStyle = postgres";

/// Java's text of a zoned timestamp: years as astronomers count, with a sign outside 0 to 9999.
const ZONED: &str = "CREATE FUNCTION zoned(v timestamptz) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN NOT isfinite(v) THEN v::text
           ELSE CASE WHEN y > 9999 THEN '+' WHEN y < 0 THEN '-' ELSE '' END
                || lpad(abs(y)::text, greatest(4, length(abs(y)::text)), '0')
                || to_char(v, '-MM-DD\"T\"HH24:MI:SS.US\"Z\"') END
      FROM (SELECT CASE WHEN extract(year FROM v) < 0 THEN extract(year FROM v) + 1 ELSE extract(year FROM v) END) AS t (y)
    $$";

/// A column of the table: its SQL type, ours, values as SQL, and an SQL expression that gives what the JSON must hold
/// as JSON text (`v` is the value), null where Debezium has no form. Decimals are compared by their unscaled number.
struct Case {
    sql: &'static str,
    kind: ColumnType,
    values: &'static [&'static str],
    expected: &'static str,
}

fn case(
    sql: &'static str,
    kind: ColumnType,
    values: &'static [&'static str],
    expected: &'static str,
) -> Case {
    Case { sql, kind, values, expected }
}

fn array(kind: ColumnType) -> ColumnType {
    ColumnType::Array(Box::new(kind))
}

const FLOATS: &[&str] = &[
    "0",
    "-0.0",
    "0.1",
    "1e20",
    "1e-7",
    "123456789",
    "1e15",
    "1e14",
    "'NaN'",
    "'Infinity'",
    "'-Infinity'",
    "1.17549435e-38",
];
const DATES: &[&str] = &[
    "'1970-01-01'",
    "'2000-02-29'",
    "'4713-01-01 BC'",
    "'0001-01-01'",
    "'0001-12-31 BC'",
    "'9999-12-31'",
    "'10000-01-01'",
    "'5874897-12-31'",
    "'infinity'",
    "'-infinity'",
    "'1969-12-31'",
];
const STAMPS: &[&str] = &[
    "'1970-01-01'",
    "'2016-11-04 13:51:30.123456'",
    "'1969-12-31 23:59:59.999999'",
    "'4713-01-01 00:00:00 BC'",
    "'294276-12-31 23:59:59.999999'",
    "'21016-11-04 13:51:30.1'",
    "'infinity'",
    "'-infinity'",
    "'2024-02-29 24:00:00'",
];
const TEXTS: &[&str] = &[
    "''",
    "'null'",
    "E'tab\\tnew\\nline \\\\ \"quote\"'",
    "E'\\x01\\x1f\\x7f'",
    "'žluť 🐘 \u{2028}'",
    "repeat('x', 9000)",
    "'__debezium_unavailable_value'",
];
/// Scales outside of 0 to the precision, which Postgres knows from 15 on.
const SINCE_15: [&str; 2] = ["numeric(5,-2)", "numeric(3,5)"];
const UNSCALED_2: &str = "to_json(trunc(v * 100)::text)";

fn numbers() -> Vec<Case> {
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    let float =
        "CASE WHEN v::text IN ('NaN', 'Infinity', '-Infinity') THEN to_json(v::text) ELSE to_json(v) END";
    vec![
        case("smallint", ColumnType::Int2, &["-32768", "0", "32767"], "to_json(v)"),
        case("integer", ColumnType::Int4, &["-2147483648", "7", "2147483647"], "to_json(v)"),
        case("bigint", ColumnType::Int8, &["-9223372036854775808", "9223372036854775807"], "to_json(v)"),
        case("oid", ColumnType::Oid, &["0", "4294967295"], "to_json(v::bigint)"),
        case("boolean", ColumnType::Bool, &["true", "false"], "to_json(v)"),
        case("real", ColumnType::Float4, FLOATS, float),
        case("double precision", ColumnType::Float8, FLOATS, float),
        case("double precision", ColumnType::Float8, &["1.7976931348623157e308", "5e-324"], float),
        case(
            "numeric(12,2)",
            numeric(12, 2),
            &["0", "-0.01", "1.10", "9999999999.99", "-128", "1.28", "'NaN'"],
            "CASE WHEN v <> 'NaN' THEN to_json(trunc(v * 100)::text) END",
        ),
        case(
            "numeric(400,2)",
            numeric(400, 2),
            &["repeat('9', 398)::numeric", "-(10::numeric ^ 200)"],
            UNSCALED_2,
        ),
        case(
            "numeric(5,-2)",
            numeric(5, -2),
            &["12345", "0", "-100", "9999900"],
            "to_json(div(v, 100)::text)",
        ),
        case("numeric(3,5)", numeric(3, 5), &["0.00123", "-0.00001"], "to_json(trunc(v * 100000)::text)"),
        case(
            "numeric",
            ColumnType::NumericAny,
            &[
                "0",
                "0.000",
                "-0.0",
                "1.50",
                "100",
                "1e-20",
                "1e30",
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "(repeat('7', 1000) || '.' || repeat('3', 500))::numeric",
                "1e131071",
            ],
            "CASE WHEN v::text NOT IN ('NaN', 'Infinity', '-Infinity')
                  THEN json_build_array(min_scale(v), trunc(v * 10::numeric ^ min_scale(v))::text) END",
        ),
    ]
}

fn texts_and_times() -> Vec<Case> {
    let mood = ColumnType::Enum {
        name: "public.mood".to_owned(),
        labels: vec!["sad".to_owned(), "a,\"b".to_owned()],
    };
    let (time, stamp) =
        (|precision| ColumnType::Time { precision }, |precision| ColumnType::Timestamp { precision });
    let us = "CASE WHEN isfinite(v) THEN CASE WHEN extract(epoch FROM v) < 9223372036854 THEN
        to_json((extract(epoch FROM v) * 1000000)::bigint) ELSE to_json(-9223372036853775810) END
        WHEN v > '2000-01-01' THEN to_json(9223372036825200000) ELSE to_json(-9223372036832400000) END";
    let ms = "CASE WHEN isfinite(v) THEN to_json((extract(epoch FROM v) * 1000)::bigint)
        WHEN v > '2000-01-01' THEN to_json(9223372036825200) ELSE to_json(-9223372036832400) END";
    let days = "CASE WHEN isfinite(v) THEN to_json(v - '1970-01-01')
        WHEN v > '2000-01-01' THEN to_json(-2147472692) ELSE to_json(-2147472691) END";
    let zoned = "to_json(zoned(v))";
    vec![
        case("text", ColumnType::Text, TEXTS, "to_json(v)"),
        case("varchar(12000)", ColumnType::Text, TEXTS, "to_json(v)"),
        case("char(5)", ColumnType::Text, &["'ab'", "''"], "to_json(v::bpchar)"),
        case(
            "bytea",
            ColumnType::Bytea,
            &["''", "'\\x00ff10'", "'\\xdeadbeef00'"],
            "to_json(encode(v, 'base64'))",
        ),
        case("uuid", ColumnType::Uuid, &["'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'"], "to_json(v::text)"),
        case(
            "json",
            ColumnType::Json,
            &["'{\"b\" :  1, \"a\":[null]}'", "'null'", "'\"x\"'"],
            "to_json(v::text)",
        ),
        case("jsonb", ColumnType::Jsonb, &["'{\"b\" :  1.50, \"a\":[null]}'", "'null'"], "to_json(v::text)"),
        case("mood", mood, &["'sad'", "'a,\"b'"], "to_json(v::text)"),
        case("date", ColumnType::Date, DATES, days),
        case(
            "time",
            time(6),
            &["'00:00'", "'13:51:30.000001'", "'24:00'"],
            "to_json((extract(epoch FROM v) * 1e6)::bigint)",
        ),
        case(
            "time(2)",
            time(2),
            &["'13:51:30.12'", "'24:00'"],
            "to_json((extract(epoch FROM v) * 1e3)::bigint)",
        ),
        case("timestamp", stamp(6), STAMPS, us),
        case("timestamp(3)", stamp(3), STAMPS, ms),
        case("timestamp(0)", stamp(0), &["'2016-11-04 13:51:30'", "'1969-12-31 23:59:59'"], ms),
        case("timestamptz", ColumnType::Timestamptz, STAMPS, zoned),
        case("timestamptz", ColumnType::Timestamptz, &["'2016-11-04 13:51:30.123456+05:30'"], zoned),
    ]
}

fn arrays() -> Vec<Case> {
    vec![
        case("integer[]", array(ColumnType::Int4), &["'{}'", "'{1,NULL,3}'", "'[0:1]={1,2}'"], "to_json(v)"),
        case(
            "integer[]",
            array(ColumnType::Int4),
            &["'{{1,2},{3,4}}'", "'{{{1}},{{2}}}'"],
            "to_json(ARRAY[NULL, NULL]::int[])",
        ),
        case(
            "text[]",
            array(ColumnType::Text),
            &["'{}'", "ARRAY['', 'a b', 'NULL', NULL, 'q\"u\\o', '{x}', 'a,b', 'ž', E'\\t', E'\\v']"],
            "to_json(v)",
        ),
        case("boolean[]", array(ColumnType::Bool), &["'{t,f,NULL}'"], "to_json(v)"),
        case("uuid[]", array(ColumnType::Uuid), &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"], "to_json(v)"),
        case(
            "jsonb[]",
            array(ColumnType::Jsonb),
            &["ARRAY['{\"a\": \"b c\"}'::jsonb, 'null', NULL]"],
            "to_json(v::text[])",
        ),
        case(
            "mood[]",
            array(ColumnType::Enum { name: "mood".to_owned(), labels: vec![] }),
            &["'{sad,\"a,\\\"b\"}'"],
            "to_json(v)",
        ),
        case("float8[]", array(ColumnType::Float8), &["'{1.5,-2e-03}'"], "to_json(v)"),
        case(
            "date[]",
            array(ColumnType::Date),
            &["'{2016-11-04,\"0044-03-15 BC\"}'"],
            "(SELECT json_agg(d - '1970-01-01') FROM unnest(v) AS d)",
        ),
        case(
            "timestamp[]",
            array(ColumnType::Timestamp { precision: 6 }),
            &["'{2016-11-04 13:51:30.5,NULL}'"],
            "(SELECT json_agg((extract(epoch FROM d) * 1000000)::bigint) FROM unnest(v) AS d)",
        ),
        case(
            "bytea[]",
            array(ColumnType::Bytea),
            &["ARRAY['\\xdead'::bytea, '']"],
            "to_json(ARRAY['3q0=', ''])",
        ),
    ]
}

async fn connect(cluster: &Cluster) -> Client {
    let url = cluster.url("postgres", "postgres");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(PINNED).await.unwrap();
    client
}

/// The first column of each row as text.
async fn column(client: &Client, sql: &str) -> Vec<Option<String>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let text = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
        _ => None,
    };
    messages.into_iter().filter_map(text).collect()
}

fn relation(wire: &WireRelation, cases: &[Case]) -> Relation {
    let case: usize = wire.name.trim_start_matches("case_").parse().unwrap();
    let column = |name: &str, kind, is_key| Column {
        name: name.to_owned(),
        kind,
        is_key,
        nullable: !is_key,
        number: 0,
        stored: None,
        declared: None,
        key_position: 0,
        default: None,
    };
    let columns = vec![column("id", ColumnType::Int4, true), column("v", cases[case].kind.clone(), false)];
    Relation {
        table: format!("{}.{}", wire.schema, wire.name).parse().unwrap(),
        identity: wire.identity,
        columns,
    }
}

fn encoder(publish: Publish) -> Encoder {
    let [prefix, database, version] = ["t", "d", "1"].map(str::to_owned);
    Encoder::new(Context { prefix, database, version, publish, hidden: BTreeMap::new() })
}

/// All changes in the slot, decoded and assembled.
async fn changes(client: &Client, cases: &[Case]) -> Vec<Change> {
    let sql = "SELECT lsn - '0/0', data FROM pg_logical_slot_get_binary_changes('s', NULL, NULL,
        'proto_version', '1', 'publication_names', 'p')";
    let mut assembler = Assembler::new();
    let mut changes = Vec::new();
    for row in client.query(&sql.replace("lsn - '0/0'", "(lsn - '0/0')::float8"), &[]).await.unwrap() {
        let (lsn, data): (f64, Vec<u8>) = (row.get(0), row.get(1));
        match assembler.push(lsn as u64, pgoutput::decode(Bytes::from(data)).unwrap()).unwrap() {
            Step::NeedRelation(wire) => assembler.learn(wire.oid, relation(&wire, cases)),
            Step::Change(change) => changes.push(change),
            _ => {}
        }
    }
    changes
}

/// Replaces the bytes of decimals by what the server gave: the unscaled number as text.
fn comparable(kind: &ColumnType, json: &Json) -> Json {
    let unscaled = |base64: &Json| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(base64.as_str().unwrap()).unwrap();
        assert_eq!(BigInt::from_signed_bytes_be(&bytes).to_signed_bytes_be(), bytes, "in the fewest bytes");
        json!(BigInt::from_signed_bytes_be(&bytes).to_string())
    };
    match kind {
        ColumnType::Numeric { .. } if !json.is_null() => unscaled(json),
        ColumnType::NumericAny if !json.is_null() => json!([json["scale"], unscaled(&json["value"])]),
        ColumnType::Float4 | ColumnType::Float8 => json.as_f64().map_or(json.clone(), |number| json!(number)),
        _ => json.clone(),
    }
}

#[tokio::test]
async fn every_types_values_arrive_and_are_written_as_debezium_does() {
    let cluster = Cluster::start();
    let client = connect(&cluster).await;
    client.batch_execute("CREATE TYPE mood AS ENUM ('sad', 'a,\"b')").await.unwrap();
    client.batch_execute(ZONED).await.unwrap();
    let version =
        column(&client, "SHOW server_version_num").await[0].as_ref().unwrap().parse::<u32>().unwrap();
    let is_known = |case: &Case| version >= 150_000 || !SINCE_15.contains(&case.sql);
    let cases = numbers().into_iter().chain(texts_and_times()).chain(arrays());
    let cases: Vec<Case> = cases.filter(is_known).collect();
    for (index, case) in cases.iter().enumerate() {
        let sql = format!("CREATE TABLE case_{index} (id serial PRIMARY KEY, v {})", case.sql);
        client.batch_execute(&sql).await.unwrap();
    }
    client.batch_execute("CREATE PUBLICATION p FOR ALL TABLES").await.unwrap();
    client.batch_execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await.unwrap();
    let mut expected = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        for value in case.values {
            let sql = format!("INSERT INTO case_{index} (v) VALUES ({value})");
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        let texts = column(&client, &format!("SELECT v FROM case_{index} ORDER BY id")).await;
        let jsons =
            column(&client, &format!("SELECT ({})::text FROM case_{index} ORDER BY id", case.expected)).await;
        expected.extend(texts.into_iter().zip(jsons).map(|(text, json)| (&case.kind, text.unwrap(), json)));
    }
    let changes = changes(&client, &cases).await;
    assert_eq!(changes.len(), expected.len());
    let mut encoder = encoder(Publish::default());
    let mut encoded = Encoded::new();
    for (change, (kind, text, json)) in changes.iter().zip(expected) {
        let Operation::Insert { new } = &change.operation else { panic!("{change:?}") };
        assert_eq!(new.get(1), Value::Text(text.as_bytes()), "{kind:?}");
        encoder.encode(change, 0, &mut encoded);
        let record = encoded.records().next().unwrap();
        let value: Json = serde_json::from_slice(record.value.unwrap()).unwrap();
        let json: Json = json.map_or(Json::Null, |json| serde_json::from_str(&json).unwrap());
        assert_eq!(
            comparable(kind, &value["after"]["v"]),
            comparable_expected(kind, json),
            "{kind:?} {text}"
        );
    }
}

/// The server breaks base64 into lines; JSON numbers of floats compare as floats.
fn comparable_expected(kind: &ColumnType, json: Json) -> Json {
    match kind {
        ColumnType::Bytea => json!(json.as_str().unwrap().replace('\n', "")),
        ColumnType::Float4 | ColumnType::Float8 => json.as_f64().map_or(json, |number| json!(number)),
        _ => json,
    }
}

/// Column, and its default in Connect's schema.
const DEFAULTS: &[(&str, Option<&str>)] = &[
    ("id serial", Some("0")),
    ("number int GENERATED ALWAYS AS IDENTITY", None),
    ("twice int GENERATED ALWAYS AS (1 + 1) STORED", None),
    ("plain int", None),
    ("i int DEFAULT -5", Some("-5")),
    ("t text DEFAULT 'it''s'", Some("\"it's\"")),
    ("v varchar(9) DEFAULT NULL", None),
    ("n numeric(9,2) DEFAULT 1.5", Some("\"AJY=\"")),
    ("b boolean NOT NULL DEFAULT true", Some("true")),
    ("f real DEFAULT 1e20", Some("1.0E20")),
    ("j jsonb DEFAULT '{}'", Some("\"{}\"")),
    ("u uuid DEFAULT gen_random_uuid()", Some("\"00000000-0000-0000-0000-000000000000\"")),
    ("d date DEFAULT '2016-11-04'", Some("17109")),
    ("s timestamp(3) DEFAULT '1970-01-01 00:00:01'", Some("1000")),
    ("z timestamptz DEFAULT now()", Some("\"1970-01-01T00:00:00.000000Z\"")),
    ("l interval DEFAULT '1 day'", Some("86400000000")),
    ("m mood DEFAULT 'sad'", Some("\"sad\"")),
    ("w short DEFAULT 'x'", None),
    ("a int[] DEFAULT '{1}'", None),
    ("y bytea DEFAULT '\\x00'", None),
];

#[tokio::test]
async fn keys_and_defaults_are_written_as_the_catalog_has_them() {
    let cluster = Cluster::start();
    let client = connect(&cluster).await;
    client.batch_execute("CREATE TYPE mood AS ENUM ('sad'); CREATE DOMAIN short AS text").await.unwrap();
    let columns: Vec<&str> = DEFAULTS.iter().map(|(column, _)| *column).collect();
    let sql = format!("CREATE TABLE \"odd.\"\"t\" ({}, PRIMARY KEY (b, id))", columns.join(", "));
    client.batch_execute(&sql).await.unwrap();
    let table = TableName { schema: "public".to_owned(), name: "odd.\"t".to_owned() };
    let shape = postgres::catalog::shape(&client, &table).await.unwrap().unwrap();
    let relation = Arc::new(Relation::of(&table, shape.identity, &shape.columns));
    let texts = relation.columns.iter().map(|column| match column.name.as_str() {
        "id" => Value::Text(b"7"),
        "b" => Value::Text(b"f"),
        _ => Value::Null,
    });
    let insert = Change {
        position: Position { commit: CommitLsn(1), ordinal: 1 },
        lsn: 1,
        transaction: Transaction { xid: 1, committed_us: 0 },
        relation: Arc::clone(&relation),
        mark: None,
        operation: Operation::Insert { new: Tuple::of(texts) },
    };
    let mut encoded = Encoded::new();
    encoder(Publish { has_schemas: true, ..Publish::default() }).encode(&insert, 0, &mut encoded);
    let record = encoded.records().next().unwrap();
    let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
    assert!(key.ends_with(r#""payload":{"b":false,"id":7}}"#), "{key}");
    let value: Json = serde_json::from_slice(record.value.unwrap()).unwrap();
    let fields = value["schema"]["fields"][1]["fields"].as_array().unwrap();
    let seen: Vec<_> =
        fields.iter().map(|field| (field["field"].clone(), field.get("default").cloned())).collect();
    let expected = DEFAULTS.iter().filter(|(column, _)| !column.contains("STORED"));
    let expected = expected.map(|(column, default)| {
        let default = default.map(|default| serde_json::from_str::<Json>(default).unwrap());
        (json!(column.split(' ').next().unwrap()), default)
    });
    assert_eq!(seen, expected.collect::<Vec<_>>());
}
