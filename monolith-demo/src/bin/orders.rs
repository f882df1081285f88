//! The service `orders`, split out of the shop's monolith, with its own Postgres.

use clap::Parser;
use monolith_demo::shop::saga::courier::Courier;
use monolith_demo::shop::saga::driver::Sagas;
use monolith_demo::shop::{Shop, database, schema, server};

/// The service `orders`.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to serve on.
    #[arg(long, env = "ORDERS_LISTEN", default_value = "127.0.0.1:4001")]
    listen: String,
    /// The service's own Postgres.
    #[arg(long, env = "ORDERS_DATABASE_URL", hide_env_values = true)]
    database: String,
    /// The monolith's inner door, where credit and stock are kept.
    #[arg(long, env = "MONOLITH_INTERNAL_URL", default_value = "http://127.0.0.1:4010")]
    monolith: String,
    /// Create the schema first. The rows come from the monolith, so nothing is seeded.
    #[arg(long)]
    migrate: bool,
    /// Maximum number of database connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    monolith_demo::start_log();
    let args = Args::parse();
    let pool = database::pool(&args.database, "shop-orders", args.connections)?;
    let listener = server::bind(&args.listen).await?;
    if args.migrate {
        schema::migrate_orders(&pool).await?;
    }
    let sagas = Sagas::new(pool.clone(), Courier::new(&args.monolith)?);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let driver = tokio::spawn(sagas.clone().run(stopped));
    tracing::info!(address = %listener.local_addr()?, "the service orders is serving");
    let router = server::orders(Shop::orders(pool, sagas));
    let served = server::serve(listener, router, server::asked_to_stop()).await;
    stop.send_replace(true);
    driver.await?;
    served
}
