//! Creates the schema of each side, and seeds an empty monolith.

use anyhow::Context as _;
use deadpool_postgres::Pool;

#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// Customers; none means that nothing is seeded.
    pub customers: u32,
    pub products: u32,
    /// Orders, each with one to three items.
    pub orders: u32,
}

/// Any number works, if every process that migrates uses the same one.
const MIGRATION_LOCK: i64 = 7_214_001;

/// Creates the monolith's tables, seeds them if there are no customers, then adds keys and indexes.
pub async fn migrate_monolith(pool: &Pool, seed: Seed) -> anyhow::Result<()> {
    let mut db = pool.get().await.context("could not reach the monolith's database")?;
    let tx = db.transaction().await?;
    // Seeding a million orders takes longer than the timeout of a request.
    tx.batch_execute("set local statement_timeout = 0").await?;
    tx.execute("select pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    tx.batch_execute(include_str!("../../sql/monolith.sql")).await.context("sql/monolith.sql failed")?;
    let empty: bool = tx.query_one("select not exists (select from customers)", &[]).await?.get(0);
    if empty && seed.customers > 0 {
        anyhow::ensure!(
            seed.products > 0 || seed.orders == 0,
            "orders need products: set --seed-products to at least 1"
        );
        // Without products the formulas would divide by zero, even for no order at all.
        let sql = include_str!("../../sql/seed.sql")
            .replace("% {products}", &format!("% {}", seed.products.max(1)))
            .replace("{customers}", &seed.customers.to_string())
            .replace("{products}", &seed.products.to_string())
            .replace("{orders}", &seed.orders.to_string());
        tx.batch_execute(&sql).await.context("sql/seed.sql failed")?;
        tracing::info!(?seed, "seeded");
    }
    tx.batch_execute(include_str!("../../sql/monolith_keys.sql"))
        .await
        .context("sql/monolith_keys.sql failed")?;
    tx.commit().await?;
    if empty {
        db.batch_execute("set statement_timeout = 0; analyze; set statement_timeout = '15s'").await?;
    }
    Ok(())
}

pub async fn migrate_orders(pool: &Pool) -> anyhow::Result<()> {
    let mut db = pool.get().await.context("could not reach the service's database")?;
    let tx = db.transaction().await?;
    tx.execute("select pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    tx.batch_execute(include_str!("../../sql/orders.sql")).await.context("sql/orders.sql failed")?;
    tx.commit().await?;
    Ok(())
}
