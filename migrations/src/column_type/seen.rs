//! Types as a catalog has them: what a column's values are made of.

use super::length;
use crate::names::quote_identifier;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A type by schema and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeName {
    pub schema: String,
    pub name: String,
}

impl TypeName {
    /// As SQL names it, whatever the session's search path.
    pub fn sql(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    fn is_postgres(&self) -> bool {
        self.schema == "pg_catalog"
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_postgres() { f.write_str(&self.name) } else { write!(f, "{}.{}", self.schema, self.name) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TypeSeen {
    /// One of Postgres' own base types, by its catalog name, e.g. `int4`.
    Base(String),
    Enum {
        /// `schema.name`.
        name: String,
        labels: Vec<String>,
    },
    Array(Box<TypeSeen>),
    /// Its values are those of another type.
    Domain {
        name: TypeName,
        of: Box<TypeSeen>,
        modifier: i32,
    },
    Composite {
        name: TypeName,
        fields: Vec<FieldSeen>,
    },
    /// A range or a multirange.
    Range {
        name: TypeName,
        of: Box<TypeSeen>,
    },
    /// A base type that an extension or somebody else made.
    Own(TypeName),
    /// A pseudo-type or one that could not be read, by name.
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldSeen {
    /// `pg_attribute.attnum`, which no other field of the type gets again.
    pub number: i16,
    pub name: String,
    pub kind: TypeSeen,
    pub modifier: i32,
}

impl TypeSeen {
    /// The type without its domains, and its modifier.
    pub fn without_domain(&self, modifier: i32) -> (&TypeSeen, i32) {
        match self {
            TypeSeen::Domain { of, modifier, .. } => of.without_domain(*modifier),
            plain => (plain, modifier),
        }
    }

    /// Whether Postgres itself has the type, under the same number everywhere.
    pub fn is_postgres(&self) -> bool {
        match self {
            TypeSeen::Base(_) => true,
            TypeSeen::Array(element) => element.is_postgres(),
            TypeSeen::Range { name, of } => name.is_postgres() && of.is_postgres(),
            _ => false,
        }
    }

    /// The name of a type whose equality and casts are known here: Postgres' own, or `citext` wherever it was installed.
    pub(super) fn plain(&self) -> Option<&str> {
        match self {
            TypeSeen::Base(name) => Some(name),
            TypeSeen::Own(name) if name.name == "citext" => Some("citext"),
            _ => None,
        }
    }

    /// The type as SQL names it in any database that has it: without its domains, with the digits and the length that
    /// its values have.
    pub fn sql(&self, modifier: i32) -> String {
        match self {
            TypeSeen::Base(name) => base_sql(name, modifier),
            TypeSeen::Enum { name, .. } => super::enum_sql(name),
            TypeSeen::Array(element) => format!("{}[]", element.sql(modifier)),
            TypeSeen::Domain { of, modifier, .. } => of.sql(*modifier),
            TypeSeen::Composite { name, .. } | TypeSeen::Range { name, .. } | TypeSeen::Own(name) => {
                name.sql()
            }
            TypeSeen::Other(name) => name.clone(),
        }
    }

    /// The type to which a text is cast before it is assigned: without domains, digits and lengths, since a cast cuts what
    /// an assignment refuses.
    pub fn cast(&self) -> String {
        match self {
            TypeSeen::Domain { of, .. } => of.cast(),
            TypeSeen::Array(element) => format!("{}[]", element.cast()),
            plain => plain.sql(-1),
        }
    }

    /// The part of the type whose text another database does not read back, if there is one, and why.
    pub fn refused(&self) -> Option<(String, &'static str)> {
        match self {
            TypeSeen::Base(name) => unreadable(name).map(|why| (name.clone(), why)),
            TypeSeen::Array(of) | TypeSeen::Range { of, .. } | TypeSeen::Domain { of, .. } => of.refused(),
            TypeSeen::Composite { fields, .. } => fields.iter().find_map(|field| field.kind.refused()),
            TypeSeen::Enum { .. } | TypeSeen::Own(_) => None,
            TypeSeen::Other(name) => Some((name.clone(), "is no type of values")),
        }
    }
}

/// Postgres' types whose text means something in one database only, or is never read.
fn unreadable(name: &str) -> Option<&'static str> {
    match name {
        "aclitem" => Some("names roles of one server"),
        // Statistics, plans and index keys: their input functions always fail (PostgreSQL source, `pg_type.dat`).
        "pg_node_tree"
        | "pg_ndistinct"
        | "pg_dependencies"
        | "pg_mcv_list"
        | "pg_brin_bloom_summary"
        | "pg_brin_minmax_multi_summary"
        | "gtsvector" => Some("cannot be read from text"),
        name if name.starts_with("reg") => Some("names an object of one database"),
        _ => None,
    }
}

fn base_sql(name: &str, modifier: i32) -> String {
    let chars = |word: &str, name: &str| match length(modifier) {
        Some(length) => format!("{word}({length})"),
        None => name.to_owned(),
    };
    let digits = |most: i32| match modifier {
        digits if (0..=most).contains(&digits) => format!("{}({digits})", quote_identifier(name)),
        _ => quote_identifier(name),
    };
    match name {
        "bpchar" => chars("character", "bpchar"),
        "varchar" => chars("character varying", "varchar"),
        "numeric" => match super::scale(modifier) {
            Some((precision, scale)) => format!("numeric({precision},{scale})"),
            None => "numeric".to_owned(),
        },
        // Without quotes `time(3)` is grammar; with them the modifier belongs to the type.
        "time" | "timetz" | "timestamp" | "timestamptz" => digits(6),
        "bit" | "varbit" => digits(i32::MAX),
        _ => quote_identifier(name),
    }
}
