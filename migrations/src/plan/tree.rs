//! The plan's YAML as one tree in which every key and value knows its place.
//!
//! Typed parsing would stop at the first value of a wrong kind and untagged enums lose their places, so nothing
//! is interpreted here: scalars stay text, and what they should have been is the checker's business.

use crate::code::Code;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Spanned, UserMessageFormatter};
use std::fmt;

/// Deeper nesting than this is refused; a plan needs seven.
const DEPTH_MAX: usize = 24;
/// More keys and values than this, aliases expanded, are refused.
const NODES_MAX: usize = 200_000;

/// A place in the file, both from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub spot: Spot,
    /// Where the key stands that it belongs to; for the root and for items of a list its own place.
    pub owner: Spot,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A scalar's text: numbers and booleans as they were written.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    /// As written, quotes and escapes resolved.
    pub written: String,
    /// With the environment filled in; none where a variable was missing, which is a finding already.
    pub meant: Option<String>,
}

impl Scalar {
    /// Whether nothing of it came from the environment.
    pub(super) fn is_as_written(&self) -> bool {
        self.meant.as_deref() == Some(&self.written)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub spot: Spot,
    pub text: String,
}

/// Why there is no tree. It stands alone: what follows a syntax error cannot be trusted.
pub(super) struct Unreadable {
    pub spot: Spot,
    pub code: Code,
    pub message: String,
    pub hint: String,
}

pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    let budget = serde_saphyr::budget! {
        max_depth: DEPTH_MAX,
        max_nodes: NODES_MAX,
        max_events: NODES_MAX * 2,
        max_documents: 2,
    };
    let aliases = serde_saphyr::alias_limits! {
        max_total_replayed_events: NODES_MAX,
        max_replay_stack_depth: DEPTH_MAX,
    };
    let options = serde_saphyr::options! {
        budget: budget,
        alias_limits: aliases,
        duplicate_keys: DuplicateKeyPolicy::Error,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(placed(raw, None, text)),
        Err(error) => Err(unreadable(&error, text)),
    }
}

fn unreadable(error: &serde_saphyr::Error, text: &str) -> Unreadable {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let spot = spot(location).unwrap_or(Spot { line: 1, column: 1 });
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error.without_snippet() {
        let name = key.as_deref().map_or_else(String::new, |key| format!(" `{key}`"));
        return Unreadable {
            spot,
            code: Code::PlanDuplicateKey,
            message: format!("one mapping has the key{name} twice"),
            hint: "keep one of the two; other findings are shown after that".to_owned(),
        };
    }
    let rendered = error.render_with_formatter(&UserMessageFormatter);
    // The place is shown beside the message already.
    let message = rendered.split(" at line ").next().unwrap_or_default().trim();
    let line = usize::try_from(spot.line).ok().and_then(|line| text.lines().nth(line.saturating_sub(1)));
    let hint = if line.is_some_and(|line| line.contains("${")) {
        "inside `{ }` and `[ ]` put a value with `${…}` in quotes: `\"${NAME}\"`"
    } else if line.is_some_and(names_segment) {
        "inside `{ }` and `[ ]` put a route with `{…}` in quotes: `{ match: \"GET /orders/{id}\" }`"
    } else {
        "fix it here or just above; other findings are shown after that"
    };
    Unreadable {
        spot,
        code: Code::PlanSyntax,
        message: format!("this is not YAML that can be read: {message}"),
        hint: hint.to_owned(),
    }
}

/// Whether a line has a route with a named segment, whose braces YAML takes for its own.
fn names_segment(line: &str) -> bool {
    line.split_once("/{").is_some_and(|(_, rest)| rest.contains('}'))
}

fn spot(location: Location) -> Option<Spot> {
    let line = u32::try_from(location.line()).ok().filter(|line| *line > 0)?;
    let column = u32::try_from(location.column()).ok().filter(|column| *column > 0)?;
    Some(Spot { line, column })
}

