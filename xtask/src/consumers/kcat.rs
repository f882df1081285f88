//! kcat: the newest record of each key is the row.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::process;
use serde_json::Value;

use super::rows::{self, Rows};

const READ_LIMIT: Duration = Duration::from_secs(60);

/// What a topic's records come to, read from its begin to its end.
pub fn rows(broker: &str, topic: &str) -> Result<Rows> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-q", "-e", "-J", "-o", "beginning", "-b", broker, "-t", topic]);
    let text = process::output(&mut kcat, READ_LIMIT)?;
    let mut found = Rows::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).context("kcat wrote no JSON")?;
        take(&mut found, &record).with_context(|| format!("a record of {topic} cannot be read: {line}"))?;
    }
    Ok(found)
}

/// The key says which row it is, the envelope's `after` what it is now. A tombstone has no envelope.
fn take(found: &mut Rows, record: &Value) -> Result<()> {
    let key: Value = serde_json::from_str(record["key"].as_str().context("no key")?)?;
    let key = key.get("id").context("its key has no `id`")?.to_string();
    let Some(payload) = record["payload"].as_str() else {
        found.remove(&key);
        return Ok(());
    };
    let envelope: Value = serde_json::from_str(payload)?;
    match envelope["after"].as_object() {
        Some(after) => found.extend([rows::keyed(after.clone())?]),
        None => drop(found.remove(&key)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_record_of_a_key_counts() {
        let record = |key: &str, payload: Value| serde_json::json!({ "key": key, "payload": payload });
        let mut found = Rows::new();
        let written = r#"{"op":"c","before":null,"after":{"id":1,"n":2}}"#;
        take(&mut found, &record(r#"{"id":1}"#, written.into())).unwrap();
        assert_eq!(found["1"]["n"], 2);
        take(&mut found, &record(r#"{"id":1}"#, r#"{"op":"d","before":{"id":1},"after":null}"#.into()))
            .unwrap();
        take(&mut found, &record(r#"{"id":1}"#, Value::Null)).unwrap();
        assert!(found.is_empty());
        assert!(take(&mut found, &record("{}", Value::Null)).is_err());
    }
}
