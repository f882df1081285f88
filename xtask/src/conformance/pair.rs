//! Which record of one maker belongs to which of the other, and what is different about the two.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use lab::comparison::{Difference, Written, differences};
use lab::kafka::Record;
use serde_json::Value;

use super::arena::Trail;

/// The change that a record tells: its LSN, its transaction, and `c`, `u`, `d`, `t`, or `tombstone`.
type Change = (i64, i64, String);

/// A record with what it tells.
#[derive(Debug, Clone)]
struct Told {
    change: Change,
    partition: u32,
    offset: i64,
    key: Option<Vec<u8>>,
    written: Written,
}

/// One table's comparison.
#[derive(Debug, Default)]
pub struct Outcome {
    pub differences: Vec<Difference>,
    /// How many records both makers wrote.
    pub pairs: usize,
}

/// Compares one table's records.
pub fn compare(trail: &Trail) -> Result<Outcome> {
    let (theirs, ours) = (told(&trail.theirs)?, told(&trail.ours)?);
    let mut outcome = Outcome::default();
    let (mut their, mut our) = (by_change(&theirs), by_change(&ours));
    let mut pairs = Vec::new();
    for (change, theirs) in &mut their {
        let ours = our.remove(change).unwrap_or_default();
        for at in 0..theirs.len().max(ours.len()) {
            match (theirs.get(at), ours.get(at)) {
                (Some(theirs), Some(ours)) => pairs.push((*theirs, *ours)),
                (theirs, ours) => outcome.differences.push(lonely(theirs.copied(), ours.copied())),
            }
        }
    }
    for ours in our.into_values().flatten() {
        outcome.differences.push(lonely(None, Some(ours)));
    }
    outcome.pairs = pairs.len();
    for (theirs, ours) in &pairs {
        outcome.differences.extend(differences(&theirs.written, &ours.written));
        outcome.differences.extend(places(theirs, ours));
    }
    outcome.differences.extend(order(&mut pairs));
    Ok(outcome)
}

/// Reads a topic's records. A tombstone belongs to the record before it in its partition.
fn told(records: &[Record]) -> Result<Vec<Told>> {
    let mut all: Vec<Told> = Vec::new();
    for record in records {
        let json = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => serde_json::from_slice(bytes).context("a record is not JSON"),
            None => Ok(Value::Null),
        };
        let (key, value) = (json(&record.key)?, json(&record.value)?);
        let before = all.last().filter(|told| told.partition == record.partition);
        let change = match (change(&value), before) {
            (Some(change), _) => change,
            (None, Some(Told { change: (lsn, transaction, _), .. })) => {
                (*lsn, *transaction, "tombstone".to_owned())
            }
            (None, None) => (0, 0, "tombstone".to_owned()),
        };
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map_or("(null)".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let headers = record.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let written = Written { key, value, headers }.levelled();
        let (partition, offset) = (record.partition, record.offset);
        all.push(Told { change, partition, offset, key: record.key.clone(), written });
    }
    Ok(all)
}

fn change(value: &Value) -> Option<Change> {
    let payload = value.get("payload").unwrap_or(value);
    let source = payload.get("source")?;
    Some((
        source.get("lsn")?.as_i64()?,
        source.get("txId")?.as_i64()?,
        payload.get("op")?.as_str()?.to_owned(),
    ))
}

/// Records of one statement share their LSN. Within it they are told apart by their keys.
fn by_change(all: &[Told]) -> BTreeMap<&Change, Vec<&Told>> {
    let mut changes: BTreeMap<&Change, Vec<&Told>> = BTreeMap::new();
    for told in all {
        changes.entry(&told.change).or_default().push(told);
    }
    for one in changes.values_mut() {
        one.sort_by(|a, b| (&a.key, a.offset).cmp(&(&b.key, b.offset)));
    }
    changes
}

fn lonely(theirs: Option<&Told>, ours: Option<&Told>) -> Difference {
    let whole = |told: &Told| {
        let Written { key, value, .. } = &told.written;
        let (key, value) = (key.get("payload").unwrap_or(key), value.get("payload").unwrap_or(value));
        serde_json::json!({ "change": told.change.2, "key": key, "value": value })
    };
    Difference { at: "record".to_owned(), column: None, theirs: theirs.map(whole), ours: ours.map(whole) }
}

