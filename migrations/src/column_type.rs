//! Types of columns: which are carried and as what, and whether every value of one arrives unchanged in another, value
//! by value as text.

use crate::names::quote_identifier;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeSeen {
    /// One of Postgres' own or `citext`, by its catalog name, e.g. `int4`.
    Base(String),
    Enum {
        /// `schema.name`.
        name: String,
        labels: Vec<String>,
    },
    Array(Box<TypeSeen>),
    /// A domain, a composite or an extension's type, by name.
    Other(String),
}

/// A type as it is carried: as text, and in the log. A column of another type stops its slice before it starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnType {
    Int2,
    Int4,
    Int8,
    Oid,
    Bool,
    Float4,
    Float8,
    /// `numeric(precision, scale)`.
    Numeric {
        precision: u16,
        /// Digits behind the point; may be negative or above the precision since PostgreSQL 15.
        scale: i16,
    },
    /// `numeric` without limits.
    NumericAny,
    /// `text`, `varchar`, `char(n)`, `name`, `citext`.
    Text,
    Bytea,
    Uuid,
    Json,
    Jsonb,
    /// `date`, in ISO output.
    Date,
    Time {
        /// Digits of a second, 0 to 6.
        precision: u8,
    },
    Timestamp {
        /// Digits of a second, 0 to 6.
        precision: u8,
    },
    /// `timestamptz`, in UTC output.
    Timestamptz,
    Enum {
        /// The type's name, `schema.name`.
        name: String,
        labels: Vec<String>,
    },
    Array(Box<ColumnType>),
    /// Anything else, by the type's name; it never enters the log.
    Unsupported(String),
}

impl ColumnType {
    /// As what a type is carried. An array has its element's modifier.
    pub fn of(seen: &TypeSeen, modifier: i32) -> ColumnType {
        match seen {
            TypeSeen::Base(name) => ColumnType::base(name, modifier),
            TypeSeen::Enum { name, labels } => {
                ColumnType::Enum { name: name.clone(), labels: labels.clone() }
            }
            TypeSeen::Array(element) => match ColumnType::of(element, modifier) {
                ColumnType::Unsupported(name) => ColumnType::Unsupported(format!("{name}[]")),
                element => ColumnType::Array(Box::new(element)),
            },
            TypeSeen::Other(name) => ColumnType::Unsupported(name.clone()),
        }
    }

    fn base(name: &str, modifier: i32) -> ColumnType {
        // Without a modifier a time has six decimals.
        let precision = u8::try_from(modifier).ok().filter(|digits| *digits <= 6).unwrap_or(6);
        match name {
            "int2" => ColumnType::Int2,
            "int4" => ColumnType::Int4,
            "int8" => ColumnType::Int8,
            "oid" => ColumnType::Oid,
            "bool" => ColumnType::Bool,
            "float4" => ColumnType::Float4,
            "float8" => ColumnType::Float8,
            "numeric" => match scale(modifier) {
                Some((precision, scale)) => {
                    ColumnType::Numeric { precision: precision as u16, scale: scale as i16 }
                }
                None => ColumnType::NumericAny,
            },
            "text" | "varchar" | "bpchar" | "name" | "citext" => ColumnType::Text,
            "bytea" => ColumnType::Bytea,
            "uuid" => ColumnType::Uuid,
            "json" => ColumnType::Json,
            "jsonb" => ColumnType::Jsonb,
            "date" => ColumnType::Date,
            "time" => ColumnType::Time { precision },
            "timestamp" => ColumnType::Timestamp { precision },
            "timestamptz" => ColumnType::Timestamptz,
            other => ColumnType::Unsupported(other.to_owned()),
        }
    }

    pub fn is_carried(&self) -> bool {
        !matches!(self, ColumnType::Unsupported(_))
    }

