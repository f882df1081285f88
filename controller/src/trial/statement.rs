//! The statements of a trial, from the plan's mapping and the columns as they were seen.

use migrations::column_type::ColumnType;
use migrations::names::quote_identifier;
use migrations::plan::Table;
use migrations::preflight::{ColumnSeen, TableSeen};
use std::collections::BTreeSet;

pub(super) struct Trial {
    columns: Vec<String>,
    reversed: Vec<String>,
    question: String,
}

impl Trial {
    /// None where nothing is computed or a column is missing.
    pub(super) fn of(table: &Table, source: &TableSeen, sink: &TableSeen) -> Option<Trial> {
        if table.set.is_empty() && table.reverse.is_empty() {
            return None;
        }
        let read_back: BTreeSet<&str> =
            table.reverse.values().flat_map(|reverse| reverse.columns.iter().map(String::as_str)).collect();
        let is_read = |column: &str| {
            table.set.values().any(|set| set.columns.contains(column)) || table.reverse.contains_key(column)
        };
        let columns: Vec<_> = source
            .columns
            .iter()
            .filter(|c| is_read(&c.name) || goes_over(table, &read_back, &c.name).is_some())
            .collect();
        Self::over(table, source, sink, &columns, &read_back)
    }

    fn over(
        table: &Table,
        source: &TableSeen,
        sink: &TableSeen,
        columns: &[&ColumnSeen],
        read_back: &BTreeSet<&str>,
    ) -> Option<Trial> {
        let given = columns.iter().enumerate().map(|(index, column)| {
            format!("${}::text::{} AS {}", index + 1, column.exact, quote_identifier(&column.name))
        });
        let mut made: Vec<String> = Vec::new();
        for (target, set) in &table.set {
            let kind = &sink.column(target)?.declared;
            made.push(format!("({})::{kind} AS {}", set.text, quote_identifier(target)));
        }
        for column in columns {
            if let Some(target) = goes_over(table, read_back, &column.name) {
                let kind = &sink.column(target)?.declared;
                made.push(format!(
                    "{}::{kind} AS {}",
                    quote_identifier(&column.name),
                    quote_identifier(target)
                ));
            }
        }
        let mut back: Vec<String> = Vec::new();
        for (column, reverse) in &table.reverse {
            let column = source.column(column)?;
            let (kind, name) = (&column.exact, quote_identifier(&column.name));
            let alike = comparable(column);
            back.push(format!(
                "(SELECT ({})::{kind}{alike} FROM sink) IS NOT DISTINCT FROM (SELECT {name}{alike} FROM source)",
                reverse.text
            ));
        }
        // Counted apart: where the expressions give no row, or several, what is computed back says nothing.
        let asked: Vec<String> =
            std::iter::once("(SELECT count(*) = 1 FROM sink)".to_owned()).chain(back).collect();
        let made = if made.is_empty() { "1 AS nothing".to_owned() } else { made.join(", ") };
        let question = format!(
            "WITH source AS MATERIALIZED (SELECT {}), sink AS MATERIALIZED (SELECT {made} FROM source) SELECT {}",
            given.collect::<Vec<_>>().join(", "),
            asked.join(", ")
        );
        Some(Trial {
            columns: columns.iter().map(|column| column.name.clone()).collect(),
            reversed: table.reverse.keys().cloned().collect(),
            question,
        })
    }

    /// How many of the source's columns take part.
    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    /// The source's columns that are computed back, in the order of the answer.
    pub(super) fn reversed(&self) -> &[String] {
        &self.reversed
    }

    /// Asked of the sink with a row's values as texts: whether the expressions give one row, then for each column that is
    /// computed back, whether it is the same.
    pub(super) fn question(&self) -> &str {
        &self.question
    }

    /// Asked of the source: the newest rows by key, the columns as texts and then the key.
    pub(super) fn sample(&self, table: &Table, key: &[String]) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{}::text, ", quote_identifier(column))).collect();
        let key: Vec<String> = key.iter().map(|column| quote_identifier(column)).collect();
        let newest: Vec<String> = key.iter().map(|column| format!("{column} DESC")).collect();
        let (shown, newest) = (key.join(", "), newest.join(", "));
        let columns = columns.concat();
        format!(
            "SELECT {columns}concat_ws(', ', {shown}) FROM {} ORDER BY {newest} LIMIT $1",
            table.from.quoted()
        )
    }
}

/// Where a column goes as it is, if the way back reads it there.
fn goes_over<'t>(table: &'t Table, read_back: &BTreeSet<&str>, column: &'t str) -> Option<&'t str> {
    table.sink_column(column).filter(|target| read_back.contains(target))
}

/// The cast under which a type's values can be compared: `json` has no equality (PostgreSQL manual, 9.16), and of some
/// types nothing is known but their text.
fn comparable(column: &ColumnSeen) -> &'static str {
    match ColumnType::of(&column.kind, column.modifier) {
        ColumnType::Json => "::jsonb",
        ColumnType::Array(element) if *element == ColumnType::Json => "::jsonb[]",
        kind if kind.is_printed() => "::text",
        _ => "",
    }
}
