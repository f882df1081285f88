//! A digest of the tables' shapes on both sides. Whoever alters a table walks through any gate, so it is taken before and
//! inside each crossing.

use futures_util::future::try_join_all;
use migrations::crossing::Digest;
use migrations::fingerprint::Fingerprint;
use migrations::gate::Side;
use migrations::names::TableName;
use migrations::plan::Slice;
use postgres::catalog;
use std::collections::BTreeSet;
use tokio_postgres::{Client, Error};

/// Names and columns, with their types and keys, of all tables of a slice.
pub(super) async fn digest(slice: &Slice, monolith: &Client, service: &Client) -> Result<Digest, Error> {
    let (monolith, service) =
        futures_util::try_join!(side(slice, Side::Monolith, monolith), side(slice, Side::Service, service))?;
    let mut both = Fingerprint::default();
    both.put("monolith", monolith);
    both.put("service", service);
    Ok(both.digest())
}

async fn side(slice: &Slice, side: Side, client: &Client) -> Result<Digest, Error> {
    let tables: BTreeSet<&TableName> = slice.all_tables().map(|table| table.name_at(side)).collect();
    // Asked at once, for writes are held meanwhile.
    let shapes = try_join_all(tables.iter().map(|table| catalog::shape(client, table))).await?;
    let mut print = Fingerprint::default();
    for (table, shape) in tables.iter().zip(shapes) {
        print.put("table", table);
        for column in shape.into_iter().flat_map(|shape| shape.columns) {
            print.put("column", &column.name);
            // Another number is another column, which lost what the one before held.
            print.put("number", column.number);
            print.put("type", &column.declared);
            print.put("null", column.is_nullable);
            print.put("key", column.is_key);
            print.put("generated", column.generated_as.as_deref().unwrap_or_default());
        }
    }
    Ok(print.digest())
}