    /// The name by which a sink database must know the type: without the digits, which the sink's own column limits,
    /// and with names that need quotes in them.
    pub fn cast(&self) -> String {
        match self {
            ColumnType::Numeric { .. } => "numeric".to_owned(),
            ColumnType::Time { .. } => "time".to_owned(),
            ColumnType::Timestamp { .. } => "timestamp".to_owned(),
            ColumnType::Enum { name, .. } => {
                name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".")
            }
            ColumnType::Array(element) => format!("{}[]", element.cast()),
            plain => plain.sql(),
        }
    }

    /// Whether the binary format of COPY means the same in a source column and a sink column that are declared so.
    /// Enums, and arrays of types that are not built in, carry oids that mean nothing on the other side.
    pub fn is_binary_alike(&self, source: Option<&str>, sink: &str) -> bool {
        let is_same = source == Some(sink);
        match self {
            ColumnType::Enum { .. } => false,
            ColumnType::Array(element) => {
                is_same && !matches!(**element, ColumnType::Enum { .. }) && !sink.contains("citext")
            }
            plain => is_same || sink == plain.cast(),
        }
    }

    pub fn sql(&self) -> String {
        match self {
            ColumnType::Int2 => "smallint".to_owned(),
            ColumnType::Int4 => "integer".to_owned(),
            ColumnType::Int8 => "bigint".to_owned(),
            ColumnType::Oid => "oid".to_owned(),
            ColumnType::Bool => "boolean".to_owned(),
            ColumnType::Float4 => "real".to_owned(),
            ColumnType::Float8 => "double precision".to_owned(),
            ColumnType::Numeric { precision, scale } => format!("numeric({precision},{scale})"),
            ColumnType::NumericAny => "numeric".to_owned(),
            ColumnType::Text => "text".to_owned(),
            ColumnType::Bytea => "bytea".to_owned(),
            ColumnType::Uuid => "uuid".to_owned(),
            ColumnType::Json => "json".to_owned(),
            ColumnType::Jsonb => "jsonb".to_owned(),
            ColumnType::Date => "date".to_owned(),
            ColumnType::Time { precision } => format!("time({precision})"),
            ColumnType::Timestamp { precision } => format!("timestamp({precision})"),
            ColumnType::Timestamptz => "timestamptz".to_owned(),
            ColumnType::Enum { name, .. } => name.clone(),
            ColumnType::Array(element) => format!("{}[]", element.sql()),
            ColumnType::Unsupported(name) => name.clone(),
        }
    }
}

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
    match (source, sink) {
        (TypeSeen::Base(a), TypeSeen::Base(b)) if a == b => same(a, source_modifier, sink_modifier),
        (TypeSeen::Base(a), TypeSeen::Base(b)) => other(a, source_modifier, b, sink_modifier),
        (TypeSeen::Enum { labels: a, .. }, TypeSeen::Enum { labels: b, .. }) => {
            if a.iter().all(|label| b.contains(label)) { Fit::Exact } else { Fit::MayRefuse }
        }
        (TypeSeen::Enum { labels, .. }, TypeSeen::Base(text)) if is_text(text) => {
            let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
            match length(sink_modifier) {
                Some(limit) if longest > limit => Fit::MayRefuse,
                _ => Fit::Exact,
            }
        }
        (TypeSeen::Base(text), TypeSeen::Enum { .. }) if is_text(text) => Fit::MayRefuse,
        (TypeSeen::Array(a), TypeSeen::Array(b)) => fit(a, source_modifier, b, sink_modifier),
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
        // Texts that differ in case only are one value there, and a key refuses the second.
        (text, "citext") if is_text(text) => Fit::MayRefuse,
        (a, b) if is_text(a) && is_text(b) => lengths(source_modifier, sink_modifier),
        _ => Fit::Changes,
    }
}

