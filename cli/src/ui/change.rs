//! One change event as `tail` shows it: a headline, then the indented envelope. Pure.
//!
//! The envelope is indented as text, not parsed and rebuilt. Column order and the digits of numbers stay exactly as
//! a consumer of the topic reads them.

use super::harmless::harmless;
use owo_colors::OwoColorize;
use serde_json::Value;

/// A line that is not a change event is returned as it is.
pub(crate) fn pretty(line: &str) -> String {
    let line = &harmless(line);
    let Ok(event) = serde_json::from_str::<Value>(line) else { return line.to_owned() };
    let topic = harmless(event.get("topic").and_then(Value::as_str).unwrap_or("?"));
    let value = event.get("value").unwrap_or(&Value::Null);
    // With `schemas.enable` the envelope is one level deeper.
    let envelope = value.get("payload").unwrap_or(value);
    let verb = match envelope.get("op").and_then(Value::as_str) {
        Some("c") => "insert".green().bold().to_string(),
        Some("r") => "read".green().bold().to_string(),
        Some("u") => "update".yellow().bold().to_string(),
        Some("d") => "delete".red().bold().to_string(),
        Some("t") => "truncate".red().bold().to_string(),
        _ if value.is_null() => "tombstone".dimmed().to_string(),
        _ => "change".bold().to_string(),
    };
    let key = event.get("key").map(|key| key.get("payload").unwrap_or(key).to_string()).unwrap_or_default();
    format!("{verb} {} {key}\n{}", topic.bold(), indented(line))
}

/// JSON with one field per line and coloured names. Strings and numbers keep their bytes.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut rest = json.trim();
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match first {
            '"' => {
                length = string_length(rest);
                let text = &rest[..length];
                let is_name = rest[length..].trim_start().starts_with(':');
                out.push_str(&if is_name { text.cyan().to_string() } else { text.to_owned() });
            }
            '{' | '[' => {
                out.push(first);
                let closed = rest[1..].trim_start();
                if closed.starts_with(['}', ']']) {
                    length = rest.len() - closed.len() + 1;
                    out.push_str(&closed[..1]);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(first);
            }
            ',' => {
                out.push(',');
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            blank if blank.is_whitespace() => {}
            other => out.push(other),
        }
        rest = &rest[length..];
    }
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// In bytes, with both quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn an_update_shows_its_envelope_in_the_order_it_came() {
        let line = r#"{"topic":"shop.public.orders","key":{"id":7},"value":{"before":null,"after":{"z":1.10,"a":"x\"}"},"op":"u"},"headers":{}}"#;
        let shown = bare(&pretty(line));
        assert!(shown.starts_with("update shop.public.orders {\"id\":7}\n{\n  \"topic\": "), "{shown}");
        assert!(shown.contains("\"z\": 1.10,\n      \"a\": \"x\\\"}\"\n    },"), "{shown}");
        assert!(shown.ends_with("\"headers\": {}\n}"), "{shown}");
    }

    #[test]
    fn a_tombstone_is_named_and_other_text_is_shown_as_it_is() {
        assert!(bare(&pretty(r#"{"topic":"t","key":{"id":1},"value":null}"#)).starts_with("tombstone t"));
        assert_eq!(pretty("not json\x1b[2J"), "not json·[2J");
        // JSON does not have to escape control characters above ASCII, but a terminal obeys them.
        assert!(!pretty("{\"topic\":\"t\\u001b[2J\",\"value\":\"\u{9b}2J\"}").contains(['\u{9b}']));
        assert_eq!(bare(&indented("\"half")), "\"half");
    }
}
