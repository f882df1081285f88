//! Two makers' records of the same change, compared member by member: Debezium's connector and a second one.
//!
//! What no two makers can have in common (their names, their clocks) is made equal first. Everything else is a
//! difference, with its place in the record.

mod explained;

use serde_json::{Map, Value};

pub use explained::Explained;

/// One record as JSON, with or without the Connect schema of key and value.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Null where the record has none.
    pub key: Value,
    /// Null for a tombstone.
    pub value: Value,
    pub headers: Vec<(String, String)>,
}

/// One difference between two records of one change.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where it is, a column's name written as `*`: `value.payload.after.*`, `key.schema.fields.*.type`.
    pub at: String,
    /// The column it belongs to.
    pub column: Option<String>,
    /// None where it is missing.
    pub theirs: Option<Value>,
    pub ours: Option<Value>,
}

/// Members of these have the columns' names.
const ROWS: [&str; 6] = [
    "key.payload",
    "key.schema.fields",
    "value.payload.before",
    "value.payload.after",
    "value.schema.fields.before.fields",
    "value.schema.fields.after.fields",
];
/// The last step to a difference in the order of members.
const ORDER: &str = "(order)";
/// When a record was processed, and by what.
const OF_MAKER: [&str; 4] = ["/ts_ms", "/ts_us", "/ts_ns", "/source/version"];

impl Written {
    /// The same record without what differs between any two makers: `version`, the time of processing, and the position of
    /// the transaction before, which depends on when its maker started.
    pub fn levelled(mut self) -> Written {
        let value = match self.value.get_mut("payload") {
            Some(payload) => payload,
            None => &mut self.value,
        };
        for place in OF_MAKER {
            if let Some(member) = value.pointer_mut(place) {
                *member = Value::Null;
            }
        }
        if let Some(sequence) = value.pointer_mut("/source/sequence")
            && let Some(Ok(Value::Array(mut parts))) = sequence.as_str().map(serde_json::from_str)
        {
            parts.splice(..parts.len().saturating_sub(1), [Value::Null]);
            *sequence = Value::Array(parts).to_string().into();
        }
        self
    }
}

/// What is different in two records of one change.
pub fn differences(theirs: &Written, ours: &Written) -> Vec<Difference> {
    let mut walk = Walk { path: Vec::new(), found: Vec::new() };
    walk.within("key", |walk| walk.values(&theirs.key, &ours.key));
    walk.within("value", |walk| walk.values(&theirs.value, &ours.value));
    let headers = |written: &Written| {
        let headers = written.headers.iter().map(|(name, text)| (name.clone(), Value::from(text.as_str())));
        headers.collect::<Map<String, Value>>()
    };
    walk.within("headers", |walk| walk.members(&headers(theirs), &headers(ours)));
    walk.found
}

struct Walk {
    path: Vec<String>,
    found: Vec<Difference>,
}

impl Walk {
    fn within(&mut self, name: &str, work: impl FnOnce(&mut Walk)) {
        self.path.push(name.to_owned());
        work(self);
        self.path.pop();
    }

    fn differ(&mut self, theirs: Option<&Value>, ours: Option<&Value>) {
        let mut path = self.path.clone();
        let is_row = |depth: &usize| ROWS.contains(&path[..*depth].join(".").as_str());
        let column = (2..path.len()).find(is_row).filter(|depth| path[*depth] != ORDER);
        let column = column.map(|depth| std::mem::replace(&mut path[depth], "*".to_owned()));
        self.found.push(Difference {
            at: path.join("."),
            column,
            theirs: theirs.cloned(),
            ours: ours.cloned(),
        });
    }

    fn values(&mut self, theirs: &Value, ours: &Value) {
        match (theirs, ours) {
            (Value::Object(theirs), Value::Object(ours)) => self.members(theirs, ours),
            (Value::Array(their), Value::Array(our)) => match (named(their), named(our)) {
                (Some(theirs), Some(ours)) => self.members(&theirs, &ours),
                _ => self.elements(theirs, ours, their, our),
            },
            _ if theirs == ours => {}
            _ => self.differ(Some(theirs), Some(ours)),
        }
    }

