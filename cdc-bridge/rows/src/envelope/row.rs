//! A row as a JSON object, and beside it the values whose text the JSON does not give back (the header
//! `strangler.exact`): an object of column → text, `{"hex":…}` where the text is not UTF-8, null where a value was
//! not sent.

use super::json;
use super::plain::Written;
use super::read::{self, Misfit};
use super::value;
use crate::change::{BadTuple, Column, Relation, Tuple, Value};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// All: null is SQL's NULL.
    All,
    /// Those that are not null; the others were not sent.
    NotNull,
}

#[derive(Debug)]
pub(super) struct RowWriter {
    /// For each column its name as a JSON string and a colon.
    names: Vec<Vec<u8>>,
}

impl RowWriter {
    pub(super) fn new(relation: &Relation) -> Self {
        let name = |column: &Column| {
            let mut name = Vec::with_capacity(column.name.len() + 3);
            json::string(column.name.as_bytes(), &mut name);
            name.push(b':');
            name
        };
        Self { names: relation.columns.iter().map(name).collect() }
    }

    /// Writes a whole row. Large values that were not sent are taken from `old` where it has them. `exact` receives
    /// an object's members (without braces) for what the JSON does not give back.
    pub(super) fn row(
        &self,
        relation: &Relation,
        (tuple, sent): (&Tuple, Sent),
        old: Option<&Tuple>,
        out: &mut Vec<u8>,
        exact: &mut Vec<u8>,
    ) {
        out.push(b'{');
        for (index, ((value, column), name)) in
            tuple.values().zip(&relation.columns).zip(&self.names).enumerate()
        {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            let is_exact = match (value, sent) {
                (Value::Text(text), _) => write_text(column, text, out),
                (Value::Null, Sent::All) => {
                    out.extend_from_slice(b"null");
                    true
                }
                (Value::Null, Sent::NotNull) => {
                    write_fallback(column, out);
                    true
                }
                (Value::Unchanged, _) => {
                    match old.map(|old| old.get(index)) {
                        Some(Value::Text(text)) => drop(write_text(column, text, out)),
                        _ if value::write_placeholder(&column.kind, out) => {}
                        _ => write_fallback(column, out),
                    }
                    false
                }
            };
            if !is_exact {
                note_exact(name, value, exact);
            }
        }
        out.push(b'}');
    }

    /// Writes the key's columns; false if the table has none. Values come from `old` where they were not sent.
    pub(super) fn key(
        &self,
        relation: &Relation,
        tuple: &Tuple,
        old: Option<&Tuple>,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut separator = b'{';
        for (index, value) in tuple.values().enumerate() {
            let (Some(column), Some(name)) = (relation.columns.get(index), self.names.get(index)) else {
                break;
            };
            if !column.is_key {
                continue;
            }
            out.push(separator);
            separator = b',';
            out.extend_from_slice(name);
            let value = match (value, old) {
                (Value::Unchanged, Some(old)) => old.get(index),
                (value, _) => value,
            };
            match value {
                Value::Text(text) => drop(write_text(column, text, out)),
                _ => write_fallback(column, out),
            }
        }
        if separator == b',' {
            out.push(b'}');
        }
        separator == b','
    }
}

/// Writes a value's JSON; false if it does not give the text back.
fn write_text(column: &Column, text: &[u8], out: &mut Vec<u8>) -> bool {
    match value::write(&column.kind, text, out) {
        Written::Exact => true,
        Written::Inexact => false,
        Written::Nothing => {
            write_fallback(column, out);
            false
        }
    }
}

fn write_fallback(column: &Column, out: &mut Vec<u8>) {
    if column.nullable {
        out.extend_from_slice(b"null");
    } else {
        value::write_zero(&column.kind, out);
    }
}

