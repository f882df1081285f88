//! One change as `tail` shows it: a line for people. Pure.

use super::harmless::harmless;
use migrations::tail::{Operation, TailedChange, TailedColumn};
use owo_colors::OwoColorize;

/// Longer values are cut: the line is for the eye, and `--json` has them whole.
const VALUE_CHARS_MAX: usize = 60;

/// What the bridge told of a change; a text that is none is returned as it is.
pub(crate) fn line(told: &str) -> String {
    let Ok(change) = serde_json::from_str::<TailedChange>(told) else { return harmless(told) };
    let verb = match change.operation {
        Operation::Insert => "insert  ".green().bold().to_string(),
        Operation::Update => "update  ".yellow().bold().to_string(),
        Operation::Delete => "delete  ".red().bold().to_string(),
        Operation::Truncate => "truncate".red().bold().to_string(),
    };
    let columns: Vec<String> = change.columns.iter().map(column).collect();
    let line = format!(
        "{}  {verb}  {}  {}",
        harmless(&change.position).dimmed(),
        harmless(&change.table).bold(),
        columns.join("  ")
    );
    line.trim_end().to_owned()
}

fn column(column: &TailedColumn) -> String {
    let was = column.was.as_ref().map(|was| format!("{} → ", value(Some(was)))).unwrap_or_default();
    format!("{}={was}{}", harmless(&column.name).cyan(), value(column.value.as_deref()))
}

/// NULL stands bare, and so does a word or a number. Other texts are quoted, so that the line shows where they end.
fn value(value: Option<&(impl AsRef<str> + ?Sized)>) -> String {
    let Some(text) = value.map(AsRef::as_ref) else { return "NULL".to_owned() };
    let mut shown: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if text.chars().count() > VALUE_CHARS_MAX {
        shown.push('…');
    }
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '+' | ':' | '_' | '@' | '/');
    if !text.is_empty() && text != "NULL" && text.chars().all(is_plain) {
        return shown;
    }
    format!("'{}'", harmless(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bare(told: &serde_json::Value) -> String {
        anstream::adapter::strip_str(&line(&told.to_string())).to_string()
    }

    #[test]
    fn a_change_is_one_line() {
        let change = json!({ "position": "0/1EECD20+1", "operation": "update", "table": "public.orders", "columns": [
            { "name": "id", "value": "7" }, { "name": "total", "value": "12.50", "was": "9.99" },
            { "name": "note", "value": "it's\nBob\u{1b}[2J" }, { "name": "day", "value": null }, { "name": "empty", "value": "" },
        ] });
        assert_eq!(
            bare(&change),
            "0/1EECD20+1  update    public.orders  id=7  total=9.99 → 12.50  note='it's·Bob·[2J'  day=NULL  empty=''"
        );
        let truncate =
            json!({ "position": "0/1+0", "operation": "truncate", "table": "public.orders", "columns": [] });
        assert_eq!(bare(&truncate), "0/1+0  truncate  public.orders");
    }

    #[test]
    fn a_long_value_is_cut_and_no_text_forges_a_null() {
        let long = "x".repeat(VALUE_CHARS_MAX + 1);
        assert_eq!(value(Some(long.as_str())), format!("{}…", "x".repeat(VALUE_CHARS_MAX)));
        assert_eq!(value(Some("NULL")), "'NULL'");
        assert_eq!(value(None::<&str>), "NULL");
        assert_eq!(line("not json\u{1b}[2J"), "not json·[2J");
    }
}
