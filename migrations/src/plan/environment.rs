//! `${NAME}` and `${NAME:-default}` in the plan's values; `$$` is one `$`.
//!
//! What a variable holds is never part of a finding: it may be a secret.

use super::tree::{Node, Scalar, Value};
use super::written::Notes;
use crate::code::Code;

/// Something that stands where a variable should.
#[derive(Debug, PartialEq, Eq)]
enum Gap {
    /// It is not set, and there is no default.
    Missing(String),
    /// `${` that does not go on as it must.
    Malformed(String),
}

/// Fills the environment into every value of the tree; what is missing is noted, and the value left out.
pub(super) fn fill(node: &mut Node, env: &dyn Fn(&str) -> Option<String>, notes: &mut Notes<'_>) {
    let spot = node.spot;
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) => fill_scalar(scalar, env, |gap| match gap {
            Gap::Missing(name) => notes.error(
                spot,
                Code::PlanMissingVariable,
                format!("the environment variable {name} is not set"),
                format!("set it, e.g. `export {name}=…`, or write a default: `${{{name}:-…}}`"),
            ),
            Gap::Malformed(text) => notes.error(
                spot,
                Code::PlanBadVariable,
                format!("`{text}` does not name an environment variable"),
                "write `${NAME}` or `${NAME:-default}`, and `$$` for a plain `$`",
            ),
        }),
        Value::List(items) => items.iter_mut().for_each(|item| fill(item, env, notes)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| fill(value, env, notes)),
    }
}

fn fill_scalar(scalar: &mut Scalar, env: &dyn Fn(&str) -> Option<String>, mut report: impl FnMut(Gap)) {
    if !scalar.written.contains('$') {
        return;
    }
    let (meant, gaps) = expand(&scalar.written, env);
    scalar.meant = gaps.is_empty().then_some(meant);
    gaps.into_iter().for_each(&mut report);
}

fn expand(written: &str, env: &dyn Fn(&str) -> Option<String>) -> (String, Vec<Gap>) {
    let mut meant = String::with_capacity(written.len());
    let mut gaps = Vec::new();
    let mut rest = written;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        meant.push_str(before);
        if let Some(after) = from.strip_prefix("$$") {
            meant.push('$');
            rest = after;
        } else if let Some(inside) = from.strip_prefix("${") {
            let Some((reference, after)) = inside.split_once('}') else {
                gaps.push(Gap::Malformed("${".to_owned()));
                return (meant, gaps);
            };
            match resolve(reference, env) {
                Ok(value) => meant.push_str(&value),
                Err(gap) => gaps.push(gap),
            }
            rest = after;
        } else {
            meant.push('$');
            rest = &from[1..];
        }
    }
    meant.push_str(rest);
    (meant, gaps)
}

fn resolve(reference: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Gap> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        // A default may be a secret, so only the name's part is repeated.
        return Err(Gap::Malformed(format!("${{{name}}}")));
    }
    match (env(name), default) {
        // As in a shell: `:-` also stands in for an empty variable.
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Gap::Missing(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_dollars() {
        let meant = |text: &str| expand(text, &env).0;
        assert_eq!(meant("x${A}y"), "xoney");
        assert_eq!(meant("${EMPTY}|${EMPTY:-d}|${NONE:-a:-b}|${NONE:-}"), "|d|a:-b|");
        assert_eq!(meant("$${A} $A 5$"), "${A} $A 5$");
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        assert_eq!(
            expand("${NONE}${A}${B}", &env).1,
            [Gap::Missing("NONE".into()), Gap::Missing("B".into())]
        );
        assert_eq!(expand("${A-x}", &env).1, [Gap::Malformed("${A-x}".into())]);
        assert_eq!(expand("${A", &env).1, [Gap::Malformed("${".into())]);
        assert_eq!(expand("${}", &env).1, [Gap::Malformed("${}".into())]);
    }
}
