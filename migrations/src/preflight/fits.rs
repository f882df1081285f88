//! Whether every value of a source column arrives unchanged in a sink column, value by value as text.

use super::sight::{ColumnSeen, TypeSeen};

/// How a sink column takes a source column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// Every value arrives unchanged.
    Exact,
    /// What arrives means the same and is written otherwise.
    Rewrites,
    /// What arrives is unchanged, but the sink may refuse a value.
    MayRefuse,
    /// Values would arrive rounded or not at all.
    Changes,
}

/// Postgres' own types that are carried, by catalog name; enums and arrays of these and of enums besides.
const SUPPORTED: [&str; 20] = [
    "int2",
    "int4",
    "int8",
    "oid",
    "text",
    "varchar",
    "bpchar",
    "bool",
    "numeric",
    "float4",
    "float8",
    "timestamp",
    "timestamptz",
    "date",
    "time",
    "uuid",
    "json",
    "jsonb",
    "bytea",
    "name",
];

pub(super) fn is_supported(kind: &TypeSeen) -> bool {
    match kind {
        TypeSeen::Base(name) => SUPPORTED.contains(&name.as_str()),
        TypeSeen::Enum(_) => true,
        TypeSeen::Array(element) => !matches!(**element, TypeSeen::Array(_)) && is_supported(element),
        TypeSeen::Other(_) => false,
    }
}

pub(super) fn fit(source: &ColumnSeen, sink: &ColumnSeen) -> Fit {
    kinds(&source.kind, source.modifier, &sink.kind, sink.modifier)
}

fn kinds(source: &TypeSeen, source_modifier: i32, sink: &TypeSeen, sink_modifier: i32) -> Fit {
    match (source, sink) {
        (TypeSeen::Base(a), TypeSeen::Base(b)) if a == b => same(a, source_modifier, sink_modifier),
        (TypeSeen::Base(a), TypeSeen::Base(b)) => other(a, source_modifier, b, sink_modifier),
        (TypeSeen::Enum(a), TypeSeen::Enum(b)) => {
            if a.iter().all(|label| b.contains(label)) {
                Fit::Exact
            } else {
                Fit::MayRefuse
            }
        }
        (TypeSeen::Enum(labels), TypeSeen::Base(text)) if is_text(text) => {
            let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
            match length(sink_modifier) {
                Some(limit) if longest > limit => Fit::MayRefuse,
                _ => Fit::Exact,
            }
        }
        (TypeSeen::Base(text), TypeSeen::Enum(_)) if is_text(text) => Fit::MayRefuse,
        (TypeSeen::Array(a), TypeSeen::Array(b)) => kinds(a, source_modifier, b, sink_modifier),
        _ => Fit::Changes,
    }
}

fn same(name: &str, source: i32, sink: i32) -> Fit {
    match name {
        "varchar" => lengths(source, sink),
        // Blanks fill it up to its length, so another length is another text.
        "bpchar" if source == sink => Fit::Exact,
        "bpchar" => Fit::Changes,
        "numeric" => numerics(source, sink),
        // Without a modifier a time has six decimals.
        "timestamp" | "timestamptz" | "time" => {
            let decimals = |modifier: i32| if modifier < 0 { 6 } else { modifier };
            if decimals(sink) < decimals(source) { Fit::Changes } else { Fit::Exact }
        }
        _ => Fit::Exact,
    }
}

fn other(source: &str, source_modifier: i32, sink: &str, sink_modifier: i32) -> Fit {
    match (source, sink) {
        ("int2", "int4" | "int8") | ("int4" | "oid", "int8") | ("float4", "float8") => Fit::Exact,
        ("int2" | "int4" | "int8" | "oid", "numeric") => match scale(sink_modifier) {
            Some((_, scale)) if scale < 0 => Fit::Changes,
            Some(_) => Fit::MayRefuse,
            None => Fit::Exact,
        },
        ("int8", "int4" | "int2") | ("int4", "int2") => Fit::MayRefuse,
        ("jsonb", "json") => Fit::Exact,
        // Of a key that stands twice only the last stays, order and blanks go, and \u0000 is refused (PostgreSQL
        // manual, 8.14).
        ("json", "jsonb") => Fit::Rewrites,
        ("uuid", text) if is_text(text) => match length(sink_modifier) {
            Some(limit) if limit < 36 => Fit::MayRefuse,
            _ => Fit::Exact,
        },
        (text, "uuid") if is_text(text) => Fit::MayRefuse,
        // A padded text would be longer or shorter on the other side.
        ("bpchar", _) | (_, "bpchar") => Fit::Changes,
        // A longer text is cut at 63 bytes without an error (PostgreSQL manual, 8.3).
        (text, "name") if is_text(text) => Fit::Changes,
        (a, b) if is_text(a) && is_text(b) => lengths(source_modifier, sink_modifier),
        _ => Fit::Changes,
    }
}

fn is_text(name: &str) -> bool {
    matches!(name, "text" | "varchar" | "name")
}

