//! Values: what Debezium documents for each type.

use super::{NOW_US, change, column, encoder, publishing, records, relation};
use migrations::column_type::{ColumnType, Form};
use migrations::plan::{Decimals, Publish, Times};
use rows::change::{Column, Operation, ReplicaIdentity, Stored, Tuple, Value};
use rows::envelope::{Encoded, PLACEHOLDER};
use serde_json::{Value as Json, json};

/// Type, Postgres' text, Debezium's JSON.
type Vector = (ColumnType, &'static str, Json);

fn mood() -> ColumnType {
    ColumnType::Enum { name: "public.mood".to_owned(), labels: vec!["sad".to_owned()] }
}

fn numbers_and_texts() -> Vec<Vector> {
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    vec![
        (ColumnType::Int2, "-32768", json!(-32768)),
        (ColumnType::Int8, "9223372036854775807", json!(i64::MAX)),
        (ColumnType::Oid, "4294967295", json!(4_294_967_295_u32)),
        (ColumnType::Bool, "t", json!(true)),
        (ColumnType::Float4, "3.3", json!(3.3)),
        (ColumnType::Float8, "1", json!(1.0)),
        (ColumnType::Float8, "1e+20", json!(1e20)),
        (ColumnType::Float8, "-Infinity", json!("-Infinity")),
        (numeric(3, 2), "1.10", json!("bg==")),
        (numeric(6, 4), "22.2200", json!("A2P4")),
        (numeric(4, 0), "-128", json!("gA==")),
        (numeric(4, 0), "128", json!("AIA=")),
        (numeric(5, -2), "12300", json!("ew==")),
        (numeric(3, 2), "NaN", Json::Null),
        (ColumnType::NumericAny, "10.1111", json!({"scale": 4, "value": "AYr3"})),
        // Zeros at the end are stripped.
        (ColumnType::NumericAny, "10.00", json!({"scale": 0, "value": "Cg=="})),
        (ColumnType::NumericAny, "Infinity", Json::Null),
        (ColumnType::Text, "ž\u{1}\t\"\\", json!("ž\u{1}\t\"\\")),
        (ColumnType::Bytea, "\\x010203", json!("AQID")),
        (ColumnType::Jsonb, "{\"a\": 1}", json!("{\"a\": 1}")),
    ]
}

fn times() -> Vec<Vector> {
    let time = |precision| ColumnType::Time { precision };
    let timestamp = |precision| ColumnType::Timestamp { precision };
    vec![
        (ColumnType::Date, "2016-11-04", json!(17109)),
        (ColumnType::Date, "0001-12-31 BC", json!(-719_163)),
        (ColumnType::Date, "infinity", json!(-2_147_472_692)),
        (ColumnType::Date, "-infinity", json!(-2_147_472_691)),
        (time(3), "13:51:30.123", json!(49_890_123)),
        (time(6), "13:51:30", json!(49_890_000_000_i64)),
        (time(6), "24:00:00", json!(86_400_000_000_i64)),
        (timestamp(3), "2016-11-04 13:51:30.123", json!(1_478_267_490_123_i64)),
        (timestamp(6), "2016-11-04 13:51:30.123456", json!(1_478_267_490_123_456_i64)),
        (timestamp(6), "21016-11-04 13:51:30.123457", json!(601_060_312_290_123_457_i64)),
        (timestamp(6), "1936-10-25 22:10:12.608", json!(-1_047_174_587_392_000_i64)),
        (timestamp(6), "4713-12-31 23:59:59.999999 BC", json!(-210_831_897_600_000_001_i64)),
        (timestamp(6), "294247-01-01 23:59:59.999999", json!(9_223_371_331_199_999_999_i64)),
        // Past the ends of 64 bits Java stops, and then goes round.
        (timestamp(6), "294276-12-31 23:59:59", json!(i64::MAX)),
        (timestamp(6), "294276-12-31 23:59:59.999999", json!(i64::MIN + 999_998)),
        (timestamp(3), "infinity", json!(9_223_372_036_825_200_i64)),
        (timestamp(0), "-infinity", json!(-9_223_372_036_832_400_i64)),
        (timestamp(6), "infinity", json!(9_223_372_036_825_200_000_i64)),
        (timestamp(6), "-infinity", json!(-9_223_372_036_832_400_000_i64)),
        (timestamp(6), "294247-01-10 04:00:25.2", json!(9_223_372_036_825_200_000_i64)),
        (ColumnType::Timestamptz, "2016-11-04 11:51:30.123456+00", json!("2016-11-04T11:51:30.123456Z")),
        (ColumnType::Timestamptz, "2020-04-01 11:51:02+00", json!("2020-04-01T11:51:02.000000Z")),
        (ColumnType::Timestamptz, "21016-11-04 06:51:30+00", json!("+21016-11-04T06:51:30.000000Z")),
        (ColumnType::Timestamptz, "4714-12-31 23:59:59.999999+00 BC", json!("-4713-12-31T23:59:59.999999Z")),
        (ColumnType::Timestamptz, "infinity", json!("infinity")),
    ]
}

fn arrays() -> Vec<Vector> {
    let array = |kind| ColumnType::Array(Box::new(kind));
    let numeric = |precision, scale| ColumnType::Numeric { precision, scale };
    vec![
        (array(ColumnType::Int4), "{1,NULL,3}", json!([1, null, 3])),
        // One dimension is all that its schema knows.
        (array(ColumnType::Int4), "{{1,2},{3,4}}", json!([null, null])),
        (array(ColumnType::Text), "{{{a}},{{b}}}", json!([null, null])),
        (array(ColumnType::Int4), "{}", json!([])),
        (array(ColumnType::Int4), "[0:1]={1,2}", json!([1, 2])),
        (
            array(ColumnType::Text),
            r#"{"a b","",NULL,"null","q\"\\"}"#,
            json!(["a b", "", null, "null", "q\"\\"]),
        ),
        (array(mood()), "{sad}", json!(["sad"])),
        (array(mood()), "{sad,NULL}", Json::Null),
        (array(numeric(10, 2)), "{1.10,2.22}", json!(["bg==", "AN4="])),
        (array(ColumnType::NumericAny), "{1.5,NaN}", Json::Null),
        (
            array(ColumnType::Timestamptz),
            "{\"2020-04-01 11:51:02+00\"}",
            json!(["2020-04-01T11:51:02.000000Z"]),
        ),
        (array(ColumnType::Bytea), "{\"\\\\x0102\"}", json!(["AQI="])),
    ]
}

fn printed() -> Vec<Vector> {
    let of = |form| ColumnType::Printed { name: "t".to_owned(), form };
    let bits = |length| of(Form::Bits { length });
    let array = |kind| ColumnType::Array(Box::new(kind));
    let point = "AQEAAAAAAAAAAADwPwAAAAAAAPA/";
    vec![
        (of(Form::Text), "[1,5)", json!("[1,5)")),
        (of(Form::Xml), "<a>b</a>", json!("<a>b</a>")),
        (of(Form::Interval), "1 year 2 mons 3 days 04:05:06.078", json!(37_091_106_078_000_i64)),
        (of(Form::Interval), "-1 days +02:03:00", json!(-79_020_000_000_i64)),
        (of(Form::Interval), "00:00:00", json!(0)),
        (of(Form::Interval), "infinity", Json::Null),
        (of(Form::ZonedTime), "13:51:30.123789+02", json!("11:51:30.123789Z")),
        (of(Form::ZonedTime), "23:30:00-05:30", json!("05:00:00Z")),
        (of(Form::ZonedTime), "24:00:00+00", json!("00:00:00Z")),
        (of(Form::ZonedTime), "24:00:00-12", json!("12:00:00Z")),
        (of(Form::Money), "$1,234.56", json!("AeJA")),
        (of(Form::Money), "-$92,233,720,368,547,758.08", json!("gAAAAAAAAAA=")),
        (bits(Some(1)), "1", json!(true)),
        (bits(Some(1)), "", Json::Null),
        (bits(Some(2)), "11", json!("Aw==")),
        (bits(Some(10)), "0000000001", json!("AQ==")),
        (bits(None), "10000000001", json!("AQQ=")),
        (bits(None), "", json!("")),
        (of(Form::Hstore), "", json!("{}")),
        (
            of(Form::Hstore),
            r#""a b"=>"1", "q\"\\"=>NULL, "c"=>"""#,
            json!(r#"{"a b":"1","c":"","q\"\\":null}"#),
        ),
        (of(Form::Point), "(1,1)", json!({"x": 1.0, "y": 1.0, "wkb": point, "srid": null})),
        (
            of(Form::Point),
            "(NaN,Infinity)",
            json!({"x": "NaN", "y": "Infinity", "wkb": "AQEAAAAAAAAAAAD4fwAAAAAAAPB/", "srid": null}),
        ),
        (
            of(Form::Geometry),
            "0101000020E61000000000000000000000000000000000F03F",
            json!({"wkb": "AQEAACDmEAAAAAAAAAAAAAAAAAAAAADwPw==", "srid": 4326}),
        ),
        (of(Form::Geography), "nothing", Json::Null),
        (of(Form::Vector), "[1,2.5,-3e-05]", json!([1.0, 2.5, -3e-5])),
        (of(Form::HalfVector), "[0.5]", json!([0.5])),
        (of(Form::SparseVector), "{1:1.5,3:2}/5", json!({"dimensions": 5, "vector": [[1, 1.5], [3, 2.0]]})),
        (of(Form::SparseVector), "{}/5", json!({"dimensions": 5, "vector": []})),
        (array(of(Form::Text)), "{10.0.0.1,NULL}", json!(["10.0.0.1", null])),
        (array(of(Form::Money)), "{$1.50,NULL}", json!(["AJY=", null])),
        (
            ColumnType::Composite { name: "t".to_owned(), fields: Vec::new() },
            "(1,\"a b\")",
            json!("(1,\"a b\")"),
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
    for (kind, text, json) in numbers_and_texts().into_iter().chain(times()).chain(arrays()).chain(printed())
    {
        let relation = relation(ReplicaIdentity::Default, vec![column("v", kind.clone(), false, true)]);
        let change = change(
            &relation,
            Operation::Insert { new: Tuple::of([Value::Text(text.as_bytes())].into_iter()) },
        );
        let record = records(&mut encoder(false), &change).remove(0);
        assert_eq!(record.value["after"]["v"], json, "{kind:?} {text}");
    }
}

/// A value as its bytes in the record, by these options.
fn written(publish: Publish, column: Column, value: Value<'_>) -> String {
    let relation = relation(ReplicaIdentity::Default, vec![column]);
    let change = change(&relation, Operation::Insert { new: Tuple::of([value].into_iter()) });
    let mut encoded = Encoded::new();
    publishing(Publish { is_unwrapped: true, ..publish }).encode(&change, NOW_US, &mut encoded);
    let value = encoded.records().next().unwrap().value.unwrap().to_vec();
    let value = String::from_utf8(value).unwrap();
    value.strip_prefix("{\"v\":").and_then(|value| value.strip_suffix('}')).unwrap().to_owned()
}

#[test]
fn floats_are_spelled_as_java_spells_them() {
    for (text, json) in [
        ("1e+20", "1.0E20"),
        ("123456789", "1.23456789E8"),
        ("1e-05", "1.0E-5"),
        ("0.001", "0.001"),
        ("-0", "-0.0"),
        ("NaN", "\"NaN\""),
    ] {
        let column = column("v", ColumnType::Float8, false, true);
        assert_eq!(written(Publish::default(), column, Value::Text(text.as_bytes())), json);
    }
    let column = column("v", ColumnType::Float4, false, true);
    assert_eq!(written(Publish::default(), column, Value::Text(b"1.6777216e+07")), "1.6777216E7");
}

#[test]
fn a_timestamptz_has_as_many_digits_as_its_column() {
    let stored = |modifier| Some(Stored { modifier, written: 1, file: 1 });
    for (modifier, text, json) in [
        (-1, "2020-04-01 11:51:02.5+00", "\"2020-04-01T11:51:02.500000Z\""),
        (3, "2020-04-01 11:51:02.5+00", "\"2020-04-01T11:51:02.500Z\""),
        (1, "2020-04-01 11:51:02.5+00", "\"2020-04-01T11:51:02.5Z\""),
        (0, "2020-04-01 11:51:02+00", "\"2020-04-01T11:51:02Z\""),
    ] {
        let column = Column { stored: stored(modifier), ..column("v", ColumnType::Timestamptz, false, true) };
        assert_eq!(written(Publish::default(), column, Value::Text(text.as_bytes())), json);
    }
}

#[test]
fn decimals_are_written_by_their_mode() {
    let numeric = ColumnType::Numeric { precision: 5, scale: 2 };
    let money = ColumnType::Printed { name: "money".to_owned(), form: Form::Money };
    for (decimals, kind, text, json) in [
        (Decimals::String, numeric.clone(), "12.30", "\"12.30\""),
        (Decimals::String, numeric.clone(), "NaN", "\"NAN\""),
        (Decimals::String, ColumnType::NumericAny, "-Infinity", "\"NEGATIVE_INFINITY\""),
        (Decimals::String, money.clone(), "-$1,234.50", "\"-1234.50\""),
        (Decimals::Double, numeric.clone(), "12.30", "12.3"),
        (Decimals::Double, ColumnType::NumericAny, "NaN", "\"NaN\""),
        (Decimals::Double, money, "$10,000,000.00", "1.0E7"),
    ] {
        let publish = Publish { decimals, ..Publish::default() };
        let column = column("v", kind, false, true);
        assert_eq!(written(publish, column, Value::Text(text.as_bytes())), json, "{decimals:?} {text}");
    }
    // A column that cannot be null has the zero of its mode.
    let needed = |decimals| {
        let column = column("v", numeric.clone(), false, false);
        written(Publish { decimals, ..Publish::default() }, column, Value::Null)
    };
    let zeros = [Decimals::Precise, Decimals::String, Decimals::Double].map(needed);
    assert_eq!(zeros, ["\"AA==\"", "\"0.00\"", "0.0"]);
}

#[test]
fn times_are_written_by_their_mode() {
    let stamp = |precision| ColumnType::Timestamp { precision };
    let time = |precision| ColumnType::Time { precision };
    for (times, kind, text, json) in [
        (Times::AdaptiveTimeMicroseconds, time(0), "13:51:30", "49890000000"),
        (Times::AdaptiveTimeMicroseconds, stamp(0), "1970-01-01 00:00:01", "1000"),
        (Times::Connect, time(6), "13:51:30.123456", "49890123"),
        (Times::Connect, stamp(6), "1969-12-31 23:59:59.999999", "-1"),
        (Times::Connect, ColumnType::Date, "2016-11-04", "17109"),
        (Times::Isostring, time(6), "13:51:30.120", "\"13:51:30.12Z\""),
        (Times::Isostring, time(6), "24:00:00", "\"00:00:00Z\""),
        (Times::Isostring, stamp(3), "2016-11-04 13:51:30", "\"2016-11-04T13:51:30Z\""),
        (Times::Isostring, ColumnType::Date, "0044-03-15 BC", "\"-0043-03-15Z\""),
        (Times::Microseconds, time(0), "00:00:01", "1000000"),
        (Times::Microseconds, stamp(0), "1970-01-01 00:00:01", "1000000"),
        (Times::Nanoseconds, stamp(6), "1970-01-01 00:00:00.000001", "1000"),
        (Times::Nanoseconds, stamp(6), "infinity", "9223372036854775807"),
    ] {
        let publish = Publish { times, ..Publish::default() };
        let column = column("v", kind, false, true);
        assert_eq!(written(publish, column, Value::Text(text.as_bytes())), json, "{times:?} {text}");
    }
}

#[test]
fn a_null_is_written_as_its_columns_default() {
    let of = |nullable, default: Option<&str>| Column {
        default: default.map(str::to_owned),
        ..column("v", ColumnType::Int4, false, nullable)
    };
    let plain = Publish { replaces_null: false, ..Publish::default() };
    for (publish, column, json) in [
        (Publish::default(), of(true, Some("7")), "7"),
        (Publish::default(), of(true, None), "null"),
        (plain.clone(), of(true, Some("7")), "null"),
        (plain.clone(), of(false, Some("7")), "7"),
        (plain, of(false, None), "0"),
    ] {
        assert_eq!(written(publish, column, Value::Null), json);
    }
}

#[test]
fn a_placeholder_of_numbers_is_none_where_dates_are_texts() {
    let dates = || column("v", ColumnType::Array(Box::new(ColumnType::Date)), false, true);
    let publish = Publish { times: Times::Isostring, ..Publish::default() };
    assert_eq!(written(publish, dates(), Value::Unchanged), "null");
    assert!(written(Publish::default(), dates(), Value::Unchanged).starts_with("[95,95,100,"));
}

#[test]
fn placeholders_stand_for_large_values_that_were_not_sent() {
    let array = |kind| ColumnType::Array(Box::new(kind));
    let hstore = ColumnType::Printed { name: "hstore".to_owned(), form: Form::Hstore };
    let bytes: Vec<u8> = PLACEHOLDER.bytes().collect();
    for (kind, json) in [
        (ColumnType::Text, json!(PLACEHOLDER)),
        (ColumnType::Jsonb, json!(PLACEHOLDER)),
        (ColumnType::Bytea, json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")),
        (hstore, json!(format!(r#"{{"{PLACEHOLDER}":"{PLACEHOLDER}"}}"#))),
        (array(ColumnType::Text), json!([PLACEHOLDER])),
        (array(ColumnType::Int8), json!(bytes)),
        (array(ColumnType::Int2), Json::Null),
        (array(ColumnType::Uuid), json!(["b68a35a7-17ad-35b3-af2a-ae46edb4545a"])),
        (ColumnType::NumericAny, Json::Null),
    ] {
        let relation = relation(ReplicaIdentity::Default, vec![column("v", kind.clone(), false, true)]);
        let new = Tuple::of([Value::Unchanged].into_iter());
        let change = change(&relation, Operation::Update { old: None, new });
        let record = records(&mut encoder(false), &change).remove(0);
        assert_eq!(record.value["after"]["v"], json, "{kind:?}");
    }
}
