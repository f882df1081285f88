//! What a table's columns are at the stream's own place.
//!
//! The stream describes a table as it was when its next rows were written: names, types, modifiers. The catalog is as it is
//! today. So it only adds what the stream does not say, and only to a column that is still as it was.

use migrations::column_type::{ColumnType, TypeName, TypeSeen};
use migrations::names::TableName;
use migrations::preflight::ColumnSeen;
use postgres::catalog::{self, Shape};
use rows::change::{Column, Relation, ReplicaIdentity, Stored};
use rows::pgoutput::{WireColumn, WireRelation};
use std::collections::{BTreeMap, HashMap};
use tokio_postgres::{Client, Error};

/// Describes a table. `named` are its types that are not built in.
pub(super) async fn look(
    client: &Client,
    table: &TableName,
    wire: &WireRelation,
    named: &HashMap<u32, TypeName>,
) -> Result<Relation, Error> {
    let shape = catalog::shape(client, table).await?;
    let seen = shape.as_ref().map(|shape| shape.columns.as_slice()).unwrap_or_default();
    let other = wire.columns.iter().filter(|column| unaltered(seen, column).is_none());
    let other: Vec<u32> = other.map(|column| column.type_oid).collect();
    let types = if other.is_empty() { BTreeMap::new() } else { catalog::types(client, &other).await? };
    let kind = |oid| types.get(&oid).cloned().unwrap_or_else(|| gone(named.get(&oid)));
    Ok(joined(table, wire, shape.as_ref(), kind))
}

/// What the catalog says of a column, if it still has the column with the type that the stream has.
fn unaltered<'a>(seen: &'a [ColumnSeen], wire: &WireColumn) -> Option<&'a ColumnSeen> {
    let same = |seen: &&ColumnSeen| {
        let is_same_type = seen.type_oid == wire.type_oid && seen.modifier == wire.type_modifier;
        seen.name == wire.name && is_same_type && !seen.is_generated()
    };
    seen.iter().find(same)
}

/// A type that was dropped since. Its name is known, so its values are texts of that name.
fn gone(name: Option<&TypeName>) -> TypeSeen {
    match name {
        Some(name) if name.schema == "pg_catalog" => TypeSeen::Base(name.name.clone()),
        Some(name) => TypeSeen::Own(name.clone()),
        None => TypeSeen::Base("text".to_owned()),
    }
}

/// `kind` says what a type is, by its oid.
fn joined(
    table: &TableName,
    wire: &WireRelation,
    shape: Option<&Shape>,
    kind: impl Fn(u32) -> TypeSeen,
) -> Relation {
    let seen = shape.map(|shape| shape.columns.as_slice()).unwrap_or_default();
    let facts = shape.map(|shape| Relation::of(table, shape.identity, seen));
    let facts = facts.map(|relation| relation.columns).unwrap_or_default();
    // Only then the stream's key is the primary key. A primary key that is deferrable is not in the stream.
    let tells_key = wire.identity == ReplicaIdentity::Default && wire.columns.iter().any(|c| c.part_of_key);
    let column = |wire: &WireColumn| {
        let fact = facts.iter().find(|column| column.name == wire.name);
        let is_key = if tells_key { wire.part_of_key } else { fact.is_some_and(|column| column.is_key) };
        let mut column = match fact.filter(|_| unaltered(seen, wire).is_some()) {
            Some(fact) => fact.clone(),
            None => then(wire, &kind(wire.type_oid), !is_key),
        };
        column.is_key = is_key;
        column.key_position = fact.filter(|_| is_key).map_or(0, |column| column.key_position);
        column
    };
    Relation {
        table: table.clone(),
        identity: wire.identity,
        columns: wire.columns.iter().map(column).collect(),
    }
}

