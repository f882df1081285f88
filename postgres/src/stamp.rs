//! How tables' columns stand, as one short text: another one after every ALTER of a column, a DROP or an ADD.
//!
//! Cheap enough to be read with every commit. An entry of the catalog carries the transaction that wrote it (`xmin`), which
//! no vacuum changes. A partition's columns are those of its parent.

use crate::catalog::apart;
use migrations::names::TableName;
use std::collections::BTreeSet;
use tokio_postgres::{Client, Error};

/// Tables by their oids, and how their columns stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp {
    pub oids: Vec<u32>,
    pub text: String,
}

/// SQL for the text, of the tables whose oids are this parameter.
pub fn sql(oids: &str) -> String {
    format!(
        "(SELECT coalesce(sum(hashtextextended(concat_ws(' ', a.attrelid, a.attnum, a.xmin), 0)), 0)::text \
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ({oids}::oid[]) AND a.attnum > 0)"
    )
}

pub async fn read(client: &Client, tables: &BTreeSet<TableName>) -> Result<Stamp, Error> {
    let (schemas, names) = apart(tables);
    let find = "SELECT c.oid FROM unnest($1::text[], $2::text[]) AS t (schema, name) \
                JOIN pg_namespace n ON n.nspname = t.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.name \
                ORDER BY c.oid";
    let oids: Vec<u32> =
        client.query(find, &[&schemas, &names]).await?.iter().map(|row| row.get(0)).collect();
    let text = client.query_one(&format!("SELECT {}", sql("$1")), &[&oids]).await?.get(0);
    Ok(Stamp { oids, text })
}