    fn elements(&mut self, theirs: &Value, ours: &Value, their: &[Value], our: &[Value]) {
        if their.len() != our.len() {
            return self.differ(Some(theirs), Some(ours));
        }
        self.within("[]", |walk| {
            for (theirs, ours) in their.iter().zip(our) {
                walk.values(theirs, ours);
            }
        });
    }

    fn members(&mut self, theirs: &Map<String, Value>, ours: &Map<String, Value>) {
        for (name, value) in theirs {
            self.within(name, |walk| match ours.get(name) {
                Some(ours) => walk.values(value, ours),
                None => walk.differ(Some(value), None),
            });
        }
        for (name, value) in ours.iter().filter(|(name, _)| !theirs.contains_key(*name)) {
            self.within(name, |walk| walk.differ(None, Some(value)));
        }
        let their_order = names(theirs, ours);
        let our_order = names(ours, theirs);
        if their_order != our_order {
            self.within(ORDER, |walk| walk.differ(Some(&their_order), Some(&our_order)));
        }
    }
}

/// The names of the members that both have, in one's order.
fn names(one: &Map<String, Value>, other: &Map<String, Value>) -> Value {
    one.keys().filter(|name| other.contains_key(*name)).map(|name| Value::from(name.as_str())).collect()
}

/// The fields of a schema, by their names.
fn named(fields: &[Value]) -> Option<Map<String, Value>> {
    let field = |field: &Value| Some((field.get("field")?.as_str()?.to_owned(), field.clone()));
    fields.iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(value: Value) -> Written {
        Written { key: Value::Null, value, headers: Vec::new() }
    }

    fn found(theirs: Value, ours: Value) -> Vec<(String, Option<String>)> {
        let found = differences(&written(theirs), &written(ours));
        found.into_iter().map(|difference| (difference.at, difference.column)).collect()
    }

    #[test]
    fn a_difference_names_its_place_and_its_column() {
        let theirs = json!({"payload": {"op": "c", "after": {"a": 1, "b": {"x": [1, 2]}}, "ts": null}});
        let ours = json!({"payload": {"op": "u", "after": {"a": 2, "b": {"x": [1, 3]}, "c": 5}}});
        let place = |at: &str, column: Option<&str>| (at.to_owned(), column.map(str::to_owned));
        assert_eq!(
            found(theirs, ours),
            [
                place("value.payload.op", None),
                place("value.payload.after.*", Some("a")),
                place("value.payload.after.*.x.[]", Some("b")),
                place("value.payload.after.*", Some("c")),
                place("value.payload.ts", None),
            ]
        );
    }

    #[test]
    fn fields_of_a_schema_are_compared_by_name_and_their_order_counts() {
        let field = |name: &str, kind: &str| json!({"field": name, "type": kind});
        let schema = |fields: Vec<Value>| {
            json!({"schema": {"type": "struct", "fields": [
                {"field": "after", "type": "struct", "fields": fields}
            ]}})
        };
        let theirs = schema(vec![field("a", "int32"), field("b", "string")]);
        let ours = schema(vec![field("b", "bytes"), field("a", "int64")]);
        let at: Vec<_> = found(theirs, ours).into_iter().map(|(at, _)| at).collect();
        assert_eq!(
            at,
            [
                "value.schema.fields.after.fields.*.type",
                "value.schema.fields.after.fields.*.type",
                "value.schema.fields.after.fields.(order)",
            ]
        );
    }

    #[test]
    fn what_no_two_makers_share_is_made_equal() {
        let record = |version: &str, sequence: &str, time: i64| {
            written(json!({"source": {"version": version, "sequence": sequence, "lsn": 7}, "ts_ms": time}))
        };
        let theirs = record("3.6", r#"["1","7"]"#, 1).levelled();
        assert_eq!(theirs, record("0.1", r#"[null,"7"]"#, 2).levelled());
        assert_ne!(theirs, record("0.1", r#"["1","8"]"#, 2).levelled());
        let with_header = Written { headers: vec![("a".to_owned(), "x".to_owned())], ..theirs.clone() };
        assert_eq!(with_header.clone().levelled(), with_header);
    }
}
