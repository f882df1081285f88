//! Reads mappings, lists and scalars of the tree, noting what is not of the kind it should be.
//!
//! Messages repeat a value only as it was written, never what the environment made of it.

use crate::code::Code;
use crate::plan::tree::{Key, Node, Scalar, Spot, Value};
use crate::plan::written::{Notes, is_variable};
use crate::problem::Diagnostic;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// How alike two words must be for one to be offered for the other, 0 to 1.
const LIKENESS_MIN: f64 = 0.55;
/// A value shown in a message is cut here.
const SHOWN_CHARS_MAX: usize = 60;
/// A log must hold a few flushes and the history that a slice reads again after a restart.
const LOG_BYTES: RangeInclusive<u64> = 64 << 20..=1 << 40;

/// A mapping with known keys.
pub(super) struct Fields<'n> {
    what: String,
    /// The place to point at where a key is missing.
    pub owner: Spot,
    entries: Vec<(&'n Key, &'n Node)>,
    /// Keys that were most likely meant by mistyped ones: that they are missing needs no word of its own.
    mistyped: Vec<String>,
}

impl<'n> Fields<'n> {
    /// Opens a mapping; other keys than the known ones are findings.
    pub(super) fn open(node: &'n Node, what: &str, known: &[&str], notes: &mut Notes<'_>) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            wrong_kind(
                node,
                what,
                "a mapping of keys and values",
                &format!("its keys are {}", listed(known)),
                notes,
            );
            return None;
        };
        let mut mistyped = Vec::new();
        for (key, value) in map {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            keep_secrets(names_secret(&key.text), value, notes);
            let hint = match nearest(&key.text, known.iter().copied()) {
                Some(near) => {
                    mistyped.push(near.to_owned());
                    format!("write `{near}`")
                }
                None => format!("its keys are {}", listed(known)),
            };
            let message = format!("{what} has no key `{}`", shown(&key.text));
            notes.error(key.spot, Code::PlanUnknownKey, message, hint);
        }
        let entries = map.iter().map(|(key, value)| (key, value)).collect();
        Some(Self { what: what.to_owned(), owner: node.owner, entries, mistyped })
    }

    /// The value of a key, where there is one; an empty value counts as left out.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| *node).filter(|n| !n.is_null())
    }

    /// As [`Fields::get`], and also none where the value is an empty list or mapping.
    pub(super) fn filled(&self, key: &str) -> Option<&'n Node> {
        self.get(key).filter(|node| match &node.value {
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            Value::Null | Value::Scalar(_) => true,
        })
    }

    /// Whether an unknown key looks like this one.
    pub(super) fn is_mistyped(&self, key: &str) -> bool {
        self.mistyped.iter().any(|meant| meant == key)
    }

    /// As [`Fields::get`]; a missing key is a finding.
    pub(super) fn need(&self, key: &str, hint: &str, notes: &mut Notes<'_>) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() && !self.is_mistyped(key) {
            let at = self.entries.iter().find(|(k, _)| k.text == key).map_or(self.owner, |(k, _)| k.spot);
            notes.error(at, Code::PlanMissingKey, format!("{} needs `{key}`", self.what), hint);
        }
        found
    }
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }
}

/// The entries of a mapping whose keys are names; none where it is left out.
pub(super) fn entries<'n>(
    node: Option<&'n Node>,
    what: &str,
    notes: &mut Notes<'_>,
) -> Vec<(&'n Key, &'n Node)> {
    match node.map(|node| (node, &node.value)) {
        None | Some((_, Value::Null)) => Vec::new(),
        Some((_, Value::Map(map))) => map.iter().map(|(key, value)| (key, value)).collect(),
        Some((node, _)) => {
            wrong_kind(node, what, "a mapping of names", "write `name: …` below it, one a line", notes);
            Vec::new()
        }
    }
}

/// The items of a list; none where it is left out.
pub(super) fn items<'n>(node: Option<&'n Node>, what: &str, notes: &mut Notes<'_>) -> Vec<&'n Node> {
    match node.map(|node| (node, &node.value)) {
        None | Some((_, Value::Null)) => Vec::new(),
        Some((_, Value::List(list))) => list.iter().collect(),
        Some((node, _)) => {
            wrong_kind(node, what, "a list", "write `[a, b]`, or `- a` below it, one a line", notes);
            Vec::new()
        }
    }
}

/// A scalar's text. None without a further finding where a variable of it is missing.
pub(super) fn text<'n>(node: &'n Node, what: &str, notes: &mut Notes<'_>) -> Option<&'n str> {
    scalar(node, what, notes)?.meant.as_deref()
}

pub(super) fn scalar<'n>(node: &'n Node, what: &str, notes: &mut Notes<'_>) -> Option<&'n Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        _ => {
            wrong_kind(node, what, "one value", "write it after the colon", notes);
            None
        }
    }
}

/// A scalar as something that can be parsed; the parser's own words say what is wrong.
pub(super) fn parse<T: FromStr<Err: Diagnostic>>(
    node: &Node,
    what: &str,
    notes: &mut Notes<'_>,
) -> Option<T> {
    let scalar = scalar(node, what, notes)?;
    let meant = scalar.meant.as_deref()?;
    meant.parse().map_err(|error| bad_value(node.spot, what, scalar, &error, notes)).ok()
}

/// A key as something that can be parsed.
pub(super) fn parse_key<T: FromStr<Err: Diagnostic>>(
    key: &Key,
    what: &str,
    notes: &mut Notes<'_>,
) -> Option<T> {
    let scalar = Scalar { written: key.text.clone(), meant: Some(key.text.clone()) };
    key.text.parse().map_err(|error| bad_value(key.spot, what, &scalar, &error, notes)).ok()
}

