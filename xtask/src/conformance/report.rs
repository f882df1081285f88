//! The differences of a run, grouped by kind: the column's type, the place in the record, and how the two look.

use std::collections::{BTreeMap, BTreeSet};

use lab::comparison::{Difference, Explained};
use serde::Serialize;
use serde_json::Value;

use crate::terminal;

/// This many examples of a kind are shown.
const SHOWN: usize = 3;
/// An example is cut here.
const SHOWN_BYTES: usize = 160;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Repeats the run.
    pub seed: u64,
    pub tables: usize,
    /// Records that both makers wrote.
    pub pairs: usize,
    pub unexplained: Vec<Kind>,
    /// By reason.
    pub explained: BTreeMap<String, usize>,
    pub strange_topics: Vec<String>,
    #[serde(skip)]
    kinds: BTreeMap<[String; 4], Kind>,
}

#[derive(Debug, Default, Serialize)]
pub struct Kind {
    column_type: String,
    at: String,
    count: usize,
    tables: BTreeSet<String>,
    examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
struct Example {
    /// `schema.table.column`.
    place: String,
    theirs: String,
    ours: String,
}

impl Report {
    pub fn of(seed: u64, tables: usize) -> Report {
        Report { seed, tables, ..Report::default() }
    }

    /// Takes a difference in a table in; `column_type` is empty where it belongs to no column.
    pub fn take(&mut self, table: &str, column_type: &str, difference: &Difference, explained: &[Explained]) {
        if let Some(why) = explained.iter().find(|why| why.explains(difference, table, column_type)) {
            *self.explained.entry(why.reason.clone()).or_default() += 1;
            return;
        }
        let Difference { at, column, theirs, ours } = difference;
        let key = [column_type.to_owned(), at.clone(), look(theirs.as_ref()), look(ours.as_ref())];
        let kind = self.kinds.entry(key).or_insert_with(|| Kind {
            column_type: column_type.to_owned(),
            at: at.clone(),
            ..Kind::default()
        });
        kind.count += 1;
        kind.tables.insert(table.to_owned());
        let (theirs, ours) = (shown(theirs.as_ref()), shown(ours.as_ref()));
        let is_new = !kind.examples.iter().any(|example| example.theirs == theirs && example.ours == ours);
        if is_new && kind.examples.len() < SHOWN {
            let place = column.as_ref().map_or(table.to_owned(), |column| format!("{table}.{column}"));
            kind.examples.push(Example { place, theirs, ours });
        }
    }

    /// Whether nothing is left unexplained; prints what is.
    pub fn conclude(&mut self) -> bool {
        self.unexplained = std::mem::take(&mut self.kinds).into_values().collect();
        for kind in &self.unexplained {
            let tables: Vec<_> = kind.tables.iter().take(SHOWN).map(String::as_str).collect();
            let more = if kind.tables.len() > SHOWN { ", …" } else { "" };
            let of = if kind.column_type.is_empty() { "(no column)" } else { &kind.column_type };
            println!("\n{of}  {}  ×{}  [{}{more}]", terminal::bold(&kind.at), kind.count, tables.join(", "));
            for Example { place, theirs, ours } in &kind.examples {
                println!("    {place}\n      theirs {theirs}\n      ours   {ours}");
            }
        }
        if !self.explained.is_empty() {
            terminal::heading("explained");
        }
        for (reason, count) in &self.explained {
            println!("  {count:>6}  {reason}");
        }
        for topic in &self.strange_topics {
            println!("  topic {topic} belongs to no table");
        }
        self.unexplained.is_empty() && self.strange_topics.is_empty()
    }
}

/// What a value looks like, so that a kind has one line for all its values.
fn look(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some(Value::Null) => "null".to_owned(),
        Some(Value::Bool(_)) => "bool".to_owned(),
        Some(Value::Number(_)) => "number".to_owned(),
        Some(Value::String(_)) => "string".to_owned(),
        Some(Value::Array(_)) => "array".to_owned(),
        Some(Value::Object(_)) => "object".to_owned(),
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or("(missing)".to_owned(), Value::to_string);
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= SHOWN_BYTES);
    end.map_or(text.clone(), |end| format!("{}… ({} bytes)", &text[..end], text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_of_one_kind_are_counted_and_explained_ones_are_no_failure() {
        let explained = Explained::read(r#"[{"reason": "boxes", "types": ["box"]}]"#).unwrap();
        let difference = |theirs: Value| Difference {
            at: "value.payload.after.*".to_owned(),
            column: Some("c".to_owned()),
            theirs: Some(theirs),
            ours: None,
        };
        let mut report = Report::default();
        report.take("public.t", "box", &difference(json!(1)), &explained);
        assert_eq!(report.explained["boxes"], 1);
        assert!(report.conclude());
        for number in 0..5 {
            report.take("public.t", "int", &difference(json!(number)), &explained);
        }
        report.take("public.u", "int", &difference(json!("text")), &explained);
        assert!(!report.conclude());
        let seen: Vec<_> = report.unexplained.iter().map(|kind| (kind.count, kind.examples.len())).collect();
        assert_eq!(seen, [(5, 3), (1, 1)]);
    }

    #[test]
    fn a_long_example_is_cut_between_characters() {
        let text = shown(Some(&json!("é".repeat(500))));
        assert!(text.len() < 200 && text.ends_with("(1002 bytes)"), "{text}");
    }
}
