//! Values: what Debezium documents for each type.

use super::{change, column, comes_back, encoder, records, relation};
use migrations::column_type::{ColumnType, Form};
use rows::change::{Operation, ReplicaIdentity, Tuple, Value};
use rows::envelope::PLACEHOLDER;
use serde_json::{Value as Json, json};

/// Type, Postgres' text, Debezium's JSON, and whether the JSON alone gives the text back.
type Vector = (ColumnType, &'static str, Json, bool);

fn numbers_and_texts() -> Vec<Vector> {
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    vec![
        (ColumnType::Int2, "-32768", json!(-32768), true),
        (ColumnType::Int8, "9223372036854775807", json!(i64::MAX), true),
        (ColumnType::Oid, "4294967295", json!(4_294_967_295_u32), true),
        (ColumnType::Bool, "t", json!(true), true),
        (ColumnType::Float4, "3.3", json!(3.3), true),
        (ColumnType::Float8, "1", json!(1.0), true),
        (ColumnType::Float8, "1e+20", json!(1e20), true),
        (ColumnType::Float8, "-Infinity", json!("-Infinity"), true),
        (numeric(3, 2), "1.10", json!("bg=="), true),
        (numeric(6, 4), "22.2200", json!("A2P4"), true),
        (numeric(4, 0), "-128", json!("gA=="), true),
        (numeric(4, 0), "128", json!("AIA="), true),
        (numeric(5, -2), "12300", json!("ew=="), true),
        (numeric(3, 2), "NaN", Json::Null, false),
        (ColumnType::NumericAny, "10.1111", json!({"scale": 4, "value": "AYr3"}), true),
        // Debezium strips zeros at the end: the text needs the header.
        (ColumnType::NumericAny, "10.00", json!({"scale": 0, "value": "Cg=="}), false),
        (ColumnType::NumericAny, "Infinity", Json::Null, false),
        (ColumnType::Text, "ž\u{1}\t\"\\", json!("ž\u{1}\t\"\\"), true),
        (ColumnType::Bytea, "\\x010203", json!("AQID"), true),
        (ColumnType::Jsonb, "{\"a\": 1}", json!("{\"a\": 1}"), true),
    ]
}

fn times() -> Vec<Vector> {
    let time = |precision| ColumnType::Time { precision };
    let timestamp = |precision| ColumnType::Timestamp { precision };
    vec![
        (ColumnType::Date, "2016-11-04", json!(17109), true),
        (ColumnType::Date, "0001-12-31 BC", json!(-719_163), true),
        (ColumnType::Date, "infinity", Json::Null, false),
        (time(3), "13:51:30.123", json!(49_890_123), true),
        (time(6), "13:51:30", json!(49_890_000_000_i64), true),
        (time(6), "24:00:00", json!(86_400_000_000_i64), true),
        (timestamp(3), "2016-11-04 13:51:30.123", json!(1_478_267_490_123_i64), true),
        (timestamp(6), "2016-11-04 13:51:30.123456", json!(1_478_267_490_123_456_i64), true),
        (timestamp(6), "21016-11-04 13:51:30.123457", json!(601_060_312_290_123_457_i64), true),
        (timestamp(6), "1936-10-25 22:10:12.608", json!(-1_047_174_587_392_000_i64), true),
        (timestamp(6), "4713-12-31 23:59:59.999999 BC", json!(-210_831_897_600_000_001_i64), true),
        (timestamp(6), "294247-01-01 23:59:59.999999", json!(9_223_371_331_199_999_999_i64), true),
        (timestamp(6), "294276-12-31 23:59:59.999999", json!(i64::MAX), false),
        (timestamp(6), "infinity", json!(9_223_372_036_825_200_000_i64), true),
        (timestamp(6), "-infinity", json!(-9_223_372_036_832_400_000_i64), true),
        (timestamp(6), "294247-01-10 04:00:25.2", json!(9_223_372_036_825_200_000_i64), false),
        (
            ColumnType::Timestamptz,
            "2016-11-04 11:51:30.123456+00",
            json!("2016-11-04T11:51:30.123456Z"),
            true,
        ),
        (ColumnType::Timestamptz, "2020-04-01 11:51:02+00", json!("2020-04-01T11:51:02.000000Z"), true),
        (ColumnType::Timestamptz, "21016-11-04 06:51:30+00", json!("+21016-11-04T06:51:30.000000Z"), true),
        (
            ColumnType::Timestamptz,
            "4714-12-31 23:59:59.999999+00 BC",
            json!("-4713-12-31T23:59:59.999999Z"),
            true,
        ),
        (ColumnType::Timestamptz, "infinity", json!("infinity"), true),
    ]
}

fn arrays() -> Vec<Vector> {
    let array = |kind| ColumnType::Array(Box::new(kind));
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    vec![
        (array(ColumnType::Int4), "{1,NULL,3}", json!([1, null, 3]), true),
        (array(ColumnType::Int4), "{{1,2},{3,4}}", json!([[1, 2], [3, 4]]), true),
        (array(ColumnType::Int4), "{}", json!([]), true),
        (array(ColumnType::Int4), "[0:1]={1,2}", Json::Null, false),
        (
            array(ColumnType::Text),
            r#"{"a b","",NULL,"null","q\"\\"}"#,
            json!(["a b", "", null, "null", "q\"\\"]),
            true,
        ),
        (array(numeric(10, 2)), "{1.10,2.22}", json!(["bg==", "AN4="]), true),
        (array(ColumnType::NumericAny), "{1.5,NaN}", json!([{"scale": 1, "value": "Dw=="}, null]), false),
        (
            array(ColumnType::Timestamptz),
            "{\"2020-04-01 11:51:02+00\"}",
            json!(["2020-04-01T11:51:02.000000Z"]),
            true,
        ),
        (array(ColumnType::Bytea), "{\"\\\\x0102\"}", json!(["AQI="]), true),
    ]
}

fn printed() -> Vec<Vector> {
    let of = |form| ColumnType::Printed { name: "t".to_owned(), form };
    let bits = |length| of(Form::Bits { length });
    let array = |kind| ColumnType::Array(Box::new(kind));
    let point = "AQEAAAAAAAAAAADwPwAAAAAAAPA/";
    vec![
        (of(Form::Text), "[1,5)", json!("[1,5)"), true),
        (of(Form::Xml), "<a>b</a>", json!("<a>b</a>"), true),
        (of(Form::Interval), "1 year 2 mons 3 days 04:05:06.078", json!(37_091_106_078_000_i64), false),
        (of(Form::Interval), "-1 days +02:03:00", json!(-79_020_000_000_i64), false),
        (of(Form::Interval), "00:00:00", json!(0), false),
        (of(Form::Interval), "infinity", Json::Null, false),
        (of(Form::ZonedTime), "13:51:30.123789+02", json!("11:51:30.123789Z"), false),
        (of(Form::ZonedTime), "23:30:00-05:30", json!("05:00:00Z"), false),
        (of(Form::ZonedTime), "24:00:00+00", Json::Null, false),
        (of(Form::Money), "$1,234.56", json!("AeJA"), false),
        (of(Form::Money), "-$92,233,720,368,547,758.08", json!("gAAAAAAAAAA="), false),
        (bits(Some(1)), "1", json!(true), false),
        (bits(Some(2)), "11", json!("Aw=="), false),
        (bits(Some(10)), "0000000001", json!("AQ=="), false),
        (bits(None), "10000000001", json!("AQQ="), false),
        (bits(None), "", json!(""), false),
        (of(Form::Hstore), "", json!("{}"), false),
        (
            of(Form::Hstore),
            r#""a b"=>"1", "q\"\\"=>NULL, "c"=>"""#,
            json!(r#"{"a b":"1","q\"\\":null,"c":""}"#),
            false,
        ),
        (of(Form::Point), "(1,1)", json!({"x": 1.0, "y": 1.0, "wkb": point, "srid": null}), false),
        (of(Form::Point), "(NaN,1)", Json::Null, false),
        (
            of(Form::Geometry),
            "0101000020E61000000000000000000000000000000000F03F",
            json!({"wkb": "AQEAACDmEAAAAAAAAAAAAAAAAAAAAADwPw==", "srid": 4326}),
            false,
        ),
        (of(Form::Geography), "nothing", Json::Null, false),
        (of(Form::Vector), "[1,2.5,-3e-05]", json!([1.0, 2.5, -3e-5]), false),
        (of(Form::HalfVector), "[0.5]", json!([0.5]), false),
        (
            of(Form::SparseVector),
            "{1:1.5,3:2}/5",
            json!({"dimensions": 5, "vector": [[1, 1.5], [3, 2.0]]}),
            false,
        ),
        (of(Form::SparseVector), "{}/5", json!({"dimensions": 5, "vector": []}), false),
        (array(of(Form::Text)), "{10.0.0.1,NULL}", json!(["10.0.0.1", null]), true),
        (array(of(Form::Money)), "{$1.50,NULL}", json!(["AJY=", null]), false),
        (
            ColumnType::Composite { name: "t".to_owned(), fields: Vec::new() },
            "(1,\"a b\")",
            json!("(1,\"a b\")"),
            true,
        ),
    ]
}

/// Connect's schema of each form, as `JsonConverter` writes it.
#[test]
fn schemas_are_those_of_debezium() {
    let field = |form| {
        let kind = ColumnType::Printed { name: "t".to_owned(), form };
        let relation = relation(ReplicaIdentity::Default, vec![column("v", kind, false, true)]);
        let change = change(&relation, Operation::Insert { new: Tuple::of([Value::Null].into_iter()) });
        let record = records(&mut encoder(true), &change).remove(0);
        record.value["schema"]["fields"][1]["fields"][0].clone()
    };
    for (form, kind, name) in [
        (Form::Text, "string", Json::Null),
        (Form::Interval, "int64", json!("io.debezium.time.MicroDuration")),
        (Form::ZonedTime, "string", json!("io.debezium.time.ZonedTime")),
        (Form::Money, "bytes", json!("org.apache.kafka.connect.data.Decimal")),
        (Form::Bits { length: Some(1) }, "boolean", Json::Null),
        (Form::Bits { length: None }, "bytes", json!("io.debezium.data.Bits")),
        (Form::Xml, "string", json!("io.debezium.data.Xml")),
        (Form::Ltree, "string", json!("io.debezium.data.Ltree")),
        (Form::Tsvector, "string", json!("io.debezium.data.Tsvector")),
        (Form::Hstore, "string", json!("io.debezium.data.Json")),
        (Form::Point, "struct", json!("io.debezium.data.geometry.Point")),
        (Form::Geometry, "struct", json!("io.debezium.data.geometry.Geometry")),
        (Form::Geography, "struct", json!("io.debezium.data.geometry.Geography")),
        (Form::Vector, "array", json!("io.debezium.data.DoubleVector")),
        (Form::HalfVector, "array", json!("io.debezium.data.FloatVector")),
        (Form::SparseVector, "struct", json!("io.debezium.data.SparseDoubleVector")),
    ] {
        let field = field(form);
        assert_eq!((&field["type"], &field["name"]), (&json!(kind), &name), "{field}");
        assert_eq!((&field["optional"], &field["field"]), (&json!(true), &json!("v")), "{field}");
    }
    assert_eq!(field(Form::Bits { length: None })["parameters"]["length"], "2147483647");
    assert_eq!(field(Form::Money)["parameters"]["scale"], "2");
}

#[test]
fn values_are_written_as_debezium_documents_them() {
    for (kind, text, json, is_exact) in
        numbers_and_texts().into_iter().chain(times()).chain(arrays()).chain(printed())
    {
        let relation = relation(ReplicaIdentity::Default, vec![column("v", kind.clone(), false, true)]);
        let change = change(
            &relation,
            Operation::Insert { new: Tuple::of([Value::Text(text.as_bytes())].into_iter()) },
        );
        let record = records(&mut encoder(false), &change).remove(0);
        assert_eq!(record.value["after"]["v"], json, "{kind:?} {text}");
        assert_eq!(record.headers.is_empty(), is_exact, "{kind:?} {text}: {:?}", record.headers);
        assert_eq!(comes_back(&mut encoder(false), &change), Ok(()), "{kind:?} {text}");
    }
}

#[test]
fn placeholders_stand_for_large_values_that_were_not_sent() {
    let array = |kind| ColumnType::Array(Box::new(kind));
    let bytes: Vec<u8> = PLACEHOLDER.bytes().collect();
    for (kind, json) in [
        (ColumnType::Text, json!(PLACEHOLDER)),
        (ColumnType::Jsonb, json!(PLACEHOLDER)),
        (ColumnType::Bytea, json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")),
        (array(ColumnType::Text), json!([PLACEHOLDER])),
        (array(ColumnType::Int8), json!(bytes)),
        (array(ColumnType::Uuid), json!(["b68a35a7-17ad-35b3-af2a-ae46edb4545a"])),
        (ColumnType::NumericAny, Json::Null),
    ] {
        let relation = relation(ReplicaIdentity::Default, vec![column("v", kind.clone(), false, true)]);
        let new = Tuple::of([Value::Unchanged].into_iter());
        let change = change(&relation, Operation::Update { old: None, new });
        let record = records(&mut encoder(false), &change).remove(0);
        assert_eq!(record.value["after"]["v"], json, "{kind:?}");
        assert_eq!(comes_back(&mut encoder(false), &change), Ok(()));
    }
    // A column may hold the placeholder's very text.
    let relation = relation(ReplicaIdentity::Default, vec![column("v", ColumnType::Text, false, true)]);
    let new = Tuple::of([Value::Text(PLACEHOLDER.as_bytes())].into_iter());
    assert_eq!(comes_back(&mut encoder(false), &change(&relation, Operation::Insert { new })), Ok(()));
}
