//! What a column's type is made of: its domains, elements, fields and labels, down to base types.

use migrations::column_type::{FieldSeen, TypeName, TypeSeen};
use serde::Deserialize;
use std::collections::HashMap;

/// SQL over `t`, a row of `pg_type`: the types that it is made of, as JSON; null for Postgres' own base types, of which
/// the name says all. A base type's element that has another array type is none: `point` has floats, and is no array.
pub(super) const MADE_OF: &str = "
    CASE WHEN t.typtype = 'b' AND t.typnamespace = 'pg_catalog'::regnamespace AND NOT EXISTS (
        SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) THEN NULL ELSE (
    WITH RECURSIVE made_of (oid) AS (
        SELECT t.oid
        UNION
        SELECT part.oid FROM made_of m JOIN pg_type x ON x.oid = m.oid CROSS JOIN LATERAL (
            SELECT e.oid FROM pg_type e WHERE e.oid = x.typelem AND e.typarray = x.oid
            UNION ALL SELECT x.typbasetype WHERE x.typtype = 'd'
            UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE x.oid IN (r.rngtypid, r.rngmultitypid)
            UNION ALL SELECT f.atttypid FROM pg_attribute f
                       WHERE x.typtype = 'c' AND f.attrelid = x.typrelid AND f.attnum > 0 AND NOT f.attisdropped) AS part)
    SELECT json_agg(json_build_object(
               'oid', x.oid::bigint, 'schema', n.nspname, 'name', x.typname, 'kind', x.typtype,
               'element', (SELECT e.oid::bigint FROM pg_type e WHERE e.oid = x.typelem AND e.typarray = x.oid),
               'base', x.typbasetype::bigint, 'modifier', x.typtypmod,
               'range_of', (SELECT r.rngsubtype::bigint FROM pg_range r WHERE x.oid IN (r.rngtypid, r.rngmultitypid)),
               'labels', ARRAY(SELECT l.enumlabel FROM pg_enum l WHERE l.enumtypid = x.oid ORDER BY l.enumsortorder),
               'fields', (SELECT coalesce(json_agg(json_build_object('number', f.attnum, 'name', f.attname, 'type', f.atttypid::bigint,
                                                                     'modifier', f.atttypmod) ORDER BY f.attnum), '[]')
                            FROM pg_attribute f WHERE x.typtype = 'c' AND f.attrelid = x.typrelid AND f.attnum > 0
                                                      AND NOT f.attisdropped)))::text
      FROM made_of JOIN pg_type x ON x.oid = made_of.oid JOIN pg_namespace n ON n.oid = x.typnamespace) END";

#[derive(Debug, Deserialize)]
struct Part {
    oid: u32,
    schema: String,
    name: String,
    /// `typtype`.
    kind: String,
    element: Option<u32>,
    base: u32,
    modifier: i32,
    range_of: Option<u32>,
    labels: Vec<String>,
    fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Field {
    number: i16,
    name: String,
    #[serde(rename = "type")]
    kind: u32,
    modifier: i32,
}

/// The type with this name that is made of these parts.
pub(super) fn seen(oid: u32, name: &str, made_of: Option<&str>) -> TypeSeen {
    let Some(made_of) = made_of else { return TypeSeen::Base(name.to_owned()) };
    match serde_json::from_str::<Vec<Part>>(made_of) {
        Ok(parts) => {
            let parts = parts.into_iter().map(|part| (part.oid, part)).collect();
            put_together(oid, &parts, DEPTH_MAX)
        }
        Err(_) => TypeSeen::Other(name.to_owned()),
    }
}

/// A type cannot hold itself, and none is made of so many levels.
const DEPTH_MAX: usize = 32;

fn put_together(oid: u32, parts: &HashMap<u32, Part>, depth_left: usize) -> TypeSeen {
    let (Some(part), Some(depth_left)) = (parts.get(&oid), depth_left.checked_sub(1)) else {
        return TypeSeen::Other(format!("type {oid}"));
    };
    let of = |oid: u32| put_together(oid, parts, depth_left);
    let name = || TypeName { schema: part.schema.clone(), name: part.name.clone() };
    if let Some(element) = part.element {
        return TypeSeen::Array(Box::new(of(element)));
    }
    match (part.kind.as_str(), part.range_of) {
        ("e", _) => TypeSeen::Enum { name: name().to_string(), labels: part.labels.clone() },
        ("d", _) => TypeSeen::Domain { name: name(), of: Box::new(of(part.base)), modifier: part.modifier },
        ("c", _) => {
            let field = |field: &Field| FieldSeen {
                number: field.number,
                name: field.name.clone(),
                kind: of(field.kind),
                modifier: field.modifier,
            };
            TypeSeen::Composite { name: name(), fields: part.fields.iter().map(field).collect() }
        }
        ("r" | "m", Some(subtype)) => TypeSeen::Range { name: name(), of: Box::new(of(subtype)) },
        ("b", _) if part.schema == "pg_catalog" => TypeSeen::Base(part.name.clone()),
        ("b", _) => TypeSeen::Own(name()),
        _ => TypeSeen::Other(name().to_string()),
    }
}