fn note_exact(name: &[u8], value: Value<'_>, exact: &mut Vec<u8>) {
    if !exact.is_empty() {
        exact.push(b',');
    }
    exact.extend_from_slice(name);
    match value {
        Value::Text(text) if std::str::from_utf8(text).is_ok() => json::string(text, exact),
        Value::Text(text) => {
            exact.extend_from_slice(b"{\"hex\":\"");
            for byte in text {
                exact.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
            exact.extend_from_slice(b"\"}");
        }
        Value::Null | Value::Unchanged => exact.extend_from_slice(b"null"),
    }
}

/// What the header `strangler.exact` says of a row's columns.
#[derive(Debug, Default)]
pub(super) struct Exact(BTreeMap<String, Told>);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Told {
    NotSent(()),
    Text(String),
    Hex { hex: String },
}

impl Exact {
    pub(super) fn read(header: Option<&[u8]>) -> Option<Exact> {
        header.map_or(Some(Exact::default()), |header| serde_json::from_slice(header).ok().map(Exact))
    }

    /// A column's value in a tuple's bytes.
    fn write(&self, column: &str, out: &mut Vec<u8>) -> Option<Result<(), Misfit>> {
        match self.0.get(column)? {
            Told::NotSent(()) => out.push(b'u'),
            Told::Text(text) => {
                return Some(write_value(out, |out| {
                    out.extend_from_slice(text.as_bytes());
                    Ok(())
                }));
            }
            Told::Hex { hex } => {
                let byte = |at: usize| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
                let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
                return Some(write_value(out, |out| {
                    out.extend_from_slice(&bytes.ok_or(Misfit)?);
                    Ok(())
                }));
            }
        }
        Some(Ok(()))
    }
}

fn write_value(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Misfit>,
) -> Result<(), Misfit> {
    out.push(b't');
    let start = out.len() + 4;
    out.resize(start, 0);
    write(out)?;
    let len = u32::try_from(out.len() - start).map_err(|_| Misfit)?;
    out[start - 4..start].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

/// Which columns of a row to read.
pub(super) enum Wanted<'a> {
    All,
    /// The key's; the others were not sent.
    Key,
    /// Those with these names; the others were not sent.
    Named(&'a [String]),
}

impl Wanted<'_> {
    fn has(&self, column: &Column) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Key => column.is_key,
            Wanted::Named(names) => names.contains(&column.name),
        }
    }
}

/// Reads a row back. Its members must be the relation's columns in their order; those that are not wanted may be
/// missing.
pub(super) fn read(
    relation: &Relation,
    json: &str,
    wanted: &Wanted<'_>,
    exact: &Exact,
) -> Result<Tuple, String> {
    let mut bytes = Vec::with_capacity(json.len() + 16);
    let count = u16::try_from(relation.columns.len()).map_err(|_| "it has too many columns".to_owned())?;
    bytes.extend_from_slice(&count.to_be_bytes());
    let seed = RowSeed { relation, wanted, exact, out: &mut bytes };
    let mut reader = serde_json::Deserializer::from_str(json);
    seed.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| error.to_string())?;
    Tuple::take(&mut Bytes::from(bytes)).map_err(|error: BadTuple| error.to_string())
}

struct RowSeed<'a> {
    relation: &'a Relation,
    wanted: &'a Wanted<'a>,
    exact: &'a Exact,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a row of {}", self.relation.table)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut row: A) -> Result<(), A::Error> {
        let misfit = |column: &Column| {
            let (name, kind) = (&column.name, column.kind.sql());
            serde::de::Error::custom(format!("the value of column `{name}` is no {kind}"))
        };
        let mut next: Option<Name<'de>> = row.next_key()?;
        for column in &self.relation.columns {
            let is_here = next.as_ref().is_some_and(|name| name.0 == column.name);
            if !self.wanted.has(column) {
                if is_here {
                    row.next_value::<IgnoredAny>()?;
                    next = row.next_key()?;
                }
                self.out.push(b'n');
                continue;
            }
            if !is_here {
                return Err(serde::de::Error::custom(format!(
                    "column `{}` is missing or out of place",
                    column.name
                )));
            }
            let json: &RawValue = row.next_value()?;
            if let Some(written) = self.exact.write(&column.name, self.out) {
                written.map_err(|Misfit| misfit(column))?;
            } else if json.get() == "null" {
                self.out.push(b'n');
            } else {
                write_value(self.out, |out| read::text(&column.kind, json.get(), out))
                    .map_err(|Misfit| misfit(column))?;
            }
            next = row.next_key()?;
        }
        match next {
            None => Ok(()),
            Some(name) => {
                Err(serde::de::Error::custom(format!("the table has no column `{}` there", name.0)))
            }
        }
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