/// What is different beside the content: the key's bytes, which decide the partition, and the partition itself.
fn places(theirs: &Told, ours: &Told) -> Vec<Difference> {
    let difference = |at: &str, theirs: Value, ours: Value| Difference {
        at: at.to_owned(),
        column: None,
        theirs: Some(theirs),
        ours: Some(ours),
    };
    let mut found = Vec::new();
    // A difference in the content has been told already.
    if theirs.written.key != ours.written.key || theirs.key.is_none() {
        return found;
    }
    if theirs.key != ours.key {
        let text = |told: &Told| {
            let text = String::from_utf8_lossy(told.key.as_deref().unwrap_or_default()).into_owned();
            text.split_once("\"payload\":").map_or(text.clone(), |(_, payload)| payload.to_owned())
        };
        found.push(difference("key (bytes)", text(theirs).into(), text(ours).into()));
    } else if theirs.partition != ours.partition {
        found.push(difference("partition", theirs.partition.into(), ours.partition.into()));
    }
    found
}

/// Whether the makers agree on the order in each partition: one difference at most, at the first place where they do not.
/// Records without a key are in any partition.
fn order(pairs: &mut Vec<(&Told, &Told)>) -> Option<Difference> {
    pairs.retain(|(theirs, ours)| theirs.key.is_some() && theirs.partition == ours.partition);
    pairs.sort_by_key(|(theirs, _)| (theirs.partition, theirs.offset));
    let follows = |pair: &&[(&Told, &Told)]| {
        let [(_, one), (_, next)] = pair else { return true };
        one.partition != next.partition || one.offset < next.offset
    };
    let wrong = pairs.windows(2).find(|pair| !follows(pair))?;
    let names =
        |side: fn(&(&Told, &Told)) -> i64| Some(wrong.iter().map(|pair| Value::from(side(pair))).collect());
    Some(Difference {
        at: "order (offsets)".to_owned(),
        column: None,
        theirs: names(|(theirs, _)| theirs.offset),
        ours: names(|(_, ours)| ours.offset),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(partition: u32, offset: i64, key: i64, lsn: Option<i64>) -> Record {
        let value =
            lsn.map(|lsn| json!({"op": "c", "source": {"lsn": lsn, "txId": 1}}).to_string().into_bytes());
        Record { partition, offset, key: Some(key.to_string().into_bytes()), value, headers: Vec::new() }
    }

    fn found(theirs: Vec<Record>, ours: Vec<Record>) -> Vec<String> {
        let outcome = compare(&Trail { table: "t".to_owned(), theirs, ours }).unwrap();
        outcome.differences.into_iter().map(|difference| difference.at).collect()
    }

    #[test]
    fn records_of_one_change_are_compared_wherever_they_are() {
        let all = || vec![record(0, 0, 1, Some(10)), record(0, 1, 1, None), record(1, 0, 2, Some(20))];
        assert!(found(all(), all()).is_empty());
        let shorter = vec![record(0, 0, 1, Some(10)), record(1, 0, 2, Some(20))];
        assert_eq!(found(all(), shorter.clone()), ["record"]);
        assert_eq!(found(shorter, all()), ["record"]);
    }

    #[test]
    fn another_partition_and_another_order_are_found() {
        let theirs = vec![record(0, 0, 1, Some(10)), record(0, 1, 1, Some(20))];
        let ours = vec![record(0, 0, 1, Some(20)), record(0, 1, 1, Some(10))];
        assert_eq!(found(theirs.clone(), ours), ["order (offsets)"]);
        let ours = vec![record(1, 0, 1, Some(10)), record(0, 0, 1, Some(20))];
        assert_eq!(found(theirs, ours), ["partition"]);
    }

    #[test]
    fn keys_of_the_same_json_with_other_bytes_are_found() {
        let (theirs, mut other) = (record(0, 0, 1, Some(10)), record(0, 0, 1, Some(10)));
        other.key = Some(b" 1".to_vec());
        assert_eq!(found(vec![theirs], vec![other]), ["key (bytes)"]);
    }
}
