//! Types of which nothing but their text is known, in the form that Debezium's Postgres connector gives them (Debezium's
//! documentation, "Data type mappings", and its source, `PostgresValueConverter`).

use super::calendar::{self, DAY_US, Fraction};
use super::decimal::Decimal;
use super::plain::string;
use super::{float, hstore, json};
use migrations::column_type::Form;
use migrations::plan::Decimals;
use std::str::FromStr;

/// Debezium's days of a month on average: 365.25 / 12.
const DAYS_PER_MONTH: f64 = 365.25 / 12.0;

/// PostGIS writes this for a geometry that is empty: a collection of nothing, as WKB.
const EMPTY_GEOMETRY: &[u8] = &[1, 7, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn write(form: Form, decimals: Decimals, text: &[u8], out: &mut Vec<u8>) -> bool {
    if form.is_string() {
        return string(text, out);
    }
    let start = out.len();
    let text = std::str::from_utf8(text).ok();
    let is_written = text.and_then(|text| write_form(form, decimals, text, out)).is_some();
    if !is_written {
        out.truncate(start);
    }
    is_written
}

fn write_form(form: Form, decimals: Decimals, text: &str, out: &mut Vec<u8>) -> Option<()> {
    match form {
        Form::Text | Form::Xml | Form::Ltree | Form::Tsvector => json::string(text.as_bytes(), out),
        Form::Interval => json::number(i128::from(interval_us(text)?), out),
        Form::ZonedTime => zoned_time(text, out)?,
        Form::Money => money(text, decimals, out)?,
        Form::Bits { length } => bits(text, length, out)?,
        Form::Hstore => hstore::write(text, out)?,
        Form::Point => point(text, out)?,
        Form::Geometry | Form::Geography => geometry(text, out)?,
        Form::Vector => vector(text, out, float::double)?,
        Form::HalfVector => vector(text, out, float::single)?,
        Form::SparseVector => sparse_vector(text, out)?,
    }
    Some(())
}

/// Debezium's value for a column that cannot be without one.
pub(super) fn write_zero(form: Form, decimals: Decimals, out: &mut Vec<u8>) {
    let zero: &[u8] = match form {
        Form::Text | Form::Xml | Form::Ltree | Form::Tsvector => b"\"\"",
        Form::Interval => b"0",
        Form::ZonedTime => b"\"00:00:00Z\"",
        Form::Money => match decimals {
            Decimals::Precise => b"\"AA==\"",
            Decimals::String => b"\"0.00\"",
            Decimals::Double => b"0.0",
        },
        Form::Bits { length: Some(0..=1) } => b"false",
        Form::Bits { .. } => b"\"\"",
        Form::Hstore => b"\"{}\"",
        Form::Point => return write_point(0.0, 0.0, out),
        Form::Geometry | Form::Geography => return write_geometry(EMPTY_GEOMETRY, None, out),
        Form::Vector | Form::HalfVector => b"[]",
        Form::SparseVector => br#"{"dimensions":0,"vector":[]}"#,
    };
    out.extend_from_slice(zero);
}

/// The parts of Connect's schema: before and after `optional`.
pub(super) fn schema(form: Form, decimals: Decimals) -> (&'static str, String) {
    let named = |name: &str| format!(r#","name":"{name}","version":1"#);
    let shape = |name: &str, doc: &str| format!(r#","name":"{name}","version":1,"doc":"{doc}""#);
    match form {
        Form::Text => (r#""type":"string""#, String::new()),
        Form::Interval => (r#""type":"int64""#, named("io.debezium.time.MicroDuration")),
        Form::ZonedTime => (r#""type":"string""#, named("io.debezium.time.ZonedTime")),
        Form::Money if decimals == Decimals::String => (r#""type":"string""#, String::new()),
        Form::Money if decimals == Decimals::Double => (r#""type":"double""#, String::new()),
        Form::Money => (
            r#""type":"bytes""#,
            named("org.apache.kafka.connect.data.Decimal") + r#","parameters":{"scale":"2"}"#,
        ),
        Form::Bits { length: Some(0..=1) } => (r#""type":"boolean""#, String::new()),
        Form::Bits { length } => {
            let length = length.unwrap_or(i32::MAX as u32);
            let parameters = format!(r#","parameters":{{"length":"{length}"}}"#);
            (r#""type":"bytes""#, named("io.debezium.data.Bits") + &parameters)
        }
        Form::Xml => (r#""type":"string""#, named("io.debezium.data.Xml")),
        Form::Ltree => (r#""type":"string""#, named("io.debezium.data.Ltree")),
        Form::Tsvector => (r#""type":"string""#, named("io.debezium.data.Tsvector")),
        Form::Hstore => (r#""type":"string""#, named("io.debezium.data.Json")),
        Form::Point => (
            r#""type":"struct","fields":[{"type":"double","optional":false,"field":"x"},{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}]"#,
            shape("io.debezium.data.geometry.Point", "Geometry (POINT)"),
        ),
        Form::Geometry => (GEOMETRY, shape("io.debezium.data.geometry.Geometry", "Geometry")),
        Form::Geography => (GEOMETRY, shape("io.debezium.data.geometry.Geography", "Geography")),
        Form::Vector => (
            r#""type":"array","items":{"type":"double","optional":false}"#,
            named("io.debezium.data.DoubleVector"),
        ),
        Form::HalfVector => (
            r#""type":"array","items":{"type":"float","optional":false}"#,
            named("io.debezium.data.FloatVector"),
        ),
        Form::SparseVector => (
            r#""type":"struct","fields":[{"type":"int16","optional":false,"field":"dimensions"},{"type":"map","keys":{"type":"int16","optional":false},"values":{"type":"double","optional":false},"optional":false,"field":"vector"}]"#,
            shape("io.debezium.data.SparseDoubleVector", "Sparse double vector"),
        ),
    }
}

const GEOMETRY: &str = r#""type":"struct","fields":[{"type":"bytes","optional":false,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}]"#;

/// Microseconds of an interval in Postgres' own style (`1 year 2 mons -3 days +04:05:06.7`), with months as long as on
/// average. Sums are made in the order of Debezium's `MicroDuration`, which decides their last bits.
fn interval_us(text: &str) -> Option<i64> {
    let (mut months, mut days) = (0.0, 0.0);
    let [mut hours, mut minutes, mut seconds] = [0.0; 3];
    let mut words = text.split(' ');
    while let Some(word) = words.next() {
        if word.contains(':') {
            [hours, minutes, seconds] = clock(word)?;
            continue;
        }
        let number = f64::from(word.parse::<i32>().ok()?);
        match words.next()? {
            "year" | "years" => months += number * 12.0,
            "mon" | "mons" => months += number,
            "day" | "days" => days = number,
            _ => return None,
        }
    }
    let days = months * DAYS_PER_MONTH + days;
    let seconds = ((days * 24.0 + hours) * 60.0 + minutes) * 60.0 + seconds;
    seconds.is_finite().then_some((seconds * 1e6) as i64)
}

fn clock(text: &str) -> Option<[f64; 3]> {
    let (sign, clock) = match text.strip_prefix('-') {
        Some(clock) => (-1.0, clock),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().ok());
    let mut next = || parts.next()?.map(|part| sign * part);
    Some([next()?, next()?, next()?])
}

/// A time with its distance to UTC becomes that of UTC. Java knows no 24:00 and takes it for the next day's 0:00.
fn zoned_time(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let at = text.rfind(['+', '-'])?;
    let us = calendar::time_us(&text.as_bytes()[..at])?;
    let (sign, mut parts) = (text.as_bytes()[at], text[at + 1..].split(':').map(str::parse::<i64>));
    let mut offset = parts.next()?.ok()? * 3600;
    offset += parts.next().transpose().ok()?.unwrap_or(0) * 60;
    offset += parts.next().transpose().ok()?.unwrap_or(0);
    let offset = if sign == b'-' { -offset } else { offset };
    out.push(b'"');
    calendar::write_time((us - offset * 1_000_000).rem_euclid(DAY_US), Fraction::Shortest, out);
    out.extend_from_slice(b"Z\"");
    Some(())
}

/// `-$1,234.56`, as a session prints it whose `lc_monetary` is C.
/// The number of a `money`.
pub(super) fn amount(text: &[u8]) -> Option<Decimal> {
    Decimal::read(plain_money(std::str::from_utf8(text).ok()?).as_bytes())?.with_scale(2)
}

fn plain_money(text: &str) -> String {
    text.chars().filter(|char| !matches!(char, '$' | ',')).collect()
}

fn money(text: &str, decimals: Decimals, out: &mut Vec<u8>) -> Option<()> {
    let (plain, decimal) = (plain_money(text), amount(text.as_bytes())?);
    match decimals {
        Decimals::Precise => json::base64(&decimal.unscaled(), out),
        Decimals::String => json::string(plain.as_bytes(), out),
        Decimals::Double => float::double(plain.parse().ok()?, out),
    }
    Some(())
}

/// The last bit is the lowest. Zeros at the upper end are left out, as Debezium does.
fn bits(text: &str, length: Option<u32>, out: &mut Vec<u8>) -> Option<()> {
    if !text.bytes().all(|bit| matches!(bit, b'0' | b'1')) {
        return None;
    }
    if length.is_some_and(|length| length <= 1) {
        // One bit is never nothing, but `varbit(1)` may be.
        if text.is_empty() {
            return None;
        }
        out.extend_from_slice(if text.contains('1') { b"true" } else { b"false" });
        return Some(());
    }
    let bits: Vec<u8> = text.bytes().rev().map(|bit| bit - b'0').collect();
    let mut bytes: Vec<u8> = bits
        .chunks(8)
        .map(|byte| byte.iter().enumerate().fold(0, |byte, (place, bit)| byte | bit << place))
        .collect();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    json::base64(&bytes, out);
    Some(())
}

fn point(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (x, y) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    write_point(x.parse().ok()?, y.parse().ok()?, out);
    Some(())
}

fn write_point(x: f64, y: f64, out: &mut Vec<u8>) {
    // Little-endian, and a point.
    let wkb = [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat();
    out.extend_from_slice(b"{\"x\":");
    float::double(x, out);
    out.extend_from_slice(b",\"y\":");
    float::double(y, out);
    out.extend_from_slice(b",\"wkb\":");
    json::base64(&wkb, out);
    out.extend_from_slice(b",\"srid\":null}");
}

/// PostGIS' text is EWKB in hex: WKB with the number of its reference system.
fn geometry(text: &str, out: &mut Vec<u8>) -> Option<()> {
    const HAS_SRID: u32 = 0x2000_0000;
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let wkb: Vec<u8> = text.as_bytes().chunks(2).map(digits).collect::<Option<_>>()?;
    let word = |at: usize| {
        let bytes: [u8; 4] = wkb.get(at..at + 4)?.try_into().ok()?;
        Some(if wkb[0] == 0 { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let srid = if word(1)? & HAS_SRID == 0 { None } else { Some(word(5)?) };
    write_geometry(&wkb, srid, out);
    Some(())
}

fn write_geometry(wkb: &[u8], srid: Option<u32>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"wkb\":");
    json::base64(wkb, out);
    out.extend_from_slice(b",\"srid\":");
    match srid {
        Some(srid) => json::number(i128::from(srid), out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

fn vector<N: FromStr>(text: &str, out: &mut Vec<u8>, mut write: impl FnMut(N, &mut Vec<u8>)) -> Option<()> {
    let numbers = text.strip_prefix('[')?.strip_suffix(']')?;
    out.push(b'[');
    for (n, number) in numbers.split(',').enumerate() {
        if n > 0 {
            out.push(b',');
        }
        write(number.parse().ok()?, out);
    }
    out.push(b']');
    Some(())
}

/// `{1:1.5,4:2}/5`. Connect writes a map whose keys are numbers as pairs.
fn sparse_vector(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (entries, dimensions) = text.strip_prefix('{')?.split_once("}/")?;
    let dimensions: u32 = dimensions.parse().ok()?;
    out.extend_from_slice(format!(r#"{{"dimensions":{dimensions},"vector":["#).as_bytes());
    for (n, entry) in entries.split(',').filter(|entry| !entry.is_empty()).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        let (index, number) = entry.split_once(':')?;
        let index: u32 = index.parse().ok()?;
        out.extend_from_slice(format!("[{index},").as_bytes());
        float::double(number.parse().ok()?, out);
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
    Some(())
}
