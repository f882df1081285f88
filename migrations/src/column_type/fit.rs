//! Whether every value of one type arrives unchanged in another, value by value as text.

use super::{ColumnType, TypeSeen, length, scale};

/// How a sink column takes a source column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    Exact,
    /// What arrives means the same and is written otherwise.
    Rewrites,
    /// What arrives is unchanged, but the sink may refuse a value.
    MayRefuse,
    /// Values would arrive rounded or not at all.
    Changes,
}

/// How a sink column takes the values of a source column, each with its type's modifier (`atttypmod`).
pub fn fit(source: &TypeSeen, source_modifier: i32, sink: &TypeSeen, sink_modifier: i32) -> Fit {
    if let TypeSeen::Domain { name, of, modifier } = sink {
        let inner = fit(source, source_modifier, of, *modifier);
        // The sink's domain may forbid what the source allows.
        let is_same = matches!(source, TypeSeen::Domain { name: own, .. } if own == name);
        return if is_same { inner } else { inner.max(Fit::MayRefuse) };
    }
    if let TypeSeen::Domain { of, modifier, .. } = source {
        return fit(of, *modifier, sink, sink_modifier);
    }
    match (source, sink) {
        (TypeSeen::Enum { labels: a, .. }, TypeSeen::Enum { labels: b, .. }) => {
            if a.iter().all(|label| b.contains(label)) { Fit::Exact } else { Fit::MayRefuse }
        }
        (TypeSeen::Array(a), TypeSeen::Array(b)) => fit(a, source_modifier, b, sink_modifier),
        (TypeSeen::Composite { fields: a, .. }, TypeSeen::Composite { fields: b, .. }) => {
            let is_same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name == b.name);
            let fits = a.iter().zip(b).map(|(a, b)| fit(&a.kind, a.modifier, &b.kind, b.modifier));
            if is_same { fits.max().unwrap_or(Fit::Exact) } else { Fit::Changes }
        }
        // A wider range prints other bounds: `[1,5)` of integers has no text of its own as a range of numerics.
        (TypeSeen::Range { name: a, of: x }, TypeSeen::Range { name: b, of: y }) => {
            if a.name == b.name && fit(x, -1, y, -1) == Fit::Exact { Fit::Exact } else { Fit::Changes }
        }
        _ => match (source.plain(), sink.plain()) {
            (Some(a), Some(b)) if a == b => same(a, source_modifier, sink_modifier),
            (Some(a), Some(b)) => other(a, source_modifier, b, sink_modifier),
            (None, Some(text))
                if is_text(text) && text != "name" && !matches!(source, TypeSeen::Array(_)) =>
            {
                as_text(source, sink_modifier)
            }
            (Some(text), None) if is_text(text) && matches!(sink, TypeSeen::Enum { .. }) => Fit::MayRefuse,
            _ => own(source, source_modifier, sink, sink_modifier),
        },
    }
}

/// Two types that only their text is known of.
fn own(source: &TypeSeen, source_modifier: i32, sink: &TypeSeen, sink_modifier: i32) -> Fit {
    match (source, sink) {
        (TypeSeen::Own(a), TypeSeen::Own(b)) if a.name == b.name => {
            let is_whole = sink_modifier < 0 || sink_modifier == source_modifier;
            if is_whole { Fit::Exact } else { Fit::Changes }
        }
        _ => Fit::Changes,
    }
}

/// A value's text in a column of texts.
fn as_text(source: &TypeSeen, sink_modifier: i32) -> Fit {
    let longest = match source {
        TypeSeen::Enum { labels, .. } => labels.iter().map(|label| label.chars().count()).max(),
        _ => Some(usize::MAX),
    };
    match length(sink_modifier) {
        Some(limit) if longest.unwrap_or(0) > limit => Fit::MayRefuse,
        _ => Fit::Exact,
    }
}

fn same(name: &str, source: i32, sink: i32) -> Fit {
    match name {
        "varchar" => lengths(source, sink),
        // Blanks fill it up to its length, so another length is another text.
        "bpchar" | "bit" if source == sink => Fit::Exact,
        "bpchar" | "bit" => Fit::Changes,
        "varbit" if sink >= 0 && (source < 0 || sink < source) => Fit::MayRefuse,
        "numeric" => numerics(source, sink),
        // Without a modifier a time has six decimals.
        "timestamp" | "timestamptz" | "time" | "timetz" => {
            let decimals = |modifier: i32| if modifier < 0 { 6 } else { modifier };
            if decimals(sink) < decimals(source) { Fit::Changes } else { Fit::Exact }
        }
        // The modifier says which fields and how many decimals stay.
        "interval" if sink >= 0 && sink != source => Fit::Changes,
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
        ("bit", "varbit") if sink_modifier < 0 || sink_modifier >= source_modifier => Fit::Exact,
        ("bit", "varbit") => Fit::MayRefuse,
        ("uuid", text) if is_text(text) => match length(sink_modifier) {
            Some(limit) if limit < 36 => Fit::MayRefuse,
            _ => Fit::Exact,
        },
        (text, "uuid") if is_text(text) => Fit::MayRefuse,
        // A padded text would be longer or shorter on the other side.
        ("bpchar", _) | (_, "bpchar") => Fit::Changes,
        // A longer text is cut at 63 bytes without an error (PostgreSQL manual, 8.3).
        (text, "name") if is_text(text) => Fit::Changes,
        // Texts that differ in case only are one value there, and a key refuses the second.
        (text, "citext") if is_text(text) => Fit::MayRefuse,
        (a, b) if is_text(a) && is_text(b) => lengths(source_modifier, sink_modifier),
        (source, text) if is_text(text) && text != "name" && is_printed(source) => {
            if length(sink_modifier).is_some() { Fit::MayRefuse } else { Fit::Exact }
        }
        _ => Fit::Changes,
    }
}

/// Whether nothing but the text is known of one of Postgres' own types, so that a column of texts takes it as it is.
fn is_printed(name: &str) -> bool {
    matches!(ColumnType::of(&TypeSeen::Base(name.to_owned()), -1), ColumnType::Printed { .. })
}

fn is_text(name: &str) -> bool {
    matches!(name, "text" | "varchar" | "name" | "citext")
}

fn lengths(source: i32, sink: i32) -> Fit {
    match (length(source), length(sink)) {
        (_, None) => Fit::Exact,
        (Some(from), Some(to)) if from <= to => Fit::Exact,
        _ => Fit::MayRefuse,
    }
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
