//! Rows as a consumer has them and as Postgres has them, in one form.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lab::Cluster;
use serde_json::{Map, Value};

/// By key. Instants are written alike: without a zone, in UTC, without zeros at their end.
pub type Rows = BTreeMap<String, Map<String, Value>>;

const SHOWN: usize = 5;

/// The rows that a query gives, each with a key in column `id`.
pub fn of_postgres(cluster: &Cluster, database: &str, query: &str) -> Result<Rows> {
    let text =
        cluster.psql(database, &format!("SET TIME ZONE 'UTC'; SELECT to_jsonb(t) FROM ({query}) AS t"))?;
    let rows = text.lines().map(|line| serde_json::from_str(line).context("psql gave no JSON"));
    rows.map(|row| keyed(row?)).collect()
}

/// A row with its key.
pub fn keyed(row: Map<String, Value>) -> Result<(String, Map<String, Value>)> {
    let key = row.get("id").map(ToString::to_string).context("a row has no `id`")?;
    Ok((key, row.into_iter().map(|(name, value)| (name, alike(value))).collect()))
}

fn alike(value: Value) -> Value {
    match value.as_str() {
        Some(text) if is_instant(text) => {
            let text = text.trim_end_matches('Z').trim_end_matches("+00:00");
            let text =
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
            Value::from(text)
        }
        _ => value,
    }
}

fn is_instant(text: &str) -> bool {
    let digits = |range| text.get(range).is_some_and(|part: &str| part.bytes().all(|b| b.is_ascii_digit()));
    text.len() >= 19 && digits(0..4) && digits(5..7) && digits(17..19) && text.get(10..11) == Some("T")
}

/// The first rows that differ, for people.
pub fn difference(expected: &Rows, found: &Rows) -> String {
    let keys: std::collections::BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differ = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key));
    let show = |row: Option<&Map<String, Value>>| {
        row.map_or("nothing".to_owned(), |row| Value::Object(row.clone()).to_string())
    };
    let lines = differ
        .map(|key| format!("  expected {}\n  found    {}", show(expected.get(key)), show(found.get(key))));
    let lines: Vec<String> = lines.collect();
    format!("{} rows differ\n{}", lines.len(), lines[..lines.len().min(SHOWN)].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_instant_is_the_same_however_it_is_written() {
        let one = |text: &str| alike(Value::from(text));
        assert_eq!(one("2026-01-02T03:04:05.120000Z"), one("2026-01-02T03:04:05.12+00:00"));
        assert_eq!(one("2026-01-02T03:04:00Z"), one("2026-01-02T03:04:00+00:00"));
        assert_ne!(one("2026-01-02T03:04:00Z"), one("2026-01-02T03:04:10Z"));
        assert_eq!(one("note 00"), Value::from("note 00"));
    }

    #[test]
    fn a_difference_names_the_rows_of_both_sides() {
        let rows = |json| Rows::from([keyed(row(json)).unwrap()]);
        let told = difference(&rows(r#"{"id":1,"n":2}"#), &rows(r#"{"id":1,"n":3}"#));
        assert!(
            told.contains("1 rows differ") && told.contains(r#""n":2"#) && told.contains(r#""n":3"#),
            "{told}"
        );
        assert!(difference(&rows(r#"{"id":1}"#), &Rows::new()).contains("nothing"));
    }
}
