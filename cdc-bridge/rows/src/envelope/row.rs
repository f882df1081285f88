//! A row as a JSON object, and its key.

use super::format::Format;
use super::{default, header_text, json, value};
use crate::change::{Column, Relation, Tuple, Value};
use migrations::plan::Publish;
use std::collections::BTreeSet;

/// The columns of one shape of a table, as far as they are published.
#[derive(Debug)]
pub(super) struct Fields {
    /// By their place in the row; none for a hidden column.
    all: Vec<Option<Field>>,
    /// The places of the key's columns, in the key's order.
    key: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) column: Column,
    pub(super) format: Format,
    /// The default as JSON.
    pub(super) default: Option<Vec<u8>>,
    /// Its name as a JSON string and a colon.
    name: Vec<u8>,
    /// What is written for a null, and for a value that has no form.
    null: Vec<u8>,
}

impl Field {
    fn of(publish: &Publish, column: &Column) -> Field {
        let format = Format::of(publish, column);
        let default = default::json(column, &format);
        let mut name = Vec::with_capacity(column.name.len() + 3);
        json::string(column.name.as_bytes(), &mut name);
        name.push(b':');
        let null = match &default {
            Some(default) if publish.replaces_null || !column.nullable => default.clone(),
            _ if column.nullable => b"null".to_vec(),
            _ => {
                let mut zero = Vec::new();
                value::write_zero(&column.kind, &format, &mut zero);
                zero
            }
        };
        Field { column: column.clone(), format, default, name, null }
    }

    fn write(&self, value: Value<'_>, out: &mut Vec<u8>) {
        let is_written = match value {
            Value::Text(text) => value::write(&self.column.kind, &self.format, text, out),
            Value::Unchanged => value::write_placeholder(&self.column.kind, &self.format, out),
            Value::Null => false,
        };
        if !is_written {
            out.extend_from_slice(&self.null);
        }
    }
}

/// A value, or the one before where it was not sent.
fn sent<'v>(value: Value<'v>, old: Option<&'v Tuple>, index: usize) -> Value<'v> {
    match (value, old) {
        (Value::Unchanged, Some(old)) => match old.get(index) {
            Value::Text(text) => Value::Text(text),
            Value::Null | Value::Unchanged => value,
        },
        (value, _) => value,
    }
}

impl Fields {
    pub(super) fn of(publish: &Publish, relation: &Relation, hidden: Option<&BTreeSet<String>>) -> Fields {
        let is_hidden =
            |column: &Column| !column.is_key && hidden.is_some_and(|hidden| hidden.contains(&column.name));
        let field = |column: &Column| (!is_hidden(column)).then(|| Field::of(publish, column));
        let mut key: Vec<usize> = relation.key().collect();
        key.sort_by_key(|index| relation.columns[*index].key_position);
        Fields { all: relation.columns.iter().map(field).collect(), key }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Field> {
        self.all.iter().flatten()
    }

    /// The key's columns in the key's order.
    pub(super) fn key(&self) -> impl Iterator<Item = &Field> {
        self.key.iter().filter_map(|index| self.all.get(*index)?.as_ref())
    }

    pub(super) fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// Writes a whole row. Large values that were not sent are taken from `old` where it has them.
    pub(super) fn write(&self, row: &Tuple, old: Option<&Tuple>, out: &mut Vec<u8>) {
        let mut separator = b'{';
        for (index, (value, field)) in row.values().zip(&self.all).enumerate() {
            let Some(field) = field else { continue };
            out.push(separator);
            separator = b',';
            out.extend_from_slice(&field.name);
            field.write(sent(value, old, index), out);
        }
        close(separator, out);
    }

    pub(super) fn write_key(&self, row: &Tuple, old: Option<&Tuple>, out: &mut Vec<u8>) {
        self.each_of_key(row, old, out, |field, value, out| {
            out.extend_from_slice(&field.name);
            field.write(value, out);
        });
    }

    /// Writes a key as a header has it.
    pub(super) fn write_key_header(&self, row: &Tuple, old: Option<&Tuple>, out: &mut Vec<u8>) {
        self.each_of_key(row, old, out, |field, value, out| {
            header_text::quoted(&field.column.name, out);
            out.push(b':');
            let mut json = Vec::new();
            field.write(value, &mut json);
            header_text::write(&field.column.kind, &field.format, value, &json, out);
        });
    }

    fn each_of_key(
        &self,
        row: &Tuple,
        old: Option<&Tuple>,
        out: &mut Vec<u8>,
        write: impl Fn(&Field, Value<'_>, &mut Vec<u8>),
    ) {
        let mut separator = b'{';
        for index in &self.key {
            let Some(Some(field)) = self.all.get(*index) else { continue };
            out.push(separator);
            separator = b',';
            write(field, sent(row.get(*index), old, *index), out);
        }
        close(separator, out);
    }

    /// Whether all of the key's columns were sent.
    pub(super) fn has_key_in(&self, row: &Tuple) -> bool {
        self.key.iter().all(|index| row.get(*index) != Value::Null)
    }
}

fn close(separator: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(if separator == b'{' { b"{}" } else { b"}" });
}
