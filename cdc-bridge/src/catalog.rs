//! What the catalogs say: the shape of source tables, and the columns, keys and references of sink tables.
//!
//! Reads only; what the facts mean for a slice is decided in `sink/mapping` and `copy/chunk`.

use migrations::names::TableName;
use rows::change::{Column, ColumnType, Relation, ReplicaIdentity};
use rows::mapping::{SinkColumn, SinkTable};
use rows::order::Reference;
use std::collections::BTreeSet;
use tokio_postgres::{Client, Error, Row};

const SOURCE_COLUMNS: &str = "
    SELECT a.attname, t.typname, tn.nspname, t.typtype::text, t.oid, a.atttypmod, a.attnotnull, c.relreplident::text,
           EXISTS (SELECT FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
                    WHERE k.attnum = a.attnum AND k.place <= i.indnkeyatts) AS is_key, t.typcategory::text,
           e.typname AS element_name, en.nspname AS element_schema, e.typtype::text AS element_type, e.oid AS element_oid,
           a.attnum
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      JOIN pg_type t ON t.oid = a.atttypid
      JOIN pg_namespace tn ON tn.oid = t.typnamespace
      LEFT JOIN pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
      LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
      LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
     WHERE n.nspname = $1 AND c.relname = $2
     ORDER BY a.attnum";

const SINK_COLUMNS: &str = "
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
           EXISTS (SELECT FROM unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
                    WHERE k.attnum = a.attnum AND k.place <= i.indnkeyatts), format_type(a.atttypid, -1)
      FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
     WHERE n.nspname = $1 AND c.relname = $2
     ORDER BY a.attnum";

const REFERENCES: &str = "
    SELECT n.nspname, c.relname, rn.nspname, r.relname,
           k.condeferrable AND k.confdeltype <> 'r' AND k.confupdtype <> 'r'
      FROM pg_constraint k
      JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
     WHERE k.contype = 'f'";

const LABELS: &str = "SELECT enumlabel FROM pg_enum WHERE enumtypid = $1 ORDER BY enumsortorder";

/// A source table's shape as the catalog has it now; none if there is no such table.
pub async fn relation(client: &Client, table: &TableName) -> Result<Option<Relation>, Error> {
    let rows = client.query(SOURCE_COLUMNS, &[&table.schema, &table.name]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let identity = match first.get::<_, &str>(7) {
        "f" => ReplicaIdentity::Full,
        "i" => ReplicaIdentity::Index,
        "n" => ReplicaIdentity::Nothing,
        _ => ReplicaIdentity::Default,
    };
    let mut columns = Vec::with_capacity(rows.len());
    for row in &rows {
        columns.push(Column {
            name: row.get(0),
            kind: column_type(client, row).await?,
            is_key: row.get(8),
            nullable: !row.get::<_, bool>(6),
            number: row.get(14),
        });
    }
    Ok(Some(Relation { table: table.clone(), identity, columns }))
}

/// A sink table's columns; none if there is no such table.
pub async fn sink_table(client: &Client, table: &TableName) -> Result<Option<SinkTable>, Error> {
    let rows = client.query(SINK_COLUMNS, &[&table.schema, &table.name]).await?;
    let columns: Vec<SinkColumn> = rows
        .iter()
        .map(|row| SinkColumn {
            name: row.get(0),
            sql_type: row.get(1),
            is_generated: row.get(2),
            is_key: row.get(3),
            cast_type: row.get(4),
        })
        .collect();
    Ok((!columns.is_empty()).then(|| SinkTable { name: table.clone(), columns }))
}

/// Which table refers to which, by foreign keys.
pub async fn references(client: &Client) -> Result<Vec<Reference>, Error> {
    let rows = client.query(REFERENCES, &[]).await?;
    let reference = |row: &Row| Reference {
        child: TableName { schema: row.get(0), name: row.get(1) },
        parent: TableName { schema: row.get(2), name: row.get(3) },
        is_deferrable: row.get(4),
    };
    Ok(rows.iter().map(reference).collect())
}

/// Tables whose rows change with a parent's.
#[derive(Debug, Clone, Default)]
pub struct Cascades {
    /// They go with it, by `ON DELETE CASCADE`.
    pub deletes: BTreeSet<TableName>,
    /// They get its new key as a part of their own, by `ON UPDATE CASCADE`.
    pub updates: BTreeSet<TableName>,
}

/// Which tables' rows change with a parent's.
pub async fn cascades(client: &Client) -> Result<Cascades, Error> {
    let sql = "SELECT n.nspname, c.relname, k.confdeltype = 'c', k.confupdtype = 'c' AND EXISTS ( \
               SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indkey::int2[] && k.conkey) \
               FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE k.contype = 'f'";
    let mut cascades = Cascades::default();
    for row in client.query(sql, &[]).await? {
        let table = TableName { schema: row.get(0), name: row.get(1) };
        for (set, is_member) in [(&mut cascades.deletes, row.get(2)), (&mut cascades.updates, row.get(3))] {
            if is_member {
                set.insert(table.clone());
            }
        }
    }
    Ok(cascades)
}

async fn column_type(client: &Client, row: &Row) -> Result<ColumnType, Error> {
    let modifier: i32 = row.get(5);
    if row.get::<_, &str>(9) == "A" {
        let (Some(name), Some(schema)) = (row.get::<_, Option<&str>>(10), row.get::<_, Option<&str>>(11))
        else {
            return Ok(ColumnType::Unsupported(row.get(1)));
        };
        let kind: &str = row.get::<_, Option<&str>>(12).unwrap_or("b");
        let element =
            scalar(client, schema, name, kind, row.get::<_, Option<u32>>(13).unwrap_or(0), modifier).await?;
        return Ok(ColumnType::Array(Box::new(element)));
    }
    scalar(client, row.get(2), row.get(1), row.get(3), row.get(4), modifier).await
}

async fn scalar(
    client: &Client,
    schema: &str,
    name: &str,
    kind: &str,
    oid: u32,
    modifier: i32,
) -> Result<ColumnType, Error> {
    if kind == "e" {
        let labels = client.query(LABELS, &[&oid]).await?.iter().map(|row| row.get(0)).collect();
        return Ok(ColumnType::Enum { name: format!("{schema}.{name}"), labels });
    }
    if schema != "pg_catalog" && name != "citext" {
        return Ok(ColumnType::Unsupported(format!("{schema}.{name}")));
    }
    let precision = if (0..=6).contains(&modifier) { modifier as u8 } else { 6 };
    Ok(match name {
        "int2" => ColumnType::Int2,
        "int4" => ColumnType::Int4,
        "int8" => ColumnType::Int8,
        "oid" => ColumnType::Oid,
        "bool" => ColumnType::Bool,
        "float4" => ColumnType::Float4,
        "float8" => ColumnType::Float8,
        "numeric" => numeric(modifier),
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
    })
}

/// A numeric's modifier holds precision and an 11-bit signed scale (PostgreSQL source, `numeric.c`,
/// `make_numeric_typmod`).
fn numeric(modifier: i32) -> ColumnType {
    if modifier < 4 {
        return ColumnType::NumericAny;
    }
    let packed = modifier - 4;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    ColumnType::Numeric { precision: ((packed >> 16) & 0xffff) as u16, scale: scale as i16 }
}
