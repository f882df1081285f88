//! What is published of a log in Kafka: `on`, `off`, or options by Debezium's names.

use super::reading::{self, Fields};
use crate::code::Code;
use crate::names::TableName;
use crate::plan::publish::{Decimals, Publish, Skipped, Times};
use crate::plan::tree::{Node, Spot, Value};
use crate::plan::written::Notes;

const DECIMALS: &str = "decimal.handling.mode";
const TIMES: &str = "time.precision.mode";
const TOMBSTONES: &str = "tombstones.on.delete";
const SKIPPED: &str = "skipped.operations";
const SCHEMAS: &str = "schemas.enable";
const REPLACES_NULL: &str = "replace.null.with.default";
const UNWRAP: &str = "unwrap";
const OUTBOX: &str = "outbox";
const HEARTBEAT: &str = "heartbeat.interval.ms";
const KEYS: [&str; 9] =
    [DECIMALS, TIMES, TOMBSTONES, SKIPPED, SCHEMAS, REPLACES_NULL, UNWRAP, OUTBOX, HEARTBEAT];
/// A day.
const HEARTBEAT_MAX_MS: u64 = 86_400_000;

/// An outbox table as the plan names it.
pub(super) type Outbox = (Spot, TableName);

/// None where it cannot be read, `Some(None)` where nothing is published.
pub(super) fn publish(
    node: Option<&Node>,
    outbox: &mut Vec<Outbox>,
    notes: &mut Notes<'_>,
) -> Option<Option<Publish>> {
    let Some(node) = node else { return Some(Some(Publish::default())) };
    if let Value::Scalar(_) = &node.value {
        let is_on = reading::choice(node, "a choice of `publish`", &[("on", true), ("off", false)], notes)?;
        return Some(is_on.then(Publish::default));
    }
    let fields = Fields::open(node, "log.kafka.publish", &KEYS, notes)?;
    let default = Publish::default();
    let mut flag = |key, default| match fields.get(key) {
        Some(node) => reading::boolean(node, &format!("a choice of `{key}`"), notes),
        None => Some(default),
    };
    let has_tombstones = flag(TOMBSTONES, default.has_tombstones);
    let has_schemas = flag(SCHEMAS, default.has_schemas);
    let replaces_null = flag(REPLACES_NULL, default.replaces_null);
    let is_unwrapped = flag(UNWRAP, default.is_unwrapped);
    let decimals = match fields.get(DECIMALS) {
        Some(node) => reading::choice(node, &format!("a `{DECIMALS}`"), &Decimals::WORDS, notes),
        None => Some(default.decimals),
    };
    let times = match fields.get(TIMES) {
        Some(node) => reading::choice(node, &format!("a `{TIMES}`"), &Times::WORDS, notes),
        None => Some(default.times),
    };
    let skipped = match fields.get(SKIPPED) {
        Some(node) => skipped(node, notes),
        None => Some(default.skipped),
    };
    let heartbeat_ms = match fields.get(HEARTBEAT) {
        Some(node) => reading::integer(node, &format!("a `{HEARTBEAT}`"), 0..=HEARTBEAT_MAX_MS, notes),
        None => Some(default.heartbeat_ms),
    };
    *outbox = tables(fields.get(OUTBOX), notes);
    Some(Some(Publish {
        decimals: decimals?,
        times: times?,
        has_tombstones: has_tombstones?,
        skipped: skipped?,
        has_schemas: has_schemas?,
        replaces_null: replaces_null?,
        is_unwrapped: is_unwrapped?,
        outbox: outbox.iter().map(|(_, table)| table.clone()).collect(),
        heartbeat_ms: heartbeat_ms?,
    }))
}

/// Letters of operations with commas between them, in one value, or a list of them.
fn skipped(node: &Node, notes: &mut Notes<'_>) -> Option<Skipped> {
    let letters: Vec<String> = match &node.value {
        Value::List(items) => {
            let letter = |item| reading::text(item, "an operation", notes).map(str::to_owned);
            items.iter().map(letter).collect::<Option<_>>()?
        }
        _ => reading::text(node, "operations", notes)?
            .split(',')
            .map(|letter| letter.trim().to_owned())
            .collect(),
    };
    let mut skipped = Skipped::default();
    for letter in &letters {
        match letter.as_str() {
            "c" => skipped.creates = true,
            "u" => skipped.updates = true,
            "d" => skipped.deletes = true,
            "t" => skipped.truncates = true,
            "none" if letters.len() == 1 => {}
            other => {
                let message = format!("`{}` is not an operation to skip", reading::shown(other));
                let hint = "write `none`, or some of `c`, `u`, `d` and `t` with commas between them";
                notes.error(node.spot, Code::PlanBadValue, message, hint);
                return None;
            }
        }
    }
    Some(skipped)
}

fn tables(node: Option<&Node>, notes: &mut Notes<'_>) -> Vec<Outbox> {
    let one = |node: &Node, notes: &mut Notes<'_>| {
        let table = reading::parse(node, "a table", notes)?;
        Some((node.spot, table))
    };
    match node {
        Some(node) if !matches!(node.value, Value::List(_)) => one(node, notes).into_iter().collect(),
        node => {
            let items = reading::items(node, OUTBOX, notes);
            items.into_iter().filter_map(|node| one(node, notes)).collect()
        }
    }
}
