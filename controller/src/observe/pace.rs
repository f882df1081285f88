//! How much is written to tables, by the server's statistics.

use migrations::names::TableName;
use postgres::catalog;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::{Client, Error};

/// Sessions report what they wrote about once a second, so a shorter time would miss some.
const MEASURED: Duration = Duration::from_secs(2);

/// Rows a second by table.
pub(super) async fn measure(
    client: &Client,
    tables: &BTreeSet<TableName>,
) -> Result<BTreeMap<TableName, u64>, Error> {
    let before = catalog::written(client, tables).await?;
    tokio::time::sleep(MEASURED).await;
    let mut after = catalog::written(client, tables).await?;
    for (table, rows) in &mut after {
        // Statistics that were reset meanwhile are smaller than before.
        *rows = rows.saturating_sub(before.get(table).copied().unwrap_or(*rows)) / MEASURED.as_secs();
    }
    Ok(after)
}
