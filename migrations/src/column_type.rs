//! Types of columns: which are carried and as what, and whether every value of one arrives unchanged in another, value
//! by value as text.
//!
//! A value travels as the text that its type prints. So a type is carried if another database reads that text back as the
//! same value. Only the types are refused whose text means something in one database alone ([`TypeSeen::refused`]).

mod fit;
mod seen;
#[cfg(test)]
mod tests;

pub use fit::{Fit, fit};
pub use seen::{FieldSeen, TypeName, TypeSeen};

use crate::names::quote_identifier;
use serde::{Deserialize, Serialize};

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
    /// A type of which nothing but its text is known.
    Printed {
        /// As SQL names it anywhere.
        name: String,
        form: Form,
    },
    Composite {
        /// As SQL names it anywhere.
        name: String,
        /// Number, name and type.
        fields: Vec<(i16, String, ColumnType)>,
    },
    /// Anything else, by the type's name; it never enters the log.
    Unsupported(String),
}

/// How Debezium writes a type of which nothing but its text is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    Text,
    Interval,
    /// `timetz`.
    ZonedTime,
    Money,
    Bits {
        length: Option<u32>,
    },
    Xml,
    Ltree,
    Tsvector,
    Hstore,
    Point,
    Geometry,
    Geography,
    /// pgvector's `vector`.
    Vector,
    /// pgvector's `halfvec`.
    HalfVector,
    /// pgvector's `sparsevec`.
    SparseVector,
}

impl Form {
    /// Whether Debezium writes the text itself.
    pub fn is_string(self) -> bool {
        matches!(self, Form::Text | Form::Xml | Form::Ltree | Form::Tsvector)
    }

    fn of_postgres(name: &str, modifier: i32) -> Form {
        match name {
            "interval" => Form::Interval,
            "timetz" => Form::ZonedTime,
            "money" => Form::Money,
            "bit" | "varbit" => Form::Bits { length: u32::try_from(modifier).ok() },
            "xml" => Form::Xml,
            "tsvector" => Form::Tsvector,
            "point" => Form::Point,
            _ => Form::Text,
        }
    }

    /// Debezium, too, knows an extension's types by their names.
    fn of_extension(name: &str) -> Form {
        match name {
            "ltree" => Form::Ltree,
            "hstore" => Form::Hstore,
            "geometry" => Form::Geometry,
            "geography" => Form::Geography,
            "vector" => Form::Vector,
            "halfvec" => Form::HalfVector,
            "sparsevec" => Form::SparseVector,
            _ => Form::Text,
        }
    }
}

impl ColumnType {
    /// As what a type is carried. An array has its element's modifier, a domain its own.
    pub fn of(seen: &TypeSeen, modifier: i32) -> ColumnType {
        if let Some((name, _)) = seen.refused() {
            return ColumnType::Unsupported(name);
        }
        match seen {
            TypeSeen::Base(name) => ColumnType::base(name, modifier),
            TypeSeen::Enum { name, labels } => {
                ColumnType::Enum { name: name.clone(), labels: labels.clone() }
            }
            TypeSeen::Array(element) => ColumnType::Array(Box::new(ColumnType::of(element, modifier))),
            TypeSeen::Domain { of, modifier, .. } => ColumnType::of(of, *modifier),
            TypeSeen::Composite { name, fields } => {
                let field = |field: &FieldSeen| {
                    (field.number, field.name.clone(), ColumnType::of(&field.kind, field.modifier))
                };
                ColumnType::Composite { name: name.sql(), fields: fields.iter().map(field).collect() }
            }
            TypeSeen::Range { name, .. } => ColumnType::Printed { name: name.sql(), form: Form::Text },
            TypeSeen::Own(name) if name.name == "citext" => ColumnType::Text,
            TypeSeen::Own(name) => {
                ColumnType::Printed { name: name.sql(), form: Form::of_extension(&name.name) }
            }
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
            "text" | "varchar" | "bpchar" | "name" => ColumnType::Text,
            "bytea" => ColumnType::Bytea,
            "uuid" => ColumnType::Uuid,
            "json" => ColumnType::Json,
            "jsonb" => ColumnType::Jsonb,
            "date" => ColumnType::Date,
            "time" => ColumnType::Time { precision },
            "timestamp" => ColumnType::Timestamp { precision },
            "timestamptz" => ColumnType::Timestamptz,
            other => ColumnType::Printed {
                name: quote_identifier(other),
                form: Form::of_postgres(other, modifier),
            },
        }
    }

    pub fn is_carried(&self) -> bool {
        !matches!(self, ColumnType::Unsupported(_))
    }

    /// Whether nothing but its text tells two values of it apart.
    pub fn is_printed(&self) -> bool {
        match self {
            ColumnType::Printed { .. } | ColumnType::Composite { .. } | ColumnType::Unsupported(_) => true,
            ColumnType::Array(element) => element.is_printed(),
            _ => false,
        }
    }

    /// The name by which a sink database must know the type: without the digits, which the sink's own column limits,
    /// and with names that need quotes in them.
    pub fn cast(&self) -> String {
        match self {
            ColumnType::Numeric { .. } => "numeric".to_owned(),
            ColumnType::Time { .. } => "time".to_owned(),
            ColumnType::Timestamp { .. } => "timestamp".to_owned(),
            ColumnType::Enum { name, .. } => enum_sql(name),
            ColumnType::Array(element) => format!("{}[]", element.cast()),
            plain => plain.sql(),
        }
    }

    /// Whether the binary format of COPY means the same in a source column and a sink column that are declared so; none
    /// where the type is not Postgres' own. Enums, composites, and arrays of types that are not built in, carry oids that
    /// mean nothing on the other side.
    pub fn is_binary_alike(&self, source: Option<&str>, sink: &str) -> bool {
        let is_same = source == Some(sink);
        match self {
            ColumnType::Enum { .. } | ColumnType::Composite { .. } => false,
            ColumnType::Printed { .. } => is_same,
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
            ColumnType::Array(element) => format!("{}[]", element.sql()),
            ColumnType::Enum { name, .. }
            | ColumnType::Printed { name, .. }
            | ColumnType::Composite { name, .. }
            | ColumnType::Unsupported(name) => name.clone(),
        }
    }
}

fn enum_sql(name: &str) -> String {
    name.split('.').map(quote_identifier).collect::<Vec<_>>().join(".")
}

/// The length that a modifier of varchar or char allows, in characters: it is stored with 4 added.
fn length(modifier: i32) -> Option<usize> {
    usize::try_from(modifier).ok().and_then(|modifier| modifier.checked_sub(4))
}

/// Precision and scale in a numeric's modifier (PostgreSQL source, `numeric.c`: `make_numeric_typmod`; the scale is
/// signed in 11 bits since 15).
fn scale(modifier: i32) -> Option<(i32, i32)> {
    let packed = modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
    Some(((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024))
}