/// What serde hands over, before places and written texts are put in.
enum Raw {
    Null,
    /// Something that YAML takes for a boolean or a number; the text is what serde made of it.
    Inferred(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn placed(raw: Spanned<Raw>, owner: Option<Spot>, text: &str) -> Node {
    let here = spot(raw.defined).or(spot(raw.referenced)).or(owner).unwrap_or(Spot { line: 1, column: 1 });
    let scalar = |written: String| Value::Scalar(Scalar { meant: Some(written.clone()), written });
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(written) => scalar(written),
        Raw::Inferred(made) => scalar(as_written(raw.defined, text).unwrap_or(made)),
        Raw::List(items) => Value::List(items.into_iter().map(|item| placed(item, None, text)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = spot(key.defined).unwrap_or(here);
                    (Key { spot: at, text: key.value }, placed(value, Some(at), text))
                })
                .collect(),
        ),
    };
    Node { spot: here, owner: owner.unwrap_or(here), value }
}

/// A plain scalar's own characters: `007` and `yes` are names as good as any.
fn as_written(location: Location, text: &str) -> Option<String> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    let written = text.get(start..end)?.trim();
    let plain = !written.is_empty() && !written.contains(|c: char| c.is_whitespace());
    plain.then(|| written.to_owned())
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Inferred(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Inferred(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Inferred(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Inferred(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'n>(node: &'n Node, key: &str) -> (&'n Key, &'n Node) {
        let Value::Map(entries) = &node.value else { panic!("not a mapping") };
        entries.iter().find(|(k, _)| k.text == key).map(|(k, n)| (k, n)).unwrap()
    }

    fn written(node: &Node) -> &str {
        let Value::Scalar(scalar) = &node.value else { panic!("not a scalar") };
        &scalar.written
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let tree = read("a: 1\nbee: { c: [x, ~, \"y z\"] }\n").unwrap_or_else(|e| panic!("{}", e.message));
        let (key, node) = entry(&tree, "bee");
        assert_eq!((key.spot.line, key.spot.column), (2, 1));
        let (key, list) = entry(node, "c");
        assert_eq!((key.spot.line, key.spot.column), (2, 8));
        let Value::List(items) = &list.value else { panic!("not a list") };
        assert_eq!((items[2].spot.line, items[2].spot.column), (2, 18));
        assert!(matches!(items[1].value, Value::Null));
        assert_eq!(list.owner, key.spot);
    }

    #[test]
    fn numbers_and_booleans_stay_as_written() {
        let tree = read("a: 007\nb: yes\nc: 1e3\nd: '0x10'\ne: 1_0\nf: é 1\n")
            .unwrap_or_else(|e| panic!("{}", e.message));
        for (key, text) in
            [("a", "007"), ("b", "yes"), ("c", "1e3"), ("d", "0x10"), ("e", "1_0"), ("f", "é 1")]
        {
            assert_eq!(written(entry(&tree, key).1), text);
        }
    }

    #[test]
    fn aliases_point_at_what_they_mean_and_bombs_are_refused() {
        let tree = read("a: &x 5\nb: *x\nc: &m { k: 1 }\nd: { <<: *m, l: 2 }\n")
            .unwrap_or_else(|e| panic!("{}", e.message));
        assert_eq!(written(entry(&tree, "b").1), "5");
        assert_eq!(written(entry(entry(&tree, "d").1, "k").1), "1");
        let mut bomb = "a0: &a0 [x, x]\n".to_owned();
        for i in 1..40 {
            bomb.push_str(&format!("a{i}: &a{i} [*a{j}, *a{j}]\n", j = i - 1));
        }
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(5_000)).is_err());
    }

    #[test]
    fn a_duplicate_key_stands_alone() {
        let error = read("a: 1\nb: 2\na: 3\n").err().unwrap();
        assert_eq!((error.code, error.spot.line, error.spot.column), (Code::PlanDuplicateKey, 3, 1));
    }
}
