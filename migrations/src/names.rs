//! Names that were parsed once and are trusted afterwards: plans, slices, routes, services, tables.
//!
//! Knows nothing of where a name stands or whether the thing it names exists.

use crate::text::{BadText, travels_as_text};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest plan, slice, route or service name. Slot and topic names are made of them, and Postgres
/// cuts identifiers at 63 bytes (`NAMEDATALEN`).
pub const NAME_LEN_MAX: usize = 32;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadText;
            fn from_str(text: &str) -> Result<Self, BadText> {
                let remedy = || format!("use 1 to {NAME_LEN_MAX} of a-z, 0-9 and `-`, a letter first");
                let bad = || BadText::new(text, "is not a name", remedy());
                is_name(text).then(|| Self(text.to_owned())).ok_or_else(bad)
            }
        }

        travels_as_text!($type);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// The plan's own name: part of the slot's, the publication's and the consumer's name.
    PlanName
);
name!(
    /// A slice: routes and tables that leave together.
    SliceName
);
name!(
    /// A route, unique within its slice.
    RouteName
);
name!(
    /// A service that slices move to.
    ServiceName
);

/// A slice's requests, or those of one of its routes: written `orders` or `orders.list`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Requests {
    pub slice: SliceName,
    /// None: all of its routes that may be shared.
    pub route: Option<RouteName>,
}

impl FromStr for Requests {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        Ok(match text.split_once('.') {
            Some((slice, route)) => Self { slice: slice.parse()?, route: Some(route.parse()?) },
            None => Self { slice: text.parse()?, route: None },
        })
    }
}

travels_as_text!(Requests);

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.route {
            Some(route) => write!(f, "{}.{route}", self.slice),
            None => write!(f, "{}", self.slice),
        }
    }
}

fn is_name(text: &str) -> bool {
    let first_is_letter = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest_fits = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    first_is_letter && rest_fits && text.len() <= NAME_LEN_MAX
}

/// A table, by schema and name as the catalog spells them (unquoted).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    /// The schema, `public` where the plan gives none.
    pub schema: String,
    pub name: String,
}

impl TableName {
    /// Both parts as SQL identifiers, each in double quotes: safe to paste into a statement.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

impl FromStr for TableName {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let (schema, name) = text.split_once('.').unwrap_or(("public", text));
        let fits = |part: &str| {
            (1..=63).contains(&part.len()) && !part.contains(['.', '"', '\0']) && part.trim() == part
        };
        if fits(schema) && fits(name) {
            Ok(Self { schema: schema.to_owned(), name: name.to_owned() })
        } else {
            let remedy = "write `schema.table`, or `table` for one in schema public";
            Err(BadText::new(text, "is not a table name", remedy))
        }
    }
}

travels_as_text!(TableName);

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A name as an SQL identifier in double quotes (PostgreSQL manual, 4.1.1).
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL string literal, with `E''` where it holds a backslash (PostgreSQL manual, 4.1.2).
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_lower_case_and_start_with_a_letter() {
        assert!("orders-2".parse::<SliceName>().is_ok());
        for bad in ["", "Orders", "2orders", "or_ders", &"a".repeat(33)] {
            assert!(bad.parse::<SliceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slice_or_one_route_of_it_is_named() {
        let both: Requests = "orders.list".parse().unwrap();
        assert_eq!((both.slice.as_str(), both.route.as_ref().unwrap().as_str()), ("orders", "list"));
        assert_eq!(both.to_string(), "orders.list");
        let whole: Requests = "orders".parse().unwrap();
        assert!(whole.route.is_none() && whole.to_string() == "orders");
        for bad in ["", ".", "orders.", ".list", "a.b.c"] {
            assert!(bad.parse::<Requests>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_table_without_schema_is_public() {
        let table: TableName = "orders".parse().unwrap();
        assert_eq!(table.to_string(), "public.orders");
        assert!("a.b.c".parse::<TableName>().is_err());
        assert!("a.\"b".parse::<TableName>().is_err());
    }

    #[test]
    fn identifiers_and_literals_cannot_break_out() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }
}
