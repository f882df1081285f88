//! Differences that are meant, each with its reason.

use serde::Deserialize;
use serde_json::Value;

use super::Difference;

/// Which differences a reason explains. A pattern has `*` for any text, a list of patterns holds if one of them does, and
/// an empty list always holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explained {
    pub reason: String,
    /// The place, in which `#` stands for a column's name.
    #[serde(default)]
    at: Vec<String>,
    /// The column's type, as Postgres prints it.
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    tables: Vec<String>,
    /// JSON texts; `missing` where there is none.
    #[serde(default)]
    theirs: Vec<String>,
    #[serde(default)]
    ours: Vec<String>,
}

impl Explained {
    /// Reads a list of them.
    pub fn read(text: &str) -> Result<Vec<Explained>, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Whether it explains a difference in a table, in a column of this type.
    pub fn explains(&self, difference: &Difference, table: &str, column_type: &str) -> bool {
        let text = |value: &Option<Value>| value.as_ref().map_or("missing".to_owned(), Value::to_string);
        let at = difference.at.replacen(".*", ".#", 1);
        let at = if difference.column.is_some() { &at } else { &difference.at };
        holds(&self.at, at)
            && holds(&self.types, column_type)
            && holds(&self.tables, table)
            && holds(&self.theirs, &text(&difference.theirs))
            && holds(&self.ours, &text(&difference.ours))
    }
}

fn holds(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
}

/// Whether a text is the pattern's, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let Some((middle, tail)) = rest.rsplit_once('*') else { return text.ends_with(rest) };
    let Some(before) = text.strip_suffix(tail) else { return false };
    text = before;
    for part in middle.split('*') {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pattern_has_stars_for_any_text() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("a*", "ab"),
            ("*b", "ab"),
            ("a*c", "abc"),
            ("*b*", "abc"),
            ("a*b*c*d", "a1b2c3d"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "b"), ("a*", "b"), ("ab*bc", "abc"), ("*x*", "abc"), ("a*c*b", "abc")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_reason_explains_only_what_it_names() {
        let explained = Explained::read(
            r##"[{"reason": "r", "at": ["value.payload.*.#"], "types": ["box"], "theirs": ["missing"]}]"##,
        );
        let explained = &explained.unwrap()[0];
        let difference = Difference {
            at: "value.payload.after.*".to_owned(),
            column: Some("square".to_owned()),
            theirs: None,
            ours: Some(json!("(1,1)")),
        };
        assert!(explained.explains(&difference, "public.shapes", "box"));
        assert!(!explained.explains(&difference, "public.shapes", "circle"));
        let other = Difference { at: "value.payload.after.*.x".to_owned(), ..difference.clone() };
        assert!(!explained.explains(&other, "public.shapes", "box"));
        let other = Difference { theirs: Some(json!(null)), ..difference };
        assert!(!explained.explains(&other, "public.shapes", "box"));
        assert!(Explained::read(r#"[{"reason": "r", "typo": []}]"#).is_err());
    }
}