/// The length that a varchar's modifier allows, in characters: it is stored with 4 added.
fn length(modifier: i32) -> Option<usize> {
    usize::try_from(modifier).ok().and_then(|modifier| modifier.checked_sub(4))
}

fn lengths(source: i32, sink: i32) -> Fit {
    match (length(source), length(sink)) {
        (_, None) => Fit::Exact,
        (Some(from), Some(to)) if from <= to => Fit::Exact,
        _ => Fit::MayRefuse,
    }
}

/// Precision and scale in a numeric's modifier (PostgreSQL source, `numeric.c`: `make_numeric_typmod`; the scale is
/// signed in 11 bits since 15).
fn scale(modifier: i32) -> Option<(i32, i32)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    Some(((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024))
}

fn numerics(source: i32, sink: i32) -> Fit {
    match (scale(source), scale(sink)) {
        (_, None) => Fit::Exact,
        (None, Some(_)) => Fit::Changes,
        (Some((_, from)), Some((_, to))) if to < from => Fit::Changes,
        (Some((digits, from)), Some((room, to))) if room - to < digits - from => Fit::MayRefuse,
        _ => Fit::Exact,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(from: &str, modifier: i32, to: &str, to_modifier: i32) -> Fit {
        let base = |name: &str| TypeSeen::Base(name.to_owned());
        kinds(&base(from), modifier, &base(to), to_modifier)
    }

    /// `numeric(precision,scale)` as the catalog keeps it.
    fn numeric(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | (scale & 0x7ff)) + 4
    }

    #[test]
    fn wider_is_exact_and_narrower_may_refuse() {
        assert_eq!(base("int4", -1, "int8", -1), Fit::Exact);
        assert_eq!(base("int8", -1, "int4", -1), Fit::MayRefuse);
        assert_eq!(base("varchar", 14, "text", -1), Fit::Exact);
        assert_eq!(base("varchar", 14, "varchar", 24), Fit::Exact);
        assert_eq!(base("text", -1, "varchar", 24), Fit::MayRefuse);
        assert_eq!(base("uuid", -1, "varchar", 14), Fit::MayRefuse);
        assert_eq!(base("jsonb", -1, "json", -1), Fit::Exact);
        assert_eq!(base("json", -1, "jsonb", -1), Fit::Rewrites);
        assert_eq!(base("name", -1, "text", -1), Fit::Exact);
        assert_eq!(base("uuid", -1, "name", -1), Fit::Exact);
    }

    #[test]
    fn what_would_be_rounded_or_shifted_is_refused() {
        assert_eq!(base("numeric", -1, "numeric", numeric(12, 2)), Fit::Changes);
        assert_eq!(base("numeric", numeric(12, 4), "numeric", numeric(12, 2)), Fit::Changes);
        assert_eq!(base("numeric", numeric(12, 2), "numeric", numeric(10, 2)), Fit::MayRefuse);
        assert_eq!(base("numeric", numeric(10, 2), "numeric", numeric(12, 2)), Fit::Exact);
        assert_eq!(base("numeric", numeric(5, -2), "numeric", numeric(5, 0)), Fit::MayRefuse);
        assert_eq!(base("timestamp", -1, "timestamptz", -1), Fit::Changes);
        assert_eq!(base("timestamp", -1, "timestamp", 3), Fit::Changes);
        assert_eq!(base("timestamp", 3, "timestamp", -1), Fit::Exact);
        assert_eq!(base("float8", -1, "float4", -1), Fit::Changes);
        assert_eq!(base("bpchar", 14, "text", -1), Fit::Changes);
        assert_eq!(base("text", -1, "name", -1), Fit::Changes);
        assert_eq!(base("varchar", 104, "name", -1), Fit::Changes);
    }

    #[test]
    fn enums_and_arrays_fit_by_their_labels_and_elements() {
        let labels =
            |labels: &[&str]| TypeSeen::Enum(labels.iter().map(|label| (*label).to_owned()).collect());
        let text = TypeSeen::Base("text".to_owned());
        let array = |element: &TypeSeen| TypeSeen::Array(Box::new(element.clone()));
        assert_eq!(kinds(&labels(&["a"]), -1, &labels(&["a"]), -1), Fit::Exact);
        assert_eq!(kinds(&labels(&["a"]), -1, &labels(&["b", "a"]), -1), Fit::Exact);
        assert_eq!(kinds(&labels(&["a", "b"]), -1, &labels(&["a"]), -1), Fit::MayRefuse);
        assert_eq!(kinds(&labels(&["a"]), -1, &text, -1), Fit::Exact);
        assert_eq!(kinds(&array(&text), -1, &array(&text), -1), Fit::Exact);
        assert_eq!(kinds(&array(&text), -1, &text, -1), Fit::Changes);
        assert!(is_supported(&array(&labels(&["a"]))));
        assert!(!is_supported(&array(&array(&text))));
    }
}