fn is_text(name: &str) -> bool {
    matches!(name, "text" | "varchar" | "name" | "citext")
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
        fit(&base(from), modifier, &base(to), to_modifier)
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

    fn labels(labels: &[&str]) -> TypeSeen {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        TypeSeen::Enum { name: "public.state".to_owned(), labels }
    }

    fn array(element: &TypeSeen) -> TypeSeen {
        TypeSeen::Array(Box::new(element.clone()))
    }

    #[test]
    fn enums_and_arrays_fit_by_their_labels_and_elements() {
        let text = TypeSeen::Base("text".to_owned());
        let fit = |source: &TypeSeen, sink: &TypeSeen| fit(source, -1, sink, -1);
        assert_eq!(fit(&labels(&["a"]), &labels(&["a"])), Fit::Exact);
        assert_eq!(fit(&labels(&["a"]), &labels(&["b", "a"])), Fit::Exact);
        assert_eq!(fit(&labels(&["a", "b"]), &labels(&["a"])), Fit::MayRefuse);
        assert_eq!(fit(&labels(&["a"]), &text), Fit::Exact);
        assert_eq!(fit(&array(&text), &array(&text)), Fit::Exact);
        assert_eq!(fit(&array(&text), &text), Fit::Changes);
    }

    #[test]
    fn texts_that_ignore_case_are_carried_as_texts() {
        assert_eq!(base("citext", -1, "citext", -1), Fit::Exact);
        assert_eq!(base("citext", -1, "text", -1), Fit::Exact);
        assert_eq!(base("citext", -1, "varchar", 24), Fit::MayRefuse);
        assert_eq!(base("text", -1, "citext", -1), Fit::MayRefuse);
        assert_eq!(base("citext", -1, "name", -1), Fit::Changes);
    }

    #[test]
    fn what_is_carried_fits_itself_and_has_a_name_at_the_sink() {
        let names = "int2 int4 int8 oid bool float4 float8 numeric text varchar bpchar name citext bytea uuid json jsonb \
                     date time timestamp timestamptz";
        for name in names.split_whitespace() {
            let kind = TypeSeen::Base(name.to_owned());
            for kind in [array(&kind), kind] {
                assert!(ColumnType::of(&kind, -1).is_carried(), "{kind:?}");
                assert_eq!(fit(&kind, -1, &kind, -1), Fit::Exact, "{kind:?}");
            }
        }
        assert!(ColumnType::of(&array(&labels(&["a"])), -1).is_carried());
        let inet = TypeSeen::Base("inet".to_owned());
        let (one, many) = (ColumnType::of(&inet, -1), ColumnType::of(&array(&inet), -1));
        assert_eq!(one, ColumnType::Unsupported("inet".to_owned()));
        assert_eq!(many, ColumnType::Unsupported("inet[]".to_owned()));
        let domain = TypeSeen::Other("public.citext".to_owned());
        assert!(!ColumnType::of(&domain, -1).is_carried());
    }

    #[test]
    fn a_modifier_gives_digits() {
        let of = |name: &str, modifier| ColumnType::of(&TypeSeen::Base(name.to_owned()), modifier);
        assert_eq!(of("numeric", numeric(12, 2)), ColumnType::Numeric { precision: 12, scale: 2 });
        assert_eq!(of("numeric", numeric(5, -2)), ColumnType::Numeric { precision: 5, scale: -2 });
        assert_eq!(of("numeric", -1), ColumnType::NumericAny);
        assert_eq!(of("timestamp", 3), ColumnType::Timestamp { precision: 3 });
        assert_eq!(of("time", -1), ColumnType::Time { precision: 6 });
    }

    #[test]
    fn binary_means_the_same_without_oids_only() {
        let of = |kind: &TypeSeen| ColumnType::of(kind, -1);
        let text = TypeSeen::Base("text".to_owned());
        assert!(of(&text).is_binary_alike(Some("character varying(20)"), "text"));
        assert!(!of(&text).is_binary_alike(Some("text"), "citext"));
        assert!(of(&array(&text)).is_binary_alike(Some("text[]"), "text[]"));
        assert!(!of(&array(&text)).is_binary_alike(Some("citext[]"), "citext[]"));
        assert!(!of(&labels(&["a"])).is_binary_alike(Some("state"), "state"));
    }
}