/// A column as the stream alone tells it.
fn then(wire: &WireColumn, kind: &TypeSeen, nullable: bool) -> Column {
    Column {
        name: wire.name.clone(),
        kind: ColumnType::of(kind, wire.type_modifier),
        declared: Some(kind.sql(wire.type_modifier)),
        is_key: false,
        key_position: 0,
        nullable,
        number: 0,
        stored: Some(Stored { modifier: wire.type_modifier, written: 0, file: 0 }),
        default: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrations::preflight::IdentitySeen;

    const INT4: u32 = 23;
    const INT8: u32 = 20;
    const OWN: u32 = 16_400;

    fn seen(name: &str, type_oid: u32, modifier: i32) -> ColumnSeen {
        let base = if type_oid == INT4 { "int4" } else { "text" };
        ColumnSeen {
            name: name.to_owned(),
            number: 7,
            type_oid,
            declared: base.to_owned(),
            cast: base.to_owned(),
            exact: base.to_owned(),
            kind: TypeSeen::Base(base.to_owned()),
            modifier,
            written: 5,
            file: 6,
            is_key: name == "id",
            key_position: i16::from(name == "id"),
            default: None,
            operators: None,
            is_nullable: false,
            has_default: false,
            is_always_identity: false,
            generated_as: None,
            is_toastable: false,
        }
    }

    fn sent(identity: ReplicaIdentity, columns: &[(&str, u32, i32, bool)]) -> WireRelation {
        let column = |(name, type_oid, type_modifier, part_of_key): &(&str, u32, i32, bool)| WireColumn {
            name: (*name).to_owned(),
            type_oid: *type_oid,
            type_modifier: *type_modifier,
            part_of_key: *part_of_key,
        };
        let columns = columns.iter().map(column).collect();
        WireRelation { oid: 1, schema: "public".to_owned(), name: "t".to_owned(), identity, columns }
    }

    fn column(wire: &WireRelation, today: Vec<ColumnSeen>, name: &str) -> Column {
        let shape = Shape { identity: IdentitySeen::Default, columns: today, has_binary: true };
        let kind = |oid| match oid {
            INT8 => TypeSeen::Base("int8".to_owned()),
            _ => gone(Some(&TypeName { schema: "public".to_owned(), name: "mood".to_owned() })),
        };
        let relation = joined(&"t".parse().unwrap(), wire, Some(&shape), kind);
        relation.columns[relation.index_of(name).unwrap()].clone()
    }

    #[test]
    fn a_column_has_the_catalogs_facts_only_while_it_is_as_it_was() {
        let wire = sent(
            ReplicaIdentity::Default,
            &[("id", INT4, -1, true), ("n", INT8, -1, false), ("gone", OWN, 9, false)],
        );
        let today = || vec![seen("id", INT4, -1), seen("n", INT4, -1)];
        let id = column(&wire, today(), "id");
        let stored = Stored { modifier: -1, written: 5, file: 6 };
        assert_eq!((id.number, id.nullable, id.stored), (7, false, Some(stored)));
        let unknown = Stored { modifier: -1, written: 0, file: 0 };
        let n = column(&wire, today(), "n");
        assert_eq!((n.kind, n.number, n.nullable, n.stored), (ColumnType::Int8, 0, true, Some(unknown)));
        let own = column(&wire, today(), "gone");
        assert_eq!(
            (own.kind.sql(), own.number, own.kind.is_carried()),
            (r#""public"."mood""#.to_owned(), 0, true)
        );
        // Another length is another type.
        let shorter = column(&sent(ReplicaIdentity::Default, &[("n", INT4, 8, false)]), today(), "n");
        assert_eq!(shorter.stored, Some(Stored { modifier: 8, written: 0, file: 0 }));
    }

    #[test]
    fn the_key_is_the_streams_where_the_stream_tells_it() {
        let key = |identity, in_stream| {
            let wire = sent(identity, &[("id", INT4, -1, false), ("n", INT8, -1, in_stream)]);
            let is_key = |name| column(&wire, vec![seen("id", INT4, -1), seen("n", INT4, -1)], name).is_key;
            (is_key("id"), is_key("n"))
        };
        assert_eq!(key(ReplicaIdentity::Default, true), (false, true), "as the rows were written");
        assert_eq!(key(ReplicaIdentity::Default, false), (true, false), "a deferrable one is not sent");
        for identity in [ReplicaIdentity::Full, ReplicaIdentity::Index, ReplicaIdentity::Nothing] {
            assert_eq!(key(identity, true), (true, false), "{identity:?} is no primary key");
        }
    }

    #[test]
    fn a_domain_that_is_gone_is_what_it_was_made_of() {
        let name = |schema: &str, name: &str| TypeName { schema: schema.to_owned(), name: name.to_owned() };
        assert_eq!(gone(Some(&name("pg_catalog", "numeric"))), TypeSeen::Base("numeric".to_owned()));
        assert_eq!(ColumnType::of(&gone(None), -1), ColumnType::Text);
        assert_eq!(ColumnType::of(&gone(Some(&name("x", "citext"))), -1), ColumnType::Text);
    }
}