fn bad_value(spot: Spot, what: &str, scalar: &Scalar, error: &impl Diagnostic, notes: &mut Notes<'_>) {
    if scalar.is_as_written() {
        notes.error(spot, Code::PlanBadValue, error.to_string(), error.remedy());
        return;
    }
    let message = format!("the value of `{}` is not {what}", shown(&scalar.written));
    notes.error(spot, Code::PlanBadValue, message, "correct the variable's value");
}

/// One of a few words.
pub(super) fn choice<T: Copy>(
    node: &Node,
    what: &str,
    words: &[(&str, T)],
    notes: &mut Notes<'_>,
) -> Option<T> {
    let scalar = scalar(node, what, notes)?;
    let meant = scalar.meant.as_deref()?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == meant) {
        return Some(*value);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = match nearest(&scalar.written, known.iter().copied()) {
        Some(near) if known.len() > 1 => format!("write `{near}`; there are {}", listed(&known)),
        _ => {
            format!("write {}", known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or "))
        }
    };
    let message = format!("`{}` is not {what}", shown(&scalar.written));
    notes.error(node.spot, Code::PlanBadValue, message, hint);
    None
}

pub(super) fn boolean(node: &Node, what: &str, notes: &mut Notes<'_>) -> Option<bool> {
    choice(node, what, &[("true", true), ("false", false)], notes)
}

pub(super) fn integer(
    node: &Node,
    what: &str,
    bounds: RangeInclusive<u64>,
    notes: &mut Notes<'_>,
) -> Option<u64> {
    let units = [("", 1)];
    let example = format!("write a whole number from {} to {}", bounds.start(), bounds.end());
    measured(node, what, &units, bounds, &example, notes)
}

/// What a log may grow to.
pub(super) fn log_max(fields: &Fields<'_>, otherwise: u64, notes: &mut Notes<'_>) -> Option<u64> {
    match fields.get("max") {
        Some(node) => bytes(node, "a size of the log", LOG_BYTES, notes),
        None => Some(otherwise),
    }
}

/// A size such as `16GiB`, in bytes.
pub(super) fn bytes(
    node: &Node,
    what: &str,
    bounds: RangeInclusive<u64>,
    notes: &mut Notes<'_>,
) -> Option<u64> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let hint = format!(
        "write a size such as `256MiB` or `1GB`, from {} to {}",
        shown_bytes(*bounds.start()),
        shown_bytes(*bounds.end())
    );
    measured(node, what, &units, bounds, &hint, notes)
}

/// A duration such as `500ms`, in ms.
pub(super) fn milliseconds(
    node: &Node,
    what: &str,
    bounds: RangeInclusive<u64>,
    notes: &mut Notes<'_>,
) -> Option<u64> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    let hint = format!(
        "write a duration such as `500ms`, `2s` or `1m`, from {}ms to {}ms",
        bounds.start(),
        bounds.end()
    );
    measured(node, what, &units, bounds, &hint, notes)
}

fn measured(
    node: &Node,
    what: &str,
    units: &[(&str, u64)],
    bounds: RangeInclusive<u64>,
    hint: &str,
    notes: &mut Notes<'_>,
) -> Option<u64> {
    let scalar = scalar(node, what, notes)?;
    let meant = scalar.meant.as_deref()?;
    let digits = meant.len() - meant.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = meant.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, factor)| *factor);
    let value = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
    let fits = value.filter(|value| bounds.contains(value));
    if fits.is_none() {
        let message = format!("`{}` is not {what}", shown(&scalar.written));
        notes.error(node.spot, Code::PlanBadValue, message, hint);
    }
    fits
}

fn shown_bytes(bytes: u64) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes >= 1 << shift && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// What stands under a key that no plan has is shown with the finding about it: not so what such a key calls secret.
fn keep_secrets(is_secret: bool, node: &Node, notes: &mut Notes<'_>) {
    match &node.value {
        Value::Null => {}
        Value::Scalar(scalar) if is_secret && !is_variable(&scalar.written) => {
            notes.keep_secret(scalar.written.trim());
        }
        Value::Scalar(_) => {}
        Value::List(items) => items.iter().for_each(|item| keep_secrets(is_secret, item, notes)),
        Value::Map(map) => {
            for (key, value) in map {
                keep_secrets(is_secret || names_secret(&key.text), value, notes);
            }
        }
    }
}

fn names_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    ["secret", "pass", "token", "pwd", "credential"].iter().any(|word| key.contains(word))
}

/// Notes that a value is of another kind than it should be.
pub(super) fn wrong_kind(node: &Node, what: &str, wanted: &str, hint: &str, notes: &mut Notes<'_>) {
    keep_secrets(false, node, notes);
    let (is, at) = match &node.value {
        Value::Null => ("nothing", node.owner),
        Value::Scalar(_) => ("one value", node.spot),
        Value::List(_) => ("a list", node.spot),
        Value::Map(_) => ("a mapping", node.spot),
    };
    notes.error(at, Code::PlanWrongKind, format!("{what} must be {wanted}, and is {is}"), hint);
}

/// The candidate most like a word, if one is like it at all.
pub(super) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| {
            (strsim::normalized_damerau_levenshtein(&word, &candidate.replace('-', "_")), candidate)
        })
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// `a`, `b` and `c`, for a hint.
pub(super) fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// A text of the file for a message: one line, not too long.
pub(super) fn shown(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_control() { '·' } else { c }).take(SHOWN_CHARS_MAX).collect();
    if clean.chars().count() < text.chars().count() { format!("{clean}…") } else { clean }
}
