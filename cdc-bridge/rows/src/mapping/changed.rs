//! Which columns of the sink's rows an update really changes, as one question to the sink.
//!
//! A stream gives an updated row without the row before. The sink's own row stands for that one: what the plan makes of it
//! is what the source had before. So a column is set only if a source column that it is made of changed, and what an
//! expression would compute less exactly stays as it is.

use super::compare::{NUMBER, made, numbered, printed, stored};
use super::{Input, Mapping, Output, Statement, list};
use migrations::column_type::ColumnType;
use migrations::names::quote_identifier;
use std::collections::BTreeSet;

/// A question about updated rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Answers with each row's number, counted from 1, and whether each of `outputs` changes. Rows that the sink does not
    /// have are left out.
    pub statement: Statement,
    /// The numbers of the sink's columns that are asked about.
    pub outputs: Vec<usize>,
}

impl Mapping {
    /// Asks what updates change, where the values of some source columns were not sent.
    pub fn changed(&self, unsent: &BTreeSet<usize>) -> Changed {
        let is_asked = |output: &Output| !output.is_key && !output.reads.is_subset(unsent);
        let outputs: Vec<usize> = self.numbers(is_asked).into_iter().collect();
        let asked: Vec<&Output> = outputs.iter().map(|number| &self.outputs[*number]).collect();
        let keys = self.key_outputs();
        let mut inputs = self.inputs_of(asked.iter().chain(&keys));
        inputs.retain(|input| !unsent.contains(&input.index));
        // No column of a table has such a name.
        let key = |n: usize| format!("\"strangler.key {n}\"");
        let key_of_row =
            |(n, o): (usize, &&Output)| format!("({})::{} AS {}", o.expression, o.cast_type, key(n));
        let matching = |(n, o): (usize, &&Output)| o.is(&format!("s.{}", key(n)));
        let sql = format!(
            "SELECT s.{NUMBER}, ARRAY[{}]::boolean[] FROM (SELECT r.*, {} FROM {}) AS s JOIN {} AS t ON {}",
            list(asked.iter().map(|output| self.is_changed(output, &inputs))),
            list(keys.iter().enumerate().map(key_of_row)),
            numbered(&inputs),
            self.to.quoted(),
            keys.iter().enumerate().map(matching).collect::<Vec<_>>().join(" AND "),
        );
        let columns = inputs.iter().map(|input| input.index).collect();
        Changed { statement: Statement { sql, columns }, outputs }
    }

    /// The columns that are made of the key, so that they change with it.
    pub fn keyed(&self) -> BTreeSet<usize> {
        self.numbers(|output| !output.is_key && output.reads.iter().any(|read| self.key.contains(read)))
    }

    /// Whether one of these columns reads a value that was not sent: then nobody knows what it becomes.
    pub fn reads_any(&self, columns: &BTreeSet<usize>, unsent: &BTreeSet<usize>) -> bool {
        let mut columns = columns.iter().filter_map(|number| self.outputs.get(*number));
        columns.any(|output| !output.reads.is_disjoint(unsent))
    }

    /// SQL over `s`, the new row as the source has it, and `t`, the row of the sink.
    fn is_changed(&self, output: &Output, sent: &[Input]) -> String {
        let becomes = || {
            format!("(SELECT {} FROM (SELECT s.*) AS f) IS DISTINCT FROM {}", made(output), stored(output))
        };
        if output.source.is_some() {
            return becomes();
        }
        let reads: Vec<&Input> = sent.iter().filter(|input| output.reads.contains(&input.index)).collect();
        let change = |input: &&Input| match &input.before {
            Some(before) => {
                let now = exact(&input.kind, format!("s.{}", quote_identifier(&input.name)));
                let before = exact(&input.kind, format!("{before}::{}", input.cast_type));
                format!("(SELECT {before} FROM (SELECT t.*) AS f) IS DISTINCT FROM {now}")
            }
            // A column of the source's own: what it was before is not known, but perhaps what comes of it.
            None if reads.len() == output.reads.len() => becomes(),
            None => "true".to_owned(),
        };
        let changes: BTreeSet<String> = reads.iter().map(change).collect();
        changes.into_iter().collect::<Vec<_>>().join(" OR ")
    }
}

/// A source's value in the form in which two of them are compared: texts and `json` by every letter, and so is what a type
/// prints of which nothing else is known.
fn exact(kind: &ColumnType, value: String) -> String {
    let is_text = |kind: &ColumnType| matches!(kind, ColumnType::Text | ColumnType::Json);
    match kind {
        ColumnType::Array(element) if is_text(element) => format!("({value})::text[] COLLATE \"C\""),
        kind if is_text(kind) => format!("({value})::text COLLATE \"C\""),
        kind if kind.is_printed() => format!("{} COLLATE \"C\"", printed(&format!("({value})"))),
        _ => value,
    }
}
